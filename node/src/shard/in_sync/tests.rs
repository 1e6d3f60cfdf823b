use tidegate_raft_store::Stop;

use super::delays::{FIRST, STUCK};
use super::*;
use crate::control::sample::Sample;
use crate::spool::Spool;
use crate::spool::SpoolOptions;

const B: NodeId = NodeId(2);
const MS: Duration = Duration::from_millis(1);
const LAG: Duration = Duration::from_secs(10);

/// A copy on node 2 that has all up to `acked`, as a real log tells it.
fn seen(acked: u64) -> BTreeMap<NodeId, Copy> {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_owned();
    let spool =
        Spool::open(SpoolOptions { dir, recent_bytes: 0, disk_free_bytes: 0 }, Stop::Process)
            .unwrap();
    let shard = ShardId { export_id: 1, index: 0 };
    let log = spool.begin(shard, Epoch(1), Sequence(1), Default::default()).unwrap();
    log.take_over(Epoch(1), (log.next(), Default::default()), BTreeSet::new()).unwrap();
    log.copy_opened((B, 7), Sequence(acked), Epoch(1)).unwrap();
    log.copies()
}

/// Where B stands.
#[derive(Clone, Copy, PartialEq)]
enum Is {
    InSync,
    Joining,
    Outside,
}

fn sight(acked: u64, is: Is) -> Sight {
    let when = |state: Is| (is == state).then_some(B).into_iter().collect();
    let now = Instant::now();
    Sight {
        now,
        started: now,
        copies: [B].into(),
        in_sync: when(Is::InSync),
        down: BTreeSet::new(),
        joining: when(Is::Joining),
        proposed: BTreeSet::new(),
        seen: seen(acked),
        needed: Sequence(50),
        appended: Sequence(60),
    }
}

#[test]
fn a_copy_is_recorded_once_it_was_waited_for_and_has_all_that_may_be_recorded() {
    let delays = Delays::new(LAG);
    assert_eq!(decide(&sight(49, Is::Outside), &delays, Sequence(50)), Decision::default());
    let far = decide(&sight(40, Is::Outside), &delays, Sequence(40));
    assert_eq!(far.join, [B].into(), "what is under way it lacks always");
    let joined = decide(&sight(50, Is::Outside), &delays, Sequence(50));
    assert_eq!((joined.join, joined.in_sync), ([B].into(), BTreeSet::new()), "first it joins");
    let behind = decide(&sight(49, Is::Joining), &delays, Sequence(50));
    assert_eq!(behind, Decision::default(), "what was safe before it joined, it has not");
    assert_eq!(decide(&sight(50, Is::Joining), &delays, Sequence(50)).in_sync, [B].into());
}

#[test]
fn a_copy_on_a_node_that_is_down_is_dropped_and_waited_for_if_it_may_yet_be_recorded() {
    let mut cluster = Sample::new(&["", ""]);
    let (me, other) = (NodeId(cluster.nodes[0]), NodeId(cluster.nodes[1]));
    let epoch = Epoch(cluster.state.shard(cluster.shard).unwrap().epoch);
    cluster.set_down(1);
    let known = Known::of(&cluster.state, cluster.shard, epoch, me).unwrap();
    assert_eq!((known.copies, known.down), ([other].into(), [other].into()));
    let down: BTreeSet<_> = [B].into();
    let is_in_sync = Sight { down: down.clone(), ..sight(60, Is::InSync) };
    let round = Keeper::new(LAG).round(&is_in_sync);
    assert_eq!(round.record, Some(BTreeSet::new()));
    let mut keeper = Keeper::new(LAG);
    assert_eq!(keeper.round(&sight(50, Is::Joining)).record, Some([B].into()));
    let proposed = [B].into();
    let round = keeper.round(&Sight { down, proposed, ..sight(50, Is::Joining) });
    assert!(round.leave.is_empty(), "the proposal to record it may yet be applied");
    assert_eq!(round.record, Some([B].into()), "or was lost, and nobody would say so");
}

#[test]
fn a_copy_that_takes_nothing_is_dropped_and_an_idle_one_is_not() {
    let mut delays = Delays::new(LAG);
    let mut sight = sight(55, Is::InSync);
    delays.note(&sight);
    sight.now += STUCK + MS;
    delays.note(&sight);
    assert!(
        decide(&sight, &delays, Sequence(50)).in_sync.is_empty(),
        "it is behind and does not move"
    );
    sight.appended = Sequence(55);
    delays.note(&sight);
    assert_eq!(
        decide(&sight, &delays, Sequence(50)).in_sync,
        [B].into(),
        "there is nothing to take"
    );
}

/// Rounds of an owner that appends 100 changes in each, while its copy stands
/// where `acked` says; in how many of them the copy was dropped and taken in.
fn follow(
    keeper: &mut Keeper,
    sight: &mut Sight,
    rounds: u64,
    acked: &dyn Fn(u64) -> u64,
) -> [u32; 2] {
    let mut turns = [0, 0];
    for _ in 0..rounds {
        sight.now += ROUND;
        sight.appended = sight.appended.plus(100);
        sight.seen.get_mut(&B).unwrap().acked = Sequence(acked(sight.appended.0));
        let acked = sight.seen[&B].acked;
        let counts = !sight.in_sync.is_empty() || !sight.joining.is_empty();
        sight.needed = if counts { acked } else { sight.appended };
        let round = keeper.round(sight);
        sight.joining.extend(round.join);
        sight.joining.retain(|node| !round.leave.contains(node));
        if let Some(record) = round.record {
            turns[usize::from(record.contains(&B))] += 1;
            sight.joining.clear();
            sight.in_sync = record;
        }
    }
    turns
}

/// So many rounds of appends.
fn rounds(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / ROUND.as_millis()).unwrap()
}

#[test]
fn a_copy_that_takes_a_little_is_dropped_when_it_lags_for_too_long_and_comes_back_once() {
    let (mut keeper, mut sight) = (Keeper::new(LAG), sight(0, Is::InSync));
    let lag = 100 * rounds(LAG);
    let start = sight.appended.0;
    // Half as fast as the owner: after 2 LAG it is one LAG behind.
    let slow = |appended: u64| start + (appended - start) / 2;
    assert_eq!(follow(&mut keeper, &mut sight, rounds(LAG * 2) - 1, &slow), [0, 0]);
    assert_eq!(follow(&mut keeper, &mut sight, rounds(LAG) / 2, &slow), [1, 0], "dropped");
    assert_eq!(follow(&mut keeper, &mut sight, rounds(LAG) * 9, &slow), [0, 0], "it stays out");
    let level = |appended: u64| appended - 50;
    let soon = follow(&mut keeper, &mut sight, rounds(LAG) - 10, &level);
    assert_eq!(soon, [0, 0], "it may lag again");
    assert_eq!(follow(&mut keeper, &mut sight, rounds(LAG) / 2, &level), [0, 1], "it is back");
    let far = |appended: u64| appended - lag * 9 / 10;
    assert_eq!(follow(&mut keeper, &mut sight, rounds(LAG) * 9, &far), [0, 0], "and stays");
}

#[test]
fn a_copy_that_was_away_is_taken_in_as_soon_as_it_has_caught_up() {
    let (mut keeper, mut sight) = (Keeper::new(LAG), sight(0, Is::Outside));
    let behind = |appended: u64| appended.saturating_sub(100 * rounds(LAG) * 5);
    assert_eq!(follow(&mut keeper, &mut sight, rounds(LAG) * 9, &behind), [0, 0]);
    let level = |appended: u64| appended;
    assert_eq!(follow(&mut keeper, &mut sight, 3, &level), [0, 1]);
}

#[test]
fn an_owner_that_stood_still_gives_its_copies_time() {
    let (mut keeper, mut sight) = (Keeper::new(LAG), sight(0, Is::InSync));
    // Soon 3 s behind.
    let behind = |appended: u64| (appended / 2).max(appended.saturating_sub(6000));
    assert_eq!(follow(&mut keeper, &mut sight, 200, &behind), [0, 0]);
    sight.now += LAG * 2;
    assert_eq!(follow(&mut keeper, &mut sight, 200, &behind), [0, 0], "it took nothing meanwhile");
}

#[test]
fn a_copy_that_is_kept_no_longer_is_not_waited_for() {
    let mut sight = sight(49, Is::Joining);
    sight.copies.clear();
    sight.proposed = [B].into();
    assert_eq!(Keeper::new(LAG).round(&sight).leave, [B].into(), "or nothing is safe any more");
}

#[test]
fn a_copy_that_was_proposed_is_waited_for() {
    let mut late = Sight { proposed: [B].into(), ..sight(49, Is::Joining) };
    late.seen.clear();
    late.now += FIRST + MS;
    let round = Keeper::new(LAG).round(&late);
    assert!(round.leave.is_empty(), "it may be recorded any moment");
    late.proposed.clear();
    let round = Keeper::new(LAG).round(&late);
    assert_eq!(round.leave, [B].into(), "it was refused, or is recorded no longer");
}

#[test]
fn a_copy_that_never_came_or_went_is_dropped_after_a_while() {
    let delays = Delays::new(LAG);
    let mut sight = sight(60, Is::InSync);
    sight.seen.clear();
    assert_eq!(decide(&sight, &delays, Sequence(50)).in_sync, [B].into());
    sight.now += FIRST + MS;
    assert!(decide(&sight, &delays, Sequence(50)).in_sync.is_empty());
}
