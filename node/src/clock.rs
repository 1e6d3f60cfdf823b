//! The one place that asks the machine for the time of day.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

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
}
