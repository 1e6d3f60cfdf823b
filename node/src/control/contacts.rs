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
    /// Who last called this node as its leader, and when.
    led: Option<(NodeId, Instant)>,
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

    /// `leader` called this node.
    pub(crate) fn led(&mut self, leader: NodeId, now: Instant) {
        self.led = Some((leader, now));
    }

    /// No leader calls this node: none has for `patience`, or the process of the one
    /// that did is gone.
    pub(crate) fn misses_leader(&self, now: Instant, patience: Duration) -> bool {
        self.lost_leader() || self.led.is_none_or(|(_, at)| now.duration_since(at) >= patience)
    }

    /// The process of the leader that last called this node is gone.
    pub(crate) fn lost_leader(&self) -> bool {
        self.led.is_some_and(|(leader, _)| self.gone(leader).is_some())
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

    /// When `node` last answered in its run `run`; `None` if another run of it was heard
    /// last.
    pub(crate) fn last(&self, node: NodeId, run: u64) -> Option<Instant> {
        let contact = self.nodes.get(&node).filter(|contact| contact.run == run);
        contact.map(|contact| contact.heard)
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
    fn a_leader_is_missed_when_it_is_silent_or_gone_and_not_before() {
        let mut contacts = Contacts::default();
        let (leader, start, patience) = (NodeId(3), Instant::now(), Duration::from_secs(1));
        assert!(contacts.misses_leader(start, patience), "there never was one");
        contacts.heard(leader, 7, start);
        contacts.led(leader, start);
        assert!(contacts.answers(leader, 7, (start + patience / 2, patience)));
        assert!(!contacts.answers(leader, 8, (start, patience)), "that was the run before");
        assert!(!contacts.answers(leader, 7, (start + patience, patience)));
        assert!(!contacts.misses_leader(start + patience / 2, patience));
        assert!(contacts.misses_leader(start + patience, patience));
        assert!(!contacts.lost_leader(), "it is silent, and may be there");
        contacts.refused(leader);
        contacts.refused(leader);
        assert!(contacts.lost_leader() && contacts.misses_leader(start, patience));
        contacts.led(NodeId(4), start);
        assert!(!contacts.misses_leader(start, patience), "another leads");
    }
}
