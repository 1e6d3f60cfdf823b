//! Asking for a shard's batches, wherever they are.

use std::sync::Arc;

use tidegate_proto::v1::{FetchOpen, NodeState, ShardId};
use tidegate_proto::{Epoch, Frame, NodeId, Sequence};
use tidegate_raft_store::State;
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
        let here = self.control.node();
        let Some((epoch, nearest, address)) =
            self.control.read(|state| nearest(state, shard, here))
        else {
            let why = format!("shard {shard} has no owner right now");
            return Err(Error::new(ErrorKind::Unavailable, why));
        };
        if nearest == here {
            let fetch = LocalFetch::open(&self.spool, shard, epoch, after, self.credit_bytes)?;
            return Ok(Box::new(fetch));
        }
        let open = FetchOpen {
            cluster_id: self.control.identity().cluster_id.clone(),
            shard: Some(shard),
            epoch: epoch.0,
            after: after.0,
            credit_bytes: self.credit_bytes,
            copy: None,
        };
        let fetch = RemoteFetch::open(&self.control, &address, open);
        Ok(Box::new(fetch.await?))
    }
}

/// The node to fetch from: this one if it is in sync, else one in sync in this
/// one's region, else the owner; with the shard's epoch and its address.
pub(crate) fn nearest(
    state: &State,
    shard: ShardId,
    here: NodeId,
) -> Option<(Epoch, NodeId, String)> {
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
    Some((Epoch(entry.epoch), NodeId(*chosen), node.address.clone()))
}
