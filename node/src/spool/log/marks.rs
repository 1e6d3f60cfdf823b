//! How far a log is: appended, synced, safe, stable; and how far its copies are.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_proto::{Epoch, NodeId, Sequence};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{AHEAD_MAX, Inner, ShardLog};
use crate::error::Result;
use crate::spool::copies::Copy;

impl ShardLog {
    /// Moves when more batches become stable; closed when the log is removed.
    #[must_use]
    pub fn stable(&self) -> watch::Receiver<Sequence> {
        self.stable.subscribe()
    }

    /// Moves when more batches have reached this node's disk.
    #[must_use]
    pub fn synced(&self) -> watch::Receiver<Sequence> {
        self.synced.subscribe()
    }

    /// Moves when more batches were appended, and when the end was cut off.
    #[must_use]
    pub fn appended_mark(&self) -> watch::Receiver<Sequence> {
        self.appended.subscribe()
    }

    /// Moves when more batches are where they must be before their capture may
    /// be recorded: on every copy in sync.
    #[must_use]
    pub fn safe(&self) -> watch::Receiver<Sequence> {
        self.safe.subscribe()
    }

    /// The cluster has recorded that everything up to `upto` was captured; on a
    /// copy, the owner says that it is stable.
    pub fn set_stable(&self, upto: Sequence) {
        let mut inner = self.inner();
        inner.recorded = upto.max(inner.recorded);
        self.settle(&inner);
    }

    /// Besides this node, its owner, these are recorded as in sync.
    pub fn set_in_sync(&self, others: BTreeSet<NodeId>) {
        let mut inner = self.inner();
        inner.copies.set_in_sync(others);
        self.settle(&inner);
    }

    /// Waits for this copy from now on; see [`ShardLog::set_in_sync`].
    pub fn join_copy(&self, node: NodeId) {
        let mut inner = self.inner();
        inner.copies.join(node);
        self.settle(&inner);
    }

    /// Waits for this copy no longer, unless it is recorded as in sync.
    pub fn leave_copy(&self, node: NodeId) {
        let mut inner = self.inner();
        inner.copies.leave(node);
        self.settle(&inner);
    }

    /// The copy is waited for and not recorded yet.
    #[must_use]
    pub fn is_joining(&self, node: NodeId) -> bool {
        self.inner().copies.is_joining(node)
    }

    /// Waits until something was appended, or a copy came or went, since the last
    /// call ended. For one caller.
    pub async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// The copies that were ever heard under this owner.
    #[must_use]
    pub fn copies(&self) -> BTreeMap<NodeId, Copy> {
        self.inner().copies.seen()
    }

    /// A copy came and has all up to `acked`; gives its connection's number.
    /// Fails unless this node owns the shard under `epoch`.
    pub fn copy_opened(&self, copy: (NodeId, u64), acked: Sequence, epoch: Epoch) -> Result<u64> {
        let mut inner = self.inner();
        if !inner.owned || inner.head.epoch != epoch {
            return Err(self.fenced());
        }
        let connection = inner.copies.open(copy, acked, Instant::now());
        self.settle(&inner);
        self.stirred.notify_one();
        Ok(connection)
    }

    /// The copy has all up to `acked`.
    pub fn copy_acked(&self, node: NodeId, connection: u64, acked: Sequence) {
        let mut inner = self.inner();
        inner.copies.ack(node, connection, acked, Instant::now());
        self.settle(&inner);
    }

    /// The copy's connection ended.
    pub fn copy_closed(&self, node: NodeId, connection: u64) {
        self.inner().copies.close(node, connection, Instant::now());
        self.stirred.notify_one();
    }

    /// Moves the marks that follow from others.
    pub(super) fn settle(&self, inner: &Inner) {
        let last = inner.last();
        let mut stable = inner.recorded;
        if inner.owned {
            let safe = inner.copies.safe(last, *self.synced.borrow());
            raise(&self.safe, safe);
            let ahead = Sequence(inner.recorded.0.saturating_add(AHEAD_MAX));
            if inner.copies.shared() {
                stable = stable.max(safe.min(ahead));
            }
        }
        raise(&self.stable, stable.min(last));
    }

    /// The last sequence not yet known to be on disk, and how often the end has
    /// been cut off; `None` if all are.
    pub(in crate::spool) fn unsynced(&self) -> Option<(Sequence, u64)> {
        let inner = self.inner();
        let last = inner.last();
        (last > *self.synced.borrow()).then_some((last, inner.cuts))
    }

    /// Everything up to `upto` is on disk, unless the end was cut off since
    /// that was asked: then these are other changes.
    pub(in crate::spool) fn set_synced(&self, (upto, cuts): (Sequence, u64)) {
        let inner = self.inner();
        if inner.cuts == cuts {
            self.synced.send_replace(upto);
            self.settle(&inner);
        }
    }
}

/// Marks only rise.
fn raise(mark: &watch::Sender<Sequence>, to: Sequence) {
    mark.send_if_modified(|at| {
        let moved = to > *at;
        *at = to.max(*at);
        moved
    });
}
