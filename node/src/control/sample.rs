//! A state as a few commands make it, for tests of what decides by one.

use tidegate_proto::v1::{
    Assign, ClusterCreate, Command, ExportPut, InSync, NodeDown, NodeJoin, NodeUp, SetInSync,
    ShardId, ShardSpec, ShardsDiscovered, command, outcome,
};
use tidegate_raft_store::{LEVEL, State};

/// A cluster of nodes that are up, each in the run of its own id. The first reads the
/// only shard, all keep it.
pub(crate) struct Sample {
    pub(crate) state: State,
    pub(crate) shard: ShardId,
    /// Their ids.
    pub(crate) nodes: Vec<u64>,
    index: u64,
}

impl Sample {
    /// A node in each of `regions`.
    pub(crate) fn new(regions: &[&str]) -> Self {
        let shard = ShardId::default();
        let mut it = Self { state: State::default(), shard, nodes: Vec::new(), index: 0 };
        let create = ClusterCreate { cluster_id: "c".to_owned() };
        it.apply(command::Kind::ClusterCreate(create));
        for (at, region) in regions.iter().enumerate() {
            let (name, region) = (format!("node{at}"), (*region).to_owned());
            let address = format!("{name}:7400");
            let join = NodeJoin {
                name,
                address: address.clone(),
                region: region.clone(),
                level: LEVEL,
                ..NodeJoin::default()
            };
            let node = it.apply(command::Kind::NodeJoin(join));
            it.nodes.push(node);
            let up = NodeUp { node, address, region, run: node, torn: false, level: LEVEL };
            it.apply(command::Kind::NodeUp(up));
        }
        let put = ExportPut { name: "orders".to_owned(), ..ExportPut::default() };
        let export_id = it.apply(command::Kind::ExportPut(put));
        let shards = vec![ShardSpec { name: "t".to_owned(), ..ShardSpec::default() }];
        it.apply(command::Kind::ShardsDiscovered(ShardsDiscovered { export_id, shards }));
        it.shard = ShardId { export_id, index: 0 };
        let (shard, copies) = (Some(it.shard), it.nodes.clone());
        let assign = Assign { shard, reader: it.nodes[0], copies, ..Assign::default() };
        it.apply(command::Kind::Assign(assign));
        it
    }

    /// What it created, if anything; must not be refused.
    pub(crate) fn apply(&mut self, kind: command::Kind) -> u64 {
        self.index += 1;
        let command = Command { version: 1, proposed_ms: 0, kind: Some(kind) };
        match self.state.apply(self.index, command).kind {
            Some(outcome::Kind::Created(created)) => created.id,
            Some(outcome::Kind::Done(_)) => 0,
            Some(outcome::Kind::Checkpoints(taken)) if taken.refused.is_empty() => 0,
            other => panic!("{other:?}"),
        }
    }

    /// These are in sync, by their places among the nodes.
    pub(crate) fn set_in_sync(&mut self, nodes: &[usize]) {
        let copies = nodes.iter().map(|at| self.nodes[*at]);
        let copies = copies.map(|node| InSync { node, run: node }).collect();
        let epoch = self.state.shard(self.shard).unwrap().epoch;
        let set = SetInSync { shard: Some(self.shard), epoch, copies };
        self.apply(command::Kind::SetInSync(set));
    }

    pub(crate) fn set_down(&mut self, at: usize) {
        let node = self.nodes[at];
        self.apply(command::Kind::NodeDown(NodeDown { node, run: node }));
    }
}
