//! Whether the rows of a new export will be read before its source forgets what is
//! written meanwhile.

use std::time::Duration;

use tidegate_proto::v1::Check;

use crate::config::{ExportSpec, SnapshotMode};
use crate::sources::Source;

const NAME: &str = "source: snapshot";
const HOUR: f64 = 3600.0;

/// Foretells it from the source's own estimate of its rows. `None` where nothing slows the
/// rows down, the source forgets nothing by age, or has none to be read.
pub(super) async fn check(spec: &ExportSpec, source: &dyn Source) -> Option<Check> {
    let rate = spec.snapshot.rows_per_second;
    let keeps = source.traits().keeps?;
    if spec.snapshot.mode != SnapshotMode::Initial || rate == 0 {
        return None;
    }
    match source.rows_estimated().await {
        Ok(0) => None,
        Ok(rows) => Some(foretold(rows, rate, keeps)),
        Err(error) => {
            let detail = format!("not foretold: {error}");
            Some(Check { name: NAME.to_owned(), passed: true, detail, ..Check::default() })
        }
    }
}

fn foretold(rows: u64, rate: u32, keeps: Duration) -> Check {
    let takes = rows as f64 / f64::from(rate);
    let (took, kept) = (hours(takes), hours(keeps.as_secs_f64()));
    let detail = format!(
        "about {rows} rows at {rate} a second take {took}; the source keeps changes for {kept}"
    );
    let needed = (rows as f64 / keeps.as_secs_f64()).ceil();
    let remedy = format!(
        "[snapshot] rows-per-second = {needed} or more. Or apply it with --force: changes are \
         captured while the rows are read, so only a stop that lasts for {kept} loses any"
    );
    let passed = takes <= keeps.as_secs_f64();
    let remedy = if passed { String::new() } else { remedy };
    Check { name: NAME.to_owned(), passed, detail, remedy }
}

fn hours(seconds: f64) -> String {
    if seconds < HOUR { format!("{seconds:.0} s") } else { format!("{:.1} h", seconds / HOUR) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn rows_that_take_longer_than_the_source_keeps_changes_are_refused_with_the_rate_needed() {
        let slow = foretold(100_000_000, 1000, DAY);
        assert!(!slow.passed && slow.detail.contains("take 27.8 h"), "{slow:?}");
        assert!(slow.detail.contains("keeps changes for 24.0 h"), "{slow:?}");
        assert!(slow.remedy.contains("rows-per-second = 1158 or more"), "{slow:?}");
        assert!(foretold(100_000_000, 1158, DAY).passed, "what the remedy says is enough");
        assert!(!foretold(100_000_000, 1157, DAY).passed);
    }

    #[test]
    fn a_short_one_passes_and_says_how_long_it_takes() {
        let quick = foretold(50_000, 2500, DAY);
        assert!(quick.passed && quick.remedy.is_empty(), "{quick:?}");
        assert!(quick.detail.contains("take 20 s"), "{quick:?}");
    }
}
