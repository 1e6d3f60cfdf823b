//! METHOD: random commands, drawn against the tables as they are so that most
//! of them hit something, go to two states. After each step both must be equal
//! and hold what is promised, and rows written as they changed must be the state.

use proptest::prelude::*;

use proptest::strategy::ValueTree;

use super::*;

/// Numbers a command is made from.
#[derive(Clone, Copy, Debug)]
struct Draw {
    kind: u8,
    pick: usize,
    number: u64,
    stale: bool,
}

fn any_draw() -> impl Strategy<Value = Draw> {
    (0..26_u8, 0..8_usize, 0..6_u64, prop::bool::weighted(0.15))
        .prop_map(|(kind, pick, number, stale)| Draw { kind, pick, number, stale })
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn nth<T>(items: impl Iterator<Item = T>, pick: usize) -> Option<T> {
    let items: Vec<T> = items.collect();
    let at = pick.checked_rem(items.len())?;
    items.into_iter().nth(at)
}

/// The command that `draw` stands for in this state.
fn command(state: &State, draw: Draw) -> Kind {
    let name = NAMES[draw.pick % 3];
    let node = nth(state.nodes().map(|node| node.id), draw.pick).unwrap_or(9);
    let export = nth(state.exports().cloned(), draw.pick).unwrap_or_default();
    let shard = nth(state.shards().cloned(), draw.pick).unwrap_or_default();
    let epoch = if draw.stale { draw.number } else { shard.epoch };
    let sink = nth(shard_sinks(state, &shard).into_iter(), draw.pick).unwrap_or_default();
    let sequence = |at: Option<&Checkpoint>| match draw.stale {
        true => draw.number,
        false => at.map_or(0, |at| at.sequence) + draw.number,
    };
    match draw.kind {
        0 => Kind::ClusterCreate(ClusterCreate { cluster_id: name.to_owned() }),
        1 | 2 => join(name),
        3 if draw.stale => torn(node, draw.number),
        3 => up(node, draw.number),
        4 => Kind::NodeDown(NodeDown { node, run: draw.number }),
        5 => Kind::NodeCordon(NodeCordon { node, cordoned: draw.stale }),
        6 if draw.stale => Kind::NodePromote(NodePromote { node }),
        6 => Kind::NodeRemove(NodeRemove { node }),
        7 => put(name, &NAMES[..draw.pick % 4], 0),
        8 if draw.stale => put(&export.name, &NAMES[..draw.pick % 4], 1),
        8 => put(&export.name, &NAMES[..draw.pick % 4], export.version),
        9 if draw.stale => Kind::ExportDelete(ExportDelete { name: name.to_owned() }),
        9 | 10 => discover(export.id, &NAMES[..draw.pick % 4]),
        11..=13 => Kind::Assign(Assign {
            shard: shard.id,
            replaces: epoch,
            reader: node,
            writers: BTreeMap::from([(sink, node)]),
            copies: state.nodes().map(|node| node.id).take(draw.pick % 4).collect(),
            anew: draw.pick.is_multiple_of(2),
            rescues: vec![String::new(); draw.pick % 2],
        }),
        14 => Kind::Anchor(Anchor { shard: shard.id, epoch, ..Default::default() }),
        15 | 16 => {
            let checkpoint = Some(point(sequence(shard.captured.as_ref()), 1, at(name)));
            let entry = Captured { shard: shard.id, epoch, checkpoint };
            Kind::Checkpoints(Checkpoints { node, captured: vec![entry; 2], delivered: vec![] })
        }
        17 | 18 => {
            let checkpoint = Some(point(sequence(shard.delivered.get(&sink)), 1, at(name)));
            let entry = Delivered { shard: shard.id, epoch, sink, checkpoint };
            Kind::Checkpoints(Checkpoints { node, captured: vec![], delivered: vec![entry] })
        }
        19 => {
            let copies = state.nodes().map(|node| node.id).take(draw.pick % 4).collect();
            Kind::SetCopies(SetCopies { shard: shard.id, epoch, copies })
        }
        20 => moved(&shard, epoch, node, draw),
        21 | 22 => {
            let run = |node: u64| state.node(node).map_or(0, |node| node.run);
            let copies = shard.copies.iter().skip(draw.pick % 2).chain([&shard.reader]);
            let copies = copies.map(|node| InSync { node: *node, run: run(*node) }).collect();
            Kind::SetInSync(SetInSync { shard: shard.id, epoch, copies })
        }
        23 => set_position(&shard, draw),
        24 => unreached(&shard, epoch, sink, draw),
        _ => vanished(&shard, epoch, draw.number),
    }
}

fn moved(shard: &Shard, epoch: u64, node: u64, draw: Draw) -> Kind {
    let reader = if draw.pick.is_multiple_of(3) { 0 } else { node };
    let (number, reason) = (shard.moves, "why".to_owned());
    Kind::MoveShard(MoveShard { shard: shard.id, epoch, reader, number, reason })
}

fn unreached(shard: &Shard, epoch: u64, sink: String, draw: Draw) -> Kind {
    let (shard, out_of_reach) = (shard.id, draw.pick.is_multiple_of(2));
    Kind::SetOutOfReach(SetOutOfReach { shard, epoch, sink, out_of_reach })
}

fn set_position(shard: &Shard, draw: Draw) -> Kind {
    let replaces = if draw.stale { draw.number } else { shard.position_set };
    let [repair, awaits] =
        [["", ""], ["none", ""], ["", "read anew"]][draw.pick % 3].map(str::to_owned);
    let (shard, position, reason) = (shard.id, "p".into(), "why".to_owned());
    Kind::SetPosition(SetPosition { shard, replaces, position, reason, repair, awaits })
}

fn vanished(shard: &Shard, epoch: u64, after: u64) -> Kind {
    let (shard, kind) = (shard.id, GapKind::Vanished.into());
    let detail = after.to_string();
    let gap = Some(Gap { shard, epoch, kind, after, detail, ..Gap::default() });
    let policy = if after.is_multiple_of(2) { GapPolicy::Resnapshot } else { GapPolicy::Pause };
    Kind::RecordGap(RecordGap { gap, policy: policy.into() })
}

fn shard_sinks(state: &State, shard: &Shard) -> Vec<String> {
    let export = state.export(shard.id.unwrap_or_default().export_id);
    export.iter().flat_map(|export| &export.sinks).map(|sink| sink.name.clone()).collect()
}

/// Who owned what in which epoch, over a whole run.
type Owners = BTreeMap<(ShardId, u64, String), u64>;

fn check(before: &State, after: &State, owners: &mut Owners) {
    for shard in after.shards() {
        let id = shard.id.unwrap();
        let jobs = shard.writers.iter().map(|(sink, node)| (sink.clone(), *node));
        for (job, node) in jobs.chain([("<reader>".to_owned(), shard.reader)]) {
            if node == 0 {
                continue;
            }
            let owner = *owners.entry((id, shard.epoch, job)).or_insert(node);
            assert_eq!(owner, node, "one owner in one epoch");
        }
        if shard.reader != 0 {
            assert!(shard.in_sync.contains(&shard.reader), "who reads is in sync");
            assert!(shard.in_sync.iter().all(|node| shard.copies.contains(node)));
        }
        let Some(was) = before.shard(id) else { continue };
        if was.epoch < shard.epoch && shard.reader != 0 && !was.in_sync.is_empty() {
            let whole = was.in_sync.contains(&shard.reader) && !was.torn;
            assert_eq!(shard.anew != shard.epoch, whole, "who was not in sync begins anew");
        }
        assert!(was.epoch <= shard.epoch, "epochs never fall");
        let sequence = |at: &Option<Checkpoint>| at.as_ref().map_or(0, |at| at.sequence);
        assert!(sequence(&was.captured) <= sequence(&shard.captured), "captured goes back");
        for (sink, at) in &shard.delivered {
            let was = was.delivered.get(sink).map_or(0, |was| was.sequence);
            assert!(was <= at.sequence, "delivered goes back");
        }
        assert_eq!(shard.gaps, after.gaps_of(id).count() as u64);
    }
}

proptest! {
    #[test]
    fn the_fold_is_the_same_everywhere_and_keeps_its_promises(
        draws in prop::collection::vec(any_draw(), 1..150)
    ) {
        let (mut one, mut other) = (State::default(), State::default());
        let (mut rows, mut owners) = (BTreeMap::new(), Owners::new());
        for (index, draw) in (2..).zip(draws) {
            let command = Command { version: 1, proposed_ms: 5, kind: Some(command(&one, draw)) };
            let before = one.clone();
            let outcome = one.apply(index, command.clone());
            prop_assert_eq!(outcome, alone_of_many(&mut other, index, command));
            check(&before, &one, &mut owners);
            for (row, body) in one.take_changes().rows {
                match body {
                    Some(body) => drop(rows.insert(row, body)),
                    None => drop(rows.remove(&row)),
                }
            }
            other.take_changes();
            prop_assert_eq!(&one, &other);
        }
        let mut loaded = State::default();
        for (row, body) in &rows {
            loaded.load(*row, body).unwrap();
        }
        prop_assert_eq!(&loaded, &one, "rows written as they changed are the state");
        prop_assert_eq!(rows.into_iter().collect::<Vec<_>>(), one.rows().collect::<Vec<_>>());
    }
}

/// As one of several commands in an entry, if it may be that.
fn alone_of_many(state: &mut State, index: u64, command: Command) -> Outcome {
    if !command.kind.as_ref().is_some_and(gathers) {
        return state.apply(index, command);
    }
    let many = Kind::Many(Many { commands: vec![command] });
    let outcome = state.apply(index, Command { version: 1, proposed_ms: 9, kind: Some(many) });
    let Some(outcome::Kind::Many(many)) = outcome.kind else { panic!("{outcome:?}") };
    many.outcomes[0].clone()
}

#[test]
fn commands_in_one_entry_are_applied_or_refused_each_by_itself() {
    let mut world = World::running();
    let of = |version, kind| Command { version, proposed_ms: 7, kind: Some(kind) };
    let nested = Kind::Many(Many { commands: vec![of(1, assign(1, 0, 1, &[]))] });
    let commands = vec![
        of(1, assign(0, 1, 3, &[])),
        of(1, assign(0, 1, 1, &[])),
        of(1, join("c")),
        of(2, assign(1, 0, 1, &[])),
        of(1, nested),
        of(1, assign(1, 0, 1, &[])),
    ];
    let outcome::Kind::Many(many) = world.ask(Kind::Many(Many { commands })) else { panic!() };
    let done = |outcome: &Outcome| matches!(outcome.kind, Some(outcome::Kind::Done(_)));
    let done: Vec<_> = many.outcomes.iter().map(done).collect();
    assert_eq!(done, [true, false, false, false, false, true]);
    assert_eq!((world.shard(0).reader, world.shard(1).reader), (3, 1));
    assert_eq!(world.state.nodes().count(), 2, "a node's id is its entry's index");
}

/// The draws reach what the property is about.
#[test]
fn random_commands_are_not_all_refused() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let draws = prop::collection::vec(any_draw(), 3000).new_tree(&mut runner).unwrap().current();
    let mut state = State::default();
    let (mut checkpoints, mut most, mut copied) = (0, 0, 0);
    for (index, draw) in (2..).zip(draws) {
        let kind = Some(command(&state, draw));
        let outcome = state.apply(index, Command { version: 1, proposed_ms: 5, kind });
        if let Some(outcome::Kind::Checkpoints(taken)) = outcome.kind {
            checkpoints += usize::from(taken == CheckpointsTaken::default());
        }
        copied += state.shards().filter(|shard| shard.in_sync.len() > 1).count();
        most = most.max(state.shards().map(|shard| shard.epoch).max().unwrap_or(0));
    }
    assert!(checkpoints > 100 && most > 5, "{checkpoints} taken, epoch {most}");
    assert!(copied > 100, "copies were in sync {copied} times");
}
