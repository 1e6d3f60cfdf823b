use super::*;

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
fn a_learner_is_one_until_it_is_promoted() {
    let mut world = World::running();
    let address = "x:1".to_owned();
    let join = NodeJoin { name: "l".to_owned(), address, learner: true, ..Default::default() };
    let node = world.created(Kind::NodeJoin(join));
    world.done(up(node, 7));
    assert!(world.state.node(node).unwrap().learner, "starting does not change it");
    for _ in 0..2 {
        world.done(Kind::NodePromote(NodePromote { node }));
        assert!(!world.state.node(node).unwrap().learner);
    }
    let nobody = Kind::NodePromote(NodePromote { node: 99 });
    assert_eq!(world.refused(nobody).0, RefusedKind::NotFound);
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
    assert!(world.refused(remove(3)).1.contains("shard 5/0"), "it keeps a copy");
    world.done(Kind::SetCopies(SetCopies { shard: Some(id(0)), epoch: 2, copies: vec![1] }));
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
