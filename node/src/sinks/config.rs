//! The sinks there are: one enum, one match each.

use tidegate_proto::v1::Check;

use crate::config::{self, SinkSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::sinks::jsonl::{self, JsonlConfig};
use crate::sinks::lake::{self, LakeConfig};
use crate::sinks::postgres::{self, PostgresConfig};
use crate::sinks::{Opened, SinkShard};

/// A `[[sink]]` table, read.
#[derive(Clone, Debug)]
pub enum SinkConfig {
    /// Parquet files in a folder or a bucket.
    Lake(LakeConfig),
    /// Lines of JSON in files or on standard output.
    Jsonl(JsonlConfig),
    /// Tables of a PostgreSQL database.
    Postgres(PostgresConfig),
}

/// Reads a sink's own keys and checks all that needs no other system.
pub fn parse(spec: &SinkSpec) -> Result<SinkConfig> {
    let place = format!("[[sink]] \"{}\"", spec.name);
    let table = spec.table.clone();
    match spec.kind.as_str() {
        "lake" => {
            let config: LakeConfig = config::parse(&place, table)?;
            config.validate().map(|()| SinkConfig::Lake(config))
        }
        "jsonl" => {
            let config: JsonlConfig = config::parse(&place, table)?;
            config.validate().map(|()| SinkConfig::Jsonl(config))
        }
        "postgres" => {
            let config: PostgresConfig = config::parse(&place, table)?;
            config.validate().map(|()| SinkConfig::Postgres(config))
        }
        other => Err(Error::new(
            ErrorKind::Config,
            format!("{place}: there is no sink of kind \"{other}\"; use lake, jsonl or postgres"),
        )),
    }
}

/// Opens a sink for one shard; from then on the target refuses older epochs.
pub async fn open(config: &SinkConfig, shard: &SinkShard) -> Result<Opened> {
    match config {
        SinkConfig::Lake(config) => lake::open(config, shard).await,
        SinkConfig::Jsonl(config) => jsonl::open(config, shard).await,
        SinkConfig::Postgres(config) => postgres::open(config, shard).await,
    }
}

/// Tries what the sink needs of its target, without a shard.
pub async fn check(config: &SinkConfig) -> Vec<Check> {
    match config {
        SinkConfig::Lake(config) => lake::check(config).await,
        SinkConfig::Jsonl(config) => jsonl::check(config),
        SinkConfig::Postgres(config) => postgres::check(config).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, table: toml::Table) -> Result<SinkConfig> {
        parse(&SinkSpec { name: "out".into(), kind: kind.into(), table })
    }

    #[test]
    fn a_table_is_read_by_the_sink_of_its_kind() {
        let path = || toml::toml! { path = "/data" };
        assert!(matches!(read("lake", path()), Ok(SinkConfig::Lake(_))));
        assert!(matches!(read("jsonl", path()), Ok(SinkConfig::Jsonl(_))));
        let url = toml::toml! { url = "${env:ORDERS_DB}" };
        assert!(matches!(read("postgres", url), Ok(SinkConfig::Postgres(_))));
        let error = read("kafka", path()).unwrap_err().to_string();
        assert!(error.contains("use lake, jsonl or postgres"), "{error}");
    }

    #[test]
    fn a_wrong_key_is_refused_with_the_nearest_right_one() {
        let error = read(
            "lake",
            toml::toml! { path = "/l"
            delay-m = 5 },
        );
        let error = error.unwrap_err().to_string();
        assert!(error.contains("[[sink]] \"out\"") && error.contains("`delay-ms`?"), "{error}");
    }

    #[test]
    fn lines_go_to_one_place() {
        assert!(read("jsonl", toml::toml! { stdout = true }).is_ok());
        assert!(read("jsonl", toml::Table::new()).is_err());
        assert!(
            read(
                "jsonl",
                toml::toml! { path = "/l"
                stdout = true }
            )
            .is_err()
        );
    }
}
