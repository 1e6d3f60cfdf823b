use tidegate_proto::v1::{Assign, NodeCordon, NodeRemove, SetCopies};

use super::*;
use crate::config::ClusterConfig;
use crate::control::sample::Sample;
use crate::placement::planner::Planner;

const PATIENCE: Duration = Duration::from_secs(300);

/// Three nodes; the first reads and alone keeps the shard, which is to go to the second.
struct Stage {
    cluster: Sample,
    planner: Planner,
    start: Instant,
    number: u64,
}

impl Stage {
    fn new() -> Self {
        let mut cluster = Sample::new(&["here", "here", "here"]);
        let (shard, copies) = (Some(cluster.shard), Vec::new());
        cluster.apply(command::Kind::SetCopies(SetCopies { shard, epoch: 1, copies }));
        let planner = Planner::new(&ClusterConfig::default());
        let mut it = Self { cluster, planner, start: Instant::now(), number: 0 };
        it.ask();
        it
    }

    fn ask(&mut self) {
        let (shard, reader) = (Some(self.cluster.shard), self.cluster.nodes[1]);
        let command = MoveShard { shard, epoch: self.shard().epoch, reader, ..Default::default() };
        self.number = self.cluster.apply(command::Kind::MoveShard(command));
    }

    fn shard(&self) -> &Shard {
        self.cluster.state.shard(self.cluster.shard).unwrap()
    }

    /// Carries out what placement wants so long after the start, until that is nothing.
    fn place(&mut self, after: Duration) {
        for _ in 0..10 {
            let steps = self.planner.steps(&self.cluster.state, self.start + after);
            if steps.is_empty() {
                return;
            }
            for step in steps {
                self.cluster.apply(step);
            }
        }
        panic!("placement does not come to rest");
    }

    /// It was given up, and the reason names this.
    fn ended(&self, word: &str) {
        let shard = self.shard();
        assert_eq!((shard.moving_to, shard.moves), (0, self.number));
        assert_eq!((shard.reader, shard.epoch), (self.cluster.nodes[0], 1), "it stays");
        assert!(shard.move_given_up.contains(word), "{}", shard.move_given_up);
    }
}

#[test]
fn a_move_to_a_copy_that_comes_in_sync_is_carried_out() {
    let mut stage = Stage::new();
    stage.place(Duration::ZERO);
    assert_eq!(stage.shard().moving_to, stage.cluster.nodes[1], "it is waited for");
    assert!(stage.shard().copies.contains(&stage.cluster.nodes[1]));
    stage.cluster.set_in_sync(&[0, 1]);
    stage.place(PATIENCE / 2);
    let shard = stage.shard();
    assert_eq!((shard.reader, shard.moving_to), (stage.cluster.nodes[1], 0));
    assert_eq!(shard.move_given_up, "");
}

#[test]
fn a_move_whose_copy_does_not_come_in_sync_is_given_up_after_a_while() {
    let mut stage = Stage::new();
    stage.place(Duration::ZERO);
    stage.place(PATIENCE - Duration::from_millis(1));
    assert_ne!(stage.shard().moving_to, 0);
    stage.place(PATIENCE);
    stage.ended("node1 was not in sync within 300 s");
    // The next has all the time again.
    stage.ask();
    stage.place(PATIENCE + Duration::from_millis(1));
    assert_ne!(stage.shard().moving_to, 0);
    assert_eq!(stage.shard().move_given_up, "");
}

#[test]
fn a_move_to_a_node_that_is_down_cordoned_or_removed_is_given_up_at_once() {
    let mut down = Stage::new();
    down.cluster.set_down(1);
    down.place(Duration::ZERO);
    down.ended("node1 is down; start it");
    let mut cordoned = Stage::new();
    let node = cordoned.cluster.nodes[1];
    let cordon = NodeCordon { node, cordoned: true };
    cordoned.cluster.apply(command::Kind::NodeCordon(cordon));
    cordoned.place(Duration::ZERO);
    cordoned.ended("node1 was cordoned; uncordon it");
    let mut removed = Stage::new();
    removed.cluster.apply(command::Kind::NodeCordon(cordon));
    removed.cluster.apply(command::Kind::NodeRemove(NodeRemove { node }));
    removed.place(Duration::ZERO);
    removed.ended("removed; choose another");
}

#[test]
fn an_assignment_ends_a_move_and_says_so() {
    let mut stage = Stage::new();
    let (shard, reader) = (Some(stage.cluster.shard), stage.cluster.nodes[0]);
    let assign = Assign { shard, replaces: 1, reader, ..Assign::default() };
    stage.cluster.apply(command::Kind::Assign(assign));
    stage.place(PATIENCE * 2);
    assert_eq!(stage.shard().moving_to, 0);
    assert!(stage.shard().move_given_up.contains("move it again"));
}
