//! Asking for a shard's batches, wherever they are.

use std::sync::Arc;

use tidegate_proto::v1::ShardId;
use tidegate_proto::{Epoch, Frame, NodeId, Sequence};
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
    /// Fetches through `spool` where this node is the owner. Each fetch may
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

    async fn open(&self, shard: ShardId, after: Sequence) -> Result<Box<dyn Fetch>> {
        let owner = self.control.read(|state| {
            let entry = state.shard(shard)?;
            let node = state.node(entry.reader)?;
            Some((Epoch(entry.epoch), NodeId(entry.reader), node.address.clone()))
        });
        let Some((epoch, owner, address)) = owner else {
            let why = format!("shard {shard} has no owner right now");
            return Err(Error::new(ErrorKind::Unavailable, why));
        };
        if owner == self.control.node() {
            let fetch = LocalFetch::open(&self.spool, shard, epoch, after, self.credit_bytes)?;
            return Ok(Box::new(fetch));
        }
        let fetch =
            RemoteFetch::open(&self.control, &address, shard, epoch, after, self.credit_bytes);
        Ok(Box::new(fetch.await?))
    }
}
