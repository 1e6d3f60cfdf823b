//! One stream shard being looked at, again and again.

use std::time::Duration;

use tokio::time::Instant;

use super::client::{Client, Fetched};
use super::lineage::Place;
use super::problem::Problem;
use crate::error::ErrorKind;
use crate::retry::Backoff;

/// The first pause after a shard had nothing; it doubles from there.
const PAUSE_MIN: Duration = Duration::from_millis(25);
/// A closed shard is looked at this often until it ends.
const PAUSE_CLOSED: Duration = Duration::from_millis(50);
/// Failures of one shard in a row before the stream gives up.
const FAILURES_MAX: u32 = 5;

/// Times in a row an old shard may be listed and yet not be found.
const MISSES_MAX: u32 = 5;

/// When to look next, and with which iterator.
#[derive(Debug)]
pub(super) struct Looking {
    iterator: Option<String>,
    due: Instant,
    /// Not sooner, whoever waits.
    not_before: Instant,
    asked_at: Instant,
    pause: Duration,
    /// A look is under way.
    busy: bool,
    /// The shard held nothing older than this when it was looked at.
    caught_up_ms: i64,
    failures: u32,
    /// Times in a row that it was not found.
    misses: u32,
    backoff: Backoff,
}

/// What a look brought.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) shard: String,
    /// When it began.
    pub(super) asked_ms: i64,
    pub(super) result: Result<Fetched, Problem>,
}

impl Looking {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            iterator: None,
            due: now,
            not_before: now,
            asked_at: now,
            pause: PAUSE_MIN,
            busy: false,
            caught_up_ms: i64::MIN,
            failures: 0,
            misses: 0,
            backoff: Backoff::default(),
        }
    }

    /// When it is to be looked at; `None` while it is. Somebody waiting for the
    /// stream to pass `wanted_ms` makes it sooner.
    pub(super) fn due(&self, wanted_ms: i64) -> Option<Instant> {
        let hurry = self.failures == 0 && self.caught_up_ms <= wanted_ms;
        let due = if hurry { self.due.min(self.asked_at + PAUSE_MIN) } else { self.due };
        (!self.busy).then_some(due.max(self.not_before))
    }

    /// A look begins; gives the iterator to use.
    pub(super) fn begin(&mut self) -> Option<String> {
        self.busy = true;
        self.asked_at = Instant::now();
        self.iterator.take()
    }

    /// It brought records, perhaps none; go on with `next`.
    pub(super) fn page(&mut self, next: String, records: usize, pause_max: Duration) {
        self.rest();
        self.misses = 0;
        self.iterator = Some(next);
        if records > 0 {
            self.pause = PAUSE_MIN;
            return;
        }
        self.due = Instant::now() + self.pause.min(pause_max);
        self.pause = (self.pause * 2).min(pause_max);
    }

    /// It is closed, and had nothing: its end is near.
    pub(super) fn near_end(&mut self) {
        self.due = Instant::now() + PAUSE_CLOSED;
    }

    /// Another iterator is needed, after `pause`.
    pub(super) fn reopen(&mut self, pause: Duration) {
        self.rest();
        self.not_before = Instant::now() + pause;
    }

    /// It was not found; another try after `pause`. True if that has happened
    /// so often that what is listed is there no more.
    pub(super) fn missed(&mut self, pause: Duration) -> bool {
        self.reopen(pause);
        self.misses += 1;
        self.misses >= MISSES_MAX
    }

    /// Waits before the next look; gives the problem back if it must not.
    pub(super) fn failed(&mut self, problem: Problem) -> Result<(), Problem> {
        self.busy = false;
        self.failures += 1;
        if problem.kind() != ErrorKind::Unavailable || self.failures > FAILURES_MAX {
            return Err(problem);
        }
        self.due = Instant::now() + self.backoff.wait();
        Ok(())
    }

    /// Nothing older than `ms` is left in the shard.
    pub(super) fn caught_up(&mut self, ms: i64) {
        self.caught_up_ms = self.caught_up_ms.max(ms);
    }

    /// The shard holds nothing older than this, if that is known by now.
    pub(super) fn caught_up_ms(&self) -> Option<i64> {
        (self.caught_up_ms > i64::MIN).then_some(self.caught_up_ms)
    }

    /// Everything the shard held at `ms` has been read.
    pub(super) fn has_passed(&self, ms: i64) -> bool {
        self.caught_up_ms > ms
    }

    fn rest(&mut self) {
        self.busy = false;
        self.failures = 0;
        self.backoff.reset();
        self.due = Instant::now();
    }
}

/// Looks once.
pub(super) async fn look(
    client: &Client,
    stream: &str,
    shard: &str,
    place: &Place,
    iterator: Option<String>,
) -> Result<Fetched, Problem> {
    let iterator = match iterator {
        Some(iterator) => iterator,
        None => match client.iterator(stream, shard, place).await? {
            Ok(iterator) => iterator,
            Err(without) => return Ok(without),
        },
    };
    client.records(shard, iterator).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_was_not_found_is_left_alone_however_much_it_is_wanted() {
        let mut looking = Looking::new();
        let (now, pause) = (Instant::now(), Duration::from_secs(60));
        assert!(looking.due(i64::MAX) <= Some(now));
        looking.begin();
        looking.page("next".to_owned(), 0, pause);
        assert!(looking.due(i64::MAX) < Some(now + pause), "somebody waits for it");
        looking.begin();
        assert_eq!(looking.due(i64::MAX), None, "it is being looked at");
        assert!(!looking.missed(pause));
        assert!(looking.due(i64::MAX) >= Some(now + pause));
    }
}
