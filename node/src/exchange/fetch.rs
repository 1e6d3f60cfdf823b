//! Asking for a shard's batches, wherever they are.

use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::{FetchOpen, NodeState, ShardId};
use tidegate_proto::{Epoch, Frame, NodeId, Sequence};
use tidegate_raft_store::State;
use tokio::time::Instant;
use tonic::async_trait;

use crate::control::Control;
use crate::error::{Error, ErrorKind, Result};
use crate::exchange::local::LocalFetch;
use crate::exchange::remote::RemoteFetch;
use crate::spool::Spool;

/// A shard's stable batches, one call after the other.
#[async_trait]
pub trait Fetch: Send {
    /// The next batches, at least one; waits until there are some. The first
    /// may begin at or below what was asked for. Dropping the call loses
    /// nothing. Fails with `Unavailable` when the owner is away or is another
    /// by now, and with `Gone` when retention was faster.
    async fn next(&mut self) -> Result<Fetched>;

    /// Everything up to and including `upto` is where it should be, and the
    /// memory it took is free again.
    fn acknowledge(&mut self, upto: Sequence);
}

/// What one call brought.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// Batches, in order, without a hole.
    pub frames: Vec<Frame>,
    /// The last stable sequence at the owner.
    pub stable: Sequence,
}

/// How often a nearer spool is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// In place of a sequence: behind nothing, from the oldest retained.
pub(super) const OLDEST: Sequence = Sequence(u64::MAX);

/// Opens fetches. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Exchange {
    spool: Arc<Spool>,
    control: Control,
    credit_bytes: u64,
}

impl Exchange {
    /// Fetches through `spool` where this node is in sync. Each fetch may
    /// have `credit_bytes` in flight.
    #[must_use]
    pub fn new(spool: Arc<Spool>, control: Control, credit_bytes: u64) -> Self {
        Self { spool, control, credit_bytes }
    }

    /// The batches of `shard` from the oldest retained on.
    pub async fn fetch_oldest(&self, shard: ShardId) -> Result<Box<dyn Fetch>> {
        self.open(shard, OLDEST).await
    }

    /// The batches of `shard` after `after`, from its owner as this node knows it.
    pub async fn fetch(&self, shard: ShardId, after: Sequence) -> Result<Box<dyn Fetch>> {
        self.open(shard, after).await
    }

    pub(super) fn control(&self) -> &Control {
        &self.control
    }

    pub(super) fn credit_bytes(&self) -> u64 {
        self.credit_bytes
    }

    async fn open(&self, shard: ShardId, after: Sequence) -> Result<Box<dyn Fetch>> {
        let Some(nearest) = self.nearest(shard) else {
            let why = format!("shard {shard} has no owner right now");
            return Err(Error::new(ErrorKind::Unavailable, why));
        };
        let fetch = self.open_at(&nearest, shard, after).await?;
        if nearest.node == self.control.node() {
            return Ok(fetch);
        }
        let (exchange, looked) = (self.clone(), Instant::now());
        Ok(Box::new(Nearest { exchange, shard, from: nearest, fetch, last: None, looked }))
    }

    async fn open_at(
        &self,
        from: &Place,
        shard: ShardId,
        after: Sequence,
    ) -> Result<Box<dyn Fetch>> {
        if from.node == self.control.node() {
            let fetch = LocalFetch::open(&self.spool, shard, from.epoch, after, self.credit_bytes)?;
            return Ok(Box::new(fetch));
        }
        let open = FetchOpen {
            cluster_id: self.control.identity().cluster_id.clone(),
            shard: Some(shard),
            epoch: from.epoch.0,
            after: after.0,
            credit_bytes: self.credit_bytes,
            ..FetchOpen::default()
        };
        Ok(Box::new(RemoteFetch::open(&self.control, &from.address, open).await?))
    }

    fn nearest(&self, shard: ShardId) -> Option<Place> {
        let here = self.control.node();
        self.control.read(|state| nearest(state, shard, here))
    }
}

/// A fetch from another node, until a nearer one is in sync: a copy joins after
/// writers and feeds were opened, and what it has need not cross a second time.
struct Nearest {
    exchange: Exchange,
    shard: ShardId,
    from: Place,
    fetch: Box<dyn Fetch>,
    /// The last that came from there.
    last: Option<Sequence>,
    looked: Instant,
}

impl Nearest {
    async fn go_nearer(&mut self) {
        let Some(after) = self.last.filter(|_| self.looked.elapsed() >= LOOK) else { return };
        self.looked = Instant::now();
        let nearest = self.exchange.nearest(self.shard);
        let nearer = |it: &Place| it.epoch == self.from.epoch && it.node != self.from.node;
        let Some(nearest) = nearest.filter(nearer) else { return };
        match self.exchange.open_at(&nearest, self.shard, after).await {
            Ok(fetch) => (self.fetch, self.from) = (fetch, nearest),
            Err(error) => tracing::debug!(error = %error, "the nearer copy does not serve yet"),
        }
    }
}

#[async_trait]
impl Fetch for Nearest {
    async fn next(&mut self) -> Result<Fetched> {
        self.go_nearer().await;
        let fetched = self.fetch.next().await?;
        self.last = fetched.frames.last().map(Frame::last).or(self.last);
        Ok(fetched)
    }

    fn acknowledge(&mut self, upto: Sequence) {
        self.fetch.acknowledge(upto);
    }
}

/// Where batches of a shard are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) epoch: Epoch,
    pub(crate) node: NodeId,
    pub(crate) address: String,
}

/// The node to fetch from: this one if it is in sync, else one in sync in this
/// one's region, else the owner.
pub(crate) fn nearest(state: &State, shard: ShardId, here: NodeId) -> Option<Place> {
    let entry = state.shard(shard).filter(|entry| entry.reader != 0)?;
    let region = state.node(here.0).map(|node| &node.region);
    let near = |id: &&u64| {
        let node = state.node(**id);
        node.is_some_and(|node| node.state() == NodeState::Up && Some(&node.region) == region)
    };
    let candidates = || entry.in_sync.iter().chain([&entry.reader]);
    let chosen = candidates().find(|id| **id == here.0);
    // The owner before its copies: it has what is new first.
    let chosen = chosen.or_else(|| Some(&entry.reader).filter(near));
    let chosen = chosen.or_else(|| candidates().find(near)).unwrap_or(&entry.reader);
    let node = state.node(*chosen)?;
    let (epoch, node, address) = (Epoch(entry.epoch), NodeId(*chosen), node.address.clone());
    Some(Place { epoch, node, address })
}
