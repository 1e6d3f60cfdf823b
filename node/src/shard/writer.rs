//! Takes one shard's changes to one sink.

use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::{Checkpoint, Gap, GapKind, Progress, Shard, ShardId};
use tidegate_proto::{Epoch, Frame, Sequence};
use tidegate_raft_store::absorb;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::checkpoint::{Added, Reporter, Window};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::exchange::Fetch;
use crate::shard::Means;
use crate::shard::role::{Terms, under};
use crate::shard::sink_watch::SinkWatch;
use crate::sinks::{self, Committed, Durable, Sink, SinkBatch, SinkShard, Written};
use crate::telemetry;

/// How often what is no longer retained is asked for, before it is believed.
const GONE_MAX: u32 = 60;
/// How often a shard whose owner is not there yet is asked for.
const OWNER_WAIT: Duration = Duration::from_millis(50);

/// Runs until told to stop, or until it cannot go on; then says why.
pub(super) async fn run(
    means: Means,
    (id, name): (ShardId, String),
    terms: Terms,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let job = means.exports.job(id.export_id).await?;
    let config = job.sinks.get(&name).cloned();
    let config = config.ok_or_else(|| Error::new(ErrorKind::Fenced, "the sink was removed"))?;
    let shard = means.control.read(|state| under(state, id, terms.epoch))?;
    let target = SinkShard {
        export: job.name.clone(),
        uid: format!("{}/{}", means.control.identity().cluster_id, id.export_id),
        shard: shard.spec.clone().unwrap_or_default().name,
        sink: name.clone(),
        epoch: terms.epoch,
    };
    let watch = SinkWatch { means: means.clone(), id, epoch: terms.epoch, sink: name.clone() };
    let opened = watch.over(sinks::open(&config, &target)).await?;
    let recorded = shard.delivered.get(&name).cloned().unwrap_or_default();
    let start = start(&shard, &recorded, opened.committed.as_ref());
    let reporter = means.checkpointer.reporter(id, terms.epoch);
    // Tells a reader that has lost its spool what this sink has.
    reporter.delivered(&name, start.sequence, start.report);
    if terms.tells {
        // It ends when the sender is gone, too.
        _ = stop.wait_for(|stop| *stop).await;
        return Ok(());
    }
    let mut aim = Aim::new(terms.epoch, start.sequence);
    let after = means.control.read(|state| aim.begin(state.gaps_of(id)));
    tracing::info!(after = %after, "delivering");
    let fetch = tokio::select! {
        fetch = open_fetch(&means, id, aim) => fetch?,
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    };
    let mut writer = Writer {
        sink: opened.sink,
        watch,
        name,
        export: job.name.clone(),
        reporter,
        window: Window::default(),
        progress: start.progress,
        last: after,
        flush_at: None,
    };
    writer.deliver(fetch, &mut stop).await
}

/// Where a writer starts, and what it tells the cluster about that.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) sequence: Sequence,
    pub(crate) progress: Progress,
    pub(crate) report: Added,
}

/// The higher of what the sink says it has and what the cluster recorded.
pub(crate) fn start(shard: &Shard, recorded: &Checkpoint, committed: Option<&Committed>) -> Start {
    let at_recorded = Sequence(recorded.sequence);
    let ahead = committed.filter(|committed| committed.sequence > at_recorded);
    if let Some(committed) = ahead {
        let records = committed.records.saturating_sub(recorded.records);
        return Start {
            sequence: committed.sequence,
            progress: committed.progress.clone(),
            report: Added { progress: committed.progress.clone(), records, ..Added::default() },
        };
    }
    let mut progress = shard.anchor.clone().unwrap_or_default();
    absorb(&mut progress, &recorded.progress.clone().unwrap_or_default());
    Start { sequence: at_recorded, progress, report: Added::default() }
}

/// Behind the ranges that were lost with their spools and come again under new
/// sequences: those this owner found lost, or those of earlier owners too.
fn skip_lost<'a>(
    gaps: impl Iterator<Item = &'a Gap>,
    owner: Option<Epoch>,
    after: Sequence,
) -> Sequence {
    let lost = gaps.filter(|gap| {
        gap.kind() == GapKind::SpoolLost
            && owner.is_none_or(|epoch| gap.epoch == epoch.0)
            && (gap.after..gap.upto).contains(&after.0)
    });
    lost.map(|gap| Sequence(gap.upto)).max().unwrap_or(after)
}

/// Where a writer asks for batches, from try to try; a pure core.
///
/// The owner may find that its spool is lost meanwhile: then the place to start
/// moves. So it does if the spool of an earlier owner was lost before this sink
/// had what came again.
#[derive(Debug)]
pub(crate) struct Aim {
    epoch: Epoch,
    after: Sequence,
    patience: u32,
}

impl Aim {
    /// For a writer under `epoch` whose sink has all up to `after`.
    pub(crate) fn new(epoch: Epoch, after: Sequence) -> Self {
        Self { epoch, after, patience: GONE_MAX }
    }

    /// Where the first try begins.
    pub(crate) fn begin<'a>(&mut self, gaps: impl Iterator<Item = &'a Gap>) -> Sequence {
        self.after = skip_lost(gaps, Some(self.epoch), self.after);
        self.after
    }

    /// Behind which sequence to ask now.
    pub(crate) fn from<'a>(&self, gaps: impl Iterator<Item = &'a Gap>) -> Sequence {
        skip_lost(gaps, Some(self.epoch), self.after)
    }

    /// Asking behind `from` gave an error of this kind; true to ask again.
    pub(crate) fn missed<'a>(
        &mut self,
        kind: ErrorKind,
        from: Sequence,
        gaps: impl Iterator<Item = &'a Gap> + Clone,
    ) -> bool {
        let lost = skip_lost(gaps.clone(), Some(self.epoch), from) > from;
        let behind = skip_lost(gaps, None, from);
        if kind == ErrorKind::Gone && behind > from {
            // The log that is there begins behind the loss.
            self.after = behind;
        } else if kind == ErrorKind::Gone && !lost && self.patience > 0 {
            // The record of a loss may reach this node after the new log began.
            self.patience -= 1;
        } else if kind != ErrorKind::Unavailable && !lost {
            return false;
        }
        true
    }
}

/// Asks for the shard until its owner is there.
async fn open_fetch(means: &Means, id: ShardId, mut aim: Aim) -> Result<Box<dyn Fetch>> {
    loop {
        let from = means.control.read(|state| aim.from(state.gaps_of(id)));
        let error = match means.exchange.fetch(id, from).await {
            Ok(fetch) => return Ok(fetch),
            Err(error) => error,
        };
        let gaps: Vec<_> = means.control.read(|state| state.gaps_of(id).cloned().collect());
        let shard = means.control.read(|state| under(state, id, aim.epoch))?;
        if !aim.missed(error.kind(), from, gaps.iter()) {
            return Err(unless_untold(error, &shard, &gaps));
        }
        tokio::time::sleep(OWNER_WAIT).await;
    }
}

/// A log that this owner begins anew may begin behind a loss that this node, which lags, has
/// not heard of: that is no hole.
fn unless_untold(error: Error, shard: &Shard, gaps: &[Gap]) -> Error {
    let told = |gap: &Gap| gap.kind() == GapKind::SpoolLost && gap.epoch == shard.epoch;
    // Who has heard what the owner captured has heard of the loss before that.
    let lags = shard.captured.as_ref().is_none_or(|captured| captured.epoch < shard.epoch);
    let untold = lags && shard.anew == shard.epoch && !gaps.iter().any(told);
    if error.kind() != ErrorKind::Gone || !untold {
        return error;
    }
    let what = "the shard's log was begun anew, and this node does not know why yet";
    Error::new(ErrorKind::Unavailable, what).because(error)
}

/// The first sequence of a batch that is not handed on yet, given the last that
/// was; `None` if the batch leaves a hole that is no recorded loss.
pub(crate) fn continues(first: Sequence, last: Sequence, rewound: bool) -> Option<Sequence> {
    let first = first.max(last.next());
    (first == last.next() || rewound).then_some(first)
}

struct Writer {
    sink: Box<dyn Sink>,
    watch: SinkWatch,
    name: String,
    export: String,
    reporter: Reporter,
    window: Window,
    /// The shard's whole progress after the last batch handed on.
    progress: Progress,
    /// The last sequence handed on.
    last: Sequence,
    /// When what the sink holds must be made durable.
    flush_at: Option<Instant>,
}

impl Writer {
    async fn deliver(
        &mut self,
        mut fetch: Box<dyn Fetch>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<()> {
        while !*stop.borrow() {
            let flush_at = self.flush_at;
            let due = async move {
                match flush_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                fetched = fetch.next() => {
                    for frame in fetched?.frames {
                        let last = frame.last();
                        self.write(frame).await?;
                        fetch.acknowledge(last);
                        tokio::task::yield_now().await;
                    }
                    if self.flush_at.is_some_and(|at| at <= Instant::now()) {
                        self.flush().await?;
                    }
                }
                () = due => self.flush().await?,
                _ = stop.changed() => {}
            }
        }
        // A planned stop leaves nothing that the next owner would write again.
        self.flush().await
    }

    async fn write(&mut self, frame: Frame) -> Result<()> {
        let mut batch = frame.decode()?;
        let delta = batch.progress.clone().unwrap_or_default();
        let found = frame.first();
        let Some(first) = continues(found, self.last, batch.rewound.is_some()) else {
            let why = format!("batches of a shard have a hole between {} and {found}", self.last);
            return Err(Error::new(ErrorKind::Corrupt, why));
        };
        // A restart within a batch: what is delivered already is left out.
        let known = usize::try_from(first.0 - found.0).unwrap_or(usize::MAX);
        batch.changes.drain(..known.min(batch.changes.len()));
        absorb(&mut self.progress, &delta);
        let added = Added {
            progress: delta,
            records: batch.changes.len() as u64,
            bytes: frame.bytes().len() as u64,
            committed_ms: batch.changes.iter().map(|change| change.committed_ms).max().unwrap_or(0),
            kept_until_ms: 0,
        };
        let newest_ms = batch.captured_ms;
        self.last = frame.last();
        let batch = SinkBatch {
            frame,
            batch: Arc::new(batch),
            first,
            progress: Arc::new(self.progress.clone()),
        };
        self.window.push(self.last, added);
        match self.watch.over(self.sink.write(&batch)).await? {
            Written::Durable(durable) => self.durable(&durable, newest_ms),
            Written::Accepted if self.flush_at.is_none() => {
                let wait = Duration::from_millis(self.sink.traits().flush_after_ms);
                self.flush_at = Some(Instant::now() + wait);
            }
            Written::Accepted => {}
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.flush_at = None;
        if let Some(durable) = self.watch.over(self.sink.flush()).await? {
            self.durable(&durable, clock::now_ms());
        }
        Ok(())
    }

    fn durable(&mut self, durable: &Durable, captured_ms: i64) {
        if let Some((upto, added)) = self.window.durable(durable.upto()) {
            let lag_ms = clock::now_ms().saturating_sub(captured_ms);
            telemetry::delivered(&self.export, &self.name, added.records, added.bytes, lag_ms);
            self.reporter.delivered(&self.name, upto, added);
        }
        if self.window.is_empty() {
            self.flush_at = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_skipped_by_who_stands_before_or_in_it() {
        let gap = |epoch, after, upto| Gap {
            kind: GapKind::SpoolLost.into(),
            epoch,
            after,
            upto,
            ..Gap::default()
        };
        let elsewhere = Gap { kind: GapKind::Trimmed.into(), ..gap(3, 0, 900) };
        let gaps = [gap(2, 5, 10), gap(3, 5, 15), elsewhere];
        let skip = |owner, after| skip_lost(gaps.iter(), owner, Sequence(after)).0;
        assert_eq!(skip(Some(Epoch(2)), 5), 10);
        assert_eq!(skip(Some(Epoch(3)), 7), 15);
        assert_eq!(skip(Some(Epoch(4)), 7), 7, "this owner lost nothing");
        assert_eq!(skip(None, 7), 15, "whoever lost it");
        for outside in [4, 15, 16] {
            assert_eq!(skip(None, outside), outside, "has all before the loss, or all of it");
        }
    }
}
