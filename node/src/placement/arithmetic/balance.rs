//! Evening out what placement leaves where it is.

use crate::placement::arithmetic::{Loads, Now, Problem, Site, site, weight};

/// One shard's reader, to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// The shard's place in [`Problem::shards`].
    pub shard: usize,
    /// Where it runs.
    pub from: usize,
    /// Where it would go.
    pub to: usize,
}

/// The moves that even out the work of the nodes that may have some, at most one
/// per shard, each of which lessens the difference between two nodes. Shards stay
/// in their source's region; one that is being moved is left alone. What one more
/// move would mend by less than a tenth of a node's average is not worth it.
#[must_use]
pub fn balance(problem: &Problem) -> Vec<Shift> {
    let nodes = &problem.nodes;
    let mut work = Loads::new(problem).work;
    let may: Vec<usize> = (0..nodes.len()).filter(|node| site(nodes, *node).may()).collect();
    let average = work.iter().sum::<u64>() / u64::try_from(may.len().max(1)).unwrap_or(1);
    let mut at: Vec<Option<usize>> = problem.shards.iter().map(|now| movable(nodes, now)).collect();
    let mut shifts = Vec::new();
    while let Some(shift) = best(problem, (&at, &work, &may), average / 10) {
        let weight = weight(&problem.shards[shift.shard]);
        work[shift.from] -= weight;
        work[shift.to] += weight;
        at[shift.shard] = None;
        shifts.push(shift);
    }
    shifts
}

fn movable(nodes: &[Site], now: &Now) -> Option<usize> {
    now.reader.filter(|node| now.moving_to.is_none() && site(nodes, *node).may())
}

/// From the busiest node that has a shard to give, to the one with least to do
/// that may take it.
fn best(
    problem: &Problem,
    (at, work, may): (&[Option<usize>], &[u64], &[usize]),
    worth: u64,
) -> Option<Shift> {
    let mut from_busiest = may.to_vec();
    from_busiest.sort_by_key(|node| std::cmp::Reverse(work[*node]));
    from_busiest.into_iter().find_map(|from| {
        let here = at.iter().enumerate().filter(|(_, node)| **node == Some(from));
        let shifts = here.flat_map(|(shard, _)| {
            let now = &problem.shards[shard];
            let home = |node: &&usize| site(&problem.nodes, **node).in_region(now.region);
            let others = may.iter().filter(move |to| **to != from).filter(home);
            others.map(move |to| Shift { shard, from, to: *to })
        });
        let gain = |shift: &Shift| {
            let after = work[shift.to] + weight(&problem.shards[shift.shard]);
            work[from].saturating_sub(after)
        };
        // To who has least, what leaves the two most even, rather one whose copy is there.
        let rank = |shift: &Shift| {
            let weight = weight(&problem.shards[shift.shard]);
            let apart = (work[from] - weight).abs_diff(work[shift.to] + weight);
            let copied = problem.shards[shift.shard].in_sync.contains(&shift.to);
            (work[shift.to], apart, !copied, shift.shard)
        };
        shifts.filter(|it| gain(it) > worth).min_by_key(rank)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::placement::arithmetic::Life;

    fn problem(readers: &[(usize, u32)], nodes: usize) -> Problem {
        let now = |(reader, load): &(usize, u32)| Now {
            reader: Some(*reader),
            load: *load,
            in_sync: [*reader].into(),
            ..Now::default()
        };
        let up = Site { life: Life::Up, ..Site::default() };
        Problem { nodes: vec![up; nodes], shards: readers.iter().map(now).collect() }
    }

    #[test]
    fn a_node_that_came_back_empty_gets_its_share() {
        let mut problem = problem(&[(0, 1); 9], 3);
        problem.shards[4].in_sync.insert(2);
        let shifts = balance(&problem);
        assert_eq!(shifts.len(), 6);
        assert_eq!([1, 2].map(|to| shifts.iter().filter(|it| it.to == to).count()), [3, 3]);
        assert!(shifts.contains(&Shift { shard: 4, from: 0, to: 2 }), "its copy is there");
        problem.nodes[2].cordoned = true;
        assert!(balance(&problem).iter().all(|shift| shift.to == 1));
    }

    #[test]
    fn a_shard_stays_in_its_sources_region() {
        let mut problem = problem(&[(0, 1); 4], 2);
        problem.nodes[1].region = 1;
        problem.shards[..3].iter_mut().for_each(|now| now.region = Some(0));
        assert_eq!(balance(&problem), [Shift { shard: 3, from: 0, to: 1 }]);
    }

    proptest! {
        #[test]
        fn every_move_narrows_the_work_and_afterwards_there_is_none_to_make(
            shards in proptest::collection::vec((0..4usize, 1..50u32), 0..40),
        ) {
            let mut problem = problem(&shards, 4);
            let before = Loads::new(&problem).work;
            let shifts = balance(&problem);
            for shift in &shifts {
                problem.shards[shift.shard].reader = Some(shift.to);
            }
            let after = Loads::new(&problem).work;
            prop_assert!(after.iter().max() <= before.iter().max());
            prop_assert!(after.iter().min() >= before.iter().min());
            let moved = shifts.iter().map(|shift| shift.shard).collect::<std::collections::BTreeSet<_>>();
            prop_assert_eq!(moved.len(), shifts.len(), "each shard at most once");
        }
    }
}
