//! The leader's placement loop.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tidegate_proto::v1::{Assign, Node, NodeState, SetCopies, Shard, ShardId, command};
use tidegate_raft_store::State;
use tokio::time::Instant;

use crate::config::{ClusterConfig, ExportSpec};
use crate::control::Control;
use crate::placement::arithmetic::{Life, Now, Problem, Site, Writer, balance, place};
use crate::placement::moves::Moves;
use crate::placement::rates::{Rates, weight};

/// How often the loop looks even if it was not told of a change.
pub(crate) const ROUND: Duration = Duration::from_secs(1);
/// Commands proposed at the same time.
const PROPOSALS_MAX: usize = 512;
/// A node that has been up this long again gets what runs well elsewhere.
const SETTLED: Duration = Duration::from_secs(10);

/// Compares wanted with actual and proposes the difference, for as long as the
/// node lives; only while it leads.
pub async fn run(control: Control) {
    let mut topology = control.topology();
    let mut planner = Planner::new(control.times());
    loop {
        // An error means the log is closing.
        let changed = tokio::time::timeout(ROUND, topology.changed()).await.is_ok();
        let now = Instant::now();
        control.read(|state| planner.look(state, now));
        if !control.leads() {
            planner.forget(control.times());
            continue;
        }
        if planner.rests && !changed {
            continue;
        }
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
#[derive(Debug)]
pub(crate) struct Planner {
    /// How long what a node keeps is waited for after it went down.
    awaited: Duration,
    /// Since when nodes have been seen down, and up again.
    down: BTreeMap<u64, Instant>,
    back: BTreeMap<u64, Instant>,
    moves: Moves,
    rates: Rates,
    /// What exports ask for, by id and version.
    policies: BTreeMap<(u64, u64), Arc<Policy>>,
    /// Regions by their numbers.
    regions: Vec<String>,
    /// There is nothing to do before the state changes.
    rests: bool,
}

/// What an export's file says about where its shards go, regions as numbers.
#[derive(Debug, Default)]
struct Policy {
    copies: usize,
    spread: usize,
    source: Option<u32>,
    sinks: BTreeMap<String, u32>,
}

impl Default for Planner {
    fn default() -> Self {
        Self::new(&ClusterConfig::default())
    }
}

impl Planner {
    /// Remembers nothing yet.
    pub(crate) fn new(times: &ClusterConfig) -> Self {
        Self {
            awaited: times.awaited(),
            down: BTreeMap::new(),
            back: BTreeMap::new(),
            moves: Moves::new(times.moved()),
            rates: Rates::default(),
            policies: BTreeMap::new(),
            regions: Vec::new(),
            rests: false,
        }
    }

    /// Forgets all but how much the shards capture: this node does not lead.
    pub(crate) fn forget(&mut self, times: &ClusterConfig) {
        let rates = std::mem::take(&mut self.rates);
        *self = Self { rates, ..Self::new(times) };
    }

    /// Looks how much the shards capture, if it is time to.
    pub(crate) fn look(&mut self, state: &State, now: Instant) {
        if self.rates.due(now) {
            self.rates.look(state, now);
        }
    }

    /// The commands that would make the state as placement wants it.
    pub(crate) fn steps(&mut self, state: &State, now: Instant) -> Vec<command::Kind> {
        let nodes: Vec<_> = state.nodes().collect();
        let shards = ready(state);
        let all_ready = shards.len() == state.shards().count();
        let problem = self.problem(state, (&nodes, &shards), now);
        let settled = |site: &Site| match site.life {
            Life::Up => !site.fresh,
            Life::Awaited => false,
            Life::Gone => true,
        };
        let mut given_up = self.moves.look(state, now);
        self.rests = all_ready && problem.nodes.iter().all(settled) && self.moves.none();
        let id = |at: &usize| nodes[*at].id;
        let mut steps = Vec::new();
        for ((shard, now), wanted) in shards.iter().zip(&problem.shards).zip(place(&problem)) {
            let Some(wanted) = wanted else { continue };
            let mut writers = now.writers.iter().zip(&wanted.writers);
            let moves = writers.any(|(now, wanted)| now.at != Some(*wanted));
            let copies = wanted.copies.iter().map(id).collect();
            if now.reader != Some(wanted.reader) || moves {
                // That ends a move, too.
                given_up.remove(&shard.id.unwrap_or_default());
                let sinks = sinks_of(state, shard).into_iter();
                steps.push(command::Kind::Assign(Assign {
                    shard: shard.id,
                    replaces: shard.epoch,
                    reader: id(&wanted.reader),
                    writers: sinks.zip(wanted.writers.iter().map(id)).collect(),
                    copies,
                    anew: !now.in_sync.is_empty()
                        && (shard.torn || !now.in_sync.contains(&wanted.reader)),
                    rescues: Vec::new(),
                }));
            } else if now.copies != wanted.copies
                && !given_up.contains_key(&shard.id.unwrap_or_default())
            {
                let (shard, epoch) = (shard.id, shard.epoch);
                steps.push(command::Kind::SetCopies(SetCopies { shard, epoch, copies }));
            }
        }
        steps.extend(given_up.into_values());
        self.rests &= steps.is_empty();
        steps
    }

    fn problem(
        &mut self,
        state: &State,
        (nodes, shards): (&[&Node], &[&Shard]),
        now: Instant,
    ) -> Problem {
        let number: BTreeMap<u64, usize> =
            nodes.iter().enumerate().map(|(at, node)| (node.id, at)).collect();
        self.policies.retain(|(id, version), _| {
            state.export(*id).is_some_and(|export| export.version == *version)
        });
        Problem {
            nodes: nodes.iter().map(|node| self.site(node, now)).collect(),
            shards: shards.iter().map(|shard| self.now(state, shard, &number)).collect(),
        }
    }

    fn site(&mut self, node: &Node, now: Instant) -> Site {
        let (cordoned, region) = (node.cordoned, self.region(&node.region));
        if up(node) {
            if self.down.remove(&node.id).is_some() {
                self.back.insert(node.id, now);
            }
            let fresh = self.back.get(&node.id).is_some_and(|since| now - *since < SETTLED);
            return Site { life: Life::Up, cordoned, fresh, region };
        }
        if node.state() == NodeState::Joining {
            return Site { cordoned, region, ..Site::default() };
        }
        let since = *self.down.entry(node.id).or_insert(now);
        let life = if now - since < self.awaited { Life::Awaited } else { Life::Gone };
        Site { life, cordoned, fresh: true, region }
    }

    fn now(&mut self, state: &State, shard: &Shard, number: &BTreeMap<u64, usize>) -> Now {
        let at = |node: &u64| number.get(node).copied();
        let policy = self.policy(state, shard);
        let writers = sinks_of(state, shard).into_iter().map(|sink| {
            let region = policy.sinks.get(&sink).copied();
            Writer { at: shard.writers.get(&sink).and_then(at), region }
        });
        let writers = writers.collect();
        Now {
            reader: at(&shard.reader),
            region: policy.source,
            writers,
            load: weight(self.rates.of(shard.id.unwrap_or_default())),
            copies: shard.copies.iter().filter_map(at).collect(),
            in_sync: shard.in_sync.iter().filter_map(at).collect(),
            moving_to: at(&shard.moving_to),
            wanted: policy.copies,
            spread: policy.spread,
        }
    }

    /// The same number for the same name, as long as this planner lives.
    fn region(&mut self, name: &str) -> u32 {
        let known = self.regions.iter().position(|region| region == name);
        let at = known.unwrap_or_else(|| {
            self.regions.push(name.to_owned());
            self.regions.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    fn policy(&mut self, state: &State, shard: &Shard) -> Arc<Policy> {
        let export = state.export(shard.id.unwrap_or_default().export_id);
        let Some(export) = export else { return Arc::default() };
        let version = (export.id, export.version);
        if let Some(known) = self.policies.get(&version) {
            return Arc::clone(known);
        }
        let policy = ExportSpec::parse(&export.spec).map_or_else(
            |_| Policy::default(),
            |spec| Policy {
                copies: spec.spool.copies,
                spread: spec.spool.regions,
                source: spec.regions.source.map(|name| self.region(&name)),
                sinks: spec
                    .regions
                    .sinks
                    .iter()
                    .map(|(sink, name)| (sink.clone(), self.region(name)))
                    .collect(),
            },
        );
        let policy = Arc::new(policy);
        self.policies.insert(version, Arc::clone(&policy));
        policy
    }
}

/// What is to be evened out, taken out of the state: with many shards the answer takes
/// longer than a look at the state may.
#[derive(Debug)]
pub struct Uneven {
    problem: Problem,
    shards: Vec<ShardId>,
    nodes: Vec<u64>,
}

impl Uneven {
    /// As it is; `load` tells what a shard weighs.
    #[must_use]
    pub fn new(state: &State, load: impl Fn(&Shard) -> u32) -> Self {
        let nodes: Vec<_> = state.nodes().collect();
        let shards: Vec<_> = state.shards().filter(|shard| !ended(shard)).collect();
        let mut problem = Planner::default().problem(state, (&nodes, &shards), Instant::now());
        for (now, shard) in problem.shards.iter_mut().zip(&shards) {
            now.load = load(shard);
        }
        let shards = shards.iter().map(|shard| shard.id.unwrap_or_default()).collect();
        Self { problem, shards, nodes: nodes.iter().map(|node| node.id).collect() }
    }

    /// The moves of readers, as shard and node, that would even out the nodes' work.
    #[must_use]
    pub fn even_out(&self) -> Vec<(ShardId, u64)> {
        let shifts = balance(&self.problem).into_iter();
        shifts.map(|it| (self.shards[it.shard], self.nodes[it.to])).collect()
    }
}

fn ended(shard: &Shard) -> bool {
    let progress = shard.captured.as_ref().and_then(|at| at.progress.as_ref());
    progress.is_some_and(|progress| progress.ended)
}

fn up(node: &Node) -> bool {
    node.state() == NodeState::Up
}

/// The shards whose parents are captured to their end.
fn ready(state: &State) -> Vec<&Shard> {
    let waits =
        state.shards().filter_map(|shard| shard.spec.as_ref()).any(|it| !it.parents.is_empty());
    let open = state.shards().filter(|shard| waits && !ended(shard)).filter_map(named);
    let open: HashSet<(u64, &str)> = open.collect();
    let is_ready = |shard: &&Shard| {
        let export = shard.id.unwrap_or_default().export_id;
        let mut parents = shard.spec.iter().flat_map(|spec| &spec.parents);
        parents.all(|parent| !open.contains(&(export, parent.as_str())))
    };
    state.shards().filter(is_ready).collect()
}

fn named(shard: &Shard) -> Option<(u64, &str)> {
    Some((shard.id?.export_id, shard.spec.as_ref()?.name.as_str()))
}

fn sinks_of(state: &State, shard: &Shard) -> Vec<String> {
    let export = state.export(shard.id.unwrap_or_default().export_id);
    export.map_or_else(Vec::new, |export| export.sinks.iter().map(|s| s.name.clone()).collect())
}
