use tidegate_proto::v1::{
    Assign, Captured, Checkpoint, Checkpoints, InSync, NodeDown, SetInSync, ShardSpec,
    ShardsDiscovered, command,
};

use super::*;
use crate::config::ClusterConfig;
use crate::control::sample::Sample;
use crate::placement::planner::Planner;

/// Three nodes, and shards that read at these nodes and are in sync on all of them.
struct Stage {
    cluster: Sample,
    shards: Vec<ShardId>,
}

impl Stage {
    fn new(readers: &[usize]) -> Self {
        let mut cluster = Sample::new(&["here", "here", "here"]);
        let export_id = cluster.shard.export_id;
        let name = |at: usize| ShardSpec { name: format!("t{at}"), ..ShardSpec::default() };
        let shards = (1..readers.len()).map(name).collect();
        cluster.apply(command::Kind::ShardsDiscovered(ShardsDiscovered { export_id, shards }));
        let copies: Vec<_> = cluster.nodes.iter().map(|node| in_sync(*node)).collect();
        let ids = cluster.state.shards().map(|shard| shard.id.unwrap());
        let ids: Vec<_> = ids.collect();
        for (id, at) in ids.iter().zip(readers) {
            let (shard, reader) = (Some(*id), cluster.nodes[*at]);
            let replaces = cluster.state.shard(*id).unwrap().epoch;
            let kept = cluster.nodes.clone();
            let assign = Assign { shard, replaces, reader, copies: kept, ..Assign::default() };
            cluster.apply(command::Kind::Assign(assign));
            let epoch = cluster.state.shard(*id).unwrap().epoch;
            let set = SetInSync { shard, epoch, copies: copies.clone() };
            cluster.apply(command::Kind::SetInSync(set));
        }
        Self { cluster, shards: ids }
    }

    fn capture(&mut self, at: usize, sequence: u64, bytes: u64) {
        let shard = self.cluster.state.shard(self.shards[at]).unwrap();
        let checkpoint = Some(Checkpoint { sequence, bytes, ..Checkpoint::default() });
        let captured = Captured { shard: shard.id, epoch: shard.epoch, checkpoint };
        let node = shard.reader;
        let told = Checkpoints { node, captured: vec![captured], ..Checkpoints::default() };
        self.cluster.apply(command::Kind::Checkpoints(told));
    }
}

fn in_sync(node: u64) -> InSync {
    InSync { node, run: node }
}

#[test]
fn a_rate_follows_what_is_captured_and_fades() {
    let mut stage = Stage::new(&[0]);
    let (mut rates, start) = (Rates::default(), Instant::now());
    assert!(rates.due(start));
    stage.capture(0, 1, 50_000_000);
    rates.look(&stage.cluster.state, start);
    assert!(!rates.due(start + LOOK / 2));
    assert_eq!(rates.of(stage.shards[0]), 0, "one look tells no rate");
    stage.capture(0, 2, 50_000_000);
    rates.look(&stage.cluster.state, start + LOOK);
    assert_eq!(rates.of(stage.shards[0]), 5_000_000, "half of 50 MB in 5 s");
    rates.look(&stage.cluster.state, start + LOOK * 2);
    assert_eq!(rates.of(stage.shards[0]), 2_500_000);
    assert_eq!((weight(0), weight(WEIGHED_BYTES)), (1, 2));
}

#[test]
fn what_a_lost_node_ran_goes_where_least_is_captured_not_where_least_shards_are() {
    let mut stage = Stage::new(&[0, 1, 1, 1, 2]);
    let (mut planner, start) = (Planner::new(&ClusterConfig::default()), Instant::now());
    planner.look(&stage.cluster.state, start);
    stage.capture(0, 1, 50_000_000);
    planner.look(&stage.cluster.state, start + LOOK);
    stage.cluster.apply(command::Kind::NodeDown(NodeDown {
        node: stage.cluster.nodes[2],
        run: stage.cluster.nodes[2],
    }));
    planner.forget(&ClusterConfig::default());
    let steps = planner.steps(&stage.cluster.state, start + LOOK);
    let assigned = steps.into_iter().filter_map(|step| {
        let command::Kind::Assign(assign) = step else { return None };
        Some((assign.shard, assign.reader))
    });
    let readers: Vec<_> = assigned.collect();
    assert_eq!(readers, [(Some(stage.shards[4]), stage.cluster.nodes[1])]);
}
