//! When to list the stream's shards again.

use std::time::Duration;

use tokio::time::Instant;

/// How often, when nothing happens.
const EVERY: Duration = Duration::from_secs(30);
/// How often while something is expected of the listing.
const SOON: Duration = Duration::from_secs(1);
/// How long a shard that ended may be without a child before that is believed.
const CHILDLESS: Duration = Duration::from_secs(60);
/// A listing that would mean a loss is asked for so many times more.
const DOUBTS_MAX: u32 = 5;

/// The pace of listings.
#[derive(Debug)]
pub(super) struct Pace {
    due: Instant,
    busy: bool,
    doubts: u32,
    failures: u32,
    /// Shards that ended, whose children no listing has had yet.
    childless: Vec<(String, Instant)>,
}

impl Pace {
    /// The first listing is due at `now`, as the others are counted from theirs.
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now, busy: false, doubts: 0, failures: 0, childless: Vec::new() }
    }

    /// When to list; `None` while a listing is under way.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.busy).then_some(self.due)
    }

    pub(super) fn begin(&mut self) {
        self.busy = true;
    }

    /// `shard` has ended: its children are wanted at once.
    pub(super) fn ended(&mut self, shard: &str, now: Instant) {
        self.childless.push((shard.to_owned(), now + CHILDLESS));
        self.due = now;
    }

    /// Something is amiss: list soon.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.due = self.due.min(now + SOON);
    }

    /// A listing came that would mean a loss: true if it is to be believed.
    pub(super) fn doubt(&mut self, now: Instant) -> bool {
        self.doubts += 1;
        if self.doubts > DOUBTS_MAX {
            return true;
        }
        self.again(now + SOON);
        false
    }

    /// A listing was believed, in which `has_child` looks for children.
    pub(super) fn believed(&mut self, now: Instant, has_child: impl Fn(&str) -> bool) {
        self.doubts = 0;
        self.failures = 0;
        self.childless.retain(|(shard, until)| now < *until && !has_child(shard));
        self.again(now + if self.childless.is_empty() { EVERY } else { SOON });
    }

    /// A listing failed: true if that has happened too often.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failures += 1;
        self.again(now + SOON * self.failures);
        self.failures > DOUBTS_MAX
    }

    /// All children of the shards that ended are known.
    pub(super) fn is_settled(&self) -> bool {
        self.childless.is_empty()
    }

    fn again(&mut self, due: Instant) {
        self.busy = false;
        self.due = due;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_an_end_listings_come_quickly_until_the_child_is_there() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.begin();
        assert_eq!(pace.due(), None);
        pace.believed(now, |_| false);
        assert_eq!(pace.due(), Some(now + EVERY));
        pace.ended("a", now);
        assert_eq!(pace.due(), Some(now));
        pace.believed(now, |_| false);
        assert!(!pace.is_settled());
        assert_eq!(pace.due(), Some(now + SOON));
        pace.believed(now, |shard| shard == "a");
        assert!(pace.is_settled());
        assert_eq!(pace.due(), Some(now + EVERY));
    }

    #[test]
    fn a_shard_that_stays_childless_is_not_waited_for_for_ever() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.ended("a", now);
        pace.believed(now + CHILDLESS, |_| false);
        assert!(pace.is_settled());
    }

    #[test]
    fn a_loss_is_believed_only_after_asking_again() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!((0..DOUBTS_MAX).filter(|_| pace.doubt(now)).count(), 0);
        assert!(pace.doubt(now));
    }

    #[test]
    fn an_end_during_a_listing_asks_for_another_one() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.begin();
        pace.ended("a", now);
        assert_eq!(pace.due(), None, "one at a time");
        pace.believed(now, |_| false);
        assert_eq!(pace.due(), Some(now + SOON));
    }
}
