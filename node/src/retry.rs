//! How long to wait before the next try.

use std::time::Duration;

use rand::Rng as _;

/// The longest wait where nothing asks for less.
pub const MOST: Duration = Duration::from_secs(30);

/// Exponential backoff with full jitter, without an end: what is down comes
/// back some day, and the spool holds what it misses.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// Waits up to `first`, then up to twice that, and never above `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, first, most }
    }

    /// How long to wait now: between half of this step and all of it.
    pub fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.most);
        step.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// It worked: the next failure starts from the beginning.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

impl Default for Backoff {
    /// 100 ms to [`MOST`].
    fn default() -> Self {
        Self::new(Duration::from_millis(100), MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_limit_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(400));
        let waits: Vec<_> = (0..5).map(|_| backoff.wait()).collect();
        assert!(waits[0] <= Duration::from_millis(100) && waits[0] >= Duration::from_millis(50));
        assert!(waits[3] >= Duration::from_millis(200) && waits[4] <= Duration::from_millis(400));
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_millis(100));
    }
}
