//! A node that comes back so late that it has to be sent the whole state.

use std::path::PathBuf;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tidegate_proto::v1::Shard;
use tokio::time::{Instant, sleep};
use tonic::async_trait;

use super::arena::PATIENCE;
use super::network::CUT;
use super::{Arena, Fault};
use crate::Outcome;
use crate::world::Rule;

/// Below a node's folder: what it has received of the state so far.
const RECEIVED: &str = "raft/snapshots/received.tmp";
/// Entries of the log after which there is a newer file of the state and nothing before
/// it: what [`Kind::need`](super::Kind::need) sets, twice, and what is kept.
const ENTRIES: u64 = 2 * 500 + 50;
/// A message to the node takes so much longer: the state comes piece by piece.
const SLOW: Rule = Rule { cut: false, delay: Duration::from_millis(40), ..CUT };
/// How often it is disturbed.
const TIMES: usize = 4;
/// Between two looks at the file.
const LOOK: Duration = Duration::from_millis(5);
/// How long it is waited for a piece: longer than a cut connection is.
const PIECE: Duration = Duration::from_secs(20);

/// The state is on its way to a node, which is killed or cut off meanwhile, again and
/// again; what it then has is the old state or the new.
pub(super) struct Late {
    pick: usize,
    random: StdRng,
    node: usize,
    /// Bytes that had come when it was killed, and when it was cut off.
    killed_at: Vec<u64>,
    cut_at: Vec<u64>,
}

impl Late {
    pub(super) fn of(pick: usize, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { pick, random, node: 0, killed_at: Vec::new(), cut_at: Vec::new() }
    }

    fn received(&self, arena: &Arena) -> PathBuf {
        arena.world.cluster.data(self.node).join(RECEIVED)
    }

    /// Waits for a piece, and a while longer. Returns how many bytes are there then;
    /// none if the node got all of it meanwhile, or gets nothing.
    async fn piece(&mut self, arena: &mut Arena) -> Outcome<u64> {
        let path = self.received(arena);
        let bytes = || std::fs::metadata(&path).map_or(0, |it| it.len());
        let end = Instant::now() + PIECE;
        while bytes() == 0 {
            arena.check()?;
            if Instant::now() > end {
                return Ok(0);
            }
            sleep(LOOK).await;
        }
        sleep(Duration::from_millis(self.random.random_range(0..1000))).await;
        Ok(bytes())
    }

    /// Kills the node or cuts it off, when it has a part of the state.
    async fn disturb(&mut self, arena: &mut Arena, kill: bool) -> Outcome<()> {
        let bytes = self.piece(arena).await?;
        let links = arena.world.peers_of(self.node);
        if kill {
            arena.world.cluster.kill(self.node).await;
        } else {
            arena.world.wires.set(&links, CUT);
            sleep(Duration::from_millis(self.random.random_range(500..3000))).await;
        }
        if bytes > 0 {
            let met = if kill { &mut self.killed_at } else { &mut self.cut_at };
            met.push(bytes);
        }
        arena.world.wires.set(&links, SLOW);
        if kill {
            arena.world.cluster.start_node(self.node);
        }
        Ok(())
    }
}

#[async_trait]
impl Fault for Late {
    fn lasts(&self) -> Duration {
        Duration::ZERO
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        self.node = self.pick % arena.world.size();
        arena.world.cluster.kill(self.node).await;
        let missed = arena.watch.cluster().status.applied + ENTRIES;
        let end = Instant::now() + PATIENCE;
        while arena.watch.cluster().status.applied < missed {
            arena.check()?;
            if Instant::now() > end {
                return Err("the log does not grow".into());
            }
            sleep(Duration::from_millis(100)).await;
        }
        arena.world.wires.set(&arena.world.peers_of(self.node), SLOW);
        arena.world.cluster.start_node(self.node);
        for _ in 0..TIMES {
            let kill = self.random.random();
            self.disturb(arena, kill).await?;
        }
        Ok(format!("node{} comes back late and is disturbed", self.node))
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        arena.world.wires.set(&arena.world.peers_of(self.node), Rule::default());
        let node = self.node;
        arena
            .until("the late node knows of all shards what the others know", |it| {
                folded(&it.watch.said_by(node).shards) == folded(&it.watch.cluster().shards)
            })
            .await
    }

    async fn proof(&self, _: &Arena) -> Outcome<String> {
        let (killed, cut) = (&self.killed_at, &self.cut_at);
        if killed.is_empty() && cut.is_empty() {
            return Err("the state was never on its way".into());
        }
        Ok(format!("killed with {killed:?} bytes of the state, cut off with {cut:?}"))
    }
}

/// What moves only when shards do.
fn folded(shards: &[Shard]) -> Vec<(u64, u64, &[u64])> {
    shards.iter().map(|shard| (shard.epoch, shard.reader, &shard.copies[..])).collect()
}
