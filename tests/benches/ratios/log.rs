//! The checkpoint log of real nodes, with shards that nobody works on, so that
//! all that happens in it is what the bench proposes.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use tidegate_proto::v1::raft_client::RaftClient;
use tidegate_proto::v1::{
    Assign, Captured, Checkpoint, Checkpoints, Command, NodeCordon, Outcome as Answer, Progress,
    ProposeRequest, ShardId, command, outcome,
};
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::bench::{Bench, Outcome, require};
use crate::node::{Node, Start, channel, generated};

/// Shards of one export; the generator has no more than 1024.
const SHARDS_EACH: u32 = 1000;
/// Assignments proposed at the same time.
const PROPOSALS_MAX: usize = 128;
const MESSAGE_BYTES: usize = 64 << 20;
/// The version of a command, as `raft-store` has it.
const COMMAND_VERSION: u32 = 1;

/// A group of nodes and the ids of its shards.
pub(crate) struct Log {
    /// The first is the leader.
    pub(crate) nodes: Vec<Node>,
    shards: Vec<ShardId>,
    client: RaftClient<Channel>,
    cluster_id: String,
    node: u64,
    sequence: u64,
}

impl Log {
    /// A group of `size` nodes with `shards` shards, all in epoch 1.
    pub(crate) async fn start(bench: &mut Bench, size: usize, shards: u32) -> Outcome<Self> {
        let mut nodes: Vec<Node> = Vec::new();
        for _ in 0..size {
            let join = nodes.first().map(|first| first.address.clone());
            nodes.push(Node::start(&bench.folder()?, Start { join, ..Start::default() }).await?);
        }
        let status = nodes[0].status().await?;
        let client = RaftClient::new(channel(&nodes[0].address)?)
            .max_encoding_message_size(MESSAGE_BYTES)
            .max_decoding_message_size(MESSAGE_BYTES);
        let mut log = Self {
            nodes,
            shards: Vec::new(),
            client,
            cluster_id: status.cluster_id,
            node: status.node,
            sequence: 0,
        };
        for node in status.nodes {
            // Nothing is placed on a cordoned node.
            let cordon = NodeCordon { node: node.id, cordoned: true };
            log.propose(command::Kind::NodeCordon(cordon)).await?;
        }
        log.discover(shards).await?;
        Ok(log)
    }

    async fn discover(&mut self, shards: u32) -> Outcome<()> {
        let exports = shards.div_ceil(SHARDS_EACH);
        for number in 0..exports {
            let count = SHARDS_EACH.min(shards - number * SHARDS_EACH);
            let spec = generated(&format!("log{number}"), &format!("shards = {count}"), "");
            self.nodes[0].apply(&spec).await?;
        }
        let wanted = usize::try_from(shards)?;
        let all = |found: &[_]| found.len() == wanted;
        self.nodes[0].until("", Duration::from_millis(100), all).await?;
        let found = self.nodes[0].shards("").await?;
        self.shards = found.iter().filter_map(|shard| shard.id).collect();
        let this = &*self;
        futures::stream::iter(&this.shards)
            .map(async |shard| {
                let assign = Assign { shard: Some(*shard), ..Assign::default() };
                this.propose(command::Kind::Assign(assign)).await.map(drop)
            })
            .buffer_unordered(PROPOSALS_MAX)
            .try_collect()
            .await
    }

    /// One entry that moves the first `count` shards by a batch.
    pub(crate) async fn checkpoint(&mut self, count: usize) -> Outcome<()> {
        self.sequence += 1;
        let at = self.sequence;
        let captured = self.shards.iter().take(count).map(|shard| {
            let stream = at.to_be_bytes().to_vec().into();
            let progress = Progress { stream, ..Progress::default() };
            let checkpoint = Checkpoint {
                sequence: at,
                progress: Some(progress),
                records: 1,
                bytes: 1000,
                ..Checkpoint::default()
            };
            Captured { shard: Some(*shard), epoch: 1, checkpoint: Some(checkpoint) }
        });
        let command =
            Checkpoints { node: self.node, captured: captured.collect(), delivered: Vec::new() };
        let answer = self.propose(command::Kind::Checkpoints(command)).await?;
        let Some(outcome::Kind::Checkpoints(taken)) = answer.kind else {
            return Err("checkpoints were not answered as such".into());
        };
        require(taken.fenced.is_empty() && taken.refused.is_empty(), "every checkpoint is taken")
    }

    /// Rounds per second, one in flight, and each one's seconds, over `span`.
    pub(crate) async fn rounds(&mut self, count: usize, span: Duration) -> Outcome<Vec<f64>> {
        let (started, mut seconds) = (Instant::now(), Vec::new());
        while started.elapsed() < span {
            let before = Instant::now();
            self.checkpoint(count).await?;
            seconds.push(before.elapsed().as_secs_f64());
        }
        Ok(seconds)
    }

    /// Each of the first `count` shards stands where it was last moved to.
    pub(crate) async fn check(&mut self, count: usize) -> Outcome<()> {
        let at = self.sequence;
        let moved = self.nodes[0].shards("").await?;
        let there = moved.iter().filter(|shard| {
            shard.captured.as_ref().is_some_and(|captured| captured.sequence == at)
        });
        require(there.count() == count, "every shard stands where its last checkpoint was")
    }

    async fn propose(&self, kind: command::Kind) -> Outcome<Answer> {
        let command = Command { version: COMMAND_VERSION, proposed_ms: 0, kind: Some(kind) };
        let request =
            ProposeRequest { cluster_id: self.cluster_id.clone(), command: Some(command) };
        let answer = self.client.clone().propose(request).await?.into_inner();
        Ok(answer.outcome.ok_or("a proposal has an outcome")?)
    }
}

/// Seconds of each fsync of a loop over `span`: 4 KiB behind each other in a
/// file that has its size already.
pub(crate) async fn fsync_loop(folder: &Path, span: Duration) -> Outcome<Vec<f64>> {
    let path = folder.join("fsync-loop");
    let work = move || -> Outcome<Vec<f64>> {
        let file = std::fs::File::create(&path)?;
        let (block, size) = ([7_u8; 4096], 64 << 20);
        for at in (0..size).step_by(1 << 20) {
            file.write_all_at(&vec![0; 1 << 20], at)?;
        }
        file.sync_all()?;
        let (started, mut seconds, mut at) = (Instant::now(), Vec::new(), 0);
        while started.elapsed() < span {
            let before = Instant::now();
            file.write_all_at(&block, at)?;
            file.sync_data()?;
            seconds.push(before.elapsed().as_secs_f64());
            at = (at + 4096) % size;
        }
        Ok(seconds)
    };
    tokio::task::spawn_blocking(work).await?
}
