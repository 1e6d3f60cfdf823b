//! Where a shard's batches are, and fetching from the nearest of these places.

use std::time::Duration;

use tidegate_proto::v1::{NodeState, ShardId};
use tidegate_proto::{Epoch, Frame, NodeId, Sequence};
use tidegate_raft_store::State;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::exchange::fetch::{Fetch, Fetched};
use crate::retry::Backoff;

/// How long after the cluster has decided something it is looked where to fetch from:
/// a writer whose terms have changed is to be drained, not cut off.
const MOMENT: Duration = Duration::from_millis(200);
/// How long a nearer place may take to answer while the one at hand serves, and how
/// soon one that did not is asked again, at first and at last.
const ANSWER: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// Where batches of a shard are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) epoch: Epoch,
    pub(crate) node: NodeId,
    pub(crate) address: String,
}

/// Who has all that is stable of a shard, nearest first: this node, those in its
/// region, the others; at each distance the owner before its copies, since it has
/// what is new first.
pub(crate) fn places(state: &State, shard: ShardId, here: NodeId) -> Vec<Place> {
    let Some(entry) = state.shard(shard).filter(|entry| entry.reader != 0) else {
        return Vec::new();
    };
    let region = state.node(here.0).map(|node| &node.region);
    let copies = entry.in_sync.iter().filter(|id| **id != entry.reader);
    let nodes = [&entry.reader].into_iter().chain(copies).filter_map(|id| state.node(*id));
    let found = nodes.filter_map(|node| {
        let up = node.state() == NodeState::Up;
        let (is_here, is_owner) = (node.id == here.0, node.id == entry.reader);
        let is_near = up && Some(&node.region) == region;
        let (epoch, address) = (Epoch(entry.epoch), node.address.clone());
        let place = Place { epoch, node: NodeId(node.id), address };
        (up || is_here || is_owner).then_some(((!is_here, !is_near, !is_owner), place))
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, place)| place).collect()
}

/// One shard's places, and how to fetch from them.
#[async_trait]
pub(super) trait Places: Send + Sync {
    /// As the cluster has it now, nearest first; none while nobody owns the shard.
    fn now(&self) -> Vec<Place>;

    /// The batches after `after`, from there.
    async fn open(&self, from: &Place, after: Sequence) -> Result<Box<dyn Fetch>>;

    /// This node's own.
    fn is_here(&self, place: &Place) -> bool;
}

/// A fetch that goes over to another place when the cluster decides so: to a copy
/// that is nearer and in sync by now, and away from one that is not any more, which
/// may get nothing, and say nothing, for as long as that lasts.
pub(super) struct Nearest {
    places: Box<dyn Places>,
    topology: watch::Receiver<u64>,
    from: Place,
    fetch: Box<dyn Fetch>,
    /// The last that came; before the first, behind what was asked.
    after: Sequence,
    /// When it is to be looked where to fetch from, if that is known.
    look_at: Option<Instant>,
    backoff: Backoff,
}

impl Nearest {
    /// Fetches what follows `after` from the nearest of `places` that answers;
    /// `topology` moves when these may have changed.
    pub(super) async fn open(
        places: Box<dyn Places>,
        mut topology: watch::Receiver<u64>,
        after: Sequence,
    ) -> Result<Self> {
        let (from, fetch) = reach(&*places, &mut topology, after).await?;
        let backoff = Backoff::new(AGAIN, AGAIN_MAX);
        let nearer = places.now().first() != Some(&from);
        let mut it = Self { places, topology, from, fetch, after, look_at: None, backoff };
        it.plan(nearer);
        Ok(it)
    }

    /// Goes on at the nearest place, or at any if the one at hand counts no more.
    async fn look(&mut self) -> Result<()> {
        let now = self.places.now();
        let Some(nearest) = now.first() else {
            // The next owner comes with an epoch of its own.
            self.look_at = None;
            return Ok(());
        };
        if nearest.epoch != self.from.epoch {
            return Err(Error::new(ErrorKind::Unavailable, "the shard has another owner by now"));
        }
        let opened = if nearest.node == self.from.node {
            None
        } else if now.iter().any(|it| it.node == self.from.node) {
            match timeout(ANSWER, self.places.open(nearest, self.after)).await {
                Ok(Ok(fetch)) => Some((nearest.clone(), fetch)),
                Ok(Err(error)) => {
                    tracing::debug!(error = %error, "the nearer copy does not serve yet");
                    None
                }
                Err(_) => None,
            }
        } else {
            tracing::debug!(node = %self.from.node, "no longer in sync; fetching elsewhere");
            Some(reach(&*self.places, &mut self.topology, self.after).await?)
        };
        if let Some(opened) = opened {
            (self.from, self.fetch) = opened;
        }
        self.plan(self.from.node != nearest.node);
        Ok(())
    }

    /// When to look next, if there is one `nearer` that was not reached.
    fn plan(&mut self, nearer: bool) {
        if !nearer {
            self.backoff.reset();
        }
        self.look_at = nearer.then(|| Instant::now() + self.backoff.wait());
    }
}

/// Opens a fetch at the first of the `places` there are by then: one that hangs is left
/// when it is none any more.
async fn reach(
    places: &dyn Places,
    topology: &mut watch::Receiver<u64>,
    after: Sequence,
) -> Result<(Place, Box<dyn Fetch>)> {
    loop {
        topology.mark_unchanged();
        let now = places.now();
        tokio::select! {
            opened = open_first(places, &now, after) => return opened,
            () = changed(places, topology, &now) => {}
        }
    }
}

/// Waits until there are other places than `before`.
async fn changed(places: &dyn Places, topology: &mut watch::Receiver<u64>, before: &[Place]) {
    while places.now() == before {
        if topology.changed().await.is_err() {
            // This node is closing.
            std::future::pending::<()>().await;
        }
    }
}

/// The first of `places` that can be reached. What this node has itself is waited for
/// by whoever asks: it is about to be there.
async fn open_first(
    places: &dyn Places,
    now: &[Place],
    after: Sequence,
) -> Result<(Place, Box<dyn Fetch>)> {
    let mut unreached = None;
    for place in now {
        match places.open(place, after).await {
            Ok(fetch) => return Ok((place.clone(), fetch)),
            Err(error) if error.kind() == ErrorKind::Unavailable && !places.is_here(place) => {
                unreached = unreached.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
    let nobody = || Error::new(ErrorKind::Unavailable, "the shard has no owner right now");
    Err(unreached.unwrap_or_else(nobody))
}

/// Waits until it is to be looked where to fetch from: at `look_at`, or a moment after a
/// change if that is sooner. Dropping the call loses nothing.
async fn due(topology: &mut watch::Receiver<u64>, look_at: &mut Option<Instant>) {
    loop {
        let at = *look_at;
        let planned = async move {
            match at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            () = planned => return,
            changed = topology.changed() => changed,
        };
        if changed.is_err() {
            // This node is closing.
            std::future::pending::<()>().await;
        }
        let soon = Instant::now() + MOMENT;
        *look_at = Some(at.map_or(soon, |at| at.min(soon)));
    }
}

#[async_trait]
impl Fetch for Nearest {
    async fn next(&mut self) -> Result<Fetched> {
        loop {
            tokio::select! {
                fetched = self.fetch.next() => {
                    let fetched = fetched?;
                    self.after = fetched.frames.last().map_or(self.after, Frame::last);
                    return Ok(fetched);
                }
                () = due(&mut self.topology, &mut self.look_at) => self.look().await?,
            }
        }
    }

    fn acknowledge(&mut self, upto: Sequence) {
        self.fetch.acknowledge(upto);
    }
}

#[cfg(test)]
mod tests;
