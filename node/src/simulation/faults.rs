//! What goes wrong, and what operators do meanwhile: drawn from the seed.

use std::ops::Range;

use rand::Rng as _;
use rand::rngs::StdRng;

use super::event::{MS, Machine, Micros};

/// One thing that goes wrong, or is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process is killed; with `power`, the disk forgets what was not synced.
    Kill {
        machine: Machine,
        power: bool,
    },
    /// The process starts, if none runs.
    Start(Machine),
    /// The process stands still.
    Freeze(Machine),
    Thaw(Machine),
    /// The process is told to stop, and drains.
    Stop(Machine),
    /// The machine is lost with its disk; an empty one takes its place.
    Wipe(Machine),
    /// What one machine sends, another gets, or does not.
    Link {
        from: Machine,
        to: Machine,
        passes: bool,
    },
    /// Between one machine and all others, both ways.
    Island {
        machine: Machine,
        passes: bool,
    },
    /// A firewall says in a machine's place that nobody listens.
    Refuse {
        machine: Machine,
        refuses: bool,
    },
    /// Messages get lost, doubled and late: so many of a thousand.
    Trouble(u32),
    /// Sinks take long, or do not.
    SlowSinks(bool),
    /// Operators, each by the node that is first to answer.
    Move {
        shard: usize,
        machine: Machine,
    },
    Cordon {
        machine: Machine,
        cordoned: bool,
    },
    Pause(bool),
    /// Cordons it and takes it out of the cluster when it has nothing left.
    Remove(Machine),
    /// All that is broken is mended.
    Heal,
}

/// How a world is made.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) machines: usize,
    pub(super) shards: u32,
    pub(super) copies: usize,
    pub(super) sinks: usize,
    /// When everything is mended.
    pub(super) heal_at: Micros,
    pub(super) faults: Vec<(Micros, Fault)>,
}

impl Setting {
    pub(super) fn draw(rng: &mut StdRng) -> Self {
        let machines = rng.random_range(3..=5);
        let shards = if rng.random_ratio(1, 12) {
            rng.random_range(5..=12)
        } else {
            rng.random_range(1..=3)
        };
        let copies = *[1, 2, 2, 2, 3, 3].get(rng.random_range(0..6)).unwrap();
        let sinks = rng.random_range(1..=2);
        let heal_at = rng.random_range(6_000..16_000) * MS;
        let mut faults = Vec::new();
        let mut at = rng.random_range(1_500..3_000) * MS;
        let weak = rng.random_range(0..machines);
        let weak = if rng.random_ratio(1, 3) { 0..machines } else { weak..weak + 1 };
        let mut spent = Spent { wiped: false, weak };
        while at < heal_at {
            draw_fault(rng, at, (machines, shards), &mut spent, &mut faults);
            // Mostly one on top of the other, sometimes after all has settled.
            let calm = rng.random_ratio(1, 10);
            at += rng.random_range(50..if calm { 9_000 } else { 1_800 }) * MS;
        }
        faults.retain(|(at, _)| *at < heal_at);
        faults.push((heal_at, Fault::Heal));
        Self { machines, shards, copies, sinks, heal_at, faults }
    }
}

/// What a run cannot take more of.
struct Spent {
    /// A machine was lost, or taken out.
    wiped: bool,
    /// The machines whose disk forgets what was not synced.
    weak: Range<Machine>,
}

/// One draw: a machine, another, and how long it lasts.
struct Draw<'a> {
    at: Micros,
    machine: Machine,
    other: Machine,
    short: Micros,
    long: Micros,
    faults: &'a mut Vec<(Micros, Fault)>,
}

impl Draw<'_> {
    fn add(&mut self, after: Micros, fault: Fault) {
        self.faults.push((self.at + after, fault));
    }

    /// Mostly short, sometimes longer than a dead copy is waited for.
    fn some_time(&self, rng: &mut StdRng) -> Micros {
        if rng.random_bool(0.7) { self.short } else { self.long }
    }
}

fn draw_fault(
    rng: &mut StdRng,
    at: Micros,
    (machines, shards): (usize, u32),
    spent: &mut Spent,
    faults: &mut Vec<(Micros, Fault)>,
) {
    let machine = rng.random_range(0..machines);
    let other = (machine + rng.random_range(1..machines)) % machines;
    let short = rng.random_range(20..2_500) * MS;
    let long = rng.random_range(300..14_000) * MS;
    let mut draw = Draw { at, machine, other, short, long, faults };
    match rng.random_range(0..100) {
        0..34 => draw_process(rng, &mut draw, spent),
        34..62 => draw_network(rng, &mut draw),
        62..89 => draw_operator(rng, &mut draw, shards),
        // It flaps.
        89..93 => {
            for round in 0..rng.random_range(2..6) {
                draw.add(round * 900 * MS, Fault::Freeze(machine));
                let thaw = round * 900 * MS + rng.random_range(300..850) * MS;
                draw.add(thaw, Fault::Thaw(machine));
            }
        }
        // All processes end at about the same time; with power, at the same.
        93..95 => {
            for machine in 0..machines {
                let early = if spent.weak.len() > 1 { 0 } else { rng.random_range(0..20) * MS };
                let late = early + rng.random_range(100..3_000) * MS;
                let power = spent.weak.contains(&machine);
                draw.add(early, Fault::Kill { machine, power });
                draw.add(late, Fault::Start(machine));
            }
        }
        95..98 if !spent.wiped => {
            spent.wiped = true;
            draw.add(0, Fault::Wipe(machine));
        }
        _ if !spent.wiped && machines > 3 => {
            spent.wiped = true;
            draw.add(0, Fault::Remove(machine));
        }
        _ => draw.add(0, Fault::Cordon { machine, cordoned: false }),
    }
}

fn draw_process(rng: &mut StdRng, draw: &mut Draw<'_>, spent: &Spent) {
    let (machine, time) = (draw.machine, draw.some_time(rng));
    if rng.random_bool(0.6) {
        let power = spent.weak.contains(&machine) && rng.random_bool(0.5);
        draw.add(0, Fault::Kill { machine, power });
        draw.add(time, Fault::Start(machine));
    } else {
        draw.add(0, Fault::Freeze(machine));
        draw.add(time, Fault::Thaw(machine));
    }
}

fn draw_network(rng: &mut StdRng, draw: &mut Draw<'_>) {
    let (machine, other, short, long) = (draw.machine, draw.other, draw.short, draw.long);
    match rng.random_range(0..28) {
        0..10 => {
            let time = draw.some_time(rng);
            draw.add(0, Fault::Island { machine, passes: false });
            draw.add(time, Fault::Island { machine, passes: true });
        }
        10..20 => {
            draw.add(0, Fault::Link { from: machine, to: other, passes: false });
            if rng.random_bool(0.3) {
                draw.add(0, Fault::Link { from: other, to: machine, passes: false });
                draw.add(long, Fault::Link { from: other, to: machine, passes: true });
            }
            draw.add(long, Fault::Link { from: machine, to: other, passes: true });
        }
        20..24 => {
            draw.add(0, Fault::Refuse { machine, refuses: true });
            draw.add(short, Fault::Refuse { machine, refuses: false });
        }
        _ => {
            draw.add(0, Fault::Trouble(rng.random_range(1..80)));
            draw.add(long, Fault::Trouble(0));
        }
    }
}

fn draw_operator(rng: &mut StdRng, draw: &mut Draw<'_>, shards: u32) {
    let (machine, short, long) = (draw.machine, draw.short, draw.long);
    match rng.random_range(0..27) {
        0..5 => {
            draw.add(0, Fault::SlowSinks(true));
            draw.add(long, Fault::SlowSinks(false));
        }
        5..15 => {
            let shard = usize::try_from(rng.random_range(0..shards)).unwrap();
            draw.add(0, Fault::Move { shard, machine });
        }
        15..20 => {
            draw.add(0, Fault::Cordon { machine, cordoned: true });
            draw.add(long, Fault::Cordon { machine, cordoned: false });
        }
        20..24 => {
            draw.add(0, Fault::Stop(machine));
            draw.add(short + 200 * MS, Fault::Start(machine));
        }
        _ => {
            draw.add(0, Fault::Pause(true));
            draw.add(short, Fault::Pause(false));
        }
    }
}
