//! What is gone from a source since its rows were read before: it is deleted.

use tidegate_proto::v1::{Operation, Scope};
use tidegate_proto::{BatchBuilder, Draft};

use crate::clock;
use crate::error::Result;
use crate::shard::rounds::covers;
use crate::spool::ShardLog;

/// Keys looked at in one go, so that the stream does not wait.
const KEYS: usize = 2000;

/// How far the keys of a shard were looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Sweep {
    collection: String,
    key: Vec<u8>,
}

/// What one go found.
#[derive(Debug)]
pub(super) struct Swept {
    /// Deletes.
    pub(super) out: BatchBuilder,
    /// Where to go on; `None` when all keys were looked at.
    pub(super) rest: Option<Sweep>,
}

impl Sweep {
    /// Looks at the next keys: those in scope that neither stream nor rows brought in
    /// `round` are gone.
    pub(super) fn next(&self, log: &ShardLog, round: u32, scope: &Scope) -> Result<Swept> {
        let gone = log.gone_after((&self.collection, &self.key), round, KEYS)?;
        let mut out = BatchBuilder::default();
        for (collection, key) in &gone.keys {
            if !covers(scope, collection, key)? {
                continue;
            }
            out.push(&Draft {
                operation: Operation::Delete,
                collection,
                key,
                document: None,
                before: None,
                committed_ms: clock::now_ms(),
            });
        }
        let rest = gone.upto.map(|(collection, key)| Self { collection, key });
        Ok(Swept { out, rest })
    }
}
