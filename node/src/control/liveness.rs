//! Who the leader has heard from: a pure core.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_proto::NodeId;
use tokio::time::Instant;

/// When each node was last heard, as far as this leader knows.
///
/// A new leader has heard nobody: it gives everyone the full patience from the
/// moment it began to lead.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    heard: BTreeMap<NodeId, (u64, Instant)>,
}

impl Liveness {
    /// Run `run` of `node` was heard at `now`.
    pub(super) fn heard(&mut self, node: NodeId, run: u64, now: Instant) {
        self.heard.insert(node, (run, now));
    }

    /// Which of the nodes held for up (with their runs) have not been heard for
    /// `patience`. Runs never heard count from this call.
    pub(super) fn silent(
        &mut self,
        up: impl IntoIterator<Item = (NodeId, u64)>,
        now: Instant,
        patience: Duration,
    ) -> Vec<(NodeId, u64)> {
        let mut silent = Vec::new();
        for (node, run) in up {
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
    pub(super) fn forget(&mut self) {
        self.heard.clear();
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
        liveness.heard(NodeId(1), 10, start + PATIENCE / 2);
        assert_eq!(liveness.silent(up, start + PATIENCE, PATIENCE), [(NodeId(2), 20)]);
        liveness.forget();
        assert!(liveness.silent(up, start + PATIENCE * 9, PATIENCE).is_empty());
    }

    #[test]
    fn a_new_run_of_a_node_is_not_blamed_for_the_silence_of_the_last() {
        let mut liveness = Liveness::default();
        let start = Instant::now();
        liveness.heard(NodeId(1), 10, start);
        let late = start + PATIENCE * 5;
        assert!(liveness.silent([(NodeId(1), 11)], late, PATIENCE).is_empty());
        assert_eq!(liveness.silent([(NodeId(1), 11)], late + PATIENCE, PATIENCE), [(NodeId(1), 11)]);
    }
}
