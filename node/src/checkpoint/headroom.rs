//! How long until a source forgets what is still to be read.

use std::time::Duration;

use tidegate_proto::v1::Shard;
use tidegate_raft_store::State;

/// Less time until a source forgets what is to be read next is no room for a repair.
pub const HEADROOM_MIN: Duration = Duration::from_secs(60);

/// What is left for the shard of an export that has least: from `now_ms` until its
/// source forgets what is to be read next, if it is read no more. `None` if no source
/// of its shards forgets, or has told yet; a shard that is to be read again from what its
/// sinks have is not among them: from where, is not known.
///
/// `now_ms` is a time of day, as is what sources tell: to show and to warn, not to decide.
#[must_use]
pub fn headroom(state: &State, export_id: u64, now_ms: i64) -> Option<Duration> {
    let least = state.shards_of(export_id).filter_map(kept_until_ms).min()?;
    Some(Duration::from_millis(u64::try_from(least.saturating_sub(now_ms)).unwrap_or(0)))
}

fn kept_until_ms(shard: &Shard) -> Option<i64> {
    let captured = shard.captured.as_ref()?;
    let ended = captured.progress.as_ref().is_some_and(|progress| progress.ended);
    let is_told = captured.kept_until_ms != 0 && !ended && !shard.waits_for_sinks();
    is_told.then_some(captured.kept_until_ms)
}
