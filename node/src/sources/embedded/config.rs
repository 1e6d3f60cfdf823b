//! The `[source]` table of an embedded source.

use serde::Deserialize;

/// Where the store is and how it is cut.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EmbeddedConfig {
    /// The store's gRPC endpoint, as `http://127.0.0.1:7390`.
    pub endpoint: String,
    /// Shards the export has: hash ranges, read in parallel. Default 4, at most
    /// the store's number of slots. Fixed once the export exists.
    #[serde(default = "default_shards")]
    pub shards: u32,
}

fn default_shards() -> u32 {
    4
}
