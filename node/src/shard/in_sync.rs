//! Which copies of a spool are in sync: looked at by its owner, recorded by the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::{InSync, SetInSync, ShardId, command};
use tidegate_proto::{Epoch, NodeId, Sequence};
use tokio::time::Instant;

use crate::control::Control;
use crate::spool::{Copy, ShardLog};

/// How often the owner looks.
const ROUND: Duration = Duration::from_millis(50);
/// A copy whose connection ended comes back within this, or is dropped.
const GONE: Duration = Duration::from_millis(200);
/// A copy comes within this after an owner started, or is dropped.
const FIRST: Duration = Duration::from_millis(700);
/// A copy that is behind takes something within this, or is dropped.
const LAG: Duration = Duration::from_secs(1);

/// What one round sees.
#[derive(Debug)]
struct Sight {
    now: Instant,
    started: Instant,
    /// Assigned to keep a copy, and recorded as in sync; without the owner.
    copies: BTreeSet<NodeId>,
    in_sync: BTreeSet<NodeId>,
    joining: BTreeSet<NodeId>,
    seen: BTreeMap<NodeId, Copy>,
    stable: Sequence,
    appended: Sequence,
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

/// Since when copies have been behind without taking anything.
#[derive(Debug, Default)]
struct Delays(BTreeMap<NodeId, (Sequence, Instant)>);

impl Delays {
    /// Notes where the copies are.
    fn note(&mut self, sight: &Sight) {
        self.0.retain(|node, _| sight.seen.contains_key(node));
        for (node, copy) in &sight.seen {
            if copy.acked >= sight.appended {
                self.0.remove(node);
                continue;
            }
            let at = self.0.entry(*node).or_insert((copy.acked, sight.now));
            if at.0 != copy.acked {
                *at = (copy.acked, sight.now);
            }
        }
    }

    /// The copy does not keep up, or is not there.
    fn late(&self, node: NodeId, sight: &Sight) -> bool {
        let Some(copy) = sight.seen.get(&node) else {
            return sight.now - sight.started > FIRST;
        };
        if !copy.connected {
            return sight.now - copy.moved > GONE;
        }
        self.0.get(&node).is_some_and(|(_, since)| sight.now - *since > LAG)
    }
}

/// A copy joins in two steps: first nothing becomes stable without it, then, as
/// soon as it has all that is, it is recorded.
fn decide(sight: &Sight, delays: &Delays) -> Decision {
    let mut decision = Decision::default();
    for node in &sight.in_sync {
        if sight.copies.contains(node) && !delays.late(*node, sight) {
            decision.in_sync.insert(*node);
        }
    }
    for node in sight.copies.difference(&sight.in_sync) {
        let near = sight.seen.get(node).filter(|copy| copy.connected && copy.acked >= sight.stable);
        let late = delays.late(*node, sight);
        if sight.joining.contains(node) {
            if late {
                decision.leave.insert(*node);
            } else if near.is_some() {
                decision.in_sync.insert(*node);
            }
        } else if near.is_some() && !late {
            decision.join.insert(*node);
        }
    }
    decision.leave.extend(sight.joining.difference(&sight.copies));
    decision
}

/// Looks after the copies of `log` for as long as this node owns it under `epoch`.
pub(super) async fn keep(control: Control, log: Arc<ShardLog>, epoch: Epoch) {
    let started = Instant::now();
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut delays = Delays::default();
    // Once proposed, a copy is waited for until the cluster says otherwise: the
    // proposal may yet be applied.
    let mut proposed = BTreeSet::new();
    loop {
        rounds.tick().await;
        let Some((sight, runs)) = look(&control, &log, epoch, started) else { return };
        log.set_in_sync(sight.in_sync.clone());
        delays.note(&sight);
        let decision = decide(&sight, &delays);
        for node in &decision.join {
            log.join_copy(*node);
        }
        for node in decision.leave.difference(&proposed) {
            log.leave_copy(*node);
        }
        if decision.in_sync == sight.in_sync {
            continue;
        }
        proposed.extend(decision.in_sync.difference(&sight.in_sync).copied());
        tracing::info!(shard = %log.shard(), in_sync = ?decision.in_sync, "copies in sync");
        let in_sync = decision.in_sync.iter().copied().chain([control.node()]);
        let copies = in_sync.map(|node| {
            let seen = sight.seen.get(&node).map(|copy| copy.run);
            let run = seen.or_else(|| runs.get(&node).copied()).unwrap_or(0);
            InSync { node: node.0, run }
        });
        let command =
            SetInSync { shard: Some(log.shard()), epoch: epoch.0, copies: copies.collect() };
        if let Err(error) = control.insist(command::Kind::SetInSync(command)).await {
            tracing::debug!(error = %error, shard = %log.shard(), "record copies; trying again");
        }
    }
}

fn look(
    control: &Control,
    log: &ShardLog,
    epoch: Epoch,
    started: Instant,
) -> Option<(Sight, BTreeMap<NodeId, u64>)> {
    let me = control.node();
    let others =
        |nodes: &[u64]| nodes.iter().map(|id| NodeId(*id)).filter(|id| *id != me).collect();
    let id: ShardId = log.shard();
    let (copies, in_sync, runs) = control.read(|state| {
        let shard = state.shard(id).filter(|shard| shard.epoch == epoch.0)?;
        let runs = state.nodes().map(|node| (NodeId(node.id), node.run)).collect();
        Some((others(&shard.copies), others(&shard.in_sync), runs))
    })?;
    let copies: BTreeSet<NodeId> = copies;
    let sight = Sight {
        now: Instant::now(),
        started,
        joining: copies.iter().copied().filter(|node| log.is_joining(*node)).collect(),
        copies,
        in_sync,
        seen: log.copies(),
        stable: *log.stable().borrow(),
        appended: *log.appended_mark().borrow(),
    };
    Some((sight, runs))
}
