//! How far the other copies of a log are: a pure core.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_proto::{NodeId, Sequence};
use tokio::time::Instant;

/// One copy on another node, as its owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The run of the node's process.
    pub run: u64,
    /// It fetches right now.
    pub connected: bool,
    /// The last sequence it has.
    pub acked: Sequence,
    /// When it last took something, came, or went.
    pub moved: Instant,
    /// Rows of the key index are on their way to it.
    pub lacks: bool,
    /// Tells its connections apart: the newest counts.
    connection: u64,
}

/// The copies a change must have reached before it is safe.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    in_sync: BTreeSet<NodeId>,
    /// Waited for already, not yet recorded as in sync.
    joining: BTreeSet<NodeId>,
    /// Those of them that were proposed to be recorded: that may be applied at any time.
    proposed: BTreeSet<NodeId>,
    seen: BTreeMap<NodeId, Copy>,
    connections: u64,
}

impl Copies {
    /// Besides the owner, these are recorded as in sync.
    pub(crate) fn set_in_sync(&mut self, others: BTreeSet<NodeId>) {
        self.joining.retain(|node| !others.contains(node));
        self.proposed.retain(|node| !others.contains(node));
        self.in_sync = others;
    }

    /// There are others in sync.
    pub(crate) fn shared(&self) -> bool {
        !self.in_sync.is_empty()
    }

    /// Waits for this copy from now on, so that it may be recorded as in sync.
    pub(crate) fn join(&mut self, node: NodeId) {
        if !self.in_sync.contains(&node) {
            self.joining.insert(node);
        }
    }

    /// It was not worth waiting for.
    pub(crate) fn leave(&mut self, node: NodeId) {
        self.joining.remove(&node);
        self.proposed.remove(&node);
    }

    /// These are about to be proposed as in sync.
    pub(crate) fn propose(&mut self, nodes: &BTreeSet<NodeId>) {
        self.proposed.extend(nodes.difference(&self.in_sync));
    }

    /// What was proposed last was refused, and so is never applied.
    pub(crate) fn refused(&mut self, nodes: &BTreeSet<NodeId>) {
        self.proposed.retain(|node| !nodes.contains(node));
    }

    pub(crate) fn proposed(&self) -> &BTreeSet<NodeId> {
        &self.proposed
    }

    pub(crate) fn joining(&self) -> &BTreeSet<NodeId> {
        &self.joining
    }

    /// Everything up to here is on every copy that counts: `appended` here is
    /// enough if others have it too, alone it must be `synced`.
    pub(crate) fn safe(&self, appended: Sequence, synced: Sequence) -> Sequence {
        let ours = if self.shared() { appended } else { synced };
        let theirs = self.in_sync.union(&self.joining).map(|node| self.acked(*node));
        theirs.min().map_or(ours, |least| least.min(ours))
    }

    fn acked(&self, node: NodeId) -> Sequence {
        self.seen.get(&node).map_or(Sequence(0), |copy| copy.acked)
    }

    /// A copy came and has all up to `acked`; gives its connection's number.
    pub(crate) fn open(
        &mut self,
        (node, run): (NodeId, u64),
        acked: Sequence,
        now: Instant,
    ) -> u64 {
        self.connections += 1;
        let connection = self.connections;
        let copy = Copy { run, connected: true, acked, moved: now, lacks: false, connection };
        self.seen.insert(node, copy);
        connection
    }

    pub(crate) fn set_lacks(&mut self, node: NodeId, connection: u64, lacks: bool) {
        if let Some(copy) = self.of(node, connection) {
            copy.lacks = lacks;
        }
    }

    pub(crate) fn ack(&mut self, node: NodeId, connection: u64, acked: Sequence, now: Instant) {
        if let Some(copy) = self.of(node, connection)
            && acked > copy.acked
        {
            copy.acked = acked;
            copy.moved = now;
        }
    }

    pub(crate) fn close(&mut self, node: NodeId, connection: u64, now: Instant) {
        if let Some(copy) = self.of(node, connection) {
            copy.connected = false;
            copy.moved = now;
        }
    }

    /// The copy, unless it has opened another connection since.
    fn of(&mut self, node: NodeId, connection: u64) -> Option<&mut Copy> {
        self.seen.get_mut(&node).filter(|copy| copy.connection == connection)
    }

    /// No newer connection of this copy has come since.
    pub(crate) fn is_newest(&self, node: NodeId, connection: u64) -> bool {
        self.seen.get(&node).is_some_and(|copy| copy.connection == connection)
    }

    pub(crate) fn seen(&self) -> BTreeMap<NodeId, Copy> {
        self.seen.clone()
    }

    /// Another owner's business from now on.
    pub(crate) fn forget(&mut self) {
        *self = Self { connections: self.connections, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: NodeId = NodeId(2);
    const C: NodeId = NodeId(3);

    #[test]
    fn alone_the_disk_counts_and_with_others_the_slowest_of_them() {
        let now = Instant::now();
        let mut copies = Copies::default();
        assert_eq!(copies.safe(Sequence(9), Sequence(4)), Sequence(4));
        copies.set_in_sync([B].into());
        assert_eq!(copies.safe(Sequence(9), Sequence(4)), Sequence(0), "it was never heard");
        let connection = copies.open((B, 7), Sequence(3), now);
        copies.ack(B, connection, Sequence(8), now);
        assert_eq!(copies.safe(Sequence(9), Sequence(4)), Sequence(8));
        copies.open((C, 7), Sequence(5), now);
        assert_eq!(copies.safe(Sequence(9), Sequence(4)), Sequence(8), "C does not count yet");
        copies.join(C);
        assert_eq!(copies.safe(Sequence(9), Sequence(4)), Sequence(5));
        copies.set_in_sync([B, C].into());
        copies.leave(C);
        assert_eq!(copies.safe(Sequence(9), Sequence(4)), Sequence(5), "recorded, it counts");
    }

    #[test]
    fn what_an_older_connection_says_is_ignored() {
        let now = Instant::now();
        let mut copies = Copies::default();
        let old = copies.open((B, 7), Sequence(3), now);
        let new = copies.open((B, 7), Sequence(2), now);
        copies.ack(B, old, Sequence(9), now);
        copies.close(B, old, now);
        let seen = copies.seen()[&B];
        assert_eq!((seen.acked, seen.connected), (Sequence(2), true));
        assert!(copies.is_newest(B, new) && !copies.is_newest(B, old));
        copies.close(B, new, now);
        assert!(!copies.seen()[&B].connected);
    }

    #[test]
    fn what_was_proposed_is_remembered_until_it_is_recorded_refused_or_left() {
        let mut copies = Copies::default();
        let joined = |copies: &mut Copies| {
            copies.join(B);
            copies.propose(&[B].into());
            assert_eq!(copies.proposed(), &[B].into());
        };
        joined(&mut copies);
        copies.set_in_sync([B].into());
        copies.propose(&[B].into());
        assert!(copies.proposed().is_empty(), "recorded");
        copies.set_in_sync(BTreeSet::new());
        joined(&mut copies);
        copies.refused(&[B].into());
        assert!(copies.proposed().is_empty() && copies.joining().contains(&B));
        joined(&mut copies);
        copies.leave(B);
        assert!(copies.proposed().is_empty() && copies.joining().is_empty());
    }
}
