//! Which copies of a spool are in sync: looked at by its owner, recorded by the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::{InSync, NodeState, SetInSync, ShardId, command};
use tidegate_proto::{Epoch, NodeId, Sequence};
use tidegate_raft_store::State;
use tokio::time::Instant;

use crate::clock::Past;
use crate::control::Control;
use crate::error::ErrorKind;
use crate::spool::{Copy, ShardLog};

use delays::Delays;

mod delays;

/// How often the owner looks while something is under way.
pub(crate) const ROUND: Duration = Duration::from_millis(50);
/// How often it looks while nothing is: for what the cluster has decided since.
const REST: Duration = Duration::from_secs(2);
/// A copy that has what was safe so long ago may join: one that is far away always
/// lacks what is under way.
const NEAR: Duration = Duration::from_millis(500);

/// What one round sees.
#[derive(Debug)]
pub(crate) struct Sight {
    pub(crate) now: Instant,
    pub(crate) started: Instant,
    /// Assigned to keep a copy on a node that is not down, and recorded as in sync;
    /// without the owner.
    pub(crate) copies: BTreeSet<NodeId>,
    pub(crate) in_sync: BTreeSet<NodeId>,
    /// Waited for, and not recorded: those among them that keep a copy no longer too.
    pub(crate) joining: BTreeSet<NodeId>,
    pub(crate) seen: BTreeMap<NodeId, Copy>,
    /// Up to here, captures may have been reported already.
    pub(crate) safe: Sequence,
    pub(crate) appended: Sequence,
}

impl Sight {
    /// All copies are in sync, there, and have everything.
    fn rests(&self) -> bool {
        let whole = |node: &NodeId| {
            let copy = self.seen.get(node);
            copy.is_some_and(|copy| copy.connected && copy.acked >= self.appended)
        };
        self.copies == self.in_sync && self.joining.is_empty() && self.copies.iter().all(whole)
    }
}

/// What one round decides.
#[derive(Debug, Default, PartialEq, Eq)]
struct Decision {
    /// To be waited for from now on.
    join: BTreeSet<NodeId>,
    /// Not worth waiting for.
    leave: BTreeSet<NodeId>,
    /// To be recorded, if it differs from what is.
    in_sync: BTreeSet<NodeId>,
}

/// A copy joins in two steps: once it has what was safe a moment ago (`recent`),
/// nothing becomes safe without it; then, as soon as it has all that is, it is
/// recorded.
fn decide(sight: &Sight, delays: &Delays, recent: Sequence) -> Decision {
    let mut decision = Decision::default();
    for node in &sight.in_sync {
        if sight.copies.contains(node) && !delays.late(*node, sight) {
            decision.in_sync.insert(*node);
        }
    }
    for node in sight.copies.difference(&sight.in_sync) {
        let has = |upto: Sequence| {
            let copy = sight.seen.get(node);
            copy.is_some_and(|copy| copy.connected && copy.acked >= upto)
        };
        let late = delays.late(*node, sight);
        if sight.joining.contains(node) {
            if late {
                decision.leave.insert(*node);
            } else if has(sight.safe) {
                decision.in_sync.insert(*node);
            }
        } else if has(recent) && !late && delays.steady(*node) {
            decision.join.insert(*node);
        }
    }
    decision.leave.extend(sight.joining.difference(&sight.copies));
    decision
}

/// What an owner remembers of its rounds.
#[derive(Debug)]
pub(crate) struct Keeper {
    delays: Delays,
    /// Once proposed, a copy is waited for until the cluster says otherwise: the
    /// proposal may yet be applied. When it was, the record tells who counts.
    proposed: BTreeSet<NodeId>,
    /// What was safe a moment ago.
    past: Past<Sequence>,
}

/// What is to be done in one round.
#[derive(Debug)]
pub(crate) struct Round {
    /// To be waited for from now on.
    pub(crate) join: BTreeSet<NodeId>,
    /// No longer to be waited for.
    pub(crate) leave: BTreeSet<NodeId>,
    /// To be recorded as in sync, if that is to change.
    pub(crate) record: Option<BTreeSet<NodeId>>,
}

impl Keeper {
    /// Of copies that may lack what was appended within `lag_max`.
    pub(crate) fn new(lag_max: Duration) -> Self {
        let (delays, past) = (Delays::new(lag_max), Past::new(NEAR));
        Self { delays, proposed: BTreeSet::new(), past }
    }

    /// Decides one round.
    pub(crate) fn round(&mut self, sight: &Sight) -> Round {
        self.delays.note(sight);
        let recent = self.past.note(sight.now, sight.safe);
        let Decision { join, leave, in_sync } = decide(sight, &self.delays, recent);
        self.proposed.retain(|node| !sight.in_sync.contains(node));
        // Who keeps no copy any more cannot be recorded either.
        let waits = |node: &NodeId| self.proposed.contains(node) && sight.copies.contains(node);
        let leave = leave.into_iter().filter(|node| !waits(node)).collect();
        let record = (in_sync != sight.in_sync).then_some(in_sync);
        let added = record.iter().flatten().filter(|node| !sight.in_sync.contains(node));
        self.proposed.extend(added.copied());
        Round { join, leave, record }
    }

    /// What was proposed in the last round was refused, and so never applied.
    pub(crate) fn refused(&mut self, in_sync: &BTreeSet<NodeId>) {
        self.proposed.retain(|node| !in_sync.contains(node));
    }
}

/// A shard's copies as the cluster knows them; without the owner, `me`.
#[derive(Debug)]
pub(crate) struct Known {
    /// Assigned, on nodes that are not down: those are not waited for.
    pub(crate) copies: BTreeSet<NodeId>,
    /// Recorded as in sync.
    pub(crate) in_sync: BTreeSet<NodeId>,
    runs: BTreeMap<NodeId, u64>,
}

impl Known {
    /// By the state, if `epoch` is current.
    pub(crate) fn of(state: &State, id: ShardId, epoch: Epoch, me: NodeId) -> Option<Self> {
        let shard = state.shard(id).filter(|shard| shard.epoch == epoch.0)?;
        let others =
            |nodes: &[u64]| nodes.iter().map(|id| NodeId(*id)).filter(|id| *id != me).collect();
        let is_down = |id: &NodeId| state.node(id.0).is_none_or(|it| it.state() == NodeState::Down);
        let mut copies: BTreeSet<_> = others(&shard.copies);
        copies.retain(|id| !is_down(id));
        let runs = state.nodes().map(|node| (NodeId(node.id), node.run)).collect();
        Some(Self { copies, in_sync: others(&shard.in_sync), runs })
    }

    /// `others` and `me`, each in the run that was seen of it.
    pub(crate) fn in_runs(
        &self,
        others: &BTreeSet<NodeId>,
        me: NodeId,
        seen: &BTreeMap<NodeId, Copy>,
    ) -> Vec<InSync> {
        let copies = others.iter().copied().chain([me]).map(|node| {
            let seen = seen.get(&node).map(|copy| copy.run);
            let run = seen.or_else(|| self.runs.get(&node).copied()).unwrap_or(0);
            InSync { node: node.0, run }
        });
        copies.collect()
    }
}

/// Looks after the copies of `log` for as long as this node owns it under `epoch`.
pub(super) async fn keep(control: Control, log: Arc<ShardLog>, epoch: Epoch) {
    let (started, me, id) = (Instant::now(), control.node(), log.shard());
    let mut keeper = Keeper::new(control.times().lag());
    loop {
        let Some(known) = control.read(|state| Known::of(state, id, epoch, me)) else { return };
        let sight = look(&known, &log, started);
        log.set_in_sync(sight.in_sync.clone());
        let round = keeper.round(&sight);
        for node in &round.join {
            log.join_copy(*node);
        }
        for node in &round.leave {
            log.leave_copy(*node);
        }
        let Some(in_sync) = round.record else {
            if sight.rests() {
                // Ends early when there may be something to do.
                drop(tokio::time::timeout(REST, log.stirred()).await);
            }
            tokio::time::sleep(ROUND).await;
            continue;
        };
        tracing::info!(shard = %id, ?in_sync, "copies in sync");
        let copies = known.in_runs(&in_sync, me, &sight.seen);
        let command = SetInSync { shard: Some(id), epoch: epoch.0, copies };
        if let Err(error) = control.insist(command::Kind::SetInSync(command)).await {
            tracing::debug!(error = %error, shard = %id, "record copies; trying again");
            if matches!(error.kind(), ErrorKind::Config | ErrorKind::Fenced) {
                keeper.refused(&in_sync);
            }
        }
        tokio::time::sleep(ROUND).await;
    }
}

fn look(known: &Known, log: &ShardLog, started: Instant) -> Sight {
    Sight {
        now: Instant::now(),
        started,
        joining: log.joining(),
        copies: known.copies.clone(),
        in_sync: known.in_sync.clone(),
        seen: log.copies(),
        safe: *log.safe().borrow(),
        appended: *log.appended_mark().borrow(),
    }
}

#[cfg(test)]
mod tests {
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
        let spool = Spool::open(SpoolOptions { dir, recent_bytes: 0, disk_free_bytes: 0 }).unwrap();
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
            joining: when(Is::Joining),
            seen: seen(acked),
            safe: Sequence(50),
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
    fn a_copy_on_a_node_that_is_down_is_not_waited_for() {
        let mut cluster = Sample::new(&["", ""]);
        cluster.set_in_sync(&[0, 1]);
        let (me, other) = (NodeId(cluster.nodes[0]), NodeId(cluster.nodes[1]));
        let epoch = Epoch(cluster.state.shard(cluster.shard).unwrap().epoch);
        let known = |cluster: &Sample| Known::of(&cluster.state, cluster.shard, epoch, me).unwrap();
        assert_eq!(known(&cluster).copies, [other].into());
        cluster.set_down(1);
        assert!(known(&cluster).copies.is_empty());
        let delays = Delays::new(LAG);
        let sight = Sight { copies: BTreeSet::new(), ..sight(60, Is::InSync) };
        assert_eq!(decide(&sight, &delays, Sequence(50)), Decision::default(), "it is dropped");
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
            sight.safe = if counts { acked } else { sight.appended };
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
        assert_eq!(
            follow(&mut keeper, &mut sight, 200, &behind),
            [0, 0],
            "it took nothing meanwhile"
        );
    }

    #[test]
    fn a_copy_that_is_kept_no_longer_is_not_waited_for() {
        let mut sight = sight(49, Is::Joining);
        sight.copies.clear();
        let mut keeper = Keeper { proposed: [B].into(), ..Keeper::new(LAG) };
        assert_eq!(keeper.round(&sight).leave, [B].into(), "or nothing is safe any more");
    }

    #[test]
    fn a_copy_that_was_in_sync_once_may_be_left_when_it_comes_back_late() {
        let mut keeper = Keeper::new(LAG);
        assert_eq!(keeper.round(&sight(50, Is::Joining)).record, Some([B].into()));
        let mut late = sight(49, Is::Joining);
        late.seen.clear();
        late.now += FIRST + MS;
        assert!(keeper.round(&late).leave.is_empty(), "it may be recorded any moment");
        keeper.round(&sight(50, Is::InSync));
        assert_eq!(keeper.round(&late).leave, [B].into(), "it was, and is no longer");
    }

    #[test]
    fn a_copy_whose_record_was_refused_may_be_left() {
        let mut keeper = Keeper::new(LAG);
        let record = keeper.round(&sight(50, Is::Joining)).record.unwrap();
        keeper.refused(&record);
        let mut late = sight(49, Is::Joining);
        late.seen.clear();
        late.now += FIRST + MS;
        assert_eq!(keeper.round(&late).leave, [B].into());
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
}
