//! What this node should be running, against what it runs: a pure core.

use std::collections::BTreeMap;

use tidegate_proto::v1::{ExportState, Rate, Shard, ShardId};
use tidegate_proto::{Epoch, NodeId};
use tidegate_raft_store::State;

use crate::error::{Error, ErrorKind, Result};

/// One actor's job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    /// Captures a shard.
    Reader(ShardId),
    /// Takes a shard's changes to the sink of this name.
    Writer(ShardId, String),
    /// Keeps a copy of the spool of a shard that another node reads.
    Copy(ShardId),
}

impl Role {
    /// The shard it works on.
    pub(crate) fn shard(&self) -> ShardId {
        match self {
            Self::Reader(shard) | Self::Writer(shard, _) | Self::Copy(shard) => *shard,
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reader(shard) => write!(f, "reader {shard}"),
            Self::Writer(shard, sink) => write!(f, "writer {shard} {sink}"),
            Self::Copy(shard) => write!(f, "copy {shard}"),
        }
    }
}

/// Under which terms a role runs. When they change, it is stopped and started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The shard's epoch.
    pub(crate) epoch: Epoch,
    /// The export's version: its file may have changed.
    pub(crate) version: u64,
    /// The limits an operator set for readers.
    pub(crate) rate: Option<Rate>,
    /// Its reader ends the shard: children go on.
    pub(crate) splitting: bool,
    /// The gap by which an operator last set the position; 0 for none.
    pub(crate) position_set: u64,
    /// The number of the snapshot asked for last.
    pub(crate) round: u32,
    /// What its reader does about that one.
    pub(crate) snapshot: Wanted,
    /// Its writer says what its sink has, and hands on nothing.
    pub(crate) tells: bool,
}

/// What is wanted of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// It goes on until it is complete.
    Running,
    /// It, or its export, is paused: the stream is captured only.
    Paused,
    /// It ends where it is.
    Canceled,
}

impl Terms {
    /// Those of a role that only the epoch concerns.
    pub(crate) fn plain(epoch: Epoch) -> Self {
        Self {
            epoch,
            version: 0,
            rate: None,
            splitting: false,
            position_set: 0,
            round: 0,
            snapshot: Wanted::Running,
            tells: false,
        }
    }
}

/// One step towards what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// End it, and start nothing in its place before it has ended.
    Stop(Role),
    /// Start it.
    Start(Role, Terms),
}

/// What `node` should run, by the state.
///
/// Writers of a paused export do not run, unless its reader waits for what they have to
/// tell. A shard that failed runs nothing until an operator clears it.
pub(crate) fn wanted(state: &State, node: NodeId) -> BTreeMap<Role, Terms> {
    let mut wanted = BTreeMap::new();
    for shard in state.shards() {
        let id = shard.id.unwrap_or_default();
        let Some(export) = state.export(id.export_id) else { continue };
        if !shard.failure.is_empty() || shard.epoch == 0 {
            continue;
        }
        let paused = export.state() == ExportState::Paused;
        let plain = Terms::plain(Epoch(shard.epoch));
        let terms = Terms { version: export.version, ..plain };
        if shard.reader == node.0 {
            let terms = Terms {
                rate: export.rate,
                splitting: shard.splitting,
                position_set: shard.position_set,
                round: shard.round,
                snapshot: match shard.canceled {
                    true => Wanted::Canceled,
                    false if paused || export.snapshot_paused => Wanted::Paused,
                    false => Wanted::Running,
                },
                ..terms
            };
            wanted.insert(Role::Reader(id), terms);
        } else if shard.reader != 0 && shard.copies.contains(&node.0) {
            // A copy does not care what the export's file says.
            wanted.insert(Role::Copy(id), plain);
        }
        let writers = shard.writers.iter().filter(|(_, at)| **at == node.0);
        for (sink, _) in writers.filter(|(sink, _)| parents_delivered(state, shard, sink)) {
            if !paused || shard.waits_for(sink) {
                wanted.insert(Role::Writer(id, sink.clone()), Terms { tells: paused, ..terms });
            }
        }
    }
    wanted
}

/// A key's changes under a parent are at the sink before those under a child.
fn parents_delivered(state: &State, shard: &Shard, sink: &str) -> bool {
    let spec = shard.spec.as_ref();
    spec.into_iter().flat_map(|spec| &spec.parents).all(|parent| {
        let export = shard.id.unwrap_or_default().export_id;
        let named = |it: &&Shard| it.spec.as_ref().is_some_and(|spec| spec.name == *parent);
        state.shards_of(export).find(named).is_none_or(|parent| {
            let delivered = parent.delivered.get(sink).map_or(0, |at| at.sequence);
            parent.captured.as_ref().is_none_or(|at| delivered >= at.sequence)
        })
    })
}

/// The steps from `running` to `wanted`; none when they agree. A role under
/// new terms is stopped in this round and started in the next: never two.
pub(crate) fn steps(wanted: &BTreeMap<Role, Terms>, running: &BTreeMap<Role, Terms>) -> Vec<Step> {
    let stale = running.iter().filter(|(role, terms)| wanted.get(*role) != Some(*terms));
    let missing = wanted.iter().filter(|(role, _)| !running.contains_key(*role));
    let stops = stale.map(|(role, _)| Step::Stop(role.clone()));
    stops.chain(missing.map(|(role, terms)| Step::Start(role.clone(), *terms))).collect()
}

/// What a look at the state and the lease leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Until this node has applied that it started, its state is from before:
    /// what it read then may be another's by now.
    Wait,
    /// Another may start what runs here any moment: no draining.
    StopOwners,
    /// Towards what is wanted.
    Steps(Vec<Step>),
}

/// Decides what to do with what is `running` in this node's run `run`.
pub(crate) fn act(
    state: &State,
    (node, run): (NodeId, u64),
    lease_held: bool,
    running: &BTreeMap<Role, Terms>,
) -> Act {
    if state.node(node.0).is_none_or(|it| it.run != run) {
        return Act::Wait;
    }
    if !lease_held {
        return Act::StopOwners;
    }
    Act::Steps(steps(&wanted(state, node), running))
}

/// The shard as the owner of `epoch` may take it: what is recorded under another owner
/// may be of another log, although its sequences look alike.
pub(crate) fn under(state: &State, id: ShardId, epoch: Epoch) -> Result<Shard> {
    let fenced = |why: &str| Error::new(ErrorKind::Fenced, why);
    let shard = state.shard(id).ok_or_else(|| fenced("the shard was deleted"))?;
    if shard.epoch != epoch.0 {
        return Err(fenced("the shard has another owner"));
    }
    Ok(shard.clone())
}

/// This node keeps the shard no longer and others do, or the shard is no more.
pub(crate) fn is_stale(state: &State, id: ShardId, node: NodeId) -> bool {
    let Some(shard) = state.shard(id) else { return true };
    let keeps = |nodes: &[u64]| nodes.contains(&node.0);
    shard.reader != node.0
        && !keeps(&shard.copies)
        && !keeps(&shard.in_sync)
        && !shard.in_sync.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::sample::Sample;

    const SHARD: ShardId = ShardId { export_id: 1, index: 0 };

    fn terms(epoch: u64) -> Terms {
        Terms { version: 1, ..Terms::plain(Epoch(epoch)) }
    }

    #[test]
    fn a_role_under_new_terms_is_stopped_before_it_is_started() {
        let role = Role::Reader(SHARD);
        let wanted = BTreeMap::from([(role.clone(), terms(2))]);
        let running = BTreeMap::from([(role.clone(), terms(1))]);
        assert_eq!(steps(&wanted, &running), [Step::Stop(role.clone())]);
        assert_eq!(steps(&wanted, &BTreeMap::new()), [Step::Start(role, terms(2))]);
        assert!(steps(&wanted, &wanted).is_empty());
    }

    #[test]
    fn what_is_recorded_under_another_owner_is_not_taken() {
        let sample = Sample::new(&["a"]);
        let now = sample.state.shard(sample.shard).map_or(0, |shard| shard.epoch);
        let taken = |epoch| under(&sample.state, sample.shard, Epoch(epoch));
        assert_eq!(taken(now).map(|shard| shard.epoch).ok(), Some(now));
        let gone = ShardId { export_id: 99, index: 0 };
        for (other, id) in [(now - 1, sample.shard), (now + 1, sample.shard), (now, gone)] {
            let refused = under(&sample.state, id, Epoch(other)).map_err(|error| error.kind());
            assert_eq!(refused.err(), Some(ErrorKind::Fenced), "{id} under {other}");
        }
    }
}
