//! Whether a primary's output buffer holds what is written while its dump is read: a
//! primary drops a replica that falls too far behind, and the dump begins anew.

use tidegate_proto::v1::Check;

use super::check::{Server, failed, passed};

const NAME: &str = "source: output buffer";
/// How fast a dump is read: as fast as commands of 240 bytes on one core (P1 in
/// `deploy/bench/latest.md`), whichever of the two takes longer.
const KEYS_PER_SECOND: u64 = 100_000;
const BYTES_PER_SECOND: u64 = 24 << 20;
/// From this version on the backlog counts as room for a replica, too.
const BACKLOG_MAJOR_MIN: u32 = 7;

/// What a primary lets pile up for a replica (`client-output-buffer-limit`); 0 for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    hard_bytes: u64,
    soft_bytes: u64,
    /// How long there may be more than `soft_bytes`.
    soft_seconds: u64,
}

impl Limit {
    /// From `normal 0 0 0 slave 268435456 67108864 60 pubsub ...`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ').skip_while(|word| !["slave", "replica"].contains(word));
        words.next()?;
        let mut number = || words.next()?.parse().ok();
        Some(Self { hard_bytes: number()?, soft_bytes: number()?, soft_seconds: number()? })
    }

    /// Whether a replica is dropped that takes nothing for so long.
    fn drops(self, seconds: u64, bytes_per_second: u64) -> bool {
        let piled = seconds.saturating_mul(bytes_per_second);
        let is_over = |limit: u64| limit > 0 && piled > limit;
        let above = piled.saturating_sub(self.soft_bytes).checked_div(bytes_per_second);
        is_over(self.hard_bytes)
            || is_over(self.soft_bytes) && above.is_some_and(|above| above > self.soft_seconds)
    }
}

/// Foretells it at the speed of now; `None` if the server does not tell its limit.
pub(super) fn judge(server: &Server, limit: Option<Limit>) -> Check {
    let Some(mut limit) = limit else {
        return passed(NAME, "not told: it would take the right to +config|get".to_owned());
    };
    if limit.hard_bytes > 0 && server.major >= BACKLOG_MAJOR_MIN {
        limit.hard_bytes = limit.hard_bytes.max(server.backlog_bytes);
    }
    let seconds = (server.keys / KEYS_PER_SECOND).max(server.keys_bytes / BYTES_PER_SECOND);
    let piled = seconds.saturating_mul(server.writes_per_second) >> 20;
    let detail = format!("about {piled} MiB are written in the {seconds} s that a dump takes");
    if !limit.drops(seconds, server.writes_per_second) {
        return passed(NAME, detail);
    }
    let enough = (piled + 1).next_power_of_two() * 2;
    failed(
        NAME,
        format!("{detail}; the primary drops a replica for which more than its limit piles up"),
        &format!("CONFIG SET client-output-buffer-limit 'replica {enough}mb {enough}mb 0'"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn server(keys: u64, mebibytes_per_second: u64) -> Server {
        let writes_per_second = mebibytes_per_second * MIB;
        Server { keys, writes_per_second, ..Server::default() }
    }

    #[test]
    fn the_limit_of_replicas_is_found_under_both_of_its_names() {
        let wanted = Limit { hard_bytes: 256 * MIB, soft_bytes: 64 * MIB, soft_seconds: 60 };
        for name in ["slave", "replica"] {
            let text = format!("normal 0 0 0 {name} 268435456 67108864 60 pubsub 1 2 3");
            assert_eq!(Limit::parse(&text), Some(wanted));
        }
        assert_eq!(Limit::parse("normal 0 0 0"), None);
        assert_eq!(Limit::parse("replica 1 2"), None);
    }

    #[test]
    fn what_piles_up_is_held_against_both_limits() {
        let limit = Limit { hard_bytes: 256 * MIB, soft_bytes: 64 * MIB, soft_seconds: 60 };
        // 25 s at 10 MiB a second are under the one, and above the other for 18 s.
        assert!(judge(&server(2_500_000, 10), Some(limit)).passed);
        let hard = judge(&server(2_600_000, 10), Some(limit));
        assert!(!hard.passed && hard.remedy.contains("'replica 1024mb 1024mb 0'"), "{hard:?}");
        // 100 s at 2 MiB a second are above the soft one for 68 s.
        assert!(!judge(&server(10_000_000, 2), Some(limit)).passed);
        let none = Limit { hard_bytes: 0, soft_bytes: 0, soft_seconds: 0 };
        assert!(judge(&server(10_000_000, 100), Some(none)).passed);
        assert!(judge(&server(10_000_000, 0), Some(limit)).passed, "nothing is written");
        assert!(judge(&server(0, 100), None).detail.contains("+config|get"));
        let large = Server { keys_bytes: 4 << 30, ..server(10, 10) };
        assert!(!judge(&large, Some(limit)).passed, "few keys, and 170 s of reading");
        let hard = Limit { soft_bytes: 0, ..limit };
        let newer = Server { major: 7, backlog_bytes: 1 << 30, ..server(2_600_000, 10) };
        assert!(judge(&newer, Some(hard)).passed, "as much as the backlog holds");
    }
}
