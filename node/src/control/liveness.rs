//! Who the leader has heard from: a pure core.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_proto::NodeId;
use tokio::time::Instant;

/// When each node was last heard, as far as this leader knows.
///
/// A new leader has heard nobody: it gives everyone the full patience from the
/// moment it began to lead. So does one that stood still itself: it could hear nobody.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    heard: BTreeMap<NodeId, (u64, Instant)>,
    /// Runs that are being declared down. They are not heard any more: a lease that
    /// was renewed meanwhile would last when another may start.
    condemned: BTreeMap<NodeId, u64>,
    /// When it was last asked who is silent.
    looked: Option<Instant>,
}

impl Liveness {
    /// Run `run` of `node` was heard at `now`; false if that comes too late.
    pub(crate) fn heard(&mut self, node: NodeId, run: u64, now: Instant) -> bool {
        if self.condemned.get(&node) == Some(&run) {
            return false;
        }
        self.heard.insert(node, (run, now));
        true
    }

    /// Run `run` of `node` was heard at `last` by other means; that tells nothing new
    /// about a run that has been heard as well.
    pub(crate) fn heard_before(&mut self, node: NodeId, run: u64, last: Instant) {
        if self.heard.get(&node).is_none_or(|(known, _)| *known != run) {
            self.heard.insert(node, (run, last));
        }
    }

    /// This run of `node` is to be declared down.
    pub(crate) fn condemn(&mut self, node: NodeId, run: u64) {
        self.condemned.insert(node, run);
    }

    /// No majority follows this leader: it can declare nobody down, and whoever it
    /// has not heard meanwhile is not to blame.
    pub(crate) fn excuse(&mut self) {
        self.heard.clear();
    }

    /// Which of the nodes held for up (with their runs) have not been heard for
    /// `patience`. Runs never heard count from this call.
    pub(crate) fn silent(
        &mut self,
        up: impl IntoIterator<Item = (NodeId, u64)>,
        now: Instant,
        patience: Duration,
    ) -> Vec<(NodeId, u64)> {
        let looked = self.looked.replace(now);
        if looked.is_some_and(|looked| now.duration_since(looked) >= patience / 2) {
            self.heard.clear();
        }
        let up: Vec<_> = up.into_iter().collect();
        // Who was declared down and is up again is given all patience again.
        self.heard.retain(|node, _| up.iter().any(|(id, _)| id == node));
        self.condemned.retain(|node, run| up.contains(&(*node, *run)));
        let mut silent = Vec::new();
        for (node, run) in up {
            if self.condemned.contains_key(&node) {
                silent.push((node, run));
                continue;
            }
            let heard = self.heard.entry(node).or_insert((run, now));
            if heard.0 != run {
                *heard = (run, now);
            }
            if now.duration_since(heard.1) >= patience {
                silent.push((node, run));
            }
        }
        silent
    }

    /// This node leads no longer; what it heard is no one's business.
    pub(crate) fn forget(&mut self) {
        self.heard.clear();
        self.condemned.clear();
        self.looked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    #[test]
    fn a_new_leader_is_patient_with_everyone() {
        let mut liveness = Liveness::default();
        let start = Instant::now();
        let up = [(NodeId(1), 10), (NodeId(2), 20)];
        assert!(liveness.silent(up, start, PATIENCE).is_empty());
        assert!(look(&mut liveness, &up, start, start + PATIENCE / 2).is_empty());
        liveness.heard(NodeId(1), 10, start + PATIENCE / 2);
        let silent = look(&mut liveness, &up, start + PATIENCE / 2, start + PATIENCE);
        assert_eq!(silent, [(NodeId(2), 20)]);
        liveness.forget();
        assert!(liveness.silent(up, start + PATIENCE * 9, PATIENCE).is_empty());
    }

    #[test]
    fn a_new_run_of_a_node_is_not_blamed_for_the_silence_of_the_last() {
        let mut liveness = Liveness::default();
        let start = Instant::now();
        liveness.heard(NodeId(1), 10, start);
        let late = start + PATIENCE * 5;
        let up = [(NodeId(1), 11)];
        assert!(liveness.silent(up, late, PATIENCE).is_empty());
        assert_eq!(look(&mut liveness, &up, late, late + PATIENCE), up);
    }

    #[test]
    fn a_leader_that_was_replaced_and_is_heard_again_is_not_blamed() {
        let mut liveness = Liveness::default();
        let start = Instant::now();
        let (before, now) = (NodeId(1), start + PATIENCE * 2);
        liveness.heard(before, 10, now);
        liveness.heard_before(before, 10, start);
        assert!(liveness.silent([(before, 10)], now, PATIENCE).is_empty(), "its lease was renewed");
        liveness.forget();
        liveness.heard_before(before, 10, start);
        assert_eq!(liveness.silent([(before, 10)], now, PATIENCE), [(before, 10)]);
    }

    #[test]
    fn a_leader_that_stood_still_itself_blames_nobody() {
        let mut liveness = Liveness::default();
        let start = Instant::now();
        let up = [(NodeId(1), 10)];
        liveness.heard(NodeId(1), 10, start);
        assert!(liveness.silent(up, start, PATIENCE).is_empty());
        let thawed = start + PATIENCE * 10;
        assert!(liveness.silent(up, thawed, PATIENCE).is_empty());
        assert_eq!(look(&mut liveness, &up, thawed, thawed + PATIENCE), up);
    }

    #[test]
    fn a_node_that_is_up_again_is_not_blamed_for_when_it_was_down() {
        let mut liveness = Liveness::default();
        let start = Instant::now();
        let up = [(NodeId(1), 10)];
        liveness.heard(NodeId(1), 10, start);
        assert_eq!(look(&mut liveness, &up, start, start + PATIENCE), up);
        let down = look(&mut liveness, &[], start + PATIENCE, start + PATIENCE * 2);
        assert!(down.is_empty(), "nobody is up");
        assert!(liveness.silent(up, start + PATIENCE * 2, PATIENCE).is_empty());
    }

    #[test]
    fn who_is_being_declared_down_is_not_heard_until_it_is_up_again() {
        let mut liveness = Liveness::default();
        let start = Instant::now();
        let up = [(NodeId(1), 10)];
        assert!(liveness.heard(NodeId(1), 10, start));
        liveness.condemn(NodeId(1), 10);
        assert!(!liveness.heard(NodeId(1), 10, start), "its lease must not be renewed");
        assert_eq!(liveness.silent(up, start, PATIENCE), up, "until the cluster knows");
        assert!(liveness.silent([], start, PATIENCE).is_empty());
        assert!(liveness.heard(NodeId(1), 10, start), "it was declared down, and is up again");
    }

    /// Looks ten times in each patience, as a leader does; what the last look gave.
    fn look(
        liveness: &mut Liveness,
        up: &[(NodeId, u64)],
        from: Instant,
        upto: Instant,
    ) -> Vec<(NodeId, u64)> {
        let (mut at, mut silent) = (from, Vec::new());
        while at < upto {
            at += PATIENCE / 10;
            silent = liveness.silent(up.iter().copied(), at, PATIENCE);
        }
        silent
    }
}
