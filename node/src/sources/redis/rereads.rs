//! How often everything may be read anew because of a command.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};

/// A primary that is dumped more often does little else.
const PAUSE: Duration = Duration::from_secs(600);

/// When it was done last; shared by the streams of one source.
#[derive(Debug, Default)]
pub(super) struct Rereads(Mutex<Option<Instant>>);

impl Rereads {
    /// Takes one, for the command `name`; fails if it was done not long ago.
    pub(super) fn take(&self, name: &str, why: &str) -> Result<()> {
        self.take_at(Instant::now(), name, why)
    }

    fn take_at(&self, now: Instant, name: &str, why: &str) -> Result<()> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now.duration_since(last) < PAUSE) {
            let why = format!(
                "redis: the command {name} is not computed ({why}), and everything was read anew \
                 because of one less than ten minutes ago; use another command, or resume the \
                 export later: it is then read anew once more"
            );
            return Err(Error::new(ErrorKind::Config, why));
        }
        *last = Some(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_once_in_ten_minutes() {
        let (rereads, now) = (Rereads::default(), Instant::now());
        rereads.take_at(now, "SWAPDB", "why").unwrap();
        let refused = rereads.take_at(now, "SWAPDB", "why").unwrap_err();
        assert!(refused.kind() == ErrorKind::Config && refused.to_string().contains("SWAPDB"));
        rereads.take_at(now + PAUSE, "SWAPDB", "why").unwrap();
    }
}
