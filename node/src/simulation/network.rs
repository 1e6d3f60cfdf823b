//! Who can reach whom, and how long a message takes.

use std::collections::BTreeSet;

use rand::Rng as _;
use rand::rngs::StdRng;

use super::event::{MS, Machine, Micros};

/// The links between machines; each direction by itself.
#[derive(Debug, Default)]
pub(super) struct Network {
    cut: BTreeSet<(Machine, Machine)>,
    /// Addresses that refuse although their process is there.
    refusing: BTreeSet<Machine>,
    /// Messages lost, doubled and late, in a thousand.
    pub(super) trouble: u32,
}

/// How a message fares.
pub(super) enum Fate {
    /// Arrives after this long; maybe again after that long.
    Arrives(Micros, Option<Micros>),
    Lost,
}

impl Network {
    pub(super) fn passes(&self, from: Machine, to: Machine) -> bool {
        from == to || !self.cut.contains(&(from, to))
    }

    pub(super) fn both_ways(&self, a: Machine, b: Machine) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    pub(super) fn set(&mut self, from: Machine, to: Machine, passes: bool) {
        if passes {
            self.cut.remove(&(from, to));
        } else {
            self.cut.insert((from, to));
        }
    }

    pub(super) fn refuses(&self, machine: Machine) -> bool {
        self.refusing.contains(&machine)
    }

    pub(super) fn set_refusing(&mut self, machine: Machine, refuses: bool) {
        if refuses {
            self.refusing.insert(machine);
        } else {
            self.refusing.remove(&machine);
        }
    }

    /// Everything passes from now on.
    pub(super) fn heal(&mut self) {
        *self = Self::default();
    }

    pub(super) fn delay(&self, rng: &mut StdRng) -> Micros {
        let usual = rng.random_range(200..2 * MS);
        if rng.random_ratio(self.trouble, 1000) { usual * 60 } else { usual }
    }

    /// Of one message on its own; a stream loses and doubles nothing.
    pub(super) fn fate(&self, from: Machine, to: Machine, rng: &mut StdRng) -> Fate {
        if !self.passes(from, to) || rng.random_ratio(self.trouble, 1000) {
            return Fate::Lost;
        }
        let again = rng.random_ratio(self.trouble, 1000).then(|| self.delay(rng) * 20);
        Fate::Arrives(self.delay(rng), again)
    }
}
