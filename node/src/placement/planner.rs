//! The leader's placement loop.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use tidegate_proto::v1::{Assign, NodeState, Shard, command};
use tidegate_raft_store::State;

use crate::control::Control;
use crate::placement::arithmetic::{Now, Problem, place};

/// How often the loop looks even if it was not told of a change.
const ROUND: Duration = Duration::from_secs(1);
/// Assignments proposed at the same time.
const PROPOSALS_MAX: usize = 128;

/// Compares wanted with actual and proposes the difference, for as long as the
/// node lives; only while it leads.
pub async fn run(control: Control) {
    let mut topology = control.topology();
    loop {
        // Ends early when something changed; an error means the log is closing.
        drop(tokio::time::timeout(ROUND, topology.changed()).await);
        if !control.leads() {
            continue;
        }
        let steps = control.read(steps);
        if steps.is_empty() {
            continue;
        }
        tracing::info!(shards = steps.len(), "assigning");
        let proposals = steps.into_iter().map(|step| control.propose(command::Kind::Assign(step)));
        let mut outcomes = futures::stream::iter(proposals).buffer_unordered(PROPOSALS_MAX);
        while let Some(outcome) = outcomes.next().await {
            if let Err(error) = outcome {
                tracing::warn!(error = %error, "assign a shard; trying again");
            }
        }
    }
}

/// The assignments that would make the state as placement wants it.
fn steps(state: &State) -> Vec<Assign> {
    let nodes: Vec<_> = state.nodes().collect();
    let number: BTreeMap<u64, usize> =
        nodes.iter().enumerate().map(|(at, node)| (node.id, at)).collect();
    let shards: Vec<_> = state.shards().filter(|shard| ready(state, shard)).collect();
    let problem = Problem {
        nodes: nodes.iter().map(|node| node.state() == NodeState::Up && !node.cordoned).collect(),
        shards: shards.iter().map(|shard| now(state, shard, &number)).collect(),
    };
    let mut steps = Vec::new();
    for ((shard, now), wanted) in shards.iter().zip(&problem.shards).zip(place(&problem)) {
        let Some(wanted) = wanted else { continue };
        let writers: Vec<_> = wanted.writers.iter().map(|node| Some(*node)).collect();
        if now.reader == Some(wanted.reader) && now.writers == writers {
            continue;
        }
        let sinks = sinks_of(state, shard);
        steps.push(Assign {
            shard: shard.id,
            replaces: shard.epoch,
            reader: nodes[wanted.reader].id,
            writers: sinks.into_iter().zip(wanted.writers.iter().map(|at| nodes[*at].id)).collect(),
        });
    }
    steps
}

/// Its parents are captured to their end, and it is not at its own.
fn ready(state: &State, shard: &Shard) -> bool {
    let spec = shard.spec.clone().unwrap_or_default();
    let id = shard.id.unwrap_or_default();
    spec.parents.iter().all(|parent| {
        let known = state.shards_of(id.export_id).find(|other| {
            other.spec.as_ref().is_some_and(|spec| spec.name == *parent)
        });
        known.is_none_or(|parent| {
            let progress = parent.captured.as_ref().and_then(|at| at.progress.as_ref());
            progress.is_some_and(|progress| progress.ended)
        })
    })
}

fn now(state: &State, shard: &Shard, number: &BTreeMap<u64, usize>) -> Now {
    let at = |node: u64| number.get(&node).copied();
    let writers = sinks_of(state, shard).into_iter().map(|sink| {
        shard.writers.get(&sink).and_then(|node| at(*node))
    });
    Now { reader: at(shard.reader), writers: writers.collect(), load: 1 }
}

fn sinks_of(state: &State, shard: &Shard) -> Vec<String> {
    let export = state.export(shard.id.unwrap_or_default().export_id);
    export.map_or_else(Vec::new, |export| export.sinks.iter().map(|s| s.name.clone()).collect())
}
