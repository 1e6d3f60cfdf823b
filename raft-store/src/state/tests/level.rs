use super::*;

/// A command of the first level above the least.
fn fresh() -> Kind {
    let shard = Some(id(0));
    Kind::SetOutOfReach(SetOutOfReach { shard, epoch: 1, out_of_reach: true, ..Default::default() })
}

fn as_of(level: u32, node: u64) -> Kind {
    let Kind::NodeUp(up) = up(node, node) else { panic!("it is one") };
    Kind::NodeUp(NodeUp { level, ..up })
}

fn many(kinds: &[Kind]) -> Kind {
    let command =
        |kind: &Kind| Command { version: 1, kind: Some(kind.clone()), ..Default::default() };
    Kind::Many(Many { commands: kinds.iter().map(command).collect() })
}

#[test]
fn what_a_node_does_not_know_is_not_proposed() {
    let mut world = World::running();
    world.done(as_of(0, 3));
    let rescue = Kind::Assign(Assign { rescues: vec![String::new()], ..Assign::default() });
    let plain = assign(0, 1, 3, &[]);
    for kind in [fresh(), rescue.clone(), many(&[plain.clone(), rescue])] {
        let refusal = world.state.is_known_to_all(&kind).unwrap_err();
        let Some(outcome::Kind::Refused(refused)) = refusal.kind else { panic!("{refusal:?}") };
        assert!(refused.reason.contains("node b runs a version"), "{}", refused.reason);
    }
    world.done(as_of(1, 3));
    let awaits = "read anew".to_owned();
    let set = SetPosition { awaits: awaits.clone(), ..SetPosition::default() };
    let gap = Some(Gap { awaits, ..Gap::default() });
    let loss = RecordGap { gap, ..RecordGap::default() };
    for kind in [Kind::SetPosition(set), Kind::RecordGap(loss)] {
        assert!(world.state.is_known_to_all(&kind).is_err(), "since level 2");
    }
    world.done(as_of(2, 3));
    let reread = Gap { kind: GapKind::Reread.into(), ..Gap::default() };
    let repair = RepairGap { by_source: true, ..RepairGap::default() };
    let loss = RecordGap { gap: Some(reread), ..RecordGap::default() };
    for kind in [Kind::RepairGap(repair), Kind::RecordGap(loss)] {
        assert!(world.state.is_known_to_all(&kind).is_err(), "since level 3");
    }
    assert_eq!(world.state.is_known_to_all(&fresh()), Ok(()));
    world.done(as_of(0, 3));
    let gap = Kind::RecordGap(RecordGap { gap: Some(Gap::default()), ..RecordGap::default() });
    for kind in [plain.clone(), many(&[plain]), as_of(0, 3), gap] {
        assert_eq!(world.state.is_known_to_all(&kind), Ok(()));
    }
    world.done(as_of(LEVEL, 3));
    assert_eq!(world.state.is_known_to_all(&fresh()), Ok(()), "all nodes are upgraded");
}

#[test]
fn a_node_is_refused_once_the_cluster_uses_what_it_does_not_know() {
    let mut world = World::running();
    world.done(Kind::ClusterCreate(ClusterCreate { cluster_id: "c".to_owned() }));
    world.done(as_of(0, 3));
    world.done(as_of(LEVEL, 3));
    world.done(fresh());
    let (kind, why) = world.refused(as_of(0, 3));
    assert!(kind == RefusedKind::Invalid && why.contains("older than"), "{why}");
    let Kind::NodeJoin(join) = join("c") else { panic!("it is one") };
    let old = Kind::NodeJoin(NodeJoin { level: 0, ..join.clone() });
    assert_eq!(world.refused(old).0, RefusedKind::Invalid);
    assert!(world.created(Kind::NodeJoin(join)) > 3);
}

#[test]
fn a_command_that_was_refused_is_not_used() {
    let mut world = World::running();
    world.done(Kind::ClusterCreate(ClusterCreate { cluster_id: "c".to_owned() }));
    let Kind::SetOutOfReach(command) = fresh() else { panic!("it is one") };
    world.fenced_at(Kind::SetOutOfReach(SetOutOfReach { epoch: 7, ..command }));
    world.done(as_of(0, 3));
}
