//! METHOD: each seed is a world of its own. The rules hold for all of them; each
//! rule that is left out is missed within some.

use super::{Broken, Report, run};
use crate::asked::{number, tell};

/// Seeds of a run of the tests; `make simulate SEEDS=n` runs more.
const SEEDS: u64 = 200;
/// Within so many seeds a broken rule shows.
const SEEDS_BROKEN: u64 = 5000;

#[test]
fn no_promise_is_broken_under_any_seed() {
    if let Some(seed) = number("SEED") {
        let report = run(seed, None, true);
        tell(&report.lines.join("\n"));
        assert_eq!(report.violation, None, "seed {seed}");
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let first = number("FIRST").unwrap_or(0);
    let started = tokio::time::Instant::now();
    let mut sum = Sum::default();
    for seed in first..first + seeds {
        let report = run(seed, None, false);
        sum.add(&report);
        if let Some(violation) = &report.violation {
            let again = format!("replay it with `make simulate SEED={seed}`");
            tell(&format!("seed {seed}: {violation}; {again}"));
            sum.violations += 1;
            assert!(number("ALL").is_some(), "seed {seed}: {violation}; {again}");
        }
    }
    let took = started.elapsed();
    let rate = f64::from(u32::try_from(seeds).unwrap()) / took.as_secs_f64();
    tell(&format!("{seeds} seeds in {took:.1?}, {rate:.0} a second: {sum:?}"));
    assert_eq!(sum.violations, 0);
}

#[test]
fn a_seed_replays_to_the_letter() {
    for seed in [1, 7, 42] {
        let (once, again) = (run(seed, None, true), run(seed, None, true));
        assert_eq!(once.lines, again.lines, "seed {seed}");
        assert_eq!(once.hash, again.hash, "seed {seed}");
        assert_eq!(run(seed, None, false).hash, once.hash, "text changes nothing");
    }
    assert_ne!(run(1, None, false).hash, run(2, None, false).hash);
}

#[test]
fn a_sink_that_ignores_epochs_is_caught() {
    caught(Broken::SinkIgnoresEpochs, "sink");
}

#[test]
fn copies_that_ignore_epochs_are_caught() {
    // As a change that is seen twice, or by a copy that would have to drop it.
    caught(Broken::CopyIgnoresEpochs, "");
}

#[test]
fn a_start_before_the_stop_is_caught() {
    caught(Broken::StartBeforeStop, "sink");
}

#[test]
fn an_owner_that_is_not_in_sync_is_caught() {
    caught(Broken::OwnerNotInSync, "in sync");
}

#[test]
fn a_lease_as_long_as_the_patience_is_caught() {
    caught(Broken::LongLease, "still holds its lease");
}

#[test]
fn a_torn_log_that_is_gone_on_with_is_caught() {
    caught(Broken::TornTails, "");
}

/// Some seed finds it, and the violation names what went wrong.
fn caught(rule: Broken, names: &str) {
    let found = (0..SEEDS_BROKEN).find_map(|seed| {
        let violation = run(seed, Some(rule), false).violation?;
        Some((seed, violation))
    });
    let Some((seed, violation)) = found else { panic!("{rule:?} was not missed") };
    tell(&format!("{rule:?} is caught by seed {seed}: {violation}"));
    assert!(violation.contains(names), "seed {seed}: {violation}");
}

#[derive(Debug, Default)]
struct Sum {
    violations: u64,
    faults: u64,
    assigned: u64,
    simulated_s: u64,
    longest_ownerless_ms: u64,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.faults += report.faults;
        self.assigned += report.assigned;
        self.simulated_s += report.simulated_us / 1_000_000;
        self.longest_ownerless_ms =
            self.longest_ownerless_ms.max(report.longest_ownerless_us / 1_000);
    }
}
