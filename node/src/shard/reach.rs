//! Sources and sinks that do not answer one node, though they may answer another.
//!
//! ```text
//!   shard's reader    silent ─ asked ─ no answer twice ── "out of reach" in the log
//!   its writer        waits, or fails ─ asked ─ no answer ───────┘   │
//!   another node                     asked ─ it answers ── takes the shard over
//! ```
//!
//! A source is asked once for all its shards on a node. One that answers nobody moves
//! nothing. A shard that was taken over stays for a while: no ping-pong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use tidegate_proto::v1::{Assign, Node, NodeState, SetOutOfReach, Shard, ShardId, command};
use tidegate_proto::{Epoch, NodeId};
use tidegate_raft_store::State;
use tokio::time::{Instant, timeout};

use crate::control::Control;
use crate::shard::Means;
use crate::sinks;

/// How often it is looked what has moved.
const ROUND: Duration = Duration::from_millis(400);
/// A source that has brought nothing for so long is asked; again after twice that, up to
/// the longest, for as long as it answers and brings nothing.
const SILENT: Duration = Duration::from_secs(1);
const SILENT_MAX: Duration = Duration::from_secs(30);
/// How long an answer may take, and how many may fail to come.
const ANSWER: Duration = Duration::from_millis(800);
const MISSED_MAX: u32 = 2;
/// The next of several nodes that could take a shard over waits so long for the one
/// before.
const TURN: Duration = Duration::from_secs(1);
/// How soon, and how seldom at last, a node that could take a shard over asks again.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(15);
/// A shard that was taken over stays where it is for so long.
const STAYS: Duration = Duration::from_secs(30);
/// Sources and sinks asked at the same time.
const ASKED_MAX: usize = 32;

/// What is asked: an export's source, or one of its sinks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Remote {
    export_id: u64,
    /// Empty for the source.
    sink: String,
}

/// Watches for as long as the node lives.
pub async fn run(means: Means) {
    let mut watch = Watch::new(means.control.node());
    loop {
        tokio::time::sleep(ROUND).await;
        let now = Instant::now();
        let mine = means.control.read(|state| readers(state, means.control.node()));
        let moved = mine.into_iter().map(|(id, epoch)| {
            let last = means.spool.log(id).map_or(0, |log| log.last().0);
            ((id, epoch), last)
        });
        watch.look(moved.collect(), now);
        means.control.read(|state| watch.consider(state, now));
        let asked = watch.due(now);
        let answers = futures::stream::iter(asked).map(|remote| ask(&means, remote));
        let answers: BTreeMap<_, _> = answers.buffer_unordered(ASKED_MAX).collect().await;
        if answers.is_empty() {
            continue;
        }
        let commands = means.control.read(|state| watch.take(state, &answers, Instant::now()));
        propose(&means.control, commands).await;
    }
}

async fn propose(control: &Control, commands: Vec<command::Kind>) {
    let proposals = commands.into_iter().map(|kind| control.propose(kind));
    let mut outcomes = futures::stream::iter(proposals).buffer_unordered(ASKED_MAX);
    while let Some(outcome) = outcomes.next().await {
        if let Err(error) = outcome {
            tracing::warn!(error = %error, "tell what is out of reach; trying again");
        }
    }
}

/// Has it recorded that a sink is out of reach, if it is, for a writer that waits for it.
pub(super) async fn look_at_sink(means: Means, id: ShardId, epoch: Epoch, sink: String) {
    let remote = Remote { export_id: id.export_id, sink };
    let (Remote { sink, .. }, answers) = ask(&means, remote).await;
    if !answers {
        tracing::warn!(shard = %id, sink, "the sink does not answer this node");
        propose(&means.control, vec![set(id, epoch, &sink, true)]).await;
    }
}

/// Whether it answers this node.
async fn ask(means: &Means, remote: Remote) -> (Remote, bool) {
    let asked = async {
        let job = means.exports.job(remote.export_id).await?;
        if remote.sink.is_empty() {
            return job.source.discover().await.map(|_| true);
        }
        let Some(sink) = job.sinks.get(&remote.sink) else { return Ok(false) };
        // It need not be all well.
        Ok(sinks::check(sink).await.iter().any(|check| check.passed))
    };
    let answers = matches!(timeout(ANSWER, asked).await, Ok(Ok(true)));
    (remote, answers)
}

/// The shards that `node` reads, with their epochs.
fn readers(state: &State, node: NodeId) -> Vec<(ShardId, Epoch)> {
    let mine = state.shards().filter(|shard| shard.reader == node.0 && shard.failure.is_empty());
    mine.map(|shard| (shard.id.unwrap_or_default(), Epoch(shard.epoch))).collect()
}

/// What one node remembers; a pure core.
#[derive(Debug)]
struct Watch {
    node: NodeId,
    /// Shards this node reads.
    silences: BTreeMap<ShardId, Silence>,
    /// What it might take over.
    offers: BTreeMap<(ShardId, String), Offer>,
    /// Since when it knows in which epoch something was taken over.
    taken: BTreeMap<(ShardId, String), (u64, Instant)>,
}

/// How long a shard has brought nothing.
#[derive(Debug)]
struct Silence {
    epoch: Epoch,
    last: u64,
    due: Instant,
    wait: Duration,
    missed: u32,
}

impl Silence {
    fn new(epoch: Epoch, last: u64, now: Instant) -> Self {
        Self { epoch, last, due: now + SILENT, wait: SILENT, missed: 0 }
    }

    fn answered(&mut self, now: Instant) {
        self.missed = 0;
        self.wait = (self.wait * 2).min(SILENT_MAX);
        self.due = now + self.wait;
    }

    /// Asked again in the next round; once it counts as out of reach, less often.
    fn missed(&mut self, now: Instant) {
        self.missed += 1;
        self.due = if self.missed < MISSED_MAX { now } else { now + AGAIN };
    }
}

/// A shard whose source or sink does not answer who has it.
#[derive(Debug)]
struct Offer {
    epoch: u64,
    due: Instant,
    wait: Duration,
}

impl Watch {
    fn new(node: NodeId) -> Self {
        let (silences, offers) = (BTreeMap::new(), BTreeMap::new());
        Self { node, silences, offers, taken: BTreeMap::new() }
    }

    /// Takes note of where the logs of the shards read here end.
    fn look(&mut self, moved: Vec<((ShardId, Epoch), u64)>, now: Instant) {
        let mut known = std::mem::take(&mut self.silences);
        for ((id, epoch), last) in moved {
            let same = known.remove(&id).filter(|it| (it.epoch, it.last) == (epoch, last));
            let silence = same.unwrap_or_else(|| Silence::new(epoch, last, now));
            self.silences.insert(id, silence);
        }
    }

    /// Takes note of what others have and cannot reach.
    fn consider(&mut self, state: &State, now: Instant) {
        let rescued = state.shards().flat_map(|it| it.rescued.iter().map(move |sink| (it, sink)));
        let mut taken = std::mem::take(&mut self.taken);
        for (shard, (sink, epoch)) in rescued {
            let place = (shard.id.unwrap_or_default(), sink.clone());
            let same = taken.remove(&place).filter(|it| it.0 == *epoch);
            self.taken.insert(place, same.unwrap_or((*epoch, now)));
        }
        let unreached = state.shards().filter(|shard| shard.failure.is_empty());
        let unreached = unreached.flat_map(|it| it.out_of_reach.iter().map(move |sink| (it, sink)));
        let mut offers = std::mem::take(&mut self.offers);
        for (shard, sink) in unreached {
            let Some(turn) = turn(state, shard, sink, self.node) else { continue };
            let place = (shard.id.unwrap_or_default(), sink.clone());
            let stays = self.taken.get(&place).map_or(now, |(_, since)| *since + STAYS);
            let due = stays.max(now + TURN * turn);
            let fresh = Offer { epoch: shard.epoch, due, wait: AGAIN };
            let same = offers.remove(&place).filter(|it| it.epoch == shard.epoch);
            self.offers.insert(place, same.unwrap_or(fresh));
        }
    }

    /// What is to be asked now.
    fn due(&self, now: Instant) -> BTreeSet<Remote> {
        let silent = self.silences.iter().filter(|(_, it)| it.due <= now);
        let silent = silent.map(|(id, _)| (id.export_id, String::new()));
        let offered = self.offers.iter().filter(|(_, it)| it.due <= now);
        let offered = offered.map(|((id, sink), _)| (id.export_id, sink.clone()));
        silent.chain(offered).map(|(export_id, sink)| Remote { export_id, sink }).collect()
    }

    /// What the answers lead to.
    fn take(
        &mut self,
        state: &State,
        answers: &BTreeMap<Remote, bool>,
        now: Instant,
    ) -> Vec<command::Kind> {
        let answer = |id: &ShardId, sink: &str| {
            let remote = Remote { export_id: id.export_id, sink: sink.to_owned() };
            answers.get(&remote).copied()
        };
        let mut commands = Vec::new();
        for (id, silence) in self.silences.iter_mut().filter(|(_, it)| it.due <= now) {
            match answer(id, "") {
                Some(true) => silence.answered(now),
                Some(false) => silence.missed(now),
                None => continue,
            }
            commands.extend(told(state, *id, silence));
        }
        for ((id, sink), offer) in self.offers.iter_mut().filter(|(_, it)| it.due <= now) {
            let Some(answers) = answer(id, sink) else { continue };
            if answers {
                commands.extend(taken_over(state, *id, sink, self.node));
            }
            offer.due = now + offer.wait;
            offer.wait = (offer.wait * 2).min(AGAIN_MAX);
        }
        commands
    }
}

/// How many nodes are before this one in taking a shard over; `None` if it cannot.
/// Those near who has it come first, of the others those that need fetch nothing.
fn turn(state: &State, shard: &Shard, sink: &str, me: NodeId) -> Option<u32> {
    let has = if sink.is_empty() { Some(&shard.reader) } else { shard.writers.get(sink) };
    let has = state.node(*has?)?;
    let in_sync = |node: &&Node| shard.in_sync.contains(&node.id);
    let may = |node: &&Node| {
        let up = node.state() == NodeState::Up && !node.cordoned;
        up && node.id != has.id && (!sink.is_empty() || in_sync(node))
    };
    let mut nodes: Vec<&Node> = state.nodes().filter(may).collect();
    nodes.sort_by_key(|node| (node.region != has.region, !in_sync(node), node.id));
    nodes.iter().position(|node| node.id == me.0).and_then(|turn| u32::try_from(turn).ok())
}

/// What this node has to say about the source of a shard it reads.
fn told(state: &State, id: ShardId, silence: &Silence) -> Option<command::Kind> {
    let shard = state.shard(id).filter(|shard| shard.epoch == silence.epoch.0)?;
    let known = shard.out_of_reach.iter().any(String::is_empty);
    match (known, silence.missed) {
        (true, 0) => Some(set(id, silence.epoch, "", false)),
        (false, missed @ MISSED_MAX..) => {
            if missed == MISSED_MAX {
                tracing::warn!(shard = %id, "the source does not answer this node");
            }
            Some(set(id, silence.epoch, "", true))
        }
        _ => None,
    }
}

/// Has it recorded whether a source or sink is out of reach.
fn set(id: ShardId, epoch: Epoch, sink: &str, out_of_reach: bool) -> command::Kind {
    let (shard, epoch, sink) = (Some(id), epoch.0, sink.to_owned());
    command::Kind::SetOutOfReach(SetOutOfReach { shard, epoch, sink, out_of_reach })
}

/// Takes over what this node can reach, if it is still as it was.
fn taken_over(state: &State, id: ShardId, sink: &str, me: NodeId) -> Option<command::Kind> {
    let shard = state.shard(id).filter(|it| it.out_of_reach.iter().any(|it| it == sink))?;
    turn(state, shard, sink, me)?;
    tracing::warn!(shard = %id, sink, "what another node cannot reach answers this one: taking over");
    let mut assign = Assign {
        shard: Some(id),
        replaces: shard.epoch,
        reader: shard.reader,
        writers: shard.writers.clone(),
        copies: shard.copies.clone(),
        anew: false,
        rescues: vec![sink.to_owned()],
    };
    match sink {
        "" => assign.reader = me.0,
        sink => drop(assign.writers.insert(sink.to_owned(), me.0)),
    }
    Some(command::Kind::Assign(assign))
}

#[cfg(test)]
#[path = "reach/tests.rs"]
mod tests;
