use super::*;

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
    let nothing = Kind::RecordGap(RecordGap::default());
    assert_eq!(world.refused(nothing).0, RefusedKind::Invalid);
}

#[test]
fn a_loss_found_again_by_another_owner_is_the_gap_that_is_known() {
    let mut world = World::running();
    world.created(gap(1, "trimmed", 1));
    world.created(gap(1, "trimmed more", 1));
    world.done(assign(0, 1, 3, &[]));
    assert_eq!(world.refused(gap(2, "trimmed", 2)).0, RefusedKind::Exists);
}

#[test]
fn an_operator_goes_on_without_what_was_lost_or_has_it_read_again() {
    let mut world = World::running();
    world.done(anchor(0, 1, at("1")));
    world.created(gap(1, "trimmed", 1));
    world.created(gap(1, "trimmed more", 1));
    let why = "gap 1".to_owned();
    world.done(Kind::ShardFailed(ShardFailed { shard: Some(id(0)), epoch: 1, reason: why }));
    assert_eq!(world.refused(repair(3, "accepted")).0, RefusedKind::NotFound);
    world.created(gap(1, "trimmed at last", 1));
    let Kind::RepairGap(by_itself) = repair(3, "read anew") else { panic!("it is one") };
    world.done(Kind::RepairGap(RepairGap { by_source: true, ..by_itself }));
    assert_eq!(world.shard(0).failure, "gap 1", "that has nothing to do with it");

    world.done(repair(1, "accepted"));
    assert_eq!(world.shard(0).failure, "", "it goes on");
    assert_eq!(world.refused(repair(1, "again")).0, RefusedKind::Conflict);
    world.done(repair(2, ""));
    assert_eq!(world.refused(repair(2, "")).0, RefusedKind::Conflict);
    let gaps: Vec<_> = world.state.gaps_of(id(0)).map(|it| (&it.repair[..], it.round)).collect();
    assert_eq!(gaps, [("accepted", 0), ("", 1), ("read anew", 0)]);
    assert_eq!(world.shard(0).round, 1);
}

#[test]
fn a_snapshot_mends_the_gaps_that_wait_for_it_and_no_others() {
    let mut world = World::running();
    world.done(anchor(0, 1, at("1")));
    world.created(gap_by(GapPolicy::Accept, 1, "forgotten", 1));
    world.created(gap_by(GapPolicy::Resnapshot, 1, "trimmed", 1));
    world.created(gap_by(GapPolicy::Resnapshot, 1, "trimmed more", 1));
    world.created(gap_by(GapPolicy::Pause, 1, "vanished", 1));
    assert_eq!(world.shard(0).round, 2);
    let mended = |world: &World| -> Vec<bool> {
        world.state.gaps_of(id(0)).map(|gap| !gap.repair.is_empty()).collect()
    };
    let complete = |round| Progress { round, snapshot: SnapshotState::Complete.into(), ..at("2") };
    world.taken(captured(1, point(9, 9, complete(1))));
    assert_eq!(mended(&world), [true, true, false, false]);
    world.taken(captured(1, point(9, 0, complete(2))));
    assert_eq!(mended(&world), [true, true, true, false]);
}

fn position(replaces: u64, position: &'static str, repair: &str) -> Kind {
    let position = position.as_bytes().into();
    let (shard, reason, repair) = (Some(id(0)), "restored".to_owned(), repair.to_owned());
    let awaits = String::new();
    Kind::SetPosition(SetPosition { shard, replaces, position, reason, repair, awaits })
}

#[test]
fn a_position_that_is_set_is_a_gap_and_a_repeat_is_the_same() {
    let mut world = World::running();
    assert_eq!(world.refused(position(0, "7", "none")).0, RefusedKind::Conflict, "no anchor yet");
    world.done(anchor(0, 1, Progress { snapshot: SnapshotState::Running.into(), ..at("1") }));
    assert_eq!(world.refused(position(0, "7", "none")).0, RefusedKind::Conflict, "rows to come");
    let complete = Progress { snapshot: SnapshotState::Complete.into(), ..at("5") };
    world.taken(captured(1, point(9, 9, complete)));
    world.created(gap(1, "trimmed", 1));
    let reason = "gap 1".to_owned();
    world.done(Kind::ShardFailed(ShardFailed { shard: Some(id(0)), epoch: 1, reason }));
    assert_eq!(world.refused(position(0, "", "none")).0, RefusedKind::Invalid);

    assert_eq!(world.created(position(0, "7", "none")), 2);
    assert_eq!(world.created(position(0, "7", "none")), 2, "a repeat");
    assert_eq!(world.refused(position(0, "8", "none")).0, RefusedKind::Conflict, "set meanwhile");
    let shard = world.shard(0);
    assert_eq!((shard.position_set, shard.gaps, &shard.failure[..]), (2, 2, ""));
    let set = world.state.gaps_of(id(0)).last().cloned().unwrap();
    assert_eq!((set.kind(), &set.detail[..]), (GapKind::PositionSet, "restored"));
    assert_eq!((&set.position[..], set.after), (b"7".as_slice(), 9));
    assert_eq!(set.progress.unwrap().stream, at("5").stream, "where it was");
    assert_eq!((set.round, &set.repair[..]), (0, "none"));

    let Kind::SetPosition(set) = position(2, "9", "") else { panic!("it is one") };
    let streamed = SetPosition { awaits: "read anew".to_owned(), ..set };
    assert_eq!(world.created(Kind::SetPosition(streamed)), 3);
    let set = world.state.gaps_of(id(0)).last().cloned().unwrap();
    assert_eq!((set.round, &set.repair[..], &set.awaits[..]), (0, "", "read anew"), "it is open");
    world.done(repair(3, "read anew"));
    assert_eq!(world.refused(repair(3, "read anew")).0, RefusedKind::Conflict, "once");

    assert_eq!(world.created(position(3, "7", "")), 4, "once more, and its rows again");
    let set = world.state.gaps_of(id(0)).last().cloned().unwrap();
    assert_eq!((set.round, &set.repair[..]), (1, ""));
    assert_eq!(world.refused(position(4, "7", "")).0, RefusedKind::Conflict, "rows to come");
}

#[test]
fn no_position_is_set_of_a_shard_that_has_ended() {
    let mut world = World::running();
    world.done(anchor(0, 1, at("1")));
    let over = Progress { snapshot: SnapshotState::Skipped.into(), ended: true, ..at("5") };
    world.taken(captured(1, point(9, 9, over)));
    let (kind, why) = world.refused(position(0, "7", "none"));
    assert!(kind == RefusedKind::Conflict && why.contains("has ended"), "{why}");
}
