//! What is exported, and how much of it.

use tidegate_node::sources::datagen::DatagenConfig;

/// The one export.
pub(crate) const EXPORT: &str = "generated";
/// Its shards; two for each node.
pub(crate) const SHARDS: u32 = 6;

/// Generated changes at a rate.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    config: DatagenConfig,
}

impl Load {
    /// `per_second` changes over all shards; 0 for as fast as they are read.
    pub(crate) fn of(per_second: u32) -> Self {
        let config = DatagenConfig {
            shards: SHARDS,
            keys: 2_000,
            document_bytes: 400,
            rate_per_second: per_second / SHARDS,
            ..DatagenConfig::default()
        };
        Self { config }
    }

    /// What the generator made its changes of.
    pub(crate) fn config(&self) -> &DatagenConfig {
        &self.config
    }

    /// Changes of one shard and second.
    pub(crate) fn of_a_shard(&self) -> u64 {
        u64::from(self.config.rate_per_second)
    }

    /// The export file. No sink: the feed is what is measured. What is retained is
    /// little, so that a copy on another node is made soon; but a source that
    /// nothing holds back must not leave its subscriber behind.
    pub(crate) fn spec(&self) -> String {
        let DatagenConfig { shards, keys, document_bytes, rate_per_second, .. } = &self.config;
        let retained: u64 = if *rate_per_second == 0 { 4 << 30 } else { 128 << 20 };
        format!(
            "name = \"{EXPORT}\"\n\
             [source]\nkind = \"datagen\"\nshards = {shards}\nkeys = {keys}\n\
             document-bytes = {document_bytes}\nrate-per-second = {rate_per_second}\n\
             [retention]\nbytes = {retained}\n"
        )
    }
}
