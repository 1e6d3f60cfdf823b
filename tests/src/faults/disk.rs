//! Disks that lose power, fill up, or do not sync as they should.

use std::time::Duration;

use tokio::time::Instant;
use tonic::async_trait;

use super::{Arena, Before, Fault};
use crate::Outcome;

/// How long after its disk has room again a node may end over what it could not write.
const LATE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(50);
/// What a sync of a slow disk takes.
const SLOW_MS: u64 = 500;

/// How many nodes lose power.
#[derive(Clone, Copy, Debug)]
pub(super) enum Share {
    /// One of them.
    One(usize),
    /// All but one.
    Most(usize),
    /// Everybody.
    All,
}

/// The power of nodes fails: what their disks had not written is gone.
pub(super) struct PowerLoss {
    share: Share,
    nodes: Vec<usize>,
    /// Bytes that a mere kill would have left.
    lost: u64,
    before: Before,
}

impl PowerLoss {
    pub(super) fn of(share: Share) -> Self {
        Self { share, nodes: Vec::new(), lost: 0, before: Before::default() }
    }
}

#[async_trait]
impl Fault for PowerLoss {
    fn lasts(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn may_rewind(&self) -> bool {
        !matches!(self.share, Share::One(_))
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        let size = arena.world.size();
        self.nodes = match self.share {
            Share::One(pick) => vec![pick % size],
            Share::Most(pick) => (0..size).filter(|node| *node != pick % size).collect(),
            Share::All => (0..size).collect(),
        };
        self.before = arena.before();
        for node in &self.nodes {
            arena.world.cluster.kill(*node).await;
        }
        for node in &self.nodes {
            self.lost += arena.world.disk(*node)?.cut_power()?;
        }
        Ok(format!("{:?} lost power", self.nodes))
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        for node in &self.nodes {
            arena.world.cluster.start_node(*node);
        }
        Ok(())
    }

    async fn proof(&self, arena: &Arena) -> Outcome<String> {
        if self.lost == 0 {
            return Err("the disks had written everything".into());
        }
        let moved = self.before.moved(&arena.before(), |reader| self.nodes.contains(&reader))?;
        Ok(format!("{} bytes were lost, {moved} shards moved", self.lost))
    }
}

/// What a disk does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// Every sync takes half a second.
    Slow,
    /// One sync of a file in this folder of the node fails.
    Fails(&'static str),
}

/// A disk whose syncs are slow or fail.
pub(super) struct BadSync {
    sync: Sync,
    pick: usize,
    lasts: Duration,
    node: usize,
    disturbed: u64,
    ended: bool,
}

impl BadSync {
    pub(super) fn of(sync: Sync, pick: usize, lasts: Duration) -> Self {
        Self { sync, pick, lasts, node: 0, disturbed: 0, ended: false }
    }
}

#[async_trait]
impl Fault for BadSync {
    fn lasts(&self) -> Duration {
        self.lasts
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        self.node = match self.sync {
            Sync::Slow => self.pick % arena.world.size(),
            // Only who keeps a shard syncs its spool.
            Sync::Fails(_) => arena.owner(self.pick)?,
        };
        let disk = arena.world.disk(self.node)?;
        self.disturbed = disk.disturbed();
        match self.sync {
            Sync::Slow => disk.slow(SLOW_MS)?,
            Sync::Fails(folder) => disk.fail_once(folder)?,
        }
        Ok(format!("syncs of node{}: {:?}, for {:?}", self.node, self.sync, self.lasts))
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        arena.world.disk(self.node)?.obey();
        self.ended = arena.world.cluster.has_ended(self.node).is_some();
        if self.ended {
            arena.world.cluster.start_node(self.node);
        }
        Ok(())
    }

    async fn proof(&self, arena: &Arena) -> Outcome<String> {
        let disturbed = arena.world.disk(self.node)?.disturbed() - self.disturbed;
        if disturbed == 0 {
            return Err("no sync met it".into());
        }
        if self.ended != matches!(self.sync, Sync::Fails(_)) {
            let runs = if self.ended { "ended" } else { "ran on" };
            return Err(
                format!("{disturbed} syncs were {:?}, and the node {runs}", self.sync).into()
            );
        }
        let end = if self.ended { "and the node ended itself" } else { "and the node ran on" };
        Ok(format!("{disturbed} syncs met it, {end}"))
    }
}

/// A disk without any room.
pub(super) struct Full {
    pick: usize,
    lasts: Duration,
    node: usize,
    bytes: u64,
    /// There was no room once it was filled; a node that ends gives some back.
    full: bool,
    ended: bool,
}

impl Full {
    pub(super) fn of(pick: usize, lasts: Duration) -> Self {
        Self { pick, lasts, node: 0, bytes: 0, full: false, ended: false }
    }
}

#[async_trait]
impl Fault for Full {
    fn lasts(&self) -> Duration {
        self.lasts
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        self.node = self.pick % arena.world.size();
        let disk = arena.world.disk(self.node)?;
        (self.bytes, self.full) = (disk.fill()?, disk.is_full());
        Ok(format!("the disk of node{} is full for {:?}", self.node, self.lasts))
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        arena.world.disk(self.node)?.free()?;
        // What could not be written may be missed a moment later.
        let until = Instant::now() + LATE;
        while !self.ended && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
            self.ended = arena.world.cluster.has_ended(self.node).is_some();
        }
        if self.ended {
            arena.world.cluster.start_node(self.node);
        }
        Ok(())
    }

    async fn proof(&self, _: &Arena) -> Outcome<String> {
        if !self.full {
            return Err("there was room all the same".into());
        }
        let end = if self.ended { "the node ended itself" } else { "the node ran on" };
        Ok(format!("{} MiB were taken, {end}", self.bytes >> 20))
    }
}
