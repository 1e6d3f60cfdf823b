//! What a batch's changes are to their keys, by what the index has of them.

use std::collections::HashMap;

use tidegate_proto::v1::{Novelty, Operation};
use tidegate_proto::{BatchBuilder, Pending, Sequence, Told};

use super::ShardLog;
use super::index::damaged;
use super::rows::{Brought, brought};
use crate::error::Result;
use crate::spool::keys::Key;

/// What there is of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Unknown,
    Nothing,
    There(Brought),
}

impl ShardLog {
    /// What the changes of the batch that comes next are to their keys; empty if the index
    /// is not to tell. By its owner, before it appends them.
    pub fn told(&self, out: &BatchBuilder) -> Result<Vec<Told>> {
        let (first, whole) = {
            let inner = self.inner();
            let Some(index) = inner.index.filter(|_| inner.novelty) else { return Ok(Vec::new()) };
            (inner.standing.head().next, index.known.whole)
        };
        let spool = self.spool()?;
        let mut since: HashMap<Vec<u8>, Before> = HashMap::new();
        let mut all = Vec::with_capacity(out.len());
        for (change, sequence) in out.pending().zip(first.0..) {
            if change.operation == Operation::Gap {
                all.push(Told::default());
                continue;
            }
            let place = Key::Last(self.shard, change.collection, change.key).encode();
            let before = match since.get(&place) {
                Some(before) => *before,
                None => {
                    let row = spool.db.get_pinned(&place);
                    let row = row.map_err(|error| damaged().because(error))?;
                    before(row.as_deref(), whole)
                }
            };
            let (told, after) = tell(before, &change, Sequence(sequence));
            all.push(told);
            since.insert(place, after);
        }
        Ok(all)
    }
}

fn before(row: Option<&[u8]>, whole: bool) -> Before {
    match row {
        Some(row) => brought(row).map_or(Before::Unknown, Before::There),
        None if whole => Before::Nothing,
        None => Before::Unknown,
    }
}

/// What a change is to its key, and what there is of it then.
fn tell(before: Before, change: &Pending<'_>, sequence: Sequence) -> (Told, Before) {
    let after = match change.content_hash.try_into() {
        _ if change.operation == Operation::Delete => Before::Nothing,
        Ok(content_hash) => Before::There(Brought { by: sequence, content_hash }),
        Err(_) => Before::Unknown,
    };
    let novelty = match (before, after) {
        (Before::Unknown, _) | (_, Before::Unknown) => Novelty::Unspecified,
        (Before::Nothing, Before::There(_)) => Novelty::New,
        (Before::Nothing, Before::Nothing) => Novelty::Duplicate,
        (Before::There(one), Before::There(two)) if one.content_hash == two.content_hash => {
            Novelty::Duplicate
        }
        (Before::There(_), _) => Novelty::Update,
    };
    let previous = match before {
        Before::There(brought) => brought.by,
        Before::Nothing | Before::Unknown => Sequence(0),
    };
    (Told { novelty, previous }, after)
}

#[cfg(test)]
#[path = "told/tests.rs"]
mod tests;
