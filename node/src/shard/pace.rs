//! A limit per second.

use std::time::Duration;

use tokio::time::Instant;

/// The least to take at once under a limit.
const PORTION_BYTES_MIN: usize = 1024;

/// Keeps what its users do under a limit, on average.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: u32,
    next: tokio::sync::Mutex<Instant>,
}

impl Pace {
    /// At most so many per second; 0 for any number.
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, next: tokio::sync::Mutex::new(Instant::now()) }
    }

    /// How many bytes to take at once, if `count` of them had `bytes` the last time:
    /// about a quarter of a second's worth, `bytes_max` without a limit.
    pub(super) fn portion(&self, (count, bytes): (usize, usize), bytes_max: usize) -> usize {
        if self.per_second == 0 {
            return bytes_max;
        }
        let each = bytes.checked_div(count).unwrap_or(PORTION_BYTES_MIN);
        let quarter = usize::try_from(self.per_second / 4).unwrap_or(usize::MAX).max(1);
        each.saturating_mul(quarter).max(PORTION_BYTES_MIN).min(bytes_max)
    }

    /// Waits as long as `count` of them take at the limit. Dropping the call
    /// counts them all the same.
    pub(super) async fn after(&self, count: usize) {
        if self.per_second == 0 || count == 0 {
            return;
        }
        let cost = Duration::from_secs(1).mul_f64(count as f64 / f64::from(self.per_second));
        let until = {
            let mut next = self.next.lock().await;
            *next = (*next).max(Instant::now()) + cost;
            *next
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_reader_takes_little_at_once() {
        assert_eq!(Pace::new(0).portion((3, 1200), 1 << 18), 1 << 18);
        assert_eq!(Pace::new(50).portion((3, 1200), 1 << 18), 12 * 400);
        assert_eq!(Pace::new(50).portion((0, 0), 1 << 18), 12 * PORTION_BYTES_MIN);
        assert_eq!(Pace::new(u32::MAX).portion((1, usize::MAX), 1 << 18), 1 << 18);
    }

    #[tokio::test]
    async fn a_limit_holds_over_many_calls_and_none_does_not_wait() {
        // A wait of 10,000 seconds, if it were one.
        Pace::new(0).after(1_000_000).await;
        let start = Instant::now();
        let pace = Pace::new(100);
        for _ in 0..5 {
            pace.after(3).await;
        }
        assert!(start.elapsed() >= Duration::from_millis(149), "{:?}", start.elapsed());
    }
}
