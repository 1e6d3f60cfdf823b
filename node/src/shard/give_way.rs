//! When a snapshot gives way to the stream: rows are there tomorrow, changes may not be.

use std::time::Duration;

/// Of the time that a source keeps changes: with less of it left rows wait, and with as much
/// of it left again they go on.
const SHORT: f64 = 0.25;
const AMPLE: f64 = 0.5;

/// Whether the rows of one shard wait.
#[derive(Debug)]
pub(super) struct GiveWay {
    /// How old a change is when it is forgotten; `None` where that does not go by age.
    keeps: Option<Duration>,
    waits: bool,
}

impl GiveWay {
    /// Rows do not wait before the source has told how things are.
    pub(super) fn new(keeps: Option<Duration>) -> Self {
        Self { keeps, waits: false }
    }

    /// Whether rows wait.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// The source keeps what is to be read next for another `left_ms`, less than 0 if it may
    /// have forgotten it.
    pub(super) fn note(&mut self, left_ms: i64) {
        match (self.turns(left_ms), self.waits) {
            (true, true) => {
                tracing::warn!(left_ms, "the source will forget what follows: rows wait for it");
            }
            (true, false) => tracing::info!(left_ms, "the stream has caught up: rows go on"),
            (false, _) => {}
        }
    }

    /// True if rows wait from now on, or go on.
    fn turns(&mut self, left_ms: i64) -> bool {
        let Some(keeps) = self.keeps else { return false };
        let share = left_ms as f64 / 1e3 / keeps.as_secs_f64();
        let waits = share < if self.waits { AMPLE } else { SHORT };
        std::mem::replace(&mut self.waits, waits) != waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_wait_while_the_source_is_about_to_forget() {
        let hour_ms = 3_600_000;
        let mut way = GiveWay::new(Some(Duration::from_hours(24)));
        assert!(!way.turns(23 * hour_ms) && !way.waits());
        assert!(!way.turns(7 * hour_ms) && !way.waits(), "not at each small delay");
        assert!(way.turns(5 * hour_ms) && way.waits());
        assert!(!way.turns(7 * hour_ms) && way.waits(), "nor on and off");
        assert!(!way.turns(-hour_ms) && way.waits());
        assert!(way.turns(13 * hour_ms) && !way.waits());
    }

    #[test]
    fn nothing_waits_for_a_source_that_does_not_forget_by_age() {
        let mut way = GiveWay::new(None);
        assert!(!way.turns(-1) && !way.waits());
    }
}
