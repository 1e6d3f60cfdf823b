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
/// A copy that has what was needed so long ago may join: one that is far away always
/// lacks what is under way.
const NEAR: Duration = Duration::from_millis(500);

/// What one round sees.
#[derive(Debug)]
pub(crate) struct Sight {
    pub(crate) now: Instant,
    pub(crate) started: Instant,
    /// Assigned to keep a copy, and recorded as in sync; without the owner.
    pub(crate) copies: BTreeSet<NodeId>,
    pub(crate) in_sync: BTreeSet<NodeId>,
    /// Nodes that the cluster holds for down.
    pub(crate) down: BTreeSet<NodeId>,
    /// Waited for, and not recorded: those among them that keep a copy no longer too.
    pub(crate) joining: BTreeSet<NodeId>,
    /// Proposed to be recorded: waited for until the cluster says otherwise.
    pub(crate) proposed: BTreeSet<NodeId>,
    pub(crate) seen: BTreeMap<NodeId, Copy>,
    /// What a copy must have to be in sync: it may have been shown or reported already.
    pub(crate) needed: Sequence,
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

/// A copy joins in two steps: once it has what was needed a moment ago (`recent`),
/// nothing becomes safe without it; then, as soon as it has all that is needed, it is
/// recorded. One that still lacks rows of the key index could not go on where its owner
/// ends, and has to wait for them.
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
            copy.is_some_and(|copy| copy.connected && !copy.lacks && copy.acked >= upto)
        };
        let late = delays.late(*node, sight);
        if sight.joining.contains(node) {
            if sight.proposed.contains(node) {
                // It counts until the cluster says otherwise, and has all that is needed
                // for as long as it does: the proposal may be lost, or yet be applied.
                decision.in_sync.insert(*node);
            } else if late {
                decision.leave.insert(*node);
            } else if has(sight.needed) {
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
    /// What was needed a moment ago.
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
        Self { delays: Delays::new(lag_max), past: Past::new(NEAR) }
    }

    /// Decides one round.
    pub(crate) fn round(&mut self, sight: &Sight) -> Round {
        self.delays.note(sight);
        let recent = self.past.note(sight.now, sight.needed);
        let Decision { join, leave, in_sync } = decide(sight, &self.delays, recent);
        let record = (in_sync != sight.in_sync).then_some(in_sync);
        Round { join, leave, record }
    }
}

/// A shard's copies as the cluster knows them; without the owner, `me`.
#[derive(Debug)]
pub(crate) struct Known {
    /// Assigned.
    pub(crate) copies: BTreeSet<NodeId>,
    /// Recorded as in sync.
    pub(crate) in_sync: BTreeSet<NodeId>,
    /// Those of all nodes that are down.
    pub(crate) down: BTreeSet<NodeId>,
    runs: BTreeMap<NodeId, u64>,
}

impl Known {
    /// By the state, if `epoch` is current.
    pub(crate) fn of(state: &State, id: ShardId, epoch: Epoch, me: NodeId) -> Option<Self> {
        let shard = state.shard(id).filter(|shard| shard.epoch == epoch.0)?;
        let others =
            |nodes: &[u64]| nodes.iter().map(|id| NodeId(*id)).filter(|id| *id != me).collect();
        let runs = state.nodes().map(|node| (NodeId(node.id), node.run)).collect();
        let down = state.nodes().filter(|node| node.state() == NodeState::Down);
        let down = down.map(|node| NodeId(node.id)).collect();
        let (copies, in_sync) = (others(&shard.copies), others(&shard.in_sync));
        Some(Self { copies, in_sync, down, runs })
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
        log.set_in_sync(known.in_sync.clone());
        let sight = look(&known, &log, started);
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
        log.propose_copies(&in_sync);
        if let Err(error) = control.insist(command::Kind::SetInSync(command)).await {
            tracing::debug!(error = %error, shard = %id, "record copies; trying again");
            if matches!(error.kind(), ErrorKind::Config | ErrorKind::Fenced) {
                log.copies_refused(&in_sync);
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
        proposed: log.proposed(),
        copies: known.copies.clone(),
        in_sync: known.in_sync.clone(),
        down: known.down.clone(),
        seen: log.copies(),
        needed: log.needed(),
        appended: log.appended_mark().now(),
    }
}

#[cfg(test)]
mod tests;
