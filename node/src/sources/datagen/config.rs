//! The `[source]` table of a generated source.

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};

/// The most shards a generator has.
const SHARDS_MAX: u32 = 1024;
/// The most keys of one shard: the snapshot keeps 8 bytes for each row.
const KEYS_MAX: u64 = 10_000_000;
/// The smallest document: the fields of an order and 64 bytes of note.
const DOCUMENT_BYTES_MIN: usize = 320;
/// The largest document, as large as DynamoDB has them.
const DOCUMENT_BYTES_MAX: usize = 400 << 10;

/// What is generated; all of it follows from these numbers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DatagenConfig {
    /// Another seed gives other keys and other documents. Default 1.
    pub seed: u64,
    /// How many shards, each with keys of its own. Default 1.
    pub shards: u32,
    /// Keys of one shard that changes are drawn from. Default 100,000.
    pub keys: u64,
    /// Bytes of an encoded document. Default 1024, from 320 to 409,600.
    pub document_bytes: usize,
    /// Of 100 changes, so many are inserts. Default 20.
    pub insert_percent: u32,
    /// Of 100 changes, so many are updates. Default 70.
    pub update_percent: u32,
    /// Of 100 changes, so many are deletes. Default 10; the three add up to 100.
    pub delete_percent: u32,
    /// Of 100 changes, so many draw their key by Zipf's law (low keys are hot),
    /// the others evenly. Default 0.
    pub skew_percent: u32,
    /// Changes per second and shard, from the moment the stream is opened; 0,
    /// the default, for as fast as they are read.
    pub rate_per_second: u32,
    /// Changes of one shard, after which it ends; 0, the default, for no end.
    pub changes: u64,
    /// Rows of one shard that are there before its first change. Default 0.
    pub snapshot_rows: u64,
}

impl Default for DatagenConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            shards: 1,
            keys: 100_000,
            document_bytes: 1024,
            insert_percent: 20,
            update_percent: 70,
            delete_percent: 10,
            skew_percent: 0,
            rate_per_second: 0,
            changes: 0,
            snapshot_rows: 0,
        }
    }
}

impl DatagenConfig {
    /// Fails unless its numbers go together.
    pub(super) fn check(&self) -> Result<()> {
        let percent = [self.insert_percent, self.update_percent, self.delete_percent];
        let whole = percent.iter().copied().map(u64::from).sum::<u64>() == 100;
        let rules = [
            ((1..=SHARDS_MAX).contains(&self.shards), "shards must be from 1 to 1024"),
            ((1..=KEYS_MAX).contains(&self.keys), "keys must be from 1 to 10000000"),
            (self.snapshot_rows <= self.keys, "snapshot-rows must not be above keys"),
            (self.skew_percent <= 100, "skew-percent must be from 0 to 100"),
            (whole, "insert-percent, update-percent and delete-percent must add up to 100"),
            (
                (DOCUMENT_BYTES_MIN..=DOCUMENT_BYTES_MAX).contains(&self.document_bytes),
                "document-bytes must be from 320 to 409600",
            ),
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

    fn read(table: toml::Table) -> Result<DatagenConfig> {
        let config: DatagenConfig = parse("[source]", table)?;
        config.check().map(|()| config)
    }

    fn refused(table: toml::Table) -> String {
        read(table).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_good() {
        assert_eq!(read(toml::Table::new()).unwrap(), DatagenConfig::default());
    }

    #[test]
    fn numbers_that_do_not_go_together_are_refused() {
        assert!(refused(toml::toml! { insert-percent = 21 }).contains("add up to 100"));
        assert!(refused(toml::toml! { shards = 0 }).contains("shards must be"));
        assert!(
            refused(toml::toml! { keys = 5
            snapshot-rows = 6 })
            .contains("snapshot-rows")
        );
        assert!(refused(toml::toml! { document-bytes = 10 }).contains("320"));
        assert!(refused(toml::toml! { shard = 1 }).contains("did you mean `shards`?"));
    }
}
