//! Asking for a shard's batches, wherever they are.

use std::sync::Arc;

use tidegate_proto::v1::{FetchOpen, IndexRows, ShardId};
use tidegate_proto::{Frame, Sequence};
use tonic::async_trait;

use crate::control::Control;
use crate::error::Result;
use crate::exchange::local::LocalFetch;
use crate::exchange::nearest::{Nearest, Place, Places, places};
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
    /// To a copy that lacks some: rows of the key index, behind the batches.
    pub index: Option<IndexRows>,
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

    /// The same for fetches that have at most `credit_bytes` in flight.
    #[must_use]
    pub fn with_credit(self, credit_bytes: u64) -> Self {
        Self { credit_bytes: self.credit_bytes.min(credit_bytes), ..self }
    }

    /// The batches of `shard` from the oldest retained on.
    pub async fn fetch_oldest(&self, shard: ShardId) -> Result<Box<dyn Fetch>> {
        self.open(shard, OLDEST).await
    }

    /// The batches of `shard` after `after`.
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
        let places = ShardPlaces { exchange: self.clone(), shard };
        let topology = self.control.topology();
        Ok(Box::new(Nearest::open(Box::new(places), topology, after).await?))
    }
}

/// The places of one shard, as this node knows them.
struct ShardPlaces {
    exchange: Exchange,
    shard: ShardId,
}

#[async_trait]
impl Places for ShardPlaces {
    fn now(&self) -> Vec<Place> {
        let control = &self.exchange.control;
        control.read(|state| places(state, self.shard, control.node()))
    }

    async fn open(&self, from: &Place, after: Sequence) -> Result<Box<dyn Fetch>> {
        let Exchange { spool, control, credit_bytes } = &self.exchange;
        if self.is_here(from) {
            let fetch = LocalFetch::open(spool, self.shard, from.epoch, after, *credit_bytes)?;
            return Ok(Box::new(fetch));
        }
        let open = FetchOpen {
            cluster_id: control.identity().cluster_id.clone(),
            shard: Some(self.shard),
            epoch: from.epoch.0,
            after: after.0,
            credit_bytes: *credit_bytes,
            ..FetchOpen::default()
        };
        Ok(Box::new(RemoteFetch::open(control, &from.address, open).await?))
    }

    fn is_here(&self, place: &Place) -> bool {
        place.node == self.exchange.control.node()
    }
}
