use tidegate_proto::v1::command::Kind;
use tidegate_proto::v1::{ExportPut, SinkRef};

use super::*;
use crate::control::sample::Sample;

const ROUNDS: u32 = 200;

/// Two nodes in region a, one in b. The first reads the shard and writes to the lake.
fn world() -> Sample {
    let mut world = Sample::new(&["a", "a", "b"]);
    let replaces = world.state.exports().map(|it| it.version).max().unwrap_or(0);
    let sinks = vec![SinkRef { name: "lake".to_owned(), kind: "lake".to_owned() }];
    let name = "orders".to_owned();
    world.apply(Kind::ExportPut(ExportPut { name, sinks, replaces, ..ExportPut::default() }));
    let writers = [("lake".to_owned(), world.nodes[0])].into();
    let assign = Assign { writers, ..of(&world) };
    world.apply(Kind::Assign(assign));
    world.set_in_sync(&[0, 1, 2]);
    world
}

fn shard(world: &Sample) -> &Shard {
    world.state.shard(world.shard).unwrap()
}

fn epoch(world: &Sample) -> Epoch {
    Epoch(shard(world).epoch)
}

/// The shard assigned once more as it is.
fn of(world: &Sample) -> Assign {
    let Shard { id, epoch, reader, writers, copies, .. } = shard(world).clone();
    Assign { shard: id, replaces: epoch, reader, writers, copies, ..Assign::default() }
}

fn unreached(sink: &str) -> Sample {
    let mut world = world();
    let kind = set(world.shard, epoch(&world), sink, true);
    world.apply(kind);
    world
}

/// Rounds of the node at one place.
struct Rounds {
    watch: Watch,
    began: Instant,
    number: u32,
}

impl Rounds {
    fn of(world: &Sample, at: usize) -> Self {
        let watch = Watch::new(NodeId(world.nodes[at]));
        Self { watch, began: Instant::now(), number: 0 }
    }

    fn now(&self) -> Instant {
        self.began + ROUND * self.number
    }

    /// One round, with a log that ends at `last`; whoever is asked answers or does not.
    /// Gives whether anything was asked, and what is said.
    fn next(&mut self, world: &Sample, last: u64, answers: bool) -> (bool, Vec<Kind>) {
        let (state, now) = (&world.state, self.now());
        let mine = readers(state, self.watch.node).into_iter();
        self.watch.look(mine.map(|it| (it, last)).collect(), now);
        self.watch.consider(state, now);
        let asked = self.watch.due(now);
        let told: BTreeMap<_, _> = asked.iter().map(|it| (it.clone(), answers)).collect();
        self.number += 1;
        (!asked.is_empty(), self.watch.take(state, &told, now))
    }

    /// After how long it says something while nothing moves.
    fn until_told(&mut self, world: &Sample, answers: bool) -> Option<(Duration, Kind)> {
        (0..ROUNDS).find_map(|_| {
            let after = self.now() - self.began;
            let (_, mut told) = self.next(world, 7, answers);
            told.pop().map(|kind| (after, kind))
        })
    }
}

fn taken_by(told: Option<(Duration, Kind)>) -> (Duration, Assign) {
    let Some((after, Kind::Assign(assign))) = told else { panic!("{told:?}") };
    (after, assign)
}

#[test]
fn a_silent_source_that_does_not_answer_twice_is_out_of_reach() {
    let mut world = world();
    let mut rounds = Rounds::of(&world, 0);
    let (after, kind) = rounds.until_told(&world, false).unwrap();
    assert_eq!(kind, set(world.shard, epoch(&world), "", true));
    assert!(after >= SILENT && after <= SILENT + ROUND * 3, "{after:?}");
    world.apply(kind);
    assert!(rounds.next(&world, 7, false).1.is_empty(), "it is known");
    let (_, kind) = rounds.until_told(&world, true).unwrap();
    assert_eq!(kind, set(world.shard, epoch(&world), "", false), "it answers again");
}

#[test]
fn a_source_that_brings_something_is_not_asked_and_an_idle_one_seldom() {
    let world = world();
    let mut rounds = Rounds::of(&world, 0);
    assert!((0..ROUNDS).all(|last| !rounds.next(&world, u64::from(last), false).0));
    let idle: Vec<_> = (0..ROUNDS).map(|_| rounds.next(&world, 7, true)).collect();
    let asked = idle.iter().filter(|(asked, _)| *asked).count();
    assert!((4..9).contains(&asked), "{asked} times in {:?}", ROUND * ROUNDS);
    assert!(idle.iter().all(|(_, told)| told.is_empty()), "there is nothing to tell");
}

#[test]
fn the_nearest_node_in_sync_takes_over_what_it_can_reach() {
    let mut world = unreached("");
    let (near, assign) = taken_by(Rounds::of(&world, 1).until_told(&world, true));
    assert_eq!((assign.reader, &assign.rescues[..]), (world.nodes[1], &[String::new()][..]));
    assert_eq!(assign.writers, shard(&world).writers, "they stay");
    let (far, _) = taken_by(Rounds::of(&world, 2).until_told(&world, true));
    assert!(near < ROUND && far >= TURN, "{near:?} {far:?}");
    let mut silent = Rounds::of(&world, 1);
    assert!(silent.until_told(&world, false).is_none(), "it does not answer this one");
    world.set_in_sync(&[0, 2]);
    assert!(Rounds::of(&world, 1).until_told(&world, true).is_none(), "it lacks changes");
    assert!(Rounds::of(&world, 0).watch.offers.is_empty());
}

#[test]
fn a_writer_goes_to_a_node_that_reaches_its_sink() {
    let world = unreached("lake");
    let (_, assign) = taken_by(Rounds::of(&world, 1).until_told(&world, true));
    assert_eq!((assign.reader, assign.writers["lake"]), (world.nodes[0], world.nodes[1]));
}

#[test]
fn what_was_taken_over_stays_for_a_while() {
    let mut world = unreached("");
    world.apply(Kind::Assign(Assign { rescues: vec![String::new()], ..of(&world) }));
    world.set_in_sync(&[0, 1, 2]);
    assert!(shard(&world).out_of_reach.is_empty(), "the next epoch begins without");
    for sink in ["", "lake"] {
        let kind = set(world.shard, epoch(&world), sink, true);
        world.apply(kind);
    }
    let mut rounds = Rounds::of(&world, 1);
    let (soon, assign) = taken_by(rounds.until_told(&world, true));
    assert!(soon < ROUND && assign.rescues == ["lake"], "{soon:?}");
    let from_source = |told: &Vec<Kind>| {
        told.iter().any(|kind| matches!(kind, Kind::Assign(it) if it.rescues == [""]))
    };
    let after = (0..ROUNDS).find(|_| from_source(&rounds.next(&world, 7, true).1)).unwrap();
    let after = ROUND * after;
    assert!(after >= STAYS - ROUND * 2 && after <= STAYS + ROUND, "{after:?}");
}
