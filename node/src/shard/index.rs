//! What was captured of a shard, as its source sees it.

use std::sync::Arc;

use crate::error::Result;
use crate::sources::{Captured, Known, Last};
use crate::spool::ShardLog;

/// The documents beside a shard's log.
pub(super) struct Documents(pub(super) Arc<ShardLog>);

impl Captured for Documents {
    fn known(&self) -> Result<Known> {
        Ok(self.0.known())
    }

    fn last(&self, collection: &str, key: &[u8]) -> Result<Option<Last>> {
        self.0.last_document(collection, key)
    }

    fn keys_after(
        &self,
        collection: &str,
        key: &[u8],
        most: usize,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        self.0.keys_after(collection, key, most)
    }

    // Chunks use the same notes; a source that is indexed has none.

    fn mark(&self, keys: &[(String, Vec<u8>)]) -> Result<()> {
        self.0.touch(keys)
    }

    fn is_marked(&self, collection: &str, key: &[u8]) -> Result<bool> {
        self.0.is_touched(collection, key)
    }

    fn clear_marks(&self) -> Result<()> {
        self.0.forget_touched()
    }

    fn settle(&self) -> Result<()> {
        self.0.settle_index()
    }
}
