//! Placement over small integers: a pure core.

/// What there is to place, and where things are now. Nodes are numbers below
/// `nodes.len()`.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Per node: it may be given work, and keep what it has.
    pub nodes: Vec<bool>,
    /// The shards.
    pub shards: Vec<Now>,
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
}

/// A shard as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its reader's node.
    pub reader: usize,
    /// Per sink, its writer's node.
    pub writers: Vec<usize>,
}

/// Where each shard should run; `None` for all if no node may take work.
#[must_use]
pub fn place(problem: &Problem) -> Vec<Option<Wanted>> {
    let may = |node: &Option<usize>| node.filter(|node| problem.nodes.get(*node) == Some(&true));
    let mut work = vec![0u64; problem.nodes.len()];
    let mut readers: Vec<Option<usize>> =
        problem.shards.iter().map(|now| may(&now.reader)).collect();
    for (now, reader) in problem.shards.iter().zip(&readers) {
        if let Some(node) = reader {
            work[*node] += weight(now);
        }
    }
    let mut homeless: Vec<usize> = (0..readers.len()).filter(|at| readers[*at].is_none()).collect();
    homeless.sort_by_key(|at| std::cmp::Reverse(weight(&problem.shards[*at])));
    for at in homeless {
        let free = (0..work.len()).filter(|node| problem.nodes[*node]);
        readers[at] = free.min_by_key(|node| work[*node]);
        if let Some(node) = readers[at] {
            work[node] += weight(&problem.shards[at]);
        }
    }
    let wanted = problem.shards.iter().zip(readers).map(|(now, reader)| {
        let reader = reader?;
        let writers = now.writers.iter().map(|writer| may(writer).unwrap_or(reader)).collect();
        Some(Wanted { reader, writers })
    });
    wanted.collect()
}

fn weight(now: &Now) -> u64 {
    u64::from(now.load.max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problems() -> impl Strategy<Value = Problem> {
        let node = proptest::option::of(0..6usize);
        let shard = (node.clone(), proptest::collection::vec(node, 0..3), 0..500u32)
            .prop_map(|(reader, writers, load)| Now { reader, writers, load });
        let nodes = proptest::collection::vec(any::<bool>(), 1..6);
        (nodes, proptest::collection::vec(shard, 0..40))
            .prop_map(|(nodes, shards)| Problem { nodes, shards })
    }

    proptest! {
        #[test]
        fn every_shard_is_placed_on_nodes_that_may_take_work(problem in problems()) {
            for wanted in place(&problem) {
                let Some(wanted) = wanted else {
                    prop_assert!(!problem.nodes.contains(&true));
                    continue;
                };
                prop_assert!(problem.nodes[wanted.reader]);
                prop_assert!(wanted.writers.iter().all(|node| problem.nodes[*node]));
            }
        }

        #[test]
        fn what_may_stay_stays(problem in problems()) {
            for (now, wanted) in problem.shards.iter().zip(place(&problem)) {
                let Some(wanted) = wanted else { continue };
                let may = |node: usize| problem.nodes.get(node) == Some(&true);
                if let Some(reader) = now.reader.filter(|node| may(*node)) {
                    prop_assert_eq!(wanted.reader, reader);
                }
                for (now, wanted) in now.writers.iter().zip(&wanted.writers) {
                    if let Some(writer) = now.filter(|node| may(*node)) {
                        prop_assert_eq!(*wanted, writer);
                    }
                }
            }
        }

        /// No node is given a shard that would weigh less on another.
        #[test]
        fn what_must_move_spreads_by_load(problem in problems()) {
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
            let free = (0..work.len()).filter(|node| problem.nodes[*node]);
            let least = free.map(|node| work[node]).min().unwrap_or(0);
            for (work, lightest) in work.iter().zip(lightest_new) {
                if let Some(lightest) = lightest {
                    prop_assert!(work - lightest <= least, "{work} - {lightest} > {least}");
                }
            }
        }

        #[test]
        fn a_placement_is_its_own_answer(problem in problems()) {
            let first = place(&problem);
            let shards = problem.shards.iter().zip(&first).map(|(now, wanted)| match wanted {
                Some(wanted) => Now {
                    reader: Some(wanted.reader),
                    writers: wanted.writers.iter().map(|node| Some(*node)).collect(),
                    load: now.load,
                },
                None => now.clone(),
            });
            let settled = Problem { nodes: problem.nodes.clone(), shards: shards.collect() };
            prop_assert_eq!(place(&settled), first);
        }
    }

    #[test]
    fn new_shards_spread_by_load() {
        let shard = |load| Now { load, ..Now::default() };
        let problem = Problem { nodes: vec![true; 2], shards: vec![shard(1), shard(9), shard(8)] };
        let readers: Vec<_> = place(&problem).into_iter().flatten().map(|w| w.reader).collect();
        assert_eq!(readers, [1, 0, 1], "9 here, 8 there, and 1 to the lighter");
    }
}
