//! Keeps a scan below so many read capacity units per second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What was used is paid for by waiting before the next page, so the average
/// holds whatever the size of a page. Shared by all segments of a table.
#[derive(Debug)]
pub(super) struct Capacity {
    units_per_second: f64,
    paid: Mutex<Instant>,
}

impl Capacity {
    /// 0 for no limit.
    pub(super) fn new(units_per_second: u32) -> Self {
        Self { units_per_second: units_per_second.into(), paid: Mutex::new(Instant::now()) }
    }

    /// Waits until what was used before is paid for.
    pub(super) async fn wait(&self) {
        let paid = *self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        tokio::time::sleep_until(paid).await;
    }

    /// A page has used `units`.
    pub(super) fn spend(&self, units: f64) {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        *paid = self.paid_after(*paid, Instant::now(), units);
    }

    /// When `units` used at `now` are paid for, if the units before are at `paid`.
    fn paid_after(&self, paid: Instant, now: Instant, units: f64) -> Instant {
        if self.units_per_second <= 0.0 || !units.is_finite() || units <= 0.0 {
            return paid;
        }
        paid.max(now) + Duration::from_secs_f64((units / self.units_per_second).min(3600.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_pages_take_as_long_as_their_units() {
        let (capacity, started) = (Capacity::new(100), Instant::now());
        let mut paid = started;
        for _ in 0..10 {
            paid = capacity.paid_after(paid, started, 50.0);
        }
        assert_eq!(paid - started, Duration::from_secs(5));
        let later = started + Duration::from_secs(60);
        let paid = capacity.paid_after(paid, later, 50.0);
        assert_eq!(paid - later, Duration::from_millis(500), "what was not used is not saved up");
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let (capacity, started) = (Capacity::new(0), Instant::now());
        assert_eq!(capacity.paid_after(started, started, 1e9), started);
        assert_eq!(Capacity::new(1).paid_after(started, started, f64::NAN), started);
    }
}
