//! How far snapshots are, and when they will be done.

use std::time::Duration;

use serde::Serialize;
use tidegate_proto::v1::{Progress, Shard, SnapshotState};
use tokio::time::Instant;

/// How far the snapshot of some shards is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct SnapshotProgress {
    /// `waiting`, `running`, `complete`, `canceled` or `skipped`.
    pub(crate) state: &'static str,
    pub(crate) chunks_done: u64,
    pub(crate) chunks: u64,
    /// Rows captured by chunks of snapshots that still run; a complete one
    /// counts with what the source estimated, or with none.
    pub(crate) rows: u64,
    /// 0 if a source has no estimate.
    pub(crate) rows_estimated: u64,
    pub(crate) bytes: u64,
    /// From 0 to 1; exactly 1 only when complete.
    pub(crate) share: f64,
    /// Every shard that still runs has an estimate.
    #[serde(skip)]
    estimated: bool,
}

impl SnapshotProgress {
    /// What is done, of how much: rows where the sources estimated them, else
    /// chunks.
    pub(crate) fn parts(&self) -> (u64, u64) {
        if self.estimated && self.rows_estimated > 0 {
            (self.rows, self.rows_estimated)
        } else {
            (self.chunks_done, self.chunks)
        }
    }

    /// There is nothing more to wait for.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, "complete" | "canceled" | "skipped")
    }
}

/// Adds up the progress of `shards`.
pub(crate) fn of<'a>(shards: impl IntoIterator<Item = &'a Shard>) -> SnapshotProgress {
    let mut sum = SnapshotProgress { estimated: true, ..SnapshotProgress::default() };
    let (mut waiting, mut running, mut complete) = (0_u64, 0_u64, 0_u64);
    let (mut canceled, mut skipped) = (0_u64, 0_u64);
    for shard in shards {
        let state = state(shard);
        if state == SnapshotState::Skipped {
            skipped += 1;
            continue;
        }
        if state == SnapshotState::Canceled {
            canceled += 1;
            continue;
        }
        let chunks = u64::from(shard.chunks);
        sum.chunks += chunks;
        sum.rows_estimated += shard.rows_estimated;
        match state {
            SnapshotState::Complete => {
                complete += 1;
                sum.chunks_done += chunks;
                sum.rows += shard.rows_estimated;
            }
            SnapshotState::Running => {
                running += 1;
                sum.estimated &= shard.rows_estimated > 0;
                add_chunks(&mut sum, shard);
            }
            SnapshotState::Unspecified | SnapshotState::Canceled | SnapshotState::Skipped => {
                waiting += 1;
            }
        }
    }
    sum.state = match (waiting, running, complete, skipped) {
        (_, 1.., _, _) | (1.., _, 1.., _) => "running",
        (1.., ..) => "waiting",
        (0, 0, 0, 0) if canceled == 0 => "waiting",
        (0, 0, _, _) if canceled > 0 => "canceled",
        (0, 0, 1.., _) => "complete",
        (0, 0, 0, _) => "skipped",
    };
    sum.share = share(&sum);
    sum
}

/// Where the snapshot asked for last is of a shard; unspecified before it began.
pub(crate) fn state(shard: &Shard) -> SnapshotState {
    let captured = shard.captured.as_ref().and_then(|at| at.progress.as_ref());
    if captured.is_some_and(|it| it.round < shard.round) {
        return if shard.canceled { SnapshotState::Canceled } else { SnapshotState::Unspecified };
    }
    captured.or(shard.anchor.as_ref()).map_or(SnapshotState::Unspecified, Progress::snapshot)
}

fn add_chunks(sum: &mut SnapshotProgress, shard: &Shard) {
    let progress = shard.captured.as_ref().and_then(|at| at.progress.as_ref());
    for chunk in progress.into_iter().flat_map(|it| it.chunks.values()) {
        sum.chunks_done += u64::from(chunk.done);
        sum.rows += chunk.rows;
        sum.bytes += chunk.bytes;
    }
}

/// An estimate may be too low, so only completeness makes it 1.
fn share(sum: &SnapshotProgress) -> f64 {
    match sum.parts() {
        _ if sum.is_over() => 1.0,
        (_, 0) => 0.0,
        (part, whole) => (part as f64 / whole as f64).min(0.999),
    }
}

/// Measures a rate out of totals seen from time to time.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    last: Option<(Instant, u64)>,
    per_second: Option<f64>,
}

impl Meter {
    /// Weight of the newest measurement against all before it.
    const NEWEST: f64 = 0.3;

    /// Takes the total as it is at `now`; gives the rate, once there is one.
    pub(crate) fn see(&mut self, now: Instant, total: u64) -> Option<f64> {
        let (then, before) = self.last.replace((now, total))?;
        let seconds = now.saturating_duration_since(then).as_secs_f64();
        if seconds > 0.0 {
            let newest = total.saturating_sub(before) as f64 / seconds;
            let smooth = |old: f64| old + (newest - old) * Self::NEWEST;
            self.per_second = Some(self.per_second.map_or(newest, smooth));
        }
        self.per_second
    }
}

/// How long the rest takes at `per_second`; unknown without an estimate, or
/// while nothing moves.
pub(crate) fn time_left(progress: &SnapshotProgress, per_second: Option<f64>) -> Option<Duration> {
    let left = progress.rows_estimated.checked_sub(progress.rows).filter(|left| *left > 0)?;
    let rate = per_second.filter(|rate| *rate > 0.0)?;
    Duration::try_from_secs_f64((left as f64 / rate).ceil()).ok()
}

#[cfg(test)]
mod tests {
    use tidegate_proto::v1::{Checkpoint, ChunkProgress};

    use super::*;

    fn shard(snapshot: SnapshotState, estimate: u64, chunks: &[(bool, u64)]) -> Shard {
        let part = |(at, (done, rows)): (usize, &(bool, u64))| {
            let chunk = ChunkProgress { done: *done, rows: *rows, ..ChunkProgress::default() };
            (u32::try_from(at).unwrap(), chunk)
        };
        let progress = Progress {
            chunks: chunks.iter().enumerate().map(part).collect(),
            snapshot: snapshot.into(),
            ..Progress::default()
        };
        let captured = Checkpoint { progress: Some(progress), ..Checkpoint::default() };
        Shard { chunks: 4, rows_estimated: estimate, captured: Some(captured), ..Shard::default() }
    }

    #[test]
    fn rows_are_measured_against_the_estimate() {
        let progress = of(&[shard(SnapshotState::Running, 1000, &[(true, 200), (false, 50)])]);
        assert_eq!((progress.rows, progress.chunks_done, progress.chunks), (250, 1, 4));
        assert!((progress.share - 0.25).abs() < 1e-9, "{progress:?}");
    }

    #[test]
    fn without_an_estimate_chunks_are_counted() {
        let progress = of(&[shard(SnapshotState::Running, 0, &[(true, 200), (true, 50)])]);
        assert!((progress.share - 0.5).abs() < 1e-9, "{progress:?}");
        assert_eq!(time_left(&progress, Some(10.0)), None);
    }

    #[test]
    fn an_estimate_that_was_too_low_never_says_complete() {
        let progress = of(&[shard(SnapshotState::Running, 10, &[(false, 500)])]);
        assert!(progress.share < 1.0 && progress.state == "running", "{progress:?}");
    }

    #[test]
    fn an_export_is_complete_when_all_its_shards_are() {
        let done = shard(SnapshotState::Complete, 100, &[]);
        let busy = shard(SnapshotState::Running, 100, &[(false, 50)]);
        assert_eq!(of(&[done.clone(), busy]).state, "running");
        assert_eq!(of(&[done.clone(), Shard::default()]).state, "running");
        let both = of(&[done.clone(), done]);
        assert_eq!((both.state, both.rows, both.share), ("complete", 200, 1.0));
        assert_eq!(of(&[]).state, "waiting");
        assert_eq!(of(&[shard(SnapshotState::Skipped, 0, &[])]).state, "skipped");
    }

    #[test]
    fn a_rate_needs_two_looks_and_smooths_the_rest() {
        let start = Instant::now();
        let mut meter = Meter::default();
        assert_eq!(meter.see(start, 0), None);
        assert_eq!(meter.see(start + Duration::from_secs(1), 100), Some(100.0));
        let third = meter.see(start + Duration::from_secs(2), 300).unwrap();
        assert!((third - 130.0).abs() < 1e-9, "{third}");
    }

    #[test]
    fn time_left_is_what_is_missing_at_the_rate() {
        let progress = of(&[shard(SnapshotState::Running, 1000, &[(false, 400)])]);
        assert_eq!(time_left(&progress, Some(100.0)), Some(Duration::from_secs(6)));
        assert_eq!(time_left(&progress, Some(0.0)), None);
        assert_eq!(time_left(&progress, None), None);
    }
}
