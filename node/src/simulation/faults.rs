//! What goes wrong, and what operators do meanwhile: drawn from the seed.

use rand::Rng as _;
use rand::rngs::StdRng;

use super::event::{MS, Machine, Micros};

/// One thing that goes wrong, or is done.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// With `torn`, power cuts come to clusters with copies too.
    pub(super) fn draw(rng: &mut StdRng, torn: bool) -> Self {
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
        let weak = (copies == 1 || torn).then_some(weak);
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
    /// The only machine whose disk forgets what was not synced.
    weak: Option<Machine>,
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
    let power = rng.random_bool(0.5) && Some(machine) == spent.weak;
    let mut add = |after: Micros, fault| faults.push((at + after, fault));
    match rng.random_range(0..100) {
        0..20 => {
            add(0, Fault::Kill { machine, power });
            add(if rng.random_bool(0.7) { short } else { long }, Fault::Start(machine));
        }
        20..34 => {
            add(0, Fault::Freeze(machine));
            add(if rng.random_bool(0.7) { short } else { long }, Fault::Thaw(machine));
        }
        34..44 => {
            add(0, Fault::Island { machine, passes: false });
            add(
                if rng.random_bool(0.7) { short } else { long },
                Fault::Island { machine, passes: true },
            );
        }
        44..54 => {
            add(0, Fault::Link { from: machine, to: other, passes: false });
            if rng.random_bool(0.3) {
                add(0, Fault::Link { from: other, to: machine, passes: false });
                add(long, Fault::Link { from: other, to: machine, passes: true });
            }
            add(long, Fault::Link { from: machine, to: other, passes: true });
        }
        54..58 => {
            add(0, Fault::Refuse { machine, refuses: true });
            add(short, Fault::Refuse { machine, refuses: false });
        }
        58..62 => {
            add(0, Fault::Trouble(rng.random_range(1..80)));
            add(long, Fault::Trouble(0));
        }
        62..67 => {
            add(0, Fault::SlowSinks(true));
            add(long, Fault::SlowSinks(false));
        }
        67..77 => {
            let shard = usize::try_from(rng.random_range(0..shards)).unwrap();
            add(0, Fault::Move { shard, machine });
        }
        77..82 => {
            add(0, Fault::Cordon { machine, cordoned: true });
            add(long, Fault::Cordon { machine, cordoned: false });
        }
        82..86 => {
            add(0, Fault::Stop(machine));
            add(short + 200 * MS, Fault::Start(machine));
        }
        86..89 => {
            add(0, Fault::Pause(true));
            add(short, Fault::Pause(false));
        }
        // It flaps.
        89..93 => {
            for round in 0..rng.random_range(2..6) {
                add(round * 900 * MS, Fault::Freeze(machine));
                add(round * 900 * MS + rng.random_range(300..850) * MS, Fault::Thaw(machine));
            }
        }
        // The whole cluster loses its power.
        93..95 => {
            for machine in 0..machines {
                let (early, late) =
                    (rng.random_range(0..20) * MS, rng.random_range(100..3_000) * MS);
                add(early, Fault::Kill { machine, power: Some(machine) == spent.weak });
                add(early + late, Fault::Start(machine));
            }
        }
        95..98 if !spent.wiped => {
            spent.wiped = true;
            add(0, Fault::Wipe(machine));
        }
        _ if !spent.wiped && machines > 3 => {
            spent.wiped = true;
            add(0, Fault::Remove(machine));
        }
        _ => add(0, Fault::Cordon { machine, cordoned: false }),
    }
}
