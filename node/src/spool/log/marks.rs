//! How far a log is: appended, synced, safe, stable; and how far its copies are.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_proto::{Epoch, NodeId, Sequence};
use tokio::time::Instant;

use super::{Inner, MarkWatch, Marks, Refusal, ShardLog, Standing};
use crate::error::Result;
use crate::spool::copies::Copy;

impl ShardLog {
    /// Moves when more batches become stable; closed when the log is removed.
    #[must_use]
    pub fn stable(&self) -> MarkWatch {
        MarkWatch::of(&self.stable)
    }

    /// Moves when more batches have reached this node's disk.
    #[must_use]
    pub fn synced(&self) -> MarkWatch {
        MarkWatch::of(&self.synced)
    }

    /// Moves when more batches were appended, and when the end was cut off.
    #[must_use]
    pub fn appended_mark(&self) -> MarkWatch {
        MarkWatch::of(&self.appended)
    }

    /// Moves when more batches are where they must be before their capture may
    /// be recorded: on every copy in sync.
    #[must_use]
    pub fn safe(&self) -> MarkWatch {
        MarkWatch::of(&self.safe)
    }

    /// The cluster has recorded that everything up to `upto` was captured; on a
    /// copy, the owner says that it is stable.
    pub fn set_stable(&self, upto: Sequence) {
        self.change(|standing| standing.set_stable(upto));
    }

    /// Besides this node, its owner, these are recorded as in sync.
    pub fn set_in_sync(&self, others: BTreeSet<NodeId>) {
        self.change(|standing| standing.with_copies(|copies| copies.set_in_sync(others)));
    }

    /// Waits for this copy from now on; see [`ShardLog::set_in_sync`].
    pub fn join_copy(&self, node: NodeId) {
        self.change(|standing| standing.with_copies(|copies| copies.join(node)));
    }

    /// Waits for this copy no longer, unless it is recorded as in sync.
    pub fn leave_copy(&self, node: NodeId) {
        self.change(|standing| standing.with_copies(|copies| copies.leave(node)));
    }

    /// These are about to be proposed as in sync, and are waited for until the cluster says
    /// otherwise, also by a reader that starts again: the proposal may yet be applied.
    pub fn propose_copies(&self, nodes: &BTreeSet<NodeId>) {
        self.change(|standing| standing.with_copies(|copies| copies.propose(nodes)));
    }

    /// What was proposed last was refused, and so is never applied.
    pub fn copies_refused(&self, nodes: &BTreeSet<NodeId>) {
        self.change(|standing| standing.with_copies(|copies| copies.refused(nodes)));
    }

    /// The copies that were proposed, and not recorded yet.
    #[must_use]
    pub fn proposed(&self) -> BTreeSet<NodeId> {
        self.inner().standing.copies().proposed().clone()
    }

    /// What a copy must have to be in sync: all that may have been shown or reported,
    /// under this owner or before.
    #[must_use]
    pub fn needed(&self) -> Sequence {
        self.inner().standing.needed()
    }

    /// The copies that are waited for and not recorded yet.
    #[must_use]
    pub fn joining(&self) -> BTreeSet<NodeId> {
        self.inner().standing.copies().joining().clone()
    }

    /// Waits until something was appended, or a copy came or went, since the last
    /// call ended. For one caller.
    pub async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// The copies that were ever heard under this owner.
    #[must_use]
    pub fn copies(&self) -> BTreeMap<NodeId, Copy> {
        self.inner().standing.copies().seen()
    }

    /// A copy came and has all up to `acked`; gives its connection's number.
    /// Fails unless this node owns the shard under `epoch`.
    pub fn copy_opened(&self, copy: (NodeId, u64), acked: Sequence, epoch: Epoch) -> Result<u64> {
        let opened = self.change(|standing| {
            let owned = standing.owned_under(epoch);
            owned.then(|| standing.with_copies(|it| it.open(copy, acked, Instant::now())))
        });
        self.stirred.notify_one();
        opened.ok_or_else(|| self.refused(Refusal::Fenced))
    }

    /// What comes on this connection counts: the copy has not opened another since,
    /// nor is another node the owner.
    #[must_use]
    pub fn copy_counts(&self, node: NodeId, connection: u64) -> bool {
        self.inner().standing.copies().is_newest(node, connection)
    }

    /// The copy has all up to `acked`.
    pub fn copy_acked(&self, node: NodeId, connection: u64, acked: Sequence) {
        let now = Instant::now();
        self.change(|standing| {
            standing.with_copies(|copies| copies.ack(node, connection, acked, now));
        });
    }

    /// Rows of the key index are on their way to the copy, or are all there.
    pub fn copy_lacks(&self, node: NodeId, connection: u64, lacks: bool) {
        self.change(|standing| {
            standing.with_copies(|copies| copies.set_lacks(node, connection, lacks));
        });
        self.stirred.notify_one();
    }

    /// The copy's connection ended.
    pub fn copy_closed(&self, node: NodeId, connection: u64) {
        let now = Instant::now();
        self.change(|standing| standing.with_copies(|it| it.close(node, connection, now)));
        self.stirred.notify_one();
    }

    pub(in crate::spool) fn unsynced(&self) -> Option<(Sequence, u64)> {
        self.inner().standing.unsynced()
    }

    pub(in crate::spool) fn set_synced(&self, asked: (Sequence, u64)) {
        self.change(|standing| standing.set_synced(asked));
    }

    fn change<T>(&self, change: impl FnOnce(&mut Standing) -> T) -> T {
        let mut inner = self.inner();
        let result = change(&mut inner.standing);
        self.publish(&inner);
        result
    }

    /// Tells those who wait which marks have moved.
    pub(super) fn publish(&self, inner: &Inner) {
        let Marks { appended, synced, safe, stable } = inner.standing.marks();
        let marks = [
            (&self.appended, appended),
            (&self.synced, synced),
            (&self.safe, safe),
            (&self.stable, stable),
        ];
        for (mark, to) in marks {
            mark.send_if_modified(|at| std::mem::replace(at, to) != to);
        }
    }
}
