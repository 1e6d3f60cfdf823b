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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UP: Site = Site { life: Life::Up, cordoned: false };

    fn sites() -> impl Strategy<Value = Vec<Site>> {
        let site = prop_oneof![
            4 => Just(UP),
            1 => Just(Site { cordoned: true, ..UP }),
            1 => Just(Site::default()),
            1 => Just(Site { life: Life::Awaited, cordoned: false }),
        ];
        proptest::collection::vec(site, 1..6)
    }

    fn problems() -> impl Strategy<Value = Problem> {
        let node = proptest::option::of(0..6usize);
        let set = || proptest::collection::btree_set(0..6usize, 0..4);
        let writers = proptest::collection::vec(node.clone(), 0..3);
        let shard = (node.clone(), writers, 0..500u32, set(), set(), node, 1..4usize).prop_map(
            |(reader, writers, load, copies, in_sync, moving_to, wanted)| {
                let mut now = Now { reader, writers, load, copies, in_sync, moving_to, wanted };
                // As the state has it: who reads is in sync and keeps a copy.
                if let Some(reader) = reader {
                    now.copies.insert(reader);
                    now.in_sync.insert(reader);
                }
                now
            },
        );
        (sites(), proptest::collection::vec(shard, 0..40)).prop_map(|(nodes, shards)| {
            let known = |set: BTreeSet<usize>| set.into_iter().filter(|at| *at < nodes.len());
            let shards = shards.into_iter().map(|now| Now {
                reader: now.reader.filter(|at| *at < nodes.len()),
                copies: known(now.copies.clone()).collect(),
                in_sync: known(now.in_sync.clone()).collect(),
                ..now
            });
            let shards = shards.collect();
            Problem { nodes, shards }
        })
    }

    fn settled(now: &Now, wanted: &Wanted, in_sync: BTreeSet<usize>) -> Now {
        Now {
            reader: Some(wanted.reader),
            writers: wanted.writers.iter().map(|node| Some(*node)).collect(),
            // An assignment ends a move.
            moving_to: now.moving_to.filter(|_| now.reader == Some(wanted.reader)),
            copies: wanted.copies.clone(),
            in_sync,
            ..now.clone()
        }
    }

    proptest! {
        #[test]
        fn a_shard_goes_to_a_node_that_is_up_or_waits_for_its_copies(problem in problems()) {
            for (now, wanted) in problem.shards.iter().zip(place(&problem)) {
                let Some(wanted) = wanted else {
                    let awaited = now.in_sync.iter().any(|node| site(&problem.nodes, *node).awaited());
                    prop_assert!(awaited || !problem.nodes.iter().any(|site| site.may()));
                    continue;
                };
                prop_assert!(site(&problem.nodes, wanted.reader).up());
                prop_assert!(wanted.copies.contains(&wanted.reader));
                let up = |node: &usize| site(&problem.nodes, *node).up();
                prop_assert!(wanted.writers.iter().all(up));
            }
        }

        #[test]
        fn what_may_stay_stays(problem in problems()) {
            for (now, wanted) in problem.shards.iter().zip(place(&problem)) {
                let Some(wanted) = wanted else { continue };
                let may = |node: usize| site(&problem.nodes, node).may();
                let moved = now.moving_to == Some(wanted.reader);
                if let Some(reader) = now.reader.filter(|node| may(*node) && !moved) {
                    prop_assert_eq!(wanted.reader, reader);
                }
                for (now, wanted) in now.writers.iter().zip(&wanted.writers) {
                    if let Some(writer) = now.filter(|node| may(*node)) {
                        prop_assert_eq!(*wanted, writer);
                    }
                }
            }
        }

        /// No node is given a shard that would weigh less on another, if every
        /// node could take it.
        #[test]
        fn what_must_move_spreads_by_load(mut problem in problems()) {
            for now in &mut problem.shards {
                let may = now.reader.filter(|node| site(&problem.nodes, *node).may());
                (now.reader, now.moving_to, now.in_sync) = (may, None, may.into_iter().collect());
            }
            let placed = place(&problem);
            prop_assert_eq!(placed.len(), problem.shards.len());
            let mut work = vec![0; problem.nodes.len()];
            let mut lightest_new = vec![None; problem.nodes.len()];
            for (now, wanted) in problem.shards.iter().zip(&placed) {
                let Some(wanted) = wanted else { continue };
                work[wanted.reader] += weight(now);
                if now.reader != Some(wanted.reader) {
                    let lightest = &mut lightest_new[wanted.reader];
                    *lightest = Some(lightest.map_or(weight(now), |w: u64| w.min(weight(now))));
                }
            }
            let free = (0..work.len()).filter(|node| problem.nodes[*node].may());
            let least = free.map(|node| work[node]).min().unwrap_or(0);
            for (work, lightest) in work.iter().zip(lightest_new) {
                if let Some(lightest) = lightest {
                    prop_assert!(work - lightest <= least, "{work} - {lightest} > {least}");
                }
            }
        }

        #[test]
        fn a_reader_that_lacks_changes_is_the_last_resort(problem in problems()) {
            for (now, wanted) in problem.shards.iter().zip(place(&problem)) {
                let Some(wanted) = wanted else { continue };
                let lost = now.in_sync.iter().all(|node| {
                    let site = site(&problem.nodes, *node);
                    !site.up() && !site.awaited()
                });
                prop_assert!(lost || now.in_sync.contains(&wanted.reader));
            }
        }

        #[test]
        fn a_copy_in_sync_goes_only_when_enough_others_are(problem in problems()) {
            let stays = |site: &&Site| site.may() || (site.awaited() && !site.cordoned);
            let room = problem.nodes.iter().filter(stays).count();
            for (now, wanted) in problem.shards.iter().zip(place(&problem)) {
                let Some(wanted) = wanted else { continue };
                let kept = |node: &usize| now.copies.contains(node) && site(&problem.nodes, *node).up();
                let lost = now.in_sync.iter().any(|node| kept(node) && !wanted.copies.contains(node));
                let left = wanted.copies.intersection(&now.in_sync).count();
                prop_assert!(!lost || left >= now.wanted.min(room.max(1)));
            }
        }

        /// As the state follows the answers and copies get in sync, there is
        /// soon nothing left to do.
        #[test]
        fn a_placement_settles(mut problem in problems()) {
            let mut answers = Vec::new();
            for _ in 0..6 {
                let answer = place(&problem);
                let shards = problem.shards.iter().zip(&answer).map(|(now, wanted)| match wanted {
                    Some(wanted) => settled(now, wanted, wanted.copies.clone()),
                    None => now.clone(),
                });
                problem.shards = shards.collect();
                answers.push(answer);
            }
            prop_assert_eq!(answers.pop(), answers.pop());
        }
    }

    #[test]
    fn new_shards_spread_by_load() {
        let shard = |load| Now { load, wanted: 1, ..Now::default() };
        let problem = Problem { nodes: vec![UP; 2], shards: vec![shard(1), shard(9), shard(8)] };
        let readers: Vec<_> = place(&problem).into_iter().flatten().map(|w| w.reader).collect();
        assert_eq!(readers, [1, 0, 1], "9 here, 8 there, and 1 to the lighter");
    }

    #[test]
    fn a_copy_is_not_given_up_because_its_node_is_away_for_a_moment() {
        let now = Now {
            reader: Some(2),
            copies: [0, 2].into(),
            in_sync: [2].into(),
            wanted: 2,
            ..Now::default()
        };
        let away = Site { life: Life::Awaited, cordoned: false };
        let problem = Problem { nodes: vec![away, away, UP], shards: vec![now] };
        assert_eq!(place(&problem).remove(0).unwrap().copies, [0, 2].into());
    }

    #[test]
    fn a_move_waits_for_its_copy_and_a_cordoned_node_is_left_like_that() {
        let start = |moving_to| Now {
            reader: Some(0),
            copies: [0].into(),
            in_sync: [0].into(),
            wanted: 1,
            moving_to,
            ..Now::default()
        };
        let cordoned = Site { cordoned: true, ..UP };
        for (home, moving_to) in [(UP, Some(1)), (cordoned, None)] {
            let place = |now: &Now| {
                let nodes = vec![home, UP];
                place(&Problem { nodes, shards: vec![now.clone()] }).remove(0).unwrap()
            };
            let first = place(&start(moving_to));
            assert_eq!((first.reader, &first.copies), (0, &[0, 1].into()));
            let both = Now { copies: [0, 1].into(), in_sync: [0, 1].into(), ..start(moving_to) };
            let second = place(&both);
            assert_eq!((second.reader, &second.copies), (1, &[1].into()));
        }
    }

    #[test]
    fn the_next_owner_is_in_sync_and_the_dead_ones_copy_is_waited_for_a_while() {
        let now = Now {
            reader: Some(0),
            copies: [0, 2].into(),
            in_sync: [0, 2].into(),
            wanted: 2,
            ..Now::default()
        };
        let place = |life| {
            let nodes = vec![Site { life, cordoned: false }, UP, UP];
            place(&Problem { nodes, shards: vec![now.clone()] }).remove(0).unwrap()
        };
        let soon = place(Life::Awaited);
        assert_eq!((soon.reader, soon.copies), (2, [0, 2].into()));
        let late = place(Life::Gone);
        assert_eq!((late.reader, late.copies), (2, [1, 2].into()));
    }
}
