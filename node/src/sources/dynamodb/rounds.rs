//! The clock by which a snapshot page knows that the stream has caught up.

use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use tokio::time::Instant;

/// Shared by a source's streams and its scans; means nothing outside of it.
///
/// A page is read at some moment. The stream has passed it once every open
/// stream shard has been asked *after* that moment and had nothing older left.
#[derive(Debug)]
pub(super) struct Rounds {
    started: (Instant, i64),
    wanted_ms: AtomicI64,
}

impl Rounds {
    /// `wall_ms` is the time of day: milliseconds since 1970.
    pub(super) fn new(wall_ms: i64) -> Self {
        Self { started: (Instant::now(), wall_ms), wanted_ms: AtomicI64::new(i64::MIN) }
    }

    /// Milliseconds since 1970 by a clock that was right when the source was
    /// opened and has not been set since.
    pub(super) fn now_ms(&self) -> i64 {
        let elapsed = i64::try_from(self.started.0.elapsed().as_millis());
        self.started.1.saturating_add(elapsed.unwrap_or(i64::MAX))
    }

    /// A page has just been read.
    pub(super) fn stamp(&self) -> Bytes {
        let now = self.now_ms();
        self.wanted_ms.fetch_max(now, Ordering::Relaxed);
        Bytes::copy_from_slice(&now.to_be_bytes())
    }

    /// When the newest page was read: somebody waits for the stream to pass it.
    pub(super) fn wanted_ms(&self) -> i64 {
        self.wanted_ms.load(Ordering::Relaxed)
    }

    /// When the page with this stamp was read; `None` if it is no stamp.
    pub(super) fn read_stamp(seen: &[u8]) -> Option<i64> {
        seen.try_into().ok().map(i64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_the_time_a_page_was_read_and_wanted_is_the_latest() {
        let rounds = Rounds::new(1_000);
        assert_eq!(rounds.wanted_ms(), i64::MIN);
        let stamp = Rounds::read_stamp(&rounds.stamp()).unwrap();
        assert!((1_000..60_000).contains(&stamp));
        assert_eq!(rounds.wanted_ms(), stamp);
        assert!(rounds.now_ms() >= stamp);
        assert_eq!(Rounds::read_stamp(b"x"), None);
    }
}
