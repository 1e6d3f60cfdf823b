//! What a subscriber has got: when, whether all of it, and what it comes to.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tidegate_node::sources::datagen::{DatagenConfig, state_after};
use tidegate_proto::v1::{ChangeBatch, Operation, SubscribeResponse};
use tidegate_proto::{Frame, content_hash};
use tokio::time::Instant;

use crate::Outcome;

/// Gaps between arrivals that say what is usual.
const RECENT: usize = 200;

/// By key, the hash of its latest document.
type State = BTreeMap<Vec<u8>, [u8; 16]>;

/// All shards of a feed, from their first change on.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    lanes: BTreeMap<String, Lane>,
    /// Where to go on.
    pub(crate) token: Bytes,
}

/// One shard.
#[derive(Debug)]
struct Lane {
    /// The last sequence.
    last: u64,
    /// When it came.
    at: Instant,
    /// The largest gap since the round began.
    worst: Duration,
    recent: VecDeque<Duration>,
    state: State,
}

impl Seen {
    /// Takes what came `at` that moment. Fails on a change that is missing, comes
    /// twice, or follows a recorded loss.
    pub(crate) fn take(&mut self, response: SubscribeResponse, at: Instant) -> Outcome<()> {
        let lane = self.lanes.entry(response.shard.clone()).or_insert_with(|| Lane::new(at));
        lane.arrived(at);
        for frame in response.frames {
            let frame = Frame::parse(frame)?;
            let (first, wanted) = (frame.first().0, lane.last + 1);
            if first != wanted {
                let shard = &response.shard;
                return Err(format!("{shard}: sequence {first} came where {wanted} is next").into());
            }
            lane.last = frame.last().0;
            let batch = frame.decode()?;
            if batch.rewound.is_some() {
                return Err(format!("{}: sequence {first} is rewound", response.shard).into());
            }
            fold(&mut lane.state, &batch)?;
        }
        self.token = response.token;
        Ok(())
    }

    /// From now on the largest gaps count anew.
    pub(crate) fn begin_round(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.worst = Duration::ZERO;
        }
    }

    /// The largest gap of each shard since the round began; one still open counts.
    pub(crate) fn gaps(&self, now: Instant) -> BTreeMap<String, Duration> {
        let gap = |lane: &Lane| lane.worst.max(now.saturating_duration_since(lane.at));
        self.lanes.iter().map(|(name, lane)| (name.clone(), gap(lane))).collect()
    }

    /// The median of a shard's last gaps.
    pub(crate) fn usual(&self, shard: &str) -> Duration {
        let recent = self.lanes.get(shard).map(|lane| lane.recent.clone()).unwrap_or_default();
        let mut sorted: Vec<_> = recent.into();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    /// The last sequence of each shard.
    pub(crate) fn sequences(&self) -> BTreeMap<String, u64> {
        self.lanes.iter().map(|(name, lane)| (name.clone(), lane.last)).collect()
    }

    /// Fails unless what came, folded, is what the generator must have made by then.
    /// Returns how many changes that were.
    pub(crate) fn verify(&self, config: &DatagenConfig) -> Outcome<u64> {
        let mut changes = 0;
        for number in 0..config.shards {
            let name = format!("datagen-{number}");
            let lane = self.lanes.get(&name).ok_or_else(|| format!("{name}: nothing came"))?;
            if lane.state != state_after(config, number, lane.last)? {
                let last = lane.last;
                return Err(format!("{name}: another state than after {last} changes").into());
            }
            changes += lane.last;
        }
        Ok(changes)
    }
}

impl Lane {
    fn new(at: Instant) -> Self {
        let (worst, recent) = (Duration::ZERO, VecDeque::with_capacity(RECENT));
        Self { last: 0, at, worst, recent, state: State::new() }
    }

    fn arrived(&mut self, at: Instant) {
        let gap = at.saturating_duration_since(self.at);
        self.at = at;
        self.worst = self.worst.max(gap);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(gap);
    }
}

fn fold(state: &mut State, batch: &ChangeBatch) -> Outcome<()> {
    for change in &batch.changes {
        if change.operation() == Operation::Delete {
            state.remove(&change.key[..]);
            continue;
        }
        let dictionary = batch.dictionaries.get(usize::try_from(change.dictionary)?);
        let dictionary = dictionary.ok_or("a change without its dictionary")?;
        // From the document, not from what the change says of it.
        state.insert(change.key.to_vec(), content_hash(dictionary, &change.document));
    }
    Ok(())
}
