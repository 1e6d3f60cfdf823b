//! A bucket that is down, slow, busy, or does things without saying so.

use std::time::Duration;

use tonic::async_trait;

use super::network::{CUT, sum};
use super::{Arena, Fault};
use crate::Outcome;
use crate::world::{Counts, Flaw, Mood, Rule, SINK};

/// Bytes per second and direction of a slow bucket.
const SLOW: u64 = 20_000;

/// What is wrong with it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    /// No packet reaches it.
    Down,
    /// Few do.
    Slow,
    /// It answers 503.
    Busy,
    /// It does what it is asked and hangs up instead of answering.
    Mute,
}

/// A bucket in trouble, for all nodes.
pub(super) struct Outage {
    trouble: Trouble,
    lasts: Duration,
    counted: Counts,
    spoiled: u64,
}

impl Outage {
    pub(super) fn of(trouble: Trouble, lasts: Duration) -> Self {
        Self { trouble, lasts, counted: Counts::default(), spoiled: 0 }
    }
}

#[async_trait]
impl Fault for Outage {
    fn lasts(&self) -> Duration {
        self.lasts
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        let links = arena.world.links_to(SINK);
        let (wires, proxy) = (&arena.world.wires, &arena.world.bucket.proxy);
        self.counted = sum(wires, &links);
        self.spoiled = proxy.spoiled();
        match self.trouble {
            Trouble::Down => wires.set(&links, CUT),
            Trouble::Slow => {
                wires.set(&links, Rule { bytes_per_second: SLOW, ..Rule::default() });
            }
            Trouble::Busy => proxy.set(Mood::Busy),
            Trouble::Mute => proxy.set(Mood::Mute),
        }
        Ok(format!("the bucket is {:?} for {:?}", self.trouble, self.lasts))
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        arena.world.wires.set(&arena.world.links_to(SINK), Rule::default());
        arena.world.bucket.proxy.set(Mood::Fair);
        Ok(())
    }

    async fn proof(&self, arena: &Arena) -> Outcome<String> {
        let now = sum(&arena.world.wires, &arena.world.links_to(SINK));
        let (count, what) = match self.trouble {
            Trouble::Down => (now.cut - self.counted.cut, "packets cut"),
            Trouble::Slow => (now.delayed - self.counted.delayed, "packets late"),
            Trouble::Busy => {
                (arena.world.bucket.proxy.spoiled() - self.spoiled, "requests refused")
            }
            Trouble::Mute => (
                arena.world.bucket.proxy.spoiled() - self.spoiled,
                "requests done and not answered",
            ),
        };
        if count == 0 {
            return Err(format!("no {what}").into());
        }
        Ok(format!("{count} {what}"))
    }
}

/// A bucket whose requests fail, succeed in secret, are refused for no reason, break
/// off, and whose listings are old.
pub(super) struct Flawed {
    seed: u64,
    lasts: Duration,
    before: [(Flaw, u64); Flaw::ALL.len()],
}

impl Flawed {
    pub(super) fn of(seed: u64, lasts: Duration) -> Self {
        Self { seed, lasts, before: Flaw::ALL.map(|flaw| (flaw, 0)) }
    }

    /// How many requests have met each flaw so far.
    fn met(&self, arena: &Arena) -> Vec<(Flaw, u64)> {
        let now = arena.world.bucket.proxy.flaws();
        self.before.iter().zip(now).map(|((flaw, was), (_, is))| (*flaw, is - was)).collect()
    }
}

#[async_trait]
impl Fault for Flawed {
    fn lasts(&self) -> Duration {
        self.lasts
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        let proxy = &arena.world.bucket.proxy;
        self.before = proxy.flaws();
        proxy.set(Mood::Flawed(self.seed));
        Ok(format!("the bucket has flaws for {:?}", self.lasts))
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        let all_met = |it: &Arena| self.met(it).iter().all(|(_, count)| *count > 0);
        arena.until("requests have met every flaw", all_met).await?;
        arena.world.bucket.proxy.set(Mood::Fair);
        Ok(())
    }

    async fn proof(&self, arena: &Arena) -> Outcome<String> {
        let met = self.met(arena);
        match met.iter().find(|(_, count)| *count == 0) {
            Some((flaw, _)) => Err(format!("no request was {flaw:?}; there were {met:?}").into()),
            None => Ok(format!("requests met {met:?}")),
        }
    }
}
