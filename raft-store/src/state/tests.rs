use std::collections::BTreeMap;

use tidegate_proto::v1::{
    Anchor, Assign, Captured, Checkpoint, Checkpoints, CheckpointsTaken, ClusterCreate, Delivered,
    ExportDelete, ExportPut, ExportSetState, ExportState, GapKind, NodeCordon, NodeDown, NodeJoin,
    NodeRemove, NodeState, NodeUp, Progress, RecordGap, RefusedKind, RepairGap, ShardFailed,
    ShardSpec, ShardsDiscovered, SinkRef, SnapshotState, outcome,
};

use super::*;

mod fold;

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
        match self.ask(kind) {
            outcome::Kind::Created(created) => created.id,
            other => panic!("{other:?}"),
        }
    }

    fn done(&mut self, kind: Kind) {
        let outcome = self.ask(kind);
        assert!(matches!(outcome, outcome::Kind::Done(_)), "{outcome:?}");
    }

    fn refused(&mut self, kind: Kind) -> (RefusedKind, String) {
        let before = self.state.clone();
        match self.ask(kind) {
            outcome::Kind::Refused(refused) => {
                assert_eq!(self.state, before, "a refusal changes nothing");
                assert!(!refused.reason.is_empty());
                (refused.kind(), refused.reason)
            }
            other => panic!("{other:?}"),
        }
    }

    fn fenced_at(&mut self, kind: Kind) -> u64 {
        match self.ask(kind) {
            outcome::Kind::Fenced(fenced) => fenced.current,
            other => panic!("{other:?}"),
        }
    }

    fn taken(&mut self, kind: Kind) -> CheckpointsTaken {
        match self.ask(kind) {
            outcome::Kind::Checkpoints(taken) => taken,
            other => panic!("{other:?}"),
        }
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
    Kind::NodeJoin(NodeJoin { name: name.to_owned(), address, region: "eu".to_owned() })
}

fn up(node: u64, run: u64) -> Kind {
    let (address, region) = ("new:7400".to_owned(), "us".to_owned());
    Kind::NodeUp(NodeUp { node, address, region, run })
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
    Kind::Assign(Assign { shard: Some(id(index)), replaces, reader, writers })
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
    Kind::RecordGap(RecordGap {
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
    Kind::RepairGap(RepairGap { shard: Some(id(0)), number, repair: repair.to_owned() })
}

// ---- cluster and nodes ----

#[test]
fn a_cluster_is_created_once() {
    let mut world = World::new();
    let create = |id: &str| Kind::ClusterCreate(ClusterCreate { cluster_id: id.to_owned() });
    assert_eq!(world.refused(create("")).0, RefusedKind::Invalid);
    world.done(create("c1"));
    assert_eq!(world.refused(create("c2")).0, RefusedKind::Exists);
    assert_eq!(world.state.cluster().unwrap().id, "c1");
}

#[test]
fn the_first_node_is_1_and_others_are_their_log_index() {
    let mut world = World::new();
    world.index = 4;
    assert_eq!(world.created(join("a")), 1);
    assert_eq!(world.created(join("b")), 5);
    assert_eq!(world.state.node(5).unwrap().state(), NodeState::Joining);
}

#[test]
fn a_join_that_is_repeated_gives_the_same_id_until_the_node_came_up() {
    let mut world = World::new();
    world.index = 2;
    assert_eq!(world.created(join("a")), 1);
    assert_eq!(world.created(join("a")), 1);
    let elsewhere =
        NodeJoin { name: "a".to_owned(), address: "x:1".to_owned(), ..Default::default() };
    assert_eq!(world.refused(Kind::NodeJoin(elsewhere)).0, RefusedKind::Exists);
    world.done(up(1, 7));
    assert_eq!(world.refused(join("a")).0, RefusedKind::Exists);
    world.done(Kind::NodeDown(NodeDown { node: 1, run: 7 }));
    assert_eq!(world.refused(join("a")).0, RefusedKind::Exists);
    assert_eq!(world.refused(join("")).0, RefusedKind::Invalid);
}

#[test]
fn a_node_that_is_up_says_where() {
    let mut world = World::running();
    world.done(up(3, 7));
    let node = world.state.node(3).unwrap();
    assert_eq!((node.state(), node.run), (NodeState::Up, 7));
    assert_eq!((node.address.as_str(), node.region.as_str()), ("new:7400", "us"));
    assert_eq!(world.refused(up(9, 7)).0, RefusedKind::NotFound);
}

#[test]
fn only_the_run_that_was_missed_goes_down() {
    let mut world = World::running();
    world.done(up(3, 7));
    world.done(up(3, 8));
    let down = |run| Kind::NodeDown(NodeDown { node: 3, run });
    assert_eq!(world.refused(down(7)).0, RefusedKind::Conflict);
    assert_eq!(world.state.node(3).unwrap().state(), NodeState::Up);
    world.done(down(8));
    assert_eq!(world.state.node(3).unwrap().state(), NodeState::Down);
}

#[test]
fn a_node_is_removed_only_when_it_cannot_have_work() {
    let mut world = World::running();
    world.done(up(3, 7));
    let remove = |node| Kind::NodeRemove(NodeRemove { node });
    assert!(world.refused(remove(3)).1.contains("cordon"));
    world.done(Kind::NodeCordon(NodeCordon { node: 3, cordoned: true }));
    let (kind, reason) = world.refused(remove(3));
    assert_eq!(kind, RefusedKind::Conflict);
    assert!(reason.contains("shard 5/0"), "{reason}");
    world.done(assign(0, 1, 1, &[("lake", 1)]));
    world.done(remove(3));
    assert!(world.state.node(3).is_none());
}

#[test]
fn the_last_node_stays_so_that_its_id_is_never_given_again() {
    let mut world = World::new();
    world.index = 2;
    world.created(join("a"));
    world.done(Kind::NodeCordon(NodeCordon { node: 1, cordoned: true }));
    let refused = world.refused(Kind::NodeRemove(NodeRemove { node: 1 }));
    assert!(refused.1.contains("last"), "{refused:?}");
}

// ---- exports ----

#[test]
fn an_export_keeps_its_id_while_its_version_rises() {
    let mut world = World::running();
    assert_eq!(world.refused(put("orders", &[], 0)).0, RefusedKind::Exists);
    assert_eq!(world.refused(put("orders", &[], 4)).0, RefusedKind::Conflict);
    assert_eq!(world.refused(put("others", &[], 4)).0, RefusedKind::NotFound);
    world.index = 20;
    assert_eq!(world.created(put("orders", &["lake", "pg"], 5)), 20);
    let export = world.state.export_named("orders").unwrap();
    assert_eq!((export.id, export.version, export.shards), (5, 20, 2));
    assert_eq!(world.state.shards_of(5).count(), 2);
}

#[test]
fn an_export_that_makes_no_sense_is_refused() {
    let mut world = World::running();
    assert_eq!(world.refused(put("", &[], 0)).0, RefusedKind::Invalid);
    assert_eq!(world.refused(put("x", &["s", "s"], 0)).0, RefusedKind::Invalid);
    assert_eq!(world.refused(put("x", &[""], 0)).0, RefusedKind::Invalid);
    let Kind::ExportPut(mut other) = put("orders", &["lake", "pg"], 5) else { unreachable!() };
    other.source_kind = "redis".to_owned();
    assert_eq!(world.refused(Kind::ExportPut(other)).0, RefusedKind::Invalid);
}

#[test]
fn a_removed_sink_is_forgotten_and_the_others_stay() {
    let mut world = World::running();
    world.taken(delivered("lake", 1, point(3, 3, at("3"))));
    world.taken(delivered("pg", 1, point(2, 2, at("2"))));
    world.created(put("orders", &["lake"], 5));
    let shard = world.shard(0);
    assert_eq!(shard.writers, BTreeMap::from([("lake".to_owned(), 1)]));
    assert_eq!(shard.delivered.keys().collect::<Vec<_>>(), ["lake"]);
}

#[test]
fn a_sink_that_became_another_kind_starts_anew() {
    let mut world = World::running();
    world.taken(delivered("lake", 1, point(3, 3, at("3"))));
    let Kind::ExportPut(mut other) = put("orders", &["lake", "pg"], 5) else { unreachable!() };
    other.sinks[0].kind = "nats".to_owned();
    world.created(Kind::ExportPut(other));
    assert!(world.shard(0).delivered.is_empty());
}

#[test]
fn an_export_is_paused_and_resumed() {
    let mut world = World::running();
    let set = |name: &str, state: ExportState| {
        Kind::ExportSetState(ExportSetState { name: name.to_owned(), state: state.into() })
    };
    world.done(set("orders", ExportState::Paused));
    assert_eq!(world.state.export(5).unwrap().state(), ExportState::Paused);
    assert_eq!(world.refused(set("orders", ExportState::Unspecified)).0, RefusedKind::Invalid);
    assert_eq!(world.refused(set("none", ExportState::Active)).0, RefusedKind::NotFound);
}

#[test]
fn a_deleted_export_takes_its_shards_and_gaps_with_it() {
    let mut world = World::running();
    world.created(put("other", &[], 0));
    let other = world.state.export_named("other").unwrap().id;
    world.done(discover(other, &["s"]));
    world.created(gap(1, "lost", 0));
    world.done(Kind::ExportDelete(ExportDelete { name: "orders".to_owned() }));
    assert_eq!(world.state.gaps().count(), 0);
    let left: Vec<_> = world.state.shards().map(|shard| shard.id.unwrap().export_id).collect();
    assert_eq!(left, [other]);
    let again = world.refused(Kind::ExportDelete(ExportDelete { name: "orders".to_owned() }));
    assert_eq!(again.0, RefusedKind::NotFound);
}

// ---- shards ----

#[test]
fn known_shards_are_left_as_they_are() {
    let mut world = World::running();
    let before = world.shard(0).clone();
    world.done(discover(5, &["s1", "s2", "s2", "s0"]));
    let names: Vec<_> =
        world.state.shards_of(5).map(|shard| shard.spec.as_ref().unwrap().name.as_str()).collect();
    assert_eq!(names, ["s0", "s1", "s2"]);
    assert_eq!(*world.shard(0), before);
    assert_eq!(world.shard(2).captured, Some(Checkpoint::default()));
    assert_eq!(world.refused(discover(9, &["s"])).0, RefusedKind::NotFound);
    assert_eq!(world.refused(discover(5, &["s9", ""])).0, RefusedKind::Invalid);
}

#[test]
fn an_assignment_starts_the_next_epoch_of_the_one_it_replaces() {
    let mut world = World::running();
    assert_eq!(world.refused(assign(0, 0, 3, &[])).0, RefusedKind::Conflict);
    assert_eq!(world.refused(assign(9, 0, 3, &[])).0, RefusedKind::NotFound);
    assert_eq!(world.refused(assign(0, 1, 4, &[])).0, RefusedKind::NotFound);
    assert_eq!(world.refused(assign(0, 1, 3, &[("pg", 4)])).0, RefusedKind::NotFound);
    assert_eq!(world.refused(assign(0, 1, 3, &[("no", 3)])).0, RefusedKind::Invalid);
    world.done(assign(0, 1, 3, &[("pg", 1), ("lake", 0)]));
    let shard = world.shard(0);
    assert_eq!((shard.epoch, shard.reader), (2, 3));
    assert_eq!(shard.writers, BTreeMap::from([("pg".to_owned(), 1)]), "0 is none");
}

#[test]
fn a_shard_may_be_given_to_nobody() {
    let mut world = World::running();
    world.done(assign(0, 1, 0, &[]));
    assert_eq!((world.shard(0).epoch, world.shard(0).reader), (2, 0));
}

#[test]
fn a_shard_is_anchored_once_by_its_owner() {
    let mut world = World::running();
    assert_eq!(world.fenced_at(anchor(0, 2, at("p"))), 1);
    assert_eq!(world.fenced_at(anchor(1, 0, at("p"))), 0, "nobody owns it yet");
    world.done(anchor(0, 1, at("p")));
    let shard = world.shard(0);
    assert_eq!(shard.anchor, Some(at("p")));
    assert_eq!((shard.chunks, shard.rows_estimated), (4, 100));
    assert_eq!(shard.captured.as_ref().unwrap().progress, Some(at("p")));
    assert_eq!(world.refused(anchor(0, 1, at("q"))).0, RefusedKind::Exists);
}

#[test]
fn a_failure_is_set_and_cleared_by_the_owner() {
    let mut world = World::running();
    let fail = |epoch, reason: &str| {
        let (shard, reason) = (Some(id(0)), reason.to_owned());
        Kind::ShardFailed(ShardFailed { shard, epoch, reason })
    };
    assert_eq!(world.fenced_at(fail(0, "stale")), 1);
    world.done(fail(1, "no permission"));
    assert_eq!(world.shard(0).failure, "no permission");
    world.done(fail(1, ""));
    assert_eq!(world.shard(0).failure, "");
}

// ---- checkpoints ----

#[test]
fn a_checkpoint_adds_up_what_came_since_the_last() {
    let mut world = World::running();
    world.done(anchor(0, 1, at("0")));
    assert_eq!(world.taken(captured(1, point(3, 3, at("3")))), CheckpointsTaken::default());
    world.taken(captured(1, Checkpoint { committed_ms: 50, ..point(5, 2, Progress::default()) }));
    let now = world.shard(0).captured.clone().unwrap();
    assert_eq!((now.sequence, now.records, now.bytes), (5, 5, 50));
    assert_eq!(now.progress, Some(at("3")));
    assert_eq!((now.committed_ms, now.at_ms, now.epoch), (50, 1000, 1));
}

#[test]
fn a_repeat_adds_no_records_but_an_idle_source_moves() {
    let mut world = World::running();
    world.taken(captured(1, point(3, 3, at("3"))));
    world.taken(captured(1, point(3, 3, at("9"))));
    let now = world.shard(0).captured.clone().unwrap();
    assert_eq!((now.records, now.progress), (3, Some(at("9"))));
}

#[test]
fn a_checkpoint_never_goes_back() {
    let mut world = World::running();
    world.taken(captured(1, point(3, 3, at("3"))));
    world.taken(delivered("pg", 1, point(3, 3, at("3"))));
    let before = world.state.clone();
    for stale in [captured(1, point(2, 0, at("2"))), delivered("pg", 1, point(2, 0, at("2")))] {
        let taken = world.taken(stale);
        assert!(taken.refused[0].reason.contains("back from sequence 3 to 2"), "{taken:?}");
    }
    assert_eq!(world.state, before);
}

#[test]
fn a_fenced_owner_moves_no_checkpoint() {
    let mut world = World::running();
    world.done(assign(0, 1, 3, &[("pg", 3)]));
    let before = world.state.clone();
    for stale in [captured(1, point(9, 9, at("9"))), delivered("pg", 1, point(9, 9, at("9")))] {
        let taken = world.taken(stale);
        assert_eq!((taken.fenced[0].shard, taken.fenced[0].current), (Some(id(0)), 2));
    }
    assert_eq!(world.state, before);
}

#[test]
fn one_bad_entry_does_not_keep_back_the_others() {
    let mut world = World::running();
    let entry = |index, epoch| Captured {
        shard: Some(id(index)),
        epoch,
        checkpoint: Some(point(1, 1, at("1"))),
    };
    let captured = vec![entry(7, 1), entry(1, 0), entry(0, 1)];
    let missing =
        Delivered { shard: Some(id(0)), epoch: 1, sink: "no".to_owned(), checkpoint: None };
    let taken = world.taken(Kind::Checkpoints(Checkpoints {
        node: 1,
        captured,
        delivered: vec![missing.clone(), Delivered { sink: "pg".to_owned(), ..missing }],
    }));
    assert_eq!(taken.refused.len(), 3, "{taken:?}");
    assert_eq!(taken.refused[1].sink, "no");
    assert_eq!(taken.fenced.len(), 1, "an epoch of 0 owns nothing");
    assert_eq!(world.shard(0).captured.as_ref().unwrap().sequence, 1);
    assert!(world.shard(0).delivered.is_empty());
}

#[test]
fn a_new_writer_may_report_all_that_its_sink_has() {
    let mut world = World::running();
    world.taken(delivered("pg", 1, point(3, 3, at("3"))));
    world.done(assign(0, 1, 3, &[("pg", 3)]));
    world.taken(delivered("pg", 2, point(8, 5, at("8"))));
    let shard = world.shard(0);
    assert_eq!((shard.delivered["pg"].sequence, shard.delivered["pg"].epoch), (8, 2));
    assert_eq!(shard.captured.as_ref().unwrap().sequence, 0, "each is kept by itself");
}

// ---- gaps ----

#[test]
fn gaps_are_numbered_and_a_repeat_is_refused() {
    let mut world = World::running();
    assert_eq!(world.fenced_at(gap(7, "trimmed", 1)), 1);
    assert_eq!(world.created(gap(1, "trimmed", 1)), 1);
    assert_eq!(world.refused(gap(1, "trimmed", 2)).0, RefusedKind::Exists);
    assert_eq!(world.created(gap(1, "trimmed more", 0)), 2);
    assert_eq!(world.shard(0).gaps, 2);
    let times: Vec<_> = world.state.gaps_of(id(0)).map(|gap| gap.at_ms).collect();
    assert_eq!(times, [1, 1000]);
    assert_eq!(world.refused(Kind::RecordGap(RecordGap { gap: None })).0, RefusedKind::Invalid);
}

#[test]
fn the_same_loss_after_its_repair_is_a_new_gap() {
    let mut world = World::running();
    world.created(gap(1, "trimmed", 1));
    assert_eq!(world.refused(repair(1, "")).0, RefusedKind::Invalid);
    assert_eq!(world.refused(repair(2, "accepted")).0, RefusedKind::NotFound);
    world.done(repair(1, "accepted"));
    assert_eq!(world.state.gaps_of(id(0)).next().unwrap().repair, "accepted");
    assert_eq!(world.created(gap(1, "trimmed", 1)), 2);
}

// ---- what is told ----

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
