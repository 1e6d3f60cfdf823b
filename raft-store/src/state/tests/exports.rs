use super::*;

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
fn a_rate_stays_when_the_file_changes_and_goes_when_it_is_taken_back() {
    let mut world = World::running();
    let rate = Rate { changes: 100, rows: 7 };
    let set = |name: &str, rate| Kind::ExportSetRate(ExportSetRate { name: name.to_owned(), rate });
    world.done(set("orders", Some(rate)));
    world.created(put("orders", &["lake"], 5));
    assert_eq!(world.state.export(5).unwrap().rate, Some(rate));
    world.done(set("orders", None));
    assert_eq!(world.state.export(5).unwrap().rate, None);
    assert_eq!(world.refused(set("none", None)).0, RefusedKind::NotFound);
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
