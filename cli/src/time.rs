//! Durations, ages and lags as people read them.

use std::time::Duration;

/// Milliseconds since 1970 here; only to show ages, nothing is decided by it.
#[expect(clippy::disallowed_methods, reason = "the one place that reads this machine's clock")]
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}

/// From `then_ms` to `now_ms`; `None` when `then_ms` is 0, which means untold.
/// Clocks of two machines differ, so a time ahead of now counts as now.
pub(crate) fn since(then_ms: i64, now_ms: i64) -> Option<Duration> {
    let millis = u64::try_from(now_ms.saturating_sub(then_ms)).unwrap_or(0);
    (then_ms != 0).then(|| Duration::from_millis(millis))
}

/// `0 ms`, `350 ms`, `1.2 s`, `3 min 20 s`, `5 h 3 min`, `2 d 4 h`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..=59 => format!("{}.{} s", seconds, duration.subsec_millis() / 100),
        60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// [`duration`], or `-` when it is not known.
pub(crate) fn duration_or_dash(known: Option<Duration>) -> String {
    known.map_or_else(|| "-".to_owned(), duration)
}

/// How long ago, coarsely: `now`, `12 s ago`, `3 min ago`, `2 d ago`, `-`.
pub(crate) fn age(then_ms: i64, now_ms: i64) -> String {
    let Some(age) = since(then_ms, now_ms) else { return "-".to_owned() };
    let seconds = age.as_secs();
    match seconds {
        0 => "now".to_owned(),
        1..=59 => format!("{seconds} s ago"),
        60..=3599 => format!("{} min ago", seconds / 60),
        3600..=86_399 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_two_places_of_meaning() {
        let millis = [0, 350, 1_249, 200_000, 18_180_000, 187_200_000].map(Duration::from_millis);
        let wanted = ["0 ms", "350 ms", "1.2 s", "3 min 20 s", "5 h 3 min", "2 d 4 h"];
        assert_eq!(millis.map(duration), wanted);
    }

    #[test]
    fn an_untold_time_has_no_age() {
        assert_eq!(age(0, 5_000), "-");
        assert_eq!(since(0, 5_000), None);
    }

    #[test]
    fn a_clock_that_is_ahead_counts_as_now() {
        assert_eq!(age(9_000, 5_000), "now");
        assert_eq!(age(5_000, 17_500), "12 s ago");
        assert_eq!(age(1, 90_000_000), "1 d ago");
    }
}
