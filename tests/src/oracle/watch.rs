//! Asks every node again and again what the cluster knows, and compares: a
//! checkpoint never goes back, an epoch has one owner.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tidegate_proto::v1::admin_client::AdminClient;
use tidegate_proto::v1::{
    Gap, ListGapsRequest, ListShardsRequest, NodeState, Shard, StatusRequest, StatusResponse,
};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::transport::{Channel, Endpoint};

use crate::Outcome;

/// Between two looks at the same node.
const LOOK: Duration = Duration::from_millis(200);
/// What a node may take to answer; a frozen one does not.
const ANSWER: Duration = Duration::from_millis(1500);

/// What one node said last.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Its status.
    pub status: StatusResponse,
    /// All shards of all exports.
    pub shards: Vec<Shard>,
    /// All gaps ever recorded.
    pub gaps: Vec<Gap>,
    /// The node's own clock then, and ours: milliseconds since 1970.
    pub clocks_ms: (i64, i64),
}

impl Cluster {
    /// The name of the leader; empty if there is none.
    #[must_use]
    pub fn leader(&self) -> &str {
        self.name_of(self.status.leader)
    }

    /// The name of a node by its id; empty if there is none.
    #[must_use]
    pub fn name_of(&self, id: u64) -> &str {
        let found = self.status.nodes.iter().find(|node| node.id == id);
        found.map_or("", |node| node.name.as_str())
    }

    /// How many nodes are up.
    #[must_use]
    pub fn up(&self) -> usize {
        self.status.nodes.iter().filter(|node| node.state() == NodeState::Up).count()
    }
}

/// What all nodes have ever said of checkpoints and owners. Pure.
#[derive(Debug, Default)]
pub struct Checkpoints {
    /// By node, shard and sink: the furthest that node has shown. `captured` is
    /// under the sink "".
    furthest: BTreeMap<(usize, String, String), u64>,
    epochs: BTreeMap<(usize, String), u64>,
    owners: BTreeMap<(String, u64), u64>,
    may_rewind: bool,
}

impl Checkpoints {
    /// What a node says of a shard.
    ///
    /// # Errors
    ///
    /// Says what went back, or who owns the same epoch as another.
    pub fn look(&mut self, node: usize, shard: &Shard) -> Result<(), String> {
        let name = name_of(shard);
        let epoch = self.epochs.entry((node, name.clone())).or_default();
        if shard.epoch < *epoch {
            return Err(format!("{name}: epoch {} came after {epoch} at node{node}", shard.epoch));
        }
        *epoch = shard.epoch;
        if shard.reader != 0 {
            let owner = self.owners.entry((name.clone(), shard.epoch)).or_insert(shard.reader);
            if *owner != shard.reader {
                let (epoch, other) = (shard.epoch, shard.reader);
                return Err(format!("{name}: epoch {epoch} is owned by {owner} and {other}"));
            }
        }
        let captured = shard.captured.iter().map(|it| ("", it.sequence));
        let delivered = shard.delivered.iter().map(|(sink, it)| (sink.as_str(), it.sequence));
        for (sink, sequence) in captured.chain(delivered) {
            let of = (node, name.clone(), sink.to_owned());
            let furthest = self.furthest.entry(of).or_default();
            // What a sink has it keeps, whatever became of the spool.
            if sequence < *furthest && !(self.may_rewind && sink.is_empty()) {
                return Err(format!("{name}: \"{sink}\" went from {furthest} back to {sequence}"));
            }
            *furthest = sequence;
        }
        Ok(())
    }

    /// The furthest any node has shown that a sink has of a shard.
    #[must_use]
    pub fn delivered(&self, shard: &str, sink: &str) -> u64 {
        let of = self.furthest.iter().filter(|((_, name, at), _)| name == shard && at == sink);
        of.map(|(_, sequence)| *sequence).max().unwrap_or(0)
    }
}

/// Polls all nodes until it is dropped.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// By node: what it said last.
    last: Vec<Mutex<Cluster>>,
    checkpoints: Mutex<Checkpoints>,
    /// The first thing that was wrong; empty if nothing was.
    failure: Mutex<String>,
    /// The folder of the sink that can be asked at any time how far it is.
    positions: PathBuf,
}

impl Shared {
    /// Keeps the first thing that was wrong.
    fn fail(&self, why: String) {
        let mut failure = locked(&self.failure);
        if failure.is_empty() {
            *failure = why;
        }
    }
}

impl Watch {
    /// Begins. `positions` is the folder of the sink named `jsonl` of every export.
    #[must_use]
    pub fn start(addresses: Vec<String>, positions: PathBuf) -> Self {
        let last = addresses.iter().map(|_| Mutex::default()).collect();
        let (checkpoints, failure) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { last, checkpoints, failure, positions });
        let follow = |(node, address): (usize, String)| {
            tokio::spawn(follow(node, address, Arc::clone(&shared)))
        };
        let tasks = addresses.into_iter().enumerate().map(follow).collect();
        Self { shared, tasks }
    }

    /// What the node that has applied most says now.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        let all = self.shared.last.iter().map(|last| locked(last).clone());
        all.max_by_key(|cluster| cluster.status.applied).unwrap_or_default()
    }

    /// What one node said last.
    #[must_use]
    pub fn said_by(&self, node: usize) -> Cluster {
        self.shared.last.get(node).map(|last| locked(last).clone()).unwrap_or_default()
    }

    /// Whether what was captured may go back from now on: all copies of a spool may be
    /// lost.
    pub fn set_may_rewind(&self, may: bool) {
        locked(&self.shared.checkpoints).may_rewind = may;
    }

    /// The furthest any node has shown that a sink has of a shard, `EXPORT/NAME`.
    #[must_use]
    pub fn delivered(&self, shard: &str, sink: &str) -> u64 {
        locked(&self.shared.checkpoints).delivered(shard, sink)
    }

    /// # Errors
    ///
    /// The first thing that was wrong.
    pub fn alive(&self) -> Outcome<()> {
        let failure = locked(&self.shared.failure).clone();
        if failure.is_empty() { Ok(()) } else { Err(failure.into()) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `EXPORT ID/NAME`, the same at every node.
fn name_of(shard: &Shard) -> String {
    let export = shard.id.map_or(0, |id| id.export_id);
    format!("{export}/{}", shard.spec.as_ref().map_or("", |spec| spec.name.as_str()))
}

async fn follow(node: usize, address: String, shared: Arc<Shared>) {
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{address}")) else { return };
    let channel = endpoint.connect_timeout(ANSWER).timeout(ANSWER).connect_lazy();
    loop {
        sleep(LOOK).await;
        // A node that is down or does not know yet says nothing.
        let Ok(said) = ask(channel.clone()).await else { continue };
        for shard in &said.shards {
            let judged = locked(&shared.checkpoints).look(node, shard);
            let judged = judged.and_then(|()| beyond(shard, &said, &shared.positions));
            if let Err(why) = judged {
                shared.fail(why);
            }
        }
        *locked(&shared.last[node]) = said;
    }
}

async fn ask(channel: Channel) -> Outcome<Cluster> {
    let mut admin = AdminClient::new(channel);
    let shards = admin.list_shards(ListShardsRequest::default()).await?.into_inner();
    let clocks_ms = (shards.now_ms, tidegate_node::clock::now_ms());
    let gaps = admin.list_gaps(ListGapsRequest::default()).await?.into_inner().gaps;
    let status = admin.status(StatusRequest {}).await?.into_inner();
    Ok(Cluster { status, shards: shards.shards, gaps, clocks_ms })
}

/// Fails if the checkpoint of the sink `jsonl` is beyond what its files hold,
/// which are looked at later.
fn beyond(shard: &Shard, said: &Cluster, positions: &std::path::Path) -> Result<(), String> {
    let Some(checkpoint) = shard.delivered.get("jsonl").filter(|it| it.sequence > 0) else {
        return Ok(());
    };
    let id = shard.id.map_or(0, |id| id.export_id);
    let Some(export) = said.status.exports.iter().find(|export| export.id == id) else {
        return Ok(());
    };
    let name = shard.spec.as_ref().map_or("", |spec| spec.name.as_str());
    let path = positions.join(&export.name).join(format!("{}-{name}.position.json", export.name));
    let held = std::fs::read(&path).ok();
    let held = held.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let held = held.and_then(|position| position["sequence"].as_u64());
    match held {
        Some(held) if held >= checkpoint.sequence => Ok(()),
        held => Err(format!(
            "{name}: {} is delivered, and {} holds {held:?}",
            checkpoint.sequence,
            path.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_proto::v1::{Checkpoint, ShardSpec};

    use super::*;

    fn shard(epoch: u64, reader: u64, captured: u64) -> Shard {
        let spec = Some(ShardSpec { name: "a".to_owned(), ..ShardSpec::default() });
        let captured = Some(Checkpoint { sequence: captured, ..Checkpoint::default() });
        Shard { spec, epoch, reader, captured, ..Shard::default() }
    }

    #[test]
    fn what_goes_forth_passes_and_nodes_may_lag_behind_each_other() {
        let mut checkpoints = Checkpoints::default();
        for (node, epoch, captured) in [(0, 1, 5), (0, 2, 9), (1, 1, 4), (1, 2, 9)] {
            checkpoints.look(node, &shard(epoch, epoch, captured)).unwrap();
        }
        assert_eq!(checkpoints.delivered("0/a", ""), 9);
    }

    #[test]
    fn what_goes_back_and_two_owners_are_found() {
        let mut checkpoints = Checkpoints::default();
        checkpoints.look(0, &shard(2, 1, 5)).unwrap();
        let back = checkpoints.look(0, &shard(2, 1, 4)).unwrap_err();
        assert!(back.contains("went from 5 back to 4"), "{back}");
        let epoch = checkpoints.look(0, &shard(1, 1, 5)).unwrap_err();
        assert!(epoch.contains("epoch 1 came after 2"), "{epoch}");
        checkpoints.may_rewind = true;
        checkpoints.look(0, &shard(2, 1, 4)).unwrap();
        let owner = checkpoints.look(1, &shard(2, 3, 5)).unwrap_err();
        assert!(owner.contains("epoch 2 is owned by 1 and 3"), "{owner}");
    }
}
