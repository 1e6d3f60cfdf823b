//! Placement over small integers: a pure core.

use std::collections::BTreeSet;

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
}

/// A shard as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Its reader's node, if it has one.
    pub reader: Option<usize>,
    /// Per sink, its writer's node.
    pub writers: Vec<Option<usize>>,
    /// Its load, in thousandths of a core; at least 1 is counted.
    pub load: u32,
    /// The nodes that keep its spool.
    pub copies: BTreeSet<usize>,
    /// Those of them, or of others, that have all of it; empty before the start.
    pub in_sync: BTreeSet<usize>,
    /// Where its reader is being moved.
    pub moving_to: Option<usize>,
    /// How many copies are wanted, the reader's included; at least 1 is counted.
    pub wanted: usize,
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
    let mut loads = Loads::new(problem);
    let mut order: Vec<usize> = (0..problem.shards.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(weight(&problem.shards[*at])));
    let mut readers = vec![None; problem.shards.len()];
    for at in order {
        readers[at] = reader(problem, &problem.shards[at], &mut loads);
    }
    let shards = problem.shards.iter().zip(readers);
    let wanted = shards.map(|(now, reader)| {
        let reader = reader?;
        let writers = now.writers.iter().map(|writer| {
            let stays = writer.filter(|node| site(&problem.nodes, *node).may());
            stays.unwrap_or(reader)
        });
        let writers = writers.collect();
        let copies = copies(problem, now, reader, &mut loads);
        Some(Wanted { reader, writers, copies })
    });
    wanted.collect()
}

/// How much each node has to do, and how many copies it keeps.
struct Loads {
    work: Vec<u64>,
    copies: Vec<u64>,
}

impl Loads {
    /// What stays where it is.
    fn new(problem: &Problem) -> Self {
        let mut loads =
            Self { work: vec![0; problem.nodes.len()], copies: vec![0; problem.nodes.len()] };
        for now in &problem.shards {
            if let Some(node) = now.reader.filter(|node| site(&problem.nodes, *node).may()) {
                loads.work[node] += weight(now);
            }
            for node in now.copies.iter().filter(|node| **node < problem.nodes.len()) {
                loads.copies[*node] += 1;
            }
        }
        loads
    }
}

fn reader(problem: &Problem, now: &Now, loads: &mut Loads) -> Option<usize> {
    let ready = |node: &usize| site(&problem.nodes, *node).may() && now.in_sync.contains(node);
    if let Some(node) = now.moving_to.filter(ready) {
        return Some(node);
    }
    if let Some(node) = now.reader.filter(|node| site(&problem.nodes, *node).may()) {
        return Some(node);
    }
    let all = || 0..problem.nodes.len();
    let may = |node: &usize| site(&problem.nodes, *node).may();
    let whole = |node: &usize| now.in_sync.contains(node);
    let least = |nodes: Vec<usize>| nodes.into_iter().min_by_key(|node| loads.work[*node]);
    let mut chosen = least(all().filter(may).filter(whole).collect());
    if chosen.is_none() && !now.in_sync.is_empty() {
        // Nobody else has all of it: it stays, or its copies are waited for.
        let stays = now.reader.filter(|node| site(&problem.nodes, *node).up() && whole(node));
        let waits = now.in_sync.iter().any(|node| {
            let site = site(&problem.nodes, *node);
            site.up() || site.awaited()
        });
        if stays.is_some() || waits {
            return stays.or_else(|| {
                least(all().filter(whole).filter(|node| site(&problem.nodes, *node).up()).collect())
            });
        }
    }
    chosen = chosen.or_else(|| least(all().filter(may).collect()));
    if let Some(node) = chosen {
        loads.work[node] += weight(now);
    }
    chosen
}

/// Copies stay where they may; those on nodes that are to be left go once enough
/// others are in sync; what lacks goes where least are.
fn copies(problem: &Problem, now: &Now, reader: usize, loads: &mut Loads) -> BTreeSet<usize> {
    let stays = |node: &usize| {
        let site = site(&problem.nodes, *node);
        site.may() || (site.awaited() && !site.cordoned)
    };
    let room = (0..problem.nodes.len()).filter(stays).count();
    let wanted = now.wanted.max(1).min(room.max(1));
    let mut copies: BTreeSet<usize> = now.copies.iter().copied().filter(stays).collect();
    let target = now.moving_to.filter(|node| site(&problem.nodes, *node).may());
    copies.extend([reader].into_iter().chain(target).filter(|node| stays(node)));
    while copies.len() < wanted {
        let free = 0..problem.nodes.len();
        let free = free.filter(|node| site(&problem.nodes, *node).may() && !copies.contains(node));
        let Some(node) = free.min_by_key(|node| loads.copies[*node]) else { break };
        loads.copies[node] += 1;
        copies.insert(node);
    }
    let in_sync = |copies: &BTreeSet<usize>| copies.intersection(&now.in_sync).count();
    // More than wanted: those that are behind go first, then those on busy nodes.
    while copies.len() > wanted {
        let bound = |node: &usize| *node == reader || Some(*node) == target;
        let spare = copies.iter().copied().filter(|node| !bound(node));
        let rank = |node: &usize| (!now.in_sync.contains(node), loads.copies[*node]);
        let Some(node) = spare.max_by_key(rank) else { break };
        let mut less = copies.clone();
        less.remove(&node);
        if in_sync(&less) < wanted.min(in_sync(&copies)) {
            break;
        }
        copies = less;
    }
    // A reader may be on a node that is to be left.
    copies.insert(reader);
    if in_sync(&copies) < wanted {
        // Not yet without them.
        let leaving = now.copies.iter().copied().filter(|node| site(&problem.nodes, *node).up());
        copies.extend(leaving.filter(|node| now.in_sync.contains(node)));
    }
    copies
}

fn site(nodes: &[Site], node: usize) -> Site {
    nodes.get(node).copied().unwrap_or_default()
}

fn weight(now: &Now) -> u64 {
    u64::from(now.load.max(1))
}

#[cfg(test)]
mod tests;
