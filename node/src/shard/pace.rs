//! A limit per second.

use std::time::Duration;

use tokio::time::Instant;

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
