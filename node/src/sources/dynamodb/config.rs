//! The `[source]` table of a DynamoDB export.

use serde::Deserialize;

use crate::config::Secret;
use crate::error::{Error, ErrorKind, Result};

/// The most segments a scan is cut into.
const SEGMENTS_MAX: u32 = 4096;
/// The shortest pause between two looks at an idle stream shard.
const POLL_MS_MIN: u64 = 200;

/// Which table, how to reach it, and how hard to read it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DynamodbConfig {
    /// The table's name.
    pub table: String,
    /// The AWS region, as `eu-central-1`.
    pub region: String,
    /// Another address than AWS's own, as `http://127.0.0.1:8000` for DynamoDB
    /// Local.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Access key id, usually a reference as `${env:AWS_KEY}`. Without it and
    /// `secret-key`, the node's own AWS credentials are used: environment,
    /// profile, container or instance role.
    #[serde(default)]
    pub access_key: Option<Secret>,
    /// Secret access key, a reference as `${env:AWS_SECRET}`.
    #[serde(default)]
    pub secret_key: Option<Secret>,
    /// Segments of the parallel scan: the chunks of the snapshot. Fixed when the
    /// table is first discovered. Default 16, at most 4096.
    #[serde(default = "segments")]
    pub segments: u32,
    /// Read capacity units per second that the snapshot may use, as DynamoDB
    /// counts them; 0, the default, for no limit.
    #[serde(default)]
    pub read_units_per_second: u32,
    /// The most items of one page of the scan; 0, the default, for as many as
    /// fit. Lower it for tables with little provisioned capacity.
    #[serde(default)]
    pub page_limit: u32,
    /// Milliseconds between two looks at an idle stream shard. AWS bills each
    /// look. Default 250, at least 200.
    #[serde(default = "poll_ms")]
    pub poll_ms: u64,
}

fn segments() -> u32 {
    16
}

fn poll_ms() -> u64 {
    250
}

impl DynamodbConfig {
    /// Fails unless its values go together.
    pub(super) fn check(&self) -> Result<()> {
        let both = self.access_key.is_some() == self.secret_key.is_some();
        let rules = [
            (!self.table.is_empty(), "table must not be empty"),
            (!self.region.is_empty(), "region must not be empty"),
            (both, "access-key and secret-key go together: give both or neither"),
            ((1..=SEGMENTS_MAX).contains(&self.segments), "segments must be from 1 to 4096"),
            (self.poll_ms >= POLL_MS_MIN, "poll-ms must be 200 or more"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(Error::new(ErrorKind::Config, format!("[source]: {rule}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn read(table: toml::Table) -> Result<DynamodbConfig> {
        let config: DynamodbConfig = parse("[source]", table)?;
        config.check().map(|()| config)
    }

    #[test]
    fn a_table_and_a_region_are_enough() {
        let config = read(toml::toml! { table = "orders"
        region = "eu-central-1" });
        let config = config.unwrap();
        assert_eq!((config.segments, config.poll_ms, config.page_limit), (16, 250, 0));
    }

    #[test]
    fn values_that_do_not_go_together_are_refused() {
        let refused = |key: &str, value: toml::Value| {
            let mut table = toml::toml! { table = "orders"
            region = "eu-central-1" };
            table.insert(key.to_owned(), value);
            read(table).unwrap_err().to_string()
        };
        assert!(refused("access-key", "x".into()).contains("both or neither"));
        assert!(refused("poll-ms", 10.into()).contains("200"));
        assert!(refused("segments", 0.into()).contains("1 to 4096"));
        assert!(refused("segment", 4.into()).contains("did you mean `segments`?"));
    }

    #[test]
    fn keys_are_not_printed() {
        let table = toml::toml! { table = "orders"
        region = "r"
        access-key = "AKIA"
        secret-key = "s3cret" };
        let printed = format!("{:?}", read(table).unwrap());
        assert!(!printed.contains("AKIA") && !printed.contains("s3cret"), "{printed}");
    }
}
