//! How much each shard captures: a pure core.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_proto::v1::ShardId;
use tidegate_raft_store::State;
use tokio::time::Instant;

/// How far apart two looks are.
const LOOK: Duration = Duration::from_secs(5);
/// A shard weighs 1 and as much again for so many bytes per second.
const WEIGHED_BYTES: u64 = 64 << 10;

/// What a shard that captures so many bytes per second weighs in placement.
pub(crate) fn weight(bytes_per_second: u64) -> u32 {
    u32::try_from(1 + bytes_per_second / WEIGHED_BYTES).unwrap_or(u32::MAX)
}

/// What each shard lately captured, as the checkpoints tell. Every node looks, so that who
/// becomes the leader because a node has died knows what that one had to do.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    looked: Option<Instant>,
    shards: BTreeMap<ShardId, Rate>,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    bytes: u64,
    per_second: u64,
}

impl Rates {
    /// It is time for another look.
    pub(crate) fn due(&self, now: Instant) -> bool {
        self.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK)
    }

    /// Takes in what the shards have captured by `now`; half of each rate is what it was
    /// before.
    pub(crate) fn look(&mut self, state: &State, now: Instant) {
        let since = self.looked.replace(now).map_or(LOOK, |looked| now.duration_since(looked));
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1);
        let before = std::mem::take(&mut self.shards);
        let shards = state.shards().map(|shard| {
            let id = shard.id.unwrap_or_default();
            let bytes = shard.captured.as_ref().map_or(0, |captured| captured.bytes);
            let per_second = before.get(&id).map_or(0, |before| {
                let more = bytes.saturating_sub(before.bytes);
                u64::midpoint(before.per_second, more.saturating_mul(1000) / millis)
            });
            (id, Rate { bytes, per_second })
        });
        self.shards = shards.collect();
    }

    /// What `shard` captures, in bytes per second; 0 for one not looked at twice.
    pub(crate) fn of(&self, shard: ShardId) -> u64 {
        self.shards.get(&shard).map_or(0, |rate| rate.per_second)
    }
}

#[cfg(test)]
mod tests;
