use proptest::prelude::*;

use super::*;

const UP: Site = Site { life: Life::Up, cordoned: false, fresh: false, region: 0 };

fn sites() -> impl Strategy<Value = Vec<Site>> {
    let site = prop_oneof![
        4 => Just(UP),
        1 => Just(Site { fresh: true, ..UP }),
        1 => Just(Site { cordoned: true, ..UP }),
        1 => Just(Site::default()),
        1 => Just(Site { life: Life::Awaited, ..UP }),
    ];
    let site = (site, 0..3u32).prop_map(|(site, region)| Site { region, ..site });
    proptest::collection::vec(site, 1..6)
}

fn problems() -> impl Strategy<Value = Problem> {
    let node = proptest::option::of(0..6usize);
    let set = || proptest::collection::btree_set(0..6usize, 0..4);
    let region = || proptest::option::weighted(0.4, 0..3u32);
    let writer = (node.clone(), region()).prop_map(|(at, region)| Writer { at, region });
    let writers = proptest::collection::vec(writer, 0..3);
    let copies = (set(), set(), 1..4usize, 0..3usize);
    let shard = (node.clone(), region(), writers, 0..500u32, copies, node).prop_map(
        |(reader, region, writers, load, (copies, in_sync, wanted, spread), moving_to)| {
            let mut now =
                Now { reader, region, writers, load, copies, in_sync, moving_to, wanted, spread };
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
        writers: now
            .writers
            .iter()
            .zip(&wanted.writers)
            .map(|(now, node)| Writer { at: Some(*node), ..*now })
            .collect(),
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
            let at = |node| site(&problem.nodes, node);
            let went_home = |region: Option<u32>, from: usize, to: usize| {
                !at(from).in_region(region) && at(to).in_region(region) && !at(to).fresh
            };
            if let Some(reader) = now.reader.filter(|node| may(*node) && !moved) {
                let stays = wanted.reader == reader;
                prop_assert!(stays || went_home(now.region, reader, wanted.reader));
            }
            for (now, wanted) in now.writers.iter().zip(&wanted.writers) {
                if let Some(writer) = now.at.filter(|node| may(*node)) {
                    prop_assert!(*wanted == writer || went_home(now.region, writer, *wanted));
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
            (now.region, now.writers) = (None, Vec::new());
        }
        problem.nodes.iter_mut().for_each(|site| site.fresh = false);
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
    let away = Site { life: Life::Awaited, ..UP };
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
        let nodes = vec![Site { life, ..UP }, UP, UP];
        place(&Problem { nodes, shards: vec![now.clone()] }).remove(0).unwrap()
    };
    let soon = place(Life::Awaited);
    assert_eq!((soon.reader, soon.copies), (2, [0, 2].into()));
    let late = place(Life::Gone);
    assert_eq!((late.reader, late.copies), (2, [1, 2].into()));
}

/// Two nodes in each of three regions.
fn three_regions() -> Vec<Site> {
    (0..6).map(|node| Site { region: node / 2, ..UP }).collect()
}

#[test]
fn a_shard_is_read_near_its_source_and_written_near_its_sinks_and_crosses_once() {
    let sinks = [Some(2), Some(2), None];
    let writers = sinks.map(|region| Writer { at: None, region });
    let now = Now { region: Some(1), writers: writers.into(), wanted: 2, ..Now::default() };
    let placed = place(&Problem { nodes: three_regions(), shards: vec![now] });
    let placed = placed[0].clone().unwrap();
    assert_eq!(placed.reader / 2, 1);
    assert_eq!([placed.writers[0] / 2, placed.writers[1] / 2], [2, 2]);
    assert_eq!(placed.writers[2], placed.reader);
    assert_eq!(placed.copies, [placed.reader, placed.writers[0]].into(), "one copy over there");
}

#[test]
fn a_lost_regions_shards_go_on_elsewhere_and_come_home_when_it_has_settled() {
    let mut nodes = three_regions();
    let start = Now { region: Some(0), wanted: 2, spread: 2, ..Now::default() };
    let follow = |nodes: &[Site], now: &Now| {
        let placed = place(&Problem { nodes: nodes.to_vec(), shards: vec![now.clone()] });
        let wanted = placed[0].clone().unwrap();
        settled(now, &wanted, wanted.copies.clone())
    };
    let first = follow(&nodes, &start);
    assert_eq!(first.reader, Some(0));
    nodes[..2].iter_mut().for_each(|site| site.life = Life::Gone);
    let away = follow(&nodes, &first);
    assert!(away.reader > Some(1) && away.copies.len() == 2, "{away:?}");
    nodes[..2].iter_mut().for_each(|site| *site = Site { fresh: true, region: 0, ..UP });
    assert_eq!(follow(&nodes, &away).reader, away.reader, "it may go again");
    nodes[..2].iter_mut().for_each(|site| site.fresh = false);
    let copied = follow(&nodes, &away);
    assert_eq!(copied.reader, away.reader, "first a copy");
    let home = follow(&nodes, &copied);
    assert!(home.reader < Some(2), "then the reader: {home:?}");
    assert_eq!(follow(&nodes, &home), home);
}
