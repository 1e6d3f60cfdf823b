use std::collections::BTreeMap;

use tidegate_proto::v1::{
    Anchor, Assign, Captured, Checkpoint, Checkpoints, CheckpointsTaken, ClusterCreate, Delivered,
    ExportDelete, ExportPut, ExportSetRate, ExportSetState, ExportState, GapKind, GapPolicy,
    InSync, Many, MoveShard, NodeCordon, NodeDown, NodeJoin, NodePromote, NodeRemove, NodeState,
    NodeUp, Progress, Rate, RecordGap, RefusedKind, RepairGap, SetCopies, SetInSync, SetOutOfReach,
    SetPosition, ShardFailed, ShardSpec, ShardsDiscovered, SinkRef, SnapshotState, SplitShard,
    outcome,
};

use super::*;

mod checkpoints;
mod copies;
mod exports;
mod fold;
mod gaps;
mod level;
mod nodes;
mod shards;
mod snapshots;

/// A state and the index its next command gets.
struct World {
    state: State,
    index: u64,
}

impl World {
    fn new() -> Self {
        Self { state: State::default(), index: 1 }
    }

    /// Nodes 1 and 3, export 5 "orders" to "lake" and "pg", shards 5/0 and 5/1;
    /// 5/0 is in epoch 1, read by 1, written by 1 and 3.
    fn running() -> Self {
        let mut world = Self::new();
        for (index, name) in [(2, "a"), (3, "b")] {
            world.index = index;
            world.ask(join(name));
        }
        world.index = 5;
        world.ask(put("orders", &["lake", "pg"], 0));
        world.ask(discover(5, &["s0", "s1"]));
        world.ask(assign(0, 0, 1, &[("lake", 1), ("pg", 3)]));
        world
    }

    fn ask(&mut self, kind: Kind) -> outcome::Kind {
        let command = Command { version: 1, proposed_ms: 1000, kind: Some(kind) };
        let outcome = self.state.apply(self.index, command);
        self.index += 1;
        outcome.kind.unwrap()
    }

    fn created(&mut self, kind: Kind) -> u64 {
        let outcome = self.ask(kind);
        let outcome::Kind::Created(created) = outcome else { panic!("{outcome:?}") };
        created.id
    }

    fn done(&mut self, kind: Kind) {
        let outcome = self.ask(kind);
        assert!(matches!(outcome, outcome::Kind::Done(_)), "{outcome:?}");
    }

    fn refused(&mut self, kind: Kind) -> (RefusedKind, String) {
        let before = self.state.clone();
        let outcome = self.ask(kind);
        let outcome::Kind::Refused(refused) = outcome else { panic!("{outcome:?}") };
        assert_eq!(self.state, before, "a refusal changes nothing");
        assert!(!refused.reason.is_empty());
        (refused.kind(), refused.reason)
    }

    fn fenced_at(&mut self, kind: Kind) -> u64 {
        let before = self.state.clone();
        let outcome = self.ask(kind);
        let outcome::Kind::Fenced(fenced) = outcome else { panic!("{outcome:?}") };
        assert_eq!(self.state, before, "a fenced owner changes nothing");
        fenced.current
    }

    fn taken(&mut self, kind: Kind) -> CheckpointsTaken {
        let outcome = self.ask(kind);
        let outcome::Kind::Checkpoints(taken) = outcome else { panic!("{outcome:?}") };
        taken
    }

    fn shard(&self, index: u32) -> &Shard {
        self.state.shard(id(index)).unwrap()
    }
}

fn id(index: u32) -> ShardId {
    ShardId { export_id: 5, index }
}

fn join(name: &str) -> Kind {
    let address = format!("{name}:7400");
    Kind::NodeJoin(NodeJoin {
        name: name.to_owned(),
        address,
        region: "eu".to_owned(),
        level: LEVEL,
        ..NodeJoin::default()
    })
}

fn torn(node: u64, run: u64) -> Kind {
    let address = "here:7400".to_owned();
    Kind::NodeUp(NodeUp { node, address, run, torn: true, level: LEVEL, ..NodeUp::default() })
}

fn up(node: u64, run: u64) -> Kind {
    let (address, region) = ("new:7400".to_owned(), "us".to_owned());
    Kind::NodeUp(NodeUp { node, address, region, run, torn: false, level: LEVEL })
}

fn put(name: &str, sinks: &[&str], replaces: u64) -> Kind {
    let sink = |name: &&str| SinkRef { name: (*name).to_owned(), kind: "lake".to_owned() };
    Kind::ExportPut(ExportPut {
        name: name.to_owned(),
        spec: "text".to_owned(),
        source_kind: "mongodb".to_owned(),
        sinks: sinks.iter().map(sink).collect(),
        replaces,
    })
}

fn discover(export_id: u64, names: &[&str]) -> Kind {
    let spec = |name: &&str| ShardSpec { name: (*name).to_owned(), ..Default::default() };
    Kind::ShardsDiscovered(ShardsDiscovered { export_id, shards: names.iter().map(spec).collect() })
}

fn assign(index: u32, replaces: u64, reader: u64, writers: &[(&str, u64)]) -> Kind {
    let writers = writers.iter().map(|&(sink, node)| (sink.to_owned(), node)).collect();
    let shard = Some(id(index));
    Kind::Assign(Assign {
        shard,
        replaces,
        reader,
        writers,
        copies: vec![1, 3],
        anew: true,
        rescues: vec![],
    })
}

fn anchor(index: u32, epoch: u64, progress: Progress) -> Kind {
    let (shard, progress) = (Some(id(index)), Some(progress));
    Kind::Anchor(Anchor { shard, epoch, progress, chunks: 4, rows_estimated: 100 })
}

fn at(stream: &str) -> Progress {
    Progress { stream: stream.to_owned().into(), ..Default::default() }
}

fn point(sequence: u64, records: u64, progress: Progress) -> Checkpoint {
    let progress = Some(progress);
    Checkpoint { sequence, records, bytes: records * 10, progress, ..Default::default() }
}

fn captured(epoch: u64, checkpoint: Checkpoint) -> Kind {
    let entry = Captured { shard: Some(id(0)), epoch, checkpoint: Some(checkpoint) };
    Kind::Checkpoints(Checkpoints { node: 1, captured: vec![entry], delivered: vec![] })
}

fn delivered(sink: &str, epoch: u64, checkpoint: Checkpoint) -> Kind {
    let (shard, checkpoint) = (Some(id(0)), Some(checkpoint));
    let entry = Delivered { shard, epoch, sink: sink.to_owned(), checkpoint };
    Kind::Checkpoints(Checkpoints { node: 1, captured: vec![], delivered: vec![entry] })
}

fn gap(epoch: u64, detail: &str, at_ms: i64) -> Kind {
    gap_by(GapPolicy::Pause, epoch, detail, at_ms)
}

fn gap_by(policy: GapPolicy, epoch: u64, detail: &str, at_ms: i64) -> Kind {
    Kind::RecordGap(RecordGap {
        policy: policy.into(),
        gap: Some(Gap {
            shard: Some(id(0)),
            kind: GapKind::Trimmed.into(),
            detail: detail.to_owned(),
            at_ms,
            epoch,
            ..Default::default()
        }),
    })
}

fn repair(number: u64, repair: &str) -> Kind {
    let (shard, repair) = (Some(id(0)), repair.to_owned());
    Kind::RepairGap(RepairGap { shard, number, repair, by_source: false })
}

#[test]
fn checkpoints_do_not_move_the_topology_but_milestones_do() {
    let mut world = World::running();
    assert!(world.state.take_changes().moved);
    world.taken(captured(1, point(1, 1, at("1"))));
    let changes = world.state.take_changes();
    assert!(!changes.moved);
    assert_eq!(changes.rows.len(), 1, "only the row that changed");

    let ended = Progress { ended: true, ..Default::default() };
    let complete = Progress { snapshot: SnapshotState::Complete.into(), ..Default::default() };
    for progress in [ended, complete] {
        world.taken(captured(1, point(1, 0, progress)));
        assert!(world.state.take_changes().moved);
    }
    world.refused(join(""));
    assert!(!world.state.take_changes().moved, "a refusal moves nothing");
}

#[test]
fn a_command_that_wants_nothing_is_refused() {
    let outcome = State::default().apply(1, Command::default());
    assert!(matches!(outcome.kind, Some(outcome::Kind::Refused(_))));
}
