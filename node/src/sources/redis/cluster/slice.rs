//! What was captured of the whole cluster, as one primary's stream sees it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::board::Board;
use crate::error::Result;
use crate::sources::redis::document;
use crate::sources::{Captured, Known, Last};

/// Keys looked at in one go.
const PAGE: usize = 512;

/// The keys of the slots that a primary has, or that are open.
pub(super) struct Slice {
    pub(super) whole: Arc<dyn Captured>,
    pub(super) board: Arc<Mutex<Board>>,
    /// The primary's number.
    pub(super) member: usize,
    /// Dumps that are read now, of all primaries.
    pub(super) dumps: Arc<AtomicUsize>,
}

impl Captured for Slice {
    fn known(&self) -> Result<Known> {
        self.whole.known()
    }

    fn last(&self, collection: &str, key: &[u8]) -> Result<Option<Last>> {
        self.whole.last(collection, key)
    }

    fn keys_after(
        &self,
        collection: &str,
        key: &[u8],
        most: usize,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let (mut found, mut upto) = (Vec::new(), (collection.to_owned(), key.to_vec()));
        while found.len() < most {
            let page = self.whole.keys_after(&upto.0, &upto.1, PAGE)?;
            let Some(last) = page.last() else { break };
            upto = last.clone();
            let board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
            found.extend(page.into_iter().filter(|(_, key)| {
                document::redis_key(key).is_some_and(|key| board.concerns(self.member, &key))
            }));
        }
        found.truncate(most);
        Ok(found)
    }

    fn mark(&self, keys: &[(String, Vec<u8>)]) -> Result<()> {
        self.whole.mark(keys)
    }

    fn is_marked(&self, collection: &str, key: &[u8]) -> Result<bool> {
        self.whole.is_marked(collection, key)
    }

    /// Whoever opened all streams has done so: others read dumps, too.
    fn clear_marks(&self) -> Result<()> {
        Ok(())
    }

    /// Only with the last dump is all there.
    fn settle(&self) -> Result<()> {
        let before = self.dumps.fetch_sub(1, Ordering::AcqRel);
        if before == 1 { self.whole.settle() } else { Ok(()) }
    }
}
