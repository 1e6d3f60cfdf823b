//! One task at a time at a shard's log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_proto::v1::ShardId;
use tokio::sync::OwnedMutexGuard;

/// Lets one task of this node work on a shard's log: its reader or its copy.
///
/// A task that was aborted runs on to where it next waits, and one that was asked to end
/// may still be about to begin its log anew. What follows it, under the same epoch or
/// another, must not look at the log before it is gone.
#[derive(Debug, Default)]
pub struct Alone(Mutex<HashMap<ShardId, Arc<tokio::sync::Mutex<()>>>>);

impl Alone {
    /// Waits until no other task works on the log of `shard`; this one does until it drops
    /// the guard.
    pub(super) async fn with(&self, shard: ShardId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Before it grows, and not each time: thousands of shards may start at once.
            if turns.len() == turns.capacity() {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            Arc::clone(turns.entry(shard).or_default())
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_comes_second_waits_until_the_first_is_gone() {
        let alone = Alone::default();
        let [a, b] = [1, 2].map(|index| ShardId { export_id: 7, index });
        let first = alone.with(a).await;
        drop(alone.with(b).await);
        let wait = Duration::from_millis(20);
        assert!(tokio::time::timeout(wait, alone.with(a)).await.is_err());
        drop(first);
        drop(alone.with(a).await);
    }
}
