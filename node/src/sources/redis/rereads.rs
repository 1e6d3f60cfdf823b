//! How often everything may be read anew because of a command.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::position::Offset;
use crate::error::{Error, ErrorKind, Result};

/// A primary that is dumped more often does little else.
const PAUSE: Duration = Duration::from_secs(600);

/// When and where it was done last; shared by the streams of one source.
#[derive(Debug, Default)]
pub(super) struct Rereads(Mutex<Option<(Instant, Offset)>>);

impl Rereads {
    /// Takes one, for the command `name` at `at`; fails if it was done not long ago for
    /// another. The same one is met again if its loss could not be recorded.
    pub(super) fn take(&self, name: &str, why: &str, at: &Offset) -> Result<()> {
        self.take_at(Instant::now(), (name, why), at)
    }

    fn take_at(&self, now: Instant, (name, why): (&str, &str), at: &Offset) -> Result<()> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = |last: &(Instant, Offset)| now.duration_since(last.0) < PAUSE && last.1 != *at;
        if last.as_ref().is_some_and(recent) {
            let why = format!(
                "redis: the command {name} is not computed ({why}), and everything was read anew \
                 because of one less than ten minutes ago; use another command, or resume the \
                 export later: it is then read anew once more"
            );
            return Err(Error::new(ErrorKind::Config, why));
        }
        *last = Some((now, at.clone()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_once_in_ten_minutes() {
        let (rereads, now) = (Rereads::default(), Instant::now());
        let [at, then] = [1, 2].map(|bytes| Offset { id: "a".into(), bytes, db: 0 });
        let swapped = ("SWAPDB", "why");
        rereads.take_at(now, swapped, &at).unwrap();
        rereads.take_at(now, swapped, &at).unwrap();
        let refused = rereads.take_at(now, swapped, &then).unwrap_err();
        assert!(refused.kind() == ErrorKind::Config && refused.to_string().contains("SWAPDB"));
        rereads.take_at(now + PAUSE, swapped, &then).unwrap();
    }
}
