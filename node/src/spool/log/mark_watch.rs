//! A log's mark, for whoever waits for it to move.

use tidegate_proto::Sequence;
use tokio::sync::watch;
use tokio::sync::watch::error::RecvError;

/// One of a log's marks as it moves; closed when the log is removed.
///
/// Marks are moved under the log's lock. What is seen here is a copy: whoever held on to
/// the mark itself while he asks the log for something would wait for the lock, and who has
/// the lock would wait to move the mark.
#[derive(Clone, Debug)]
pub struct MarkWatch(watch::Receiver<Sequence>);

impl MarkWatch {
    pub(super) fn of(mark: &watch::Sender<Sequence>) -> Self {
        Self(mark.subscribe())
    }

    /// Where it is; does not count as seen.
    #[must_use]
    pub fn now(&self) -> Sequence {
        *self.0.borrow()
    }

    /// Where it is, which is seen by that.
    pub fn see(&mut self) -> Sequence {
        *self.0.borrow_and_update()
    }

    /// It has moved since it was seen.
    #[must_use]
    pub fn has_moved(&self) -> bool {
        self.0.has_changed().unwrap_or(false)
    }

    /// What it is now counts as not seen.
    pub fn unsee(&mut self) {
        self.0.mark_changed();
    }

    /// Waits until it has moved since it was seen, and counts as seen then. Dropping the
    /// call loses nothing.
    ///
    /// # Errors
    ///
    /// If the log was removed.
    pub async fn moved(&mut self) -> Result<(), RecvError> {
        self.0.changed().await
    }

    /// Waits until it is at `at` or behind.
    ///
    /// # Errors
    ///
    /// As [`MarkWatch::moved`].
    pub async fn reached(&mut self, at: Sequence) -> Result<(), RecvError> {
        self.0.wait_for(|now| *now >= at).await.map(drop)
    }
}
