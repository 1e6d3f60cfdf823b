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
