//! Everything that is bounded, and by how much.

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};

/// How much may be in flight; the `[limits]` table of a node file.
///
/// Every queue, batch and wait in the node is bounded by one of these.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Bytes after which a batch is closed. Default 256 KiB.
    pub batch_bytes: usize,
    /// Bytes of a shard's changes read ahead of one sink. Default 4 MiB.
    pub fetch_credit_bytes: u64,
    /// Bytes of a shard's newest batches kept in memory for its readers.
    /// Default 2 MiB.
    pub recent_bytes: usize,
    /// Bytes of a snapshot page read ahead. Default 256 KiB.
    pub page_bytes: usize,
    /// Largest gRPC message taken, decompressed. Default 64 MiB: a batch with
    /// one document of the largest size, before and after, fits.
    pub message_bytes: usize,
    /// gRPC streams one connection may have. Default 16384.
    pub streams_per_connection: u32,
    /// Feeds one node serves at a time. Default 1024.
    pub feeds: usize,
    /// Free disk below which nothing more is spooled; below twice this nothing that is
    /// delivered is kept, whatever `[retention]` says. Default 256 MiB.
    pub disk_free_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_bytes: 256 << 10,
            fetch_credit_bytes: 4 << 20,
            recent_bytes: 2 << 20,
            page_bytes: 256 << 10,
            message_bytes: 64 << 20,
            streams_per_connection: 16384,
            feeds: 1024,
            disk_free_bytes: 256 << 20,
        }
    }
}

impl Limits {
    pub(super) fn check(&self) -> Result<()> {
        if !(4096..=4 << 20).contains(&self.batch_bytes) {
            let why = "[limits] batch-bytes must be from 4096 to 4194304";
            return Err(Error::new(ErrorKind::Config, why));
        }
        if self.message_bytes < 48 << 20 {
            let why =
                "[limits] message-bytes must be at least 50331648: one batch may be that large";
            return Err(Error::new(ErrorKind::Config, why));
        }
        Ok(())
    }
}
