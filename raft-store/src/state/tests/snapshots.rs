use tidegate_proto::v1::{Scope, SnapshotBegin, SnapshotCancel, SnapshotPause, SnapshotStart};

use super::*;

fn start(shards: &[u32]) -> Kind {
    let scope = Some(Scope { key_prefix: "o-".to_owned(), ..Scope::default() });
    Kind::SnapshotStart(SnapshotStart { export_id: 5, shards: shards.to_vec(), scope })
}

fn begin(epoch: u64, round: u32) -> Kind {
    let (shard, chunks, rows_estimated) = (Some(id(0)), 7, 70);
    let begin = SnapshotBegin { shard, epoch, round, chunks, rows_estimated, sweeps: false };
    Kind::SnapshotBegin(begin)
}

fn read(round: u32, snapshot: SnapshotState) -> Kind {
    captured(1, point(1, 0, Progress { round, snapshot: snapshot.into(), ..at("1") }))
}

#[test]
fn rows_are_read_again_once_those_before_are_there() {
    let mut world = World::running();
    assert_eq!(world.refused(start(&[0])).0, RefusedKind::Conflict, "not anchored yet");
    world.done(anchor(0, 1, Progress { snapshot: SnapshotState::Running.into(), ..at("1") }));
    assert_eq!(world.refused(start(&[0])).0, RefusedKind::Conflict, "the first is under way");
    world.taken(read(0, SnapshotState::Complete));
    assert_eq!(world.refused(start(&[])).0, RefusedKind::Conflict, "shard 1 is not anchored");
    assert_eq!(world.refused(start(&[0, 2])).0, RefusedKind::NotFound);
    world.done(start(&[0]));
    assert_eq!(world.refused(start(&[0])).0, RefusedKind::Conflict, "asked for already");

    assert_eq!(world.refused(begin(1, 2)).0, RefusedKind::Conflict);
    assert_eq!(world.fenced_at(begin(2, 1)), 1);
    world.done(begin(1, 1));
    let shard = world.shard(0);
    assert_eq!((shard.round, shard.chunks, shard.rows_estimated), (1, 7, 70));
    assert_eq!(shard.scope.as_ref().unwrap().key_prefix, "o-");
    world.taken(read(1, SnapshotState::Running));
    assert_eq!(world.refused(start(&[0])).0, RefusedKind::Conflict);
    world.taken(read(1, SnapshotState::Complete));
    world.done(start(&[0]));
}

#[test]
fn a_loss_during_a_snapshot_has_all_rows_read_again() {
    let mut world = World::running();
    world.done(anchor(0, 1, at("1")));
    world.done(start(&[0]));
    world.taken(read(1, SnapshotState::Running));
    world.created(gap_by(GapPolicy::Resnapshot, 1, "trimmed", 1));
    let shard = world.shard(0);
    assert_eq!((shard.round, shard.scope.as_ref()), (2, None));
}

#[test]
fn a_canceled_snapshot_leaves_its_gaps_open() {
    let mut world = World::running();
    world.done(anchor(0, 1, at("1")));
    let cancel = || Kind::SnapshotCancel(SnapshotCancel { export_id: 5 });
    world.created(gap_by(GapPolicy::Resnapshot, 1, "trimmed", 1));
    world.done(cancel());
    assert!(world.shard(0).canceled);
    assert_eq!(world.refused(cancel()).0, RefusedKind::Conflict, "none is under way");
    let gap = world.state.gaps_of(id(0)).next().unwrap();
    assert_eq!((&gap.repair[..], gap.round), ("", 0));
    assert_eq!(world.refused(begin(1, 1)).0, RefusedKind::Conflict);
    world.done(repair(1, ""));
    assert!(!world.shard(0).canceled);
    assert_eq!(world.shard(0).round, 2);
}

#[test]
fn a_canceled_snapshot_leaves_the_gaps_open_that_waited_for_one_before() {
    let mut world = World::running();
    world.done(anchor(0, 1, at("1")));
    world.created(gap_by(GapPolicy::Resnapshot, 1, "trimmed", 1));
    world.created(gap_by(GapPolicy::Resnapshot, 1, "trimmed more", 1));
    world.done(Kind::SnapshotCancel(SnapshotCancel { export_id: 5 }));
    let open = |world: &World| -> Vec<_> {
        world.state.gaps_of(id(0)).map(|gap| (gap.repair.clone(), gap.round)).collect()
    };
    assert_eq!(open(&world), [(String::new(), 0), (String::new(), 0)]);
    // A part of the rows mends none, even if one waits.
    world.done(repair(1, ""));
    world.done(Kind::SnapshotCancel(SnapshotCancel { export_id: 5 }));
    world.done(start(&[0]));
    let round = world.shard(0).round;
    let complete = Progress { round, snapshot: SnapshotState::Complete.into(), ..at("2") };
    world.taken(captured(1, point(9, 9, complete)));
    assert_eq!(open(&world), [(String::new(), 0), (String::new(), 0)]);
}

#[test]
fn snapshots_of_an_export_stand_still_until_they_go_on() {
    let mut world = World::running();
    let pause = |paused| Kind::SnapshotPause(SnapshotPause { export_id: 5, paused });
    for paused in [true, false] {
        world.done(pause(paused));
        assert_eq!(world.state.export(5).unwrap().snapshot_paused, paused);
    }
    let other = Kind::SnapshotPause(SnapshotPause { export_id: 6, paused: true });
    assert_eq!(world.refused(other).0, RefusedKind::NotFound);
}
