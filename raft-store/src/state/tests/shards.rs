use super::*;

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

#[test]
fn an_operator_clears_the_failures_of_an_export() {
    let mut world = World::running();
    let fail = |world: &mut World| {
        let (shard, reason) = (Some(id(0)), "no permission".to_owned());
        world.done(Kind::ShardFailed(ShardFailed { shard, epoch: 1, reason }));
        assert_eq!(world.shard(0).failure, "no permission");
    };
    let set = |state: ExportState| {
        let (name, state) = ("orders".to_owned(), state.into());
        Kind::ExportSetState(ExportSetState { name, state })
    };
    fail(&mut world);
    world.done(set(ExportState::Paused));
    assert_eq!(world.shard(0).failure, "no permission", "pausing mends nothing");
    world.done(set(ExportState::Active));
    assert_eq!(world.shard(0).failure, "");
    fail(&mut world);
    world.done(set(ExportState::Active));
    assert_eq!(world.shard(0).failure, "", "also of an export that is active");
    fail(&mut world);
    let version = world.state.export(5).unwrap().version;
    world.created(put("orders", &["lake", "pg"], version));
    assert_eq!(world.shard(0).failure, "", "its file was mended");
}

#[test]
fn a_shard_is_split_once_its_rows_are_there_and_only_by_its_owner() {
    let mut world = World::running();
    let child = |name: &str| ShardSpec { name: name.to_owned(), ..ShardSpec::default() };
    let split = |epoch, names: &[&str]| {
        let children = names.iter().map(|name| child(name)).collect();
        Kind::SplitShard(SplitShard { shard: Some(id(0)), epoch, children })
    };
    assert_eq!(world.refused(split(1, &["a", "b"])).0, RefusedKind::Conflict, "no anchor yet");
    let running = Progress { snapshot: SnapshotState::Running.into(), ..Progress::default() };
    world.done(anchor(0, 1, running));
    assert_eq!(world.refused(split(1, &["a", "b"])).0, RefusedKind::Conflict, "rows are to come");
    let complete = Progress { snapshot: SnapshotState::Complete.into(), ..Progress::default() };
    world.taken(captured(1, point(3, 3, complete)));
    assert_eq!(world.fenced_at(split(0, &["a", "b"])), 1);
    assert_eq!(world.refused(split(1, &["a", "a"])).0, RefusedKind::Invalid);
    let before = world.state.shards().count();
    world.done(split(1, &["a", "b"]));
    world.done(split(1, &["a", "b"]));
    assert_eq!(world.state.shards().count(), before + 2, "a repeat changes nothing");
    assert_eq!(world.refused(split(1, &["a", "c"])).0, RefusedKind::Conflict);
    let children = world.state.shards().filter(|it| it.spec.as_ref().unwrap().continues);
    let parents: Vec<_> = children.map(|it| it.spec.clone().unwrap().parents).collect();
    let name = world.shard(0).spec.clone().unwrap().name;
    assert_eq!(parents, [[name.clone()], [name]]);
}

fn unreached(epoch: u64, sink: &str, out_of_reach: bool) -> Kind {
    let (shard, sink) = (Some(id(0)), sink.to_owned());
    Kind::SetOutOfReach(SetOutOfReach { shard, epoch, sink, out_of_reach })
}

#[test]
fn what_is_out_of_reach_is_so_until_something_moves_or_another_has_it() {
    let mut world = World::running();
    world.done(anchor(0, 1, at("1")));
    assert_eq!(world.fenced_at(unreached(7, "", true)), 1);
    for sink in ["", "lake", "lake"] {
        world.done(unreached(1, sink, true));
    }
    assert_eq!(world.shard(0).out_of_reach, ["", "lake"]);
    world.done(unreached(1, "", false));
    world.done(unreached(1, "", true));
    world.taken(captured(1, point(9, 9, at("5"))));
    assert_eq!(world.shard(0).out_of_reach, ["lake"], "the source brought something");
    world.taken(delivered("lake", 1, point(0, 0, at("1"))));
    assert_eq!(world.shard(0).out_of_reach, ["lake"], "nothing new is there");
    world.taken(delivered("lake", 1, point(3, 3, at("3"))));
    assert_eq!(world.shard(0).out_of_reach, [""; 0]);

    world.done(unreached(1, "", true));
    world.done(assign(0, 1, 3, &[("lake", 1)]));
    assert!(world.shard(0).out_of_reach.is_empty() && world.shard(0).rescued.is_empty());
    let Kind::Assign(next) = assign(0, 2, 1, &[("lake", 1)]) else { panic!("it is one") };
    world.done(Kind::Assign(Assign { rescues: vec!["lake".to_owned()], ..next }));
    assert_eq!(world.shard(0).rescued, BTreeMap::from([("lake".to_owned(), 3)]));
}
