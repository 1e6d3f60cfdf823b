//! What this node has heard of the others by itself: a pure core.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_proto::NodeId;
use tokio::time::Instant;

/// Refusals in a row before a process counts as gone: one may be a connection
/// that broke, the next shows that nobody listens.
const REFUSALS: u32 = 2;

/// Who answered, and whose address refuses connections.
///
/// A refusal is a hint that a process has died; it is quicker than silence, and
/// as with silence, what rests on it is safe if it is wrong: an old owner's
/// epoch is refused everywhere.
#[derive(Debug, Default)]
pub(crate) struct Contacts {
    nodes: BTreeMap<NodeId, Contact>,
    /// When a leader last called this node.
    led: Option<Instant>,
    /// This node stands for election in the place of a leader that is gone.
    standing: bool,
}

#[derive(Clone, Copy, Debug)]
struct Contact {
    run: u64,
    heard: Instant,
    refusals: u32,
}

impl Contacts {
    /// `node` answered in its run `run`.
    pub(crate) fn heard(&mut self, node: NodeId, run: u64, now: Instant) {
        self.nodes.insert(node, Contact { run, heard: now, refusals: 0 });
    }

    /// Nobody listens at the address of `node`. True when it counts as gone
    /// since this call.
    pub(crate) fn refused(&mut self, node: NodeId) -> bool {
        let Some(contact) = self.nodes.get_mut(&node) else { return false };
        contact.refusals += 1;
        contact.refusals == REFUSALS
    }

    /// The run of `node` that is gone, if it is.
    pub(crate) fn gone(&self, node: NodeId) -> Option<u64> {
        let contact = self.nodes.get(&node).filter(|contact| contact.refusals >= REFUSALS);
        contact.map(|contact| contact.run)
    }

    /// The leader called this node.
    pub(crate) fn led(&mut self, now: Instant) {
        self.led = Some(now);
    }

    /// No leader has called this node for `patience`, though one did before.
    pub(crate) fn leader_silent(&self, now: Instant, patience: Duration) -> bool {
        self.led.is_some() && !self.hears_leader(now, patience)
    }

    /// A leader has called this node within `patience`.
    pub(crate) fn hears_leader(&self, now: Instant, patience: Duration) -> bool {
        self.led.is_some_and(|led| now.duration_since(led) < patience)
    }

    /// `node` was there once, and is gone or has not answered for `patience`.
    pub(crate) fn absent(&self, node: NodeId, now: Instant, patience: Duration) -> bool {
        let contact = self.nodes.get(&node);
        contact.is_some_and(|contact| {
            contact.refusals >= REFUSALS || now.duration_since(contact.heard) >= patience
        })
    }

    /// `node` has answered in its run `run` within `patience`, and not been refused since.
    pub(crate) fn answers(
        &self,
        node: NodeId,
        run: u64,
        (now, patience): (Instant, Duration),
    ) -> bool {
        let contact = self.nodes.get(&node).filter(|contact| contact.run == run);
        contact.is_some_and(|contact| {
            contact.refusals == 0 && now.duration_since(contact.heard) < patience
        })
    }

    /// With `me`, a majority of `voters` is there: who cannot hear one can win no
    /// election, and only disturbs those who can.
    pub(crate) fn has_majority(
        &self,
        voters: &[NodeId],
        me: NodeId,
        (now, patience): (Instant, Duration),
    ) -> bool {
        let there = |node: &&NodeId| **node == me || self.is_there(**node, now, patience);
        2 * voters.iter().filter(there).count() > voters.len()
    }

    fn is_there(&self, node: NodeId, now: Instant, patience: Duration) -> bool {
        self.nodes.contains_key(&node) && !self.absent(node, now, patience)
    }

    /// Begins to stand for election, or ends it; false if nothing changed.
    pub(crate) fn set_standing(&mut self, standing: bool) -> bool {
        std::mem::replace(&mut self.standing, standing) != standing
    }

    /// When `node` last answered.
    pub(crate) fn last(&self, node: NodeId) -> Option<Instant> {
        self.nodes.get(&node).map(|contact| contact.heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_refusal_is_none_and_an_answer_takes_all_back() {
        let mut contacts = Contacts::default();
        let node = NodeId(3);
        assert!(!contacts.refused(node), "it was never there");
        contacts.heard(node, 7, Instant::now());
        let answers = |contacts: &Contacts| {
            contacts.answers(node, 7, (Instant::now(), Duration::from_secs(60)))
        };
        assert!(answers(&contacts));
        assert!(!contacts.refused(node));
        assert!(!answers(&contacts), "one refusal leaves a doubt");
        assert_eq!(contacts.gone(node), None);
        assert!(contacts.refused(node));
        assert!(!contacts.refused(node), "told once");
        assert_eq!(contacts.gone(node), Some(7));
        contacts.heard(node, 8, Instant::now());
        assert_eq!(contacts.gone(node), None);
    }

    #[test]
    fn one_that_does_not_answer_is_absent_and_a_leader_that_calls_is_not_silent() {
        let mut contacts = Contacts::default();
        let (node, start, patience) = (NodeId(3), Instant::now(), Duration::from_secs(1));
        assert!(!contacts.absent(node, start, patience), "it was never there");
        assert!(!contacts.leader_silent(start + patience, patience), "there was none");
        contacts.heard(node, 7, start);
        contacts.led(start);
        assert!(!contacts.absent(node, start + patience / 2, patience));
        assert!(contacts.answers(node, 7, (start + patience / 2, patience)));
        assert!(!contacts.answers(node, 8, (start, patience)), "that was the run before");
        assert!(!contacts.answers(node, 7, (start + patience, patience)));
        assert!(contacts.absent(node, start + patience, patience));
        assert!(contacts.leader_silent(start + patience, patience));
        contacts.led(start + patience);
        assert!(!contacts.leader_silent(start + patience, patience));
        let voters = [NodeId(1), NodeId(2), node];
        let majority = |contacts: &Contacts, at| contacts.has_majority(&voters, NodeId(1), at);
        assert!(majority(&contacts, (start, patience)));
        assert!(!majority(&contacts, (start + patience, patience)), "it is alone");
    }
}
