//! Captures one shard: stream and snapshot, merged, into the spool.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_proto::v1::{
    Anchor as AnchorCommand, Gap, Progress, RecordGap, Rewound, Shard, ShardId, SnapshotState,
    command,
};
use tidegate_proto::{BatchBuilder, Codec, Epoch, Sequence, Stamp};
use tidegate_raft_store::absorb;
use tokio::sync::watch;

use crate::checkpoint::{Added, Reporter, Window};
use crate::clock;
use crate::config::SnapshotMode;
use crate::error::{Error, ErrorKind, Result};
use crate::shard::Means;
use crate::shard::actor::AbortOnDrop;
use crate::shard::chunks::Chunks;
use crate::shard::exports::Job;
use crate::shard::held::{Held, ReadPage};
use crate::shard::in_sync;
use crate::shard::restart::restart;
use crate::shard::role::Terms;
use crate::sources::{ChangeStream, Loss, Read};
use crate::spool::ShardLog;
use crate::telemetry;

/// How long the stream waits for a change when nothing else is to be done.
const IDLE: Duration = Duration::from_millis(100);
/// The same while snapshot pages come in.
const BUSY: Duration = Duration::from_millis(2);
/// Batches on their way to the copies before the reader waits for them.
const UNSAFE_MAX: usize = 256;

/// Runs until told to stop, or until it cannot go on; then says why.
pub(super) async fn run(
    means: Means,
    id: ShardId,
    terms: Terms,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let job = means.exports.job(id.export_id).await?;
    let shard = anchor(&means, &job, id, terms.epoch).await?;
    let restarted = restart(&means, &shard, terms.epoch).await?;
    let log = restarted.log;
    log.forget_touched()?;
    let spec = shard.spec.clone().unwrap_or_default();
    let progress = log.tail().progress;
    tracing::info!(next = %log.tail().next, "capturing");

    let mut stream = job.source.stream(&spec, &progress.stream).await?;
    let running = progress.snapshot() == SnapshotState::Running;
    let chunks = (running && !terms.paused)
        .then(|| Chunks::start(&job, &shard, &progress, means.limits.page_bytes));
    let mut reader = Reader {
        reporter: means.checkpointer.reporter(id, terms.epoch),
        export: job.name.clone(),
        total_chunks: shard.chunks,
        // The first batch carries all of it, for writers that start from a
        // checkpoint between two batches.
        unsent: progress.clone(),
        progress,
        rewound: restarted.rewound,
        window: Arc::default(),
        held: Held::default(),
        epoch: terms.epoch,
        means,
        log,
    };
    let _helpers = reader.start_helpers();
    reader.capture(&mut *stream, chunks, &mut stop).await
}

/// Reports batches as captured when they are safe.
async fn report(log: Arc<ShardLog>, window: Arc<Mutex<Window>>, reporter: Reporter) {
    let mut safe = log.safe();
    loop {
        let upto = *safe.borrow_and_update();
        settle(&window, upto, &reporter);
        if safe.changed().await.is_err() {
            return;
        }
    }
}

/// Reports what is safe now. Under the lock, so that reports keep their order.
fn settle(window: &Mutex<Window>, safe: Sequence, reporter: &Reporter) {
    let mut window = lock(window);
    if let Some((upto, added)) = window.durable(safe) {
        reporter.captured(upto, added);
    }
}

fn lock(window: &Mutex<Window>) -> MutexGuard<'_, Window> {
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The shard with its anchor committed, now or long ago.
async fn anchor(means: &Means, job: &Job, id: ShardId, epoch: Epoch) -> Result<Shard> {
    let look = || means.control.read(|state| state.shard(id).cloned());
    let gone = || Error::new(ErrorKind::Fenced, "the shard was deleted");
    let shard = look().ok_or_else(gone)?;
    if shard.anchor.is_some() {
        return Ok(shard);
    }
    let spec = shard.spec.clone().unwrap_or_default();
    let anchor = job.source.anchor(&spec).await?;
    let wanted = job.spec.snapshot.mode == SnapshotMode::Initial;
    let snapshot = if wanted { SnapshotState::Running } else { SnapshotState::Skipped };
    let progress =
        Progress { stream: anchor.position, snapshot: snapshot.into(), ..Progress::default() };
    let command = AnchorCommand {
        shard: Some(id),
        epoch: epoch.0,
        progress: Some(progress),
        chunks: if wanted { anchor.chunks } else { 0 },
        rows_estimated: anchor.rows_estimated,
    };
    let mut changed = means.control.changed();
    means.control.insist(command::Kind::Anchor(command)).await?;
    // This node may apply it a moment later than the leader.
    loop {
        changed.borrow_and_update();
        let shard = look().ok_or_else(gone)?;
        if shard.anchor.is_some() {
            return Ok(shard);
        }
        drop(changed.changed().await);
    }
}

struct Reader {
    means: Means,
    log: Arc<ShardLog>,
    reporter: Reporter,
    epoch: Epoch,
    export: String,
    total_chunks: u32,
    /// All of it, as of the last batch or idle step.
    progress: Progress,
    /// What no batch has carried yet.
    unsent: Progress,
    rewound: Option<Rewound>,
    /// Batches that are not safe yet.
    window: Arc<Mutex<Window>>,
    held: Held,
}

impl Reader {
    /// What goes on beside the capture; ends when the result is dropped.
    fn start_helpers(&self) -> [AbortOnDrop; 2] {
        let (log, window) = (Arc::clone(&self.log), Arc::clone(&self.window));
        let reports = tokio::spawn(report(log, window, self.reporter.clone()));
        let (control, log) = (self.means.control.clone(), Arc::clone(&self.log));
        let copies = tokio::spawn(in_sync::keep(control, log, self.epoch));
        [AbortOnDrop(reports.abort_handle()), AbortOnDrop(copies.abort_handle())]
    }

    async fn capture(
        &mut self,
        stream: &mut dyn ChangeStream,
        mut chunks: Option<Chunks>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<()> {
        let mut out = BatchBuilder::default();
        let bytes_max = self.means.limits.batch_bytes;
        let mut safe = self.log.safe();
        while !*stop.borrow() && !self.progress.ended {
            out.clear();
            let wait = if chunks.is_some() || self.held.len() > 0 { BUSY } else { IDLE };
            let read = stream.read(&mut out, bytes_max, wait).await?;
            self.take_stream(&mut out, read).await?;
            if let Some(source) = &mut chunks
                && self.take_pages(source).await?
            {
                chunks = None;
            }
            while let Some(page) = self.held.release(|seen| stream.passed(seen)) {
                self.take_page(page)?;
            }
            while lock(&self.window).len() > UNSAFE_MAX && !*stop.borrow() {
                tokio::select! {
                    _ = safe.changed() => tokio::task::yield_now().await,
                    _ = stop.changed() => {}
                }
            }
        }
        self.finish(&mut safe).await;
        Ok(())
    }

    /// Waits until the rest is safe: a planned stop leaves nothing that a new
    /// owner would have to read again. With a new owner there is nothing to wait
    /// for: copies follow that one.
    async fn finish(&mut self, safe: &mut watch::Receiver<Sequence>) {
        let id = self.log.shard();
        let epoch = self.means.control.read(|state| state.shard(id).map(|shard| shard.epoch));
        if epoch != Some(self.epoch.0) {
            return;
        }
        let last = Sequence(self.log.tail().next.0 - 1);
        let rest = safe.wait_for(|safe| *safe >= last);
        if tokio::time::timeout(Duration::from_secs(5), rest).await.is_err() {
            tracing::warn!("the copies are slow; what they have not is read again");
            return;
        }
        settle(&self.window, last, &self.reporter);
    }

    async fn take_stream(&mut self, out: &mut BatchBuilder, read: Read) -> Result<()> {
        for loss in &read.losses {
            self.record(loss).await?;
        }
        let delta = Progress { stream: read.position, ended: read.ended, ..Progress::default() };
        if out.is_empty() {
            return self.advance(&delta);
        }
        let running = self.progress.snapshot() == SnapshotState::Running;
        self.append(out, &delta, running)
    }

    /// Takes the pages at hand; true when there will be no more.
    async fn take_pages(&mut self, chunks: &mut Chunks) -> Result<bool> {
        let most = 4;
        while self.held.len() < most {
            let next = chunks.next();
            match tokio::time::timeout(Duration::ZERO, next).await {
                Ok(Some(page)) => self.held.push(page?),
                Ok(None) => return Ok(true),
                Err(_) => break,
            }
        }
        Ok(false)
    }

    /// Spools a page's rows, less those whose key the stream has touched.
    fn take_page(&mut self, page: ReadPage) -> Result<()> {
        let ReadPage { chunk, mut rows, page } = page;
        let mut failed = None;
        let read = rows.len();
        rows.retain(|row| match self.log.is_touched(row.collection, row.key) {
            Ok(touched) => !touched,
            Err(error) => {
                failed = Some(error);
                true
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let mut at = self.progress.chunks.get(&chunk).cloned().unwrap_or_default();
        at.cursor = page.cursor;
        at.done = page.done;
        at.rows += read as u64;
        at.bytes += rows.bytes() as u64;
        let mut delta = Progress { chunks: [(chunk, at)].into(), ..Progress::default() };
        if self.completes(&delta) {
            delta.set_snapshot(SnapshotState::Complete);
            tracing::info!("the snapshot is complete");
        }
        telemetry::snapshot_rows(&self.export, read as u64);
        if rows.is_empty() {
            self.advance(&delta)?;
        } else {
            self.append(&rows, &delta, false)?;
        }
        if self.progress.snapshot() == SnapshotState::Complete {
            self.log.forget_touched()?;
        }
        Ok(())
    }

    /// With `delta`, every chunk is done.
    fn completes(&self, delta: &Progress) -> bool {
        (0..self.total_chunks).all(|chunk| {
            let at = delta.chunks.get(&chunk).or_else(|| self.progress.chunks.get(&chunk));
            at.is_some_and(|at| at.done)
        })
    }

    /// Spools what was gathered as one batch.
    fn append(&mut self, out: &BatchBuilder, delta: &Progress, touch: bool) -> Result<()> {
        absorb(&mut self.unsent, delta);
        let now = clock::now_ms();
        let records = out.len() as u64;
        let first = self.log.tail().next;
        let stamp = Stamp {
            epoch: self.epoch,
            first,
            progress: std::mem::take(&mut self.unsent),
            captured_ms: now,
            clock: self.means.clock.take(records, now),
            rewound: self.rewound.take(),
        };
        let carried = stamp.progress.clone();
        let frame = out.encode(stamp, Codec::Zstd);
        self.log.append(&frame, delta, touch.then_some(out))?;
        absorb(&mut self.progress, delta);
        telemetry::captured(&self.export, records, frame.bytes().len() as u64);
        let added = Added {
            progress: carried,
            records,
            bytes: frame.bytes().len() as u64,
            committed_ms: out.committed_ms(),
        };
        lock(&self.window).push(frame.last(), added);
        Ok(())
    }

    /// Notes that the source was read further without a change.
    fn advance(&mut self, delta: &Progress) -> Result<()> {
        if *delta == Progress::default() {
            return Ok(());
        }
        let mut moved = self.progress.clone();
        absorb(&mut moved, delta);
        if moved == self.progress {
            return Ok(());
        }
        self.log.advance(delta)?;
        absorb(&mut self.unsent, delta);
        self.progress = moved;
        let last = Sequence(self.log.tail().next.0 - 1);
        lock(&self.window).push(last, Added { progress: delta.clone(), ..Added::default() });
        // Nothing was appended: if all of it is safe already, so is this.
        settle(&self.window, *self.log.safe().borrow(), &self.reporter);
        Ok(())
    }

    async fn record(&self, loss: &Loss) -> Result<()> {
        tracing::error!(
            kind = loss.kind.as_str_name(),
            detail = loss.detail,
            "the source lost history"
        );
        let gap = Gap {
            shard: Some(self.log.shard()),
            kind: loss.kind.into(),
            detail: loss.detail.clone(),
            at_ms: clock::now_ms(),
            epoch: self.epoch.0,
            after: self.log.tail().next.0 - 1,
            upto: self.log.tail().next.0 - 1,
            ..Gap::default()
        };
        let command = command::Kind::RecordGap(RecordGap { gap: Some(gap) });
        self.means.control.propose(command).await.map(drop)
    }
}
