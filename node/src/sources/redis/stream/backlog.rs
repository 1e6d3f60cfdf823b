//! How long a primary's backlog lasts: a pure core.

use std::time::Duration;

use tokio::time::Instant;

/// A primary that has had no replica for so long drops its backlog
/// (`repl-backlog-ttl`, by default).
const LASTS_MAX: Duration = Duration::from_secs(3600);
/// The stream's speed is that of the last span at least this long.
const SPAN: Duration = Duration::from_secs(5);

/// The ring of bytes from which a replica that comes back is served.
#[derive(Debug)]
pub(super) struct Backlog {
    bytes: u64,
    /// Where a span began.
    from: Option<(Instant, u64)>,
    /// Of the span before that.
    bytes_per_second: Option<f64>,
}

impl Backlog {
    /// One of `bytes` bytes (`repl-backlog-size`).
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes, from: None, bytes_per_second: None }
    }

    /// The stream was read up to its byte `at`.
    pub(super) fn read_to(&mut self, at: u64, now: Instant) {
        let (since, first) = *self.from.get_or_insert((now, at));
        let span = now.duration_since(since);
        if span >= SPAN {
            self.bytes_per_second = Some(at.saturating_sub(first) as f64 / span.as_secs_f64());
            self.from = Some((now, at));
        }
    }

    /// How long it goes back if nothing is read from now on and writes go on at the
    /// speed of late; `None` until that is known.
    pub(super) fn lasts(&self) -> Option<Duration> {
        let seconds = self.bytes as f64 / self.bytes_per_second?.max(1.0);
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(LASTS_MAX).min(LASTS_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_lasts_as_long_as_the_last_spans_speed_takes_to_fill_it() {
        let (mut backlog, start) = (Backlog::new(10_000), Instant::now());
        backlog.read_to(500, start);
        backlog.read_to(900, start + SPAN / 2);
        assert_eq!(backlog.lasts(), None);
        backlog.read_to(5_500, start + SPAN);
        assert_eq!(backlog.lasts(), Some(Duration::from_secs(10)));
        backlog.read_to(5_500, start + 2 * SPAN);
        assert_eq!(backlog.lasts(), Some(LASTS_MAX), "nothing is written");
    }
}
