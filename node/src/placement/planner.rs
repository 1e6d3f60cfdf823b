//! The leader's placement loop.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use tidegate_proto::v1::{Assign, MoveShard, Node, NodeState, SetCopies, Shard, command};
use tidegate_raft_store::State;
use tokio::time::Instant;

use crate::config::ExportSpec;
use crate::control::Control;
use crate::placement::arithmetic::{Life, Now, Problem, Site, place};

/// How often the loop looks even if it was not told of a change.
pub(crate) const ROUND: Duration = Duration::from_secs(1);
/// Commands proposed at the same time.
const PROPOSALS_MAX: usize = 128;
/// How long what a node keeps is waited for after it went down.
pub(crate) const AWAITED: Duration = Duration::from_secs(10);

/// Compares wanted with actual and proposes the difference, for as long as the
/// node lives; only while it leads.
pub async fn run(control: Control) {
    let mut topology = control.topology();
    let mut planner = Planner::default();
    loop {
        // Ends early when something changed; an error means the log is closing.
        drop(tokio::time::timeout(ROUND, topology.changed()).await);
        if !control.leads() {
            planner = Planner::default();
            continue;
        }
        let now = Instant::now();
        let steps = control.read(|state| planner.steps(state, now));
        if steps.is_empty() {
            continue;
        }
        tracing::info!(steps = steps.len(), "placing");
        let proposals = steps.into_iter().map(|step| control.insist(step));
        let mut outcomes = futures::stream::iter(proposals).buffer_unordered(PROPOSALS_MAX);
        while let Some(outcome) = outcomes.next().await {
            if let Err(error) = outcome {
                tracing::warn!(error = %error, "place a shard; trying again");
            }
        }
    }
}

/// What the loop remembers from round to round.
#[derive(Debug, Default)]
pub(crate) struct Planner {
    /// Since when nodes have been seen down.
    down: BTreeMap<u64, Instant>,
    /// Copies wanted, by export and version.
    copies: BTreeMap<(u64, u64), usize>,
}

impl Planner {
    /// The commands that would make the state as placement wants it.
    pub(crate) fn steps(&mut self, state: &State, now: Instant) -> Vec<command::Kind> {
        let nodes: Vec<_> = state.nodes().collect();
        let number: BTreeMap<u64, usize> =
            nodes.iter().enumerate().map(|(at, node)| (node.id, at)).collect();
        let shards: Vec<_> = state.shards().filter(|shard| ready(state, shard)).collect();
        self.copies.retain(|(id, version), _| {
            state.export(*id).is_some_and(|export| export.version == *version)
        });
        let problem = Problem {
            nodes: nodes.iter().map(|node| self.site(node, now)).collect(),
            shards: shards.iter().map(|shard| self.now(state, shard, &number)).collect(),
        };
        let id = |at: &usize| nodes[*at].id;
        let mut steps = Vec::new();
        for ((shard, now), wanted) in shards.iter().zip(&problem.shards).zip(place(&problem)) {
            let Some(wanted) = wanted else { continue };
            let writers: Vec<_> = wanted.writers.iter().map(|node| Some(*node)).collect();
            let copies = wanted.copies.iter().map(id).collect();
            if now.reader != Some(wanted.reader) || now.writers != writers {
                let sinks = sinks_of(state, shard).into_iter();
                steps.push(command::Kind::Assign(Assign {
                    shard: shard.id,
                    replaces: shard.epoch,
                    reader: id(&wanted.reader),
                    writers: sinks.zip(wanted.writers.iter().map(id)).collect(),
                    copies,
                    anew: !now.in_sync.is_empty() && !now.in_sync.contains(&wanted.reader),
                }));
            } else if now.moving_to.is_some_and(|to| !up(nodes[to])) {
                let (shard, epoch) = (shard.id, shard.epoch);
                steps.push(command::Kind::MoveShard(MoveShard { shard, epoch, reader: 0 }));
            } else if now.copies != wanted.copies {
                let (shard, epoch) = (shard.id, shard.epoch);
                steps.push(command::Kind::SetCopies(SetCopies { shard, epoch, copies }));
            }
        }
        steps
    }

    fn site(&mut self, node: &Node, now: Instant) -> Site {
        let cordoned = node.cordoned;
        if up(node) {
            self.down.remove(&node.id);
            return Site { life: Life::Up, cordoned };
        }
        let since = *self.down.entry(node.id).or_insert(now);
        let life = if now - since < AWAITED { Life::Awaited } else { Life::Gone };
        Site { life, cordoned }
    }

    fn now(&mut self, state: &State, shard: &Shard, number: &BTreeMap<u64, usize>) -> Now {
        let at = |node: &u64| number.get(node).copied();
        let writers =
            sinks_of(state, shard).into_iter().map(|sink| shard.writers.get(&sink).and_then(at));
        Now {
            reader: at(&shard.reader),
            writers: writers.collect(),
            load: 1,
            copies: shard.copies.iter().filter_map(at).collect(),
            in_sync: shard.in_sync.iter().filter_map(at).collect(),
            moving_to: at(&shard.moving_to),
            wanted: self.wanted(state, shard),
        }
    }

    fn wanted(&mut self, state: &State, shard: &Shard) -> usize {
        let export = state.export(shard.id.unwrap_or_default().export_id);
        export.map_or(1, |export| {
            *self.copies.entry((export.id, export.version)).or_insert_with(|| {
                ExportSpec::parse(&export.spec).map_or(1, |spec| spec.spool.copies)
            })
        })
    }
}

fn up(node: &Node) -> bool {
    node.state() == NodeState::Up
}

/// Its parents are captured to their end, and it is not at its own.
fn ready(state: &State, shard: &Shard) -> bool {
    let spec = shard.spec.clone().unwrap_or_default();
    let id = shard.id.unwrap_or_default();
    spec.parents.iter().all(|parent| {
        let known = state
            .shards_of(id.export_id)
            .find(|other| other.spec.as_ref().is_some_and(|spec| spec.name == *parent));
        known.is_none_or(|parent| {
            let progress = parent.captured.as_ref().and_then(|at| at.progress.as_ref());
            progress.is_some_and(|progress| progress.ended)
        })
    })
}

fn sinks_of(state: &State, shard: &Shard) -> Vec<String> {
    let export = state.export(shard.id.unwrap_or_default().export_id);
    export.map_or_else(Vec::new, |export| export.sinks.iter().map(|s| s.name.clone()).collect())
}
