use super::*;

fn in_sync(epoch: u64, copies: &[(u64, u64)]) -> Kind {
    let copies = copies.iter().map(|(node, run)| InSync { node: *node, run: *run }).collect();
    Kind::SetInSync(SetInSync { shard: Some(id(0)), epoch, copies })
}

/// Nodes 1 and 3 are up in runs 11 and 13; node 1 reads shard 0 in epoch 1.
fn world() -> World {
    let mut world = World::running();
    world.done(up(1, 11));
    world.done(up(3, 13));
    let shard = world.state.shard(id(0)).unwrap();
    assert_eq!((shard.reader, shard.epoch), (1, 1));
    assert_eq!((&shard.copies[..], &shard.in_sync[..]), (&[1, 3][..], &[1][..]));
    world
}

#[test]
fn only_the_owner_says_who_is_in_sync_and_only_of_those_who_keep_a_copy() {
    let mut world = world();
    world.fenced_at(in_sync(0, &[(1, 11)]));
    assert_eq!(world.refused(in_sync(1, &[(3, 13)])).0, RefusedKind::Invalid, "without itself");
    assert_eq!(world.refused(in_sync(1, &[(1, 11), (3, 12)])).0, RefusedKind::Conflict, "old run");
    let copies = Kind::SetCopies(SetCopies { shard: Some(id(0)), epoch: 1, copies: vec![] });
    world.done(in_sync(1, &[(1, 11), (3, 13)]));
    assert!(world.state.shard(id(0)).unwrap().copied);
    world.done(copies);
    assert_eq!(world.state.shard(id(0)).unwrap().in_sync, [1], "3 keeps no copy any more");
    assert_eq!(world.refused(in_sync(1, &[(1, 11), (3, 13)])).0, RefusedKind::Conflict);
}

#[test]
fn the_next_owner_takes_over_if_it_was_in_sync_and_begins_anew_if_not() {
    let mut world = world();
    world.done(in_sync(1, &[(1, 11), (3, 13)]));
    world.done(Kind::NodeDown(NodeDown { node: 1, run: 11 }));
    world.done(assign(0, 1, 3, &[]));
    let shard = world.state.shard(id(0)).unwrap();
    assert_eq!((&shard.in_sync[..], shard.anew), (&[3][..], 0), "the dead one is not in sync");
    world.done(up(1, 12));
    let careful = Assign { shard: Some(id(0)), replaces: 2, reader: 1, ..Default::default() };
    assert_eq!(world.refused(Kind::Assign(careful)).0, RefusedKind::Conflict, "it is not in sync");
    world.done(assign(0, 2, 1, &[]));
    let shard = world.state.shard(id(0)).unwrap();
    assert_eq!((&shard.in_sync[..], shard.anew), (&[1][..], 3), "1 had not caught up");
}

#[test]
fn another_run_of_a_node_reads_nothing_and_is_not_in_sync_unless_alone() {
    let mut world = world();
    world.done(in_sync(1, &[(1, 11), (3, 13)]));
    world.done(up(1, 11));
    assert_eq!(world.state.shard(id(0)).unwrap().reader, 1, "the same run is only heard again");
    world.done(up(1, 12));
    let shard = world.state.shard(id(0)).unwrap();
    assert_eq!((shard.reader, &shard.in_sync[..]), (0, &[3][..]));
    world.done(up(3, 14));
    assert_eq!(world.state.shard(id(0)).unwrap().in_sync, [3], "nobody else has it");
}

#[test]
fn a_copy_that_is_alone_and_torn_is_begun_anew_if_others_had_it_too() {
    let careful = |reader, replaces| {
        Kind::Assign(Assign { shard: Some(id(0)), replaces, reader, ..Default::default() })
    };
    let mut world = world();
    world.done(torn(1, 12));
    world.done(careful(1, 1));
    assert_eq!(world.state.shard(id(0)).unwrap().anew, 0, "it synced before it showed");
    world.done(assign(0, 2, 1, &[]));
    world.done(in_sync(3, &[(1, 12), (3, 13)]));
    world.done(torn(1, 14));
    world.done(torn(3, 15));
    let shard = world.state.shard(id(0)).unwrap();
    assert_eq!((&shard.in_sync[..], shard.torn), (&[3][..], true));
    assert_eq!(world.refused(careful(3, 3)).0, RefusedKind::Conflict, "something may be missing");
    world.done(assign(0, 3, 3, &[]));
    let shard = world.state.shard(id(0)).unwrap();
    assert_eq!((&shard.in_sync[..], shard.anew, shard.torn), (&[3][..], 4, false));
}

#[test]
fn a_node_that_keeps_a_copy_is_not_removed() {
    let mut world = world();
    world.done(Kind::NodeCordon(NodeCordon { node: 3, cordoned: true }));
    assert_eq!(world.refused(Kind::NodeRemove(NodeRemove { node: 3 })).0, RefusedKind::Conflict);
}

fn to(epoch: u64, reader: u64) -> Kind {
    Kind::MoveShard(MoveShard { shard: Some(id(0)), epoch, reader, ..MoveShard::default() })
}

#[test]
fn a_move_ends_with_the_next_epoch_whoever_gets_it() {
    let mut world = world();
    assert_eq!(world.refused(to(1, 9)).0, RefusedKind::NotFound);
    assert_eq!(world.created(to(1, 3)), 1);
    assert_eq!(world.created(to(1, 3)), 1, "a repeat is the same move");
    assert_eq!(world.shard(0).moving_to, 3);
    world.done(assign(0, 1, 1, &[]));
    assert_eq!(world.shard(0).moving_to, 0);
    assert!(world.shard(0).move_given_up.contains("assigned otherwise"));
    assert_eq!(world.created(to(2, 3)), 2);
    assert_eq!(world.shard(0).move_given_up, "");
    world.done(assign(0, 2, 3, &[]));
    assert_eq!((world.shard(0).moving_to, &world.shard(0).move_given_up[..]), (0, ""));
    world.done(Kind::NodeCordon(NodeCordon { node: 1, cordoned: true }));
    assert_eq!(world.refused(to(3, 1)).0, RefusedKind::Conflict, "it is cordoned");
}

#[test]
fn only_the_move_that_is_meant_is_given_up() {
    let mut world = world();
    let give_up = |number| {
        let reason = "it took too long".to_owned();
        let (shard, epoch) = (Some(id(0)), 1);
        Kind::MoveShard(MoveShard { shard, epoch, number, reason, ..MoveShard::default() })
    };
    let first = world.created(to(1, 3));
    world.done(give_up(first));
    assert_eq!(
        (world.shard(0).moving_to, &world.shard(0).move_given_up[..]),
        (0, "it took too long")
    );
    let second = world.created(to(1, 3));
    assert_eq!((second, &world.shard(0).move_given_up[..]), (first + 1, ""));
    world.done(give_up(first));
    assert_eq!(world.shard(0).moving_to, 3, "that was the one before");
    assert_eq!(world.created(to(1, 1)), second + 1);
    assert_eq!(world.shard(0).moving_to, 0, "it stays where it is");
}
