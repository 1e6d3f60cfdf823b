//! The one place that asks the machine for the time of day, and what was when.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Milliseconds since 1970, UTC. For people and for output; no promise rests on it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock the others take it from")]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Bits of a hybrid clock that count within one millisecond.
const COUNTER_BITS: u32 = 16;

/// A hybrid logical clock: 48 bits of milliseconds, 16 of a counter
/// (Kulkarni et al., "Logical Physical Clocks", 2014).
///
/// Never goes back and never repeats within a process; [`Hybrid::observe`]
/// carries it past what another process has stamped.
#[derive(Debug, Default)]
pub struct Hybrid(Mutex<u64>);

impl Hybrid {
    /// The first of `count` stamps in a row.
    pub fn take(&self, count: u64, wall_ms: i64) -> u64 {
        let wall = u64::try_from(wall_ms).unwrap_or(0) << COUNTER_BITS;
        let mut next = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let first = wall.max(*next);
        *next = first + count.max(1);
        first
    }

    /// From now on, stamp later than `clock`.
    pub fn observe(&self, clock: u64) {
        let mut next = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *next = (*next).max(clock + 1);
    }
}

/// Marks that a [`Past`] keeps, about.
const PIECES: u32 = 8;

/// What something was some time ago, to an eighth of that time.
#[derive(Debug)]
pub(crate) struct Past<T> {
    reach: Duration,
    /// From the newest that is old enough on, if one is.
    marks: VecDeque<(Instant, T)>,
}

impl<T: Copy> Past<T> {
    /// Tells what was `reach` ago.
    pub(crate) fn new(reach: Duration) -> Self {
        Self { reach, marks: VecDeque::new() }
    }

    /// How long ago.
    pub(crate) fn reach(&self) -> Duration {
        self.reach
    }

    /// Notes what is at `now`; gives what was, or the first that was noted since.
    pub(crate) fn note(&mut self, now: Instant, is: T) -> T {
        let piece = self.reach / PIECES;
        if self.marks.back().is_none_or(|(last, _)| now - *last >= piece) {
            self.marks.push_back((now, is));
        }
        while self.marks.get(1).is_some_and(|(noted, _)| now - *noted >= self.reach) {
            self.marks.pop_front();
        }
        self.marks.front().map_or(is, |(_, was)| *was)
    }

    /// What was, if it was noted that long before `now`.
    pub(crate) fn was(&self, now: Instant) -> Option<T> {
        let first = self.marks.front().filter(|(noted, _)| now - *noted >= self.reach);
        first.map(|(_, was)| *was)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_never_go_back_even_if_the_wall_does() {
        let clock = Hybrid::default();
        let first = clock.take(10, 1_000);
        assert_eq!(first, 1_000 << 16);
        assert_eq!(clock.take(1, 1), first + 10);
        clock.observe(5_000 << 16);
        assert_eq!(clock.take(1, 1_001), (5_000 << 16) + 1);
    }
    #[test]
    fn what_was_some_time_ago_follows_what_is() {
        let reach = Duration::from_millis(500);
        let (mut past, start) = (Past::new(reach), Instant::now());
        assert_eq!(past.note(start, 10), 10);
        assert_eq!(past.was(start), None, "nobody knows what was before");
        assert_eq!(past.note(start + reach / 2, 20), 10);
        assert_eq!(past.note(start + reach, 30), 10);
        assert_eq!(past.was(start + reach), Some(10));
        assert_eq!(past.note(start + reach * 2, 40), 30);
        let mut at = start + reach * 2;
        for mark in 41..1000 {
            at += reach / 100;
            past.note(at, mark);
        }
        assert!(past.marks.len() <= 10, "{}", past.marks.len());
        let ago = 999 - past.note(at, 999);
        assert!((100..=115).contains(&ago), "{ago} hundredths");
    }
}
