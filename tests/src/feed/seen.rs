//! What a subscriber has got, and when.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tidegate_proto::v1::{Change, ChangeBatch, Rewound, SubscribeResponse};
use tidegate_proto::{Frame, document};
use tokio::time::Instant;

use crate::Outcome;

/// Gaps between arrivals that say what is usual.
const RECENT: usize = 200;

/// Looks at every batch of an export, in the order of each shard's sequences.
pub trait Judge: Send + 'static {
    /// # Errors
    ///
    /// Says what is wrong with it; then nothing more is taken.
    fn take(&mut self, shard: &str, frame: &Frame, batch: &ChangeBatch) -> Outcome<()>;
}

/// The document of a change, as JSON.
///
/// # Errors
///
/// If it has none, or one that is damaged.
pub fn document_of(batch: &ChangeBatch, change: &Change) -> Outcome<Value> {
    let dictionary = batch.dictionaries.get(usize::try_from(change.dictionary)?);
    let dictionary = dictionary.ok_or("a change without its dictionary")?;
    let mut text = Vec::new();
    document::write_json(dictionary, &change.document, &mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// All shards of a feed, from their first change on.
#[derive(Debug)]
pub struct Seen<J> {
    lanes: BTreeMap<String, Lane>,
    /// Where to go on.
    pub(super) token: Bytes,
    /// What it thinks of it all.
    pub judge: J,
    may_rewind: bool,
}

/// One shard.
#[derive(Debug)]
struct Lane {
    /// The last sequence.
    last: u64,
    /// The epoch it came under.
    epoch: u64,
    /// When it came.
    at: Instant,
    /// The largest gap since the round began.
    worst: Duration,
    recent: VecDeque<Duration>,
}

impl<J: Judge> Seen<J> {
    pub(super) fn new(judge: J) -> Self {
        Self { lanes: BTreeMap::new(), token: Bytes::new(), judge, may_rewind: false }
    }

    pub(super) fn set_may_rewind(&mut self, may: bool) {
        self.may_rewind = may;
    }

    /// Takes what came `at` that moment. Fails on a change that is missing, comes
    /// twice, comes from an owner before the last one, or follows a loss that must
    /// not be.
    pub(super) fn take(&mut self, response: SubscribeResponse, at: Instant) -> Outcome<()> {
        let shard = response.shard;
        let lane = self.lanes.entry(shard.clone()).or_insert_with(|| Lane::new(at));
        lane.arrived(at);
        for frame in response.frames {
            let frame = Frame::parse(frame)?;
            let batch = frame.decode()?;
            if batch.rewound.is_some() && !self.may_rewind {
                let first = frame.first().0;
                return Err(format!("{shard}: sequence {first} is rewound").into());
            }
            let followed = lane.follows(&frame, batch.rewound.as_ref());
            followed.map_err(|why| format!("{shard}: {why}"))?;
            self.judge.take(&shard, &frame, &batch)?;
        }
        self.token = response.token;
        Ok(())
    }

    /// From now on the largest gaps count anew.
    pub(super) fn begin_round(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.worst = Duration::ZERO;
        }
    }

    /// The largest gap of each shard since the round began; one still open counts.
    pub(super) fn gaps(&self, now: Instant) -> BTreeMap<String, Duration> {
        let gap = |lane: &Lane| lane.worst.max(now.saturating_duration_since(lane.at));
        self.lanes.iter().map(|(name, lane)| (name.clone(), gap(lane))).collect()
    }

    /// The median of a shard's last gaps.
    pub(super) fn usual(&self, shard: &str) -> Duration {
        let recent = self.lanes.get(shard).map(|lane| lane.recent.clone()).unwrap_or_default();
        let mut sorted: Vec<_> = recent.into();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    pub(super) fn arrivals(&self) -> BTreeMap<String, Instant> {
        self.lanes.iter().map(|(name, lane)| (name.clone(), lane.at)).collect()
    }

    /// The last sequence of each shard.
    #[must_use]
    pub fn sequences(&self) -> BTreeMap<String, u64> {
        self.lanes.iter().map(|(name, lane)| (name.clone(), lane.last)).collect()
    }
}

impl Lane {
    fn new(at: Instant) -> Self {
        let (worst, recent) = (Duration::ZERO, VecDeque::with_capacity(RECENT));
        Self { last: 0, epoch: 0, at, worst, recent }
    }

    /// Fails unless `frame` is the next one: behind what came, or behind a loss that
    /// is recorded and covers what did not come.
    fn follows(&mut self, frame: &Frame, rewound: Option<&Rewound>) -> Result<(), String> {
        let lost = rewound.map_or(0, |rewound| rewound.upto);
        let (first, wanted) = (frame.first().0, self.last.max(lost) + 1);
        if first != wanted {
            return Err(format!("sequence {first} came where {wanted} is next"));
        }
        let epoch = frame.epoch().0;
        if epoch < self.epoch {
            return Err(format!("sequence {first} is of epoch {epoch}, after {}", self.epoch));
        }
        (self.last, self.epoch) = (frame.last().0, epoch);
        Ok(())
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
