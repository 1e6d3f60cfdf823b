use super::*;

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

#[test]
fn until_when_the_source_keeps_the_rest_is_the_last_told() {
    let mut world = World::running();
    let mut tell = |sequence, kept_until_ms| {
        let checkpoint = Some(Checkpoint { sequence, kept_until_ms, ..Checkpoint::default() });
        let entry = Captured { shard: Some(id(0)), epoch: 1, checkpoint };
        let report = Checkpoints { node: 1, captured: vec![entry], delivered: vec![] };
        world.taken(Kind::Checkpoints(report));
        world.shard(0).captured.as_ref().unwrap().kept_until_ms
    };
    assert_eq!([tell(5, 900), tell(6, 0), tell(6, 700)], [900, 900, 700]);
}
