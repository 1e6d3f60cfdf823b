//! Placement over small integers: a pure core.

use std::collections::BTreeSet;

pub use balance::{Shift, balance};
use copies::copies;
use loads::Loads;

mod balance;
mod copies;
mod loads;

/// What there is to place, and where things are now. Nodes are numbers below
/// `nodes.len()`.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The nodes.
    pub nodes: Vec<Site>,
    /// The shards.
    pub shards: Vec<Now>,
}

/// What a node may be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Whether it is there.
    pub life: Life,
    /// It is to be left alone: no new work, and what it has goes elsewhere.
    pub cordoned: bool,
    /// It came up a moment ago and may go again: nothing is moved to it that
    /// runs elsewhere.
    pub fresh: bool,
    /// The number of its region.
    pub region: u32,
}

/// Whether a node is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Life {
    /// It is up.
    Up,
    /// It went down a moment ago, and what it keeps is waited for.
    Awaited,
    /// It is given up.
    #[default]
    Gone,
}

impl Site {
    fn up(self) -> bool {
        self.life == Life::Up
    }

    fn awaited(self) -> bool {
        self.life == Life::Awaited
    }

    fn may(self) -> bool {
        self.up() && !self.cordoned
    }

    fn in_region(self, region: Option<u32>) -> bool {
        region.is_none_or(|region| region == self.region)
    }
}

/// A shard as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Its reader's node, if it has one.
    pub reader: Option<usize>,
    /// Its source's region, if it matters.
    pub region: Option<u32>,
    /// Per sink, its writer.
    pub writers: Vec<Writer>,
    /// What it weighs beside others; at least 1 is counted.
    pub load: u32,
    /// The nodes that keep its spool.
    pub copies: BTreeSet<usize>,
    /// Those of them, or of others, that have all of it; empty before the start.
    pub in_sync: BTreeSet<usize>,
    /// Where its reader is being moved.
    pub moving_to: Option<usize>,
    /// How many copies are wanted, the reader's included; at least 1 is counted.
    pub wanted: usize,
    /// Over how many regions they are spread, as far as there are so many.
    pub spread: usize,
}

/// What takes a shard to one sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writer {
    /// Its node, if it has one.
    pub at: Option<usize>,
    /// The sink's region, if it matters.
    pub region: Option<u32>,
}

/// A shard as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its reader's node.
    pub reader: usize,
    /// Per sink, its writer's node.
    pub writers: Vec<usize>,
    /// The nodes that keep its spool, the reader's among them.
    pub copies: BTreeSet<usize>,
}

/// Where each shard should run; `None` for one that no node may take, or whose
/// copies in sync are waited for.
#[must_use]
pub fn place(problem: &Problem) -> Vec<Option<Wanted>> {
    let nodes = &problem.nodes;
    let mut loads = Loads::new(problem);
    let mut order: Vec<usize> = (0..problem.shards.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(weight(&problem.shards[*at])));
    let mut readers = vec![None; problem.shards.len()];
    for at in order {
        let now = &problem.shards[at];
        readers[at] = reader(nodes, now, &loads);
        if let Some(node) = readers[at].filter(|node| now.reader != Some(*node)) {
            loads.work[node] += weight(now);
        }
    }
    let shards = problem.shards.iter().zip(readers);
    let wanted = shards.map(|(now, reader)| {
        let reader = reader?;
        let writers: Vec<_> =
            now.writers.iter().map(|it| writer(nodes, now, (it, reader), &mut loads)).collect();
        let copies = copies(nodes, now, (reader, &writers), &mut loads);
        Some(Wanted { reader, writers, copies })
    });
    wanted.collect()
}

/// It stays where it may, unless it is moved or away from its source and a copy
/// is ready. A new owner is in sync; without one, those in sync that went a
/// moment ago are waited for, and then the spool is begun anew.
fn reader(nodes: &[Site], now: &Now, loads: &Loads) -> Option<usize> {
    let may = |node: &usize| site(nodes, *node).may();
    let whole = |node: &usize| now.in_sync.contains(node);
    let away = |node: &usize| !site(nodes, *node).in_region(now.region);
    let least = |nodes_of: &dyn Fn(&usize) -> bool| {
        // What has never run anywhere has nothing to lose with a node that may go again.
        let doubtful = |node: &usize| site(nodes, *node).fresh && !now.in_sync.is_empty();
        let rank = |node: &usize| (away(node), doubtful(node), loads.work[*node]);
        (0..nodes.len()).filter(nodes_of).min_by_key(rank)
    };
    if let Some(node) = now.moving_to.filter(may).filter(whole) {
        return Some(node);
    }
    if let Some(node) = now.reader.filter(may) {
        let home = |it: &usize| may(it) && whole(it) && !away(it) && !site(nodes, *it).fresh;
        let home = if away(&node) { least(&home) } else { None };
        return Some(home.unwrap_or(node));
    }
    let next = least(&|node| may(node) && whole(node));
    // One that is to be left, rather than one that lacks changes.
    let left = |node: &usize| site(nodes, *node).up() && whole(node);
    let next = next.or_else(|| now.reader.filter(left)).or_else(|| least(&left));
    if next.is_some() || now.in_sync.iter().any(|node| site(nodes, *node).awaited()) {
        return next;
    }
    least(&may)
}

/// It stays where it may, unless it is away from its sink and a node there is
/// to be had. Without a region, it goes where the reader is.
fn writer(
    nodes: &[Site],
    now: &Now,
    (writer, reader): (&Writer, usize),
    loads: &mut Loads,
) -> usize {
    let may = |node: &usize| site(nodes, *node).may();
    let near = |node: &usize| site(nodes, *node).in_region(writer.region);
    let stays = writer.at.filter(may);
    if let Some(node) = stays.filter(near) {
        return node;
    }
    let settled = |node: &usize| stays.is_none() || !site(nodes, *node).fresh;
    let rank = |node: &usize| (*node != reader, !now.in_sync.contains(node), loads.work[*node]);
    let there = (0..nodes.len()).filter(may).filter(near).filter(settled);
    let there = there.filter(|_| writer.region.is_some()).min_by_key(rank);
    if let Some(node) = there {
        loads.work[node] += weight(now);
    }
    there.or(stays).unwrap_or(reader)
}

fn site(nodes: &[Site], node: usize) -> Site {
    nodes.get(node).copied().unwrap_or_default()
}

fn weight(now: &Now) -> u64 {
    u64::from(now.load.max(1))
}

#[cfg(test)]
mod tests;
