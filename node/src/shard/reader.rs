//! Captures one shard: stream and snapshot, merged, into the spool.

use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::{
    Anchor as AnchorCommand, GapKind, Progress, Shard, ShardId, ShardSpec, SnapshotState, command,
};
use tidegate_proto::{BatchBuilder, Epoch, Sequence};
use tokio::sync::watch;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::checkpoint::Reporter;
use crate::clock;
use crate::config::SnapshotMode;
use crate::control::done_or_there;
use crate::error::{Error, ErrorKind, Result};
use crate::shard::Means;
use crate::shard::actor::AbortOnDrop;
use crate::shard::chunks::Chunks;
use crate::shard::exports::Job;
use crate::shard::give_way::GiveWay;
use crate::shard::in_sync;
use crate::shard::index::Documents;
use crate::shard::losses::Losses;
use crate::shard::mark::mark;
use crate::shard::merge::{Merge, Owner, Pending};
use crate::shard::pace::Pace;
use crate::shard::position;
use crate::shard::restart::restart;
use crate::shard::role::{Terms, Wanted, under};
use crate::shard::room::room;
use crate::shard::rounds;
use crate::sources::{Anchor, ChangeStream, Loss, Read, Rows};
use crate::spool::{MarkWatch, ShardLog};

/// How long the stream waits for a change when nothing else is to be done; twice
/// as long after each wait in vain, up to the longest.
const IDLE: Duration = Duration::from_millis(100);
const IDLE_MAX: Duration = Duration::from_secs(5);
/// The same while snapshot pages come in.
const BUSY: Duration = Duration::from_millis(2);
/// Batches on their way to the copies before the reader waits for them.
const UNSAFE_MAX: usize = 256;
/// How often the source is asked how long it keeps what was not read yet, and how soon
/// again if it cannot tell.
const HEADROOM: Duration = Duration::from_secs(20);
const HEADROOM_UNTOLD: Duration = Duration::from_secs(1);
/// How long a planned stop waits for the copies.
const FINISH: Duration = Duration::from_secs(5);
/// Pages that wait for the stream before no more are taken.
const HELD_MAX: usize = 4;

/// Runs until told to stop, or until it cannot go on; then says why.
pub(super) async fn run(
    means: Means,
    id: ShardId,
    terms: Terms,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let job = means.exports.job(id.export_id).await?;
    let mut shard = anchor(&means, &job, id, terms.epoch).await?;
    let restarted = restart(&means, &shard, terms.epoch).await?;
    let log = Arc::clone(&restarted.log);
    let spec = shard.spec.clone().unwrap_or_default();
    if let Some(keeps) = job.keeps(&spec) {
        log.keep_index(keeps)?;
    }
    let canceled = terms.snapshot == Wanted::Canceled;
    let due = rounds::is_due(&log.tail().progress, &terms) && !canceled;
    if due {
        shard = rounds::begin(&means, &job, shard, &terms).await?;
    }
    let owner = Owner {
        export: job.name.clone(),
        epoch: terms.epoch,
        chunks: shard.chunks,
        scope: shard.scope.clone().unwrap_or_default(),
        begins: due.then_some(terms.round),
        sweeps: shard.sweeps,
    };
    let mut merge = Merge::begin(restarted, owner, Arc::clone(&means.clock))?;
    if canceled {
        merge.cancel(terms.round)?;
    }
    position::go_there(&means.control, id, &terms, &mut merge)?;
    if terms.splitting {
        end(&shard, &mut merge)?;
    }
    tracing::info!(next = %log.next(), "capturing");

    let rows = terms.rate.map_or(job.spec.snapshot.rows_per_second, |rate| rate.rows);
    let chunks = (merge.copying() && terms.snapshot == Wanted::Running).then(|| {
        let pace = Pace::new(rows);
        Chunks::start((&job, &shard), merge.progress(), pace, means.limits.page_bytes)
    });
    let reporter = means.checkpointer.reporter(id, terms.epoch);
    let pace = Pace::new(terms.rate.map_or(0, |rate| rate.changes));
    let traits = job.source.traits();
    let on_gap = (job.spec.snapshot.on_gap(), traits.rows);
    let owned = (Arc::clone(&log), terms.epoch);
    let losses = Losses::new(means.control.clone(), owned, on_gap);
    let way = GiveWay::new(traits.keeps);
    let held = terms.snapshot == Wanted::Paused;
    let epoch = terms.epoch;
    let mut reader =
        Reader { means, log, reporter, epoch, merge, pace, way, losses, held, gone: false };
    let _helpers = reader.start_helpers();
    let outcome = match reader.open(&job, &spec).await {
        Ok(mut stream) => reader.capture(&mut *stream, chunks, &mut stop).await,
        Err(error) => Err(error),
    };
    match outcome {
        Err(error) if reader.gone => reader.pass_loss(&job, &spec, &error).await,
        outcome => outcome,
    }
}

/// The shard with its anchor committed, now or long ago.
async fn anchor(means: &Means, job: &Job, id: ShardId, epoch: Epoch) -> Result<Shard> {
    let shard = means.control.read(|state| under(state, id, epoch))?;
    if shard.anchor.is_some() {
        return Ok(shard);
    }
    let spec = shard.spec.clone().unwrap_or_default();
    let anchor = match parent_end(means, id, &spec) {
        Some(position) => Anchor { position, ..Anchor::default() },
        None => job.source.anchor(&spec).await?,
    };
    let wanted = !spec.continues && job.spec.snapshot.mode == SnapshotMode::Initial;
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
    let outcome = means.control.propose(command::Kind::Anchor(command)).await?;
    done_or_there(outcome)?;
    let known = means.control.until(|state| {
        let shard = under(state, id, epoch);
        let waits = shard.as_ref().is_ok_and(|it| it.anchor.is_none());
        (!waits).then_some(shard)
    });
    known.await?
}

/// Ends a shard that is split. Once that is recorded its children begin there, so
/// it cannot be read again and end elsewhere.
fn end(shard: &Shard, merge: &mut Merge) -> Result<()> {
    let recorded = shard.captured.as_ref().and_then(|at| at.progress.as_ref());
    if recorded.is_some_and(|it| it.ended) && !merge.progress().ended {
        let why = "all copies of the spool of a shard that was split are lost before every sink \
                   had it; delete the export and create it again, so that its snapshot is taken anew";
        return Err(Error::new(ErrorKind::Config, why));
    }
    merge.end()
}

/// Where a shard that was split off begins.
fn parent_end(means: &Means, id: ShardId, spec: &ShardSpec) -> Option<bytes::Bytes> {
    let parent = spec.parents.first().filter(|_| spec.continues)?;
    means.control.read(|state| {
        let named = |it: &&Shard| it.spec.as_ref().is_some_and(|spec| spec.name == *parent);
        let parent = state.shards_of(id.export_id).find(named)?;
        Some(parent.captured.as_ref()?.progress.as_ref()?.stream.clone())
    })
}

/// Reports batches as captured when they are safe.
async fn report(log: Arc<ShardLog>, pending: Pending, reporter: Reporter) {
    let mut safe = log.safe();
    loop {
        pending.settle(safe.see(), |upto, added| reporter.captured(upto, added));
        if safe.moved().await.is_err() {
            return;
        }
    }
}

struct Reader {
    means: Means,
    log: Arc<ShardLog>,
    reporter: Reporter,
    epoch: Epoch,
    merge: Merge,
    /// Of the stream's changes.
    pace: Pace,
    /// Of the snapshot's rows.
    way: GiveWay,
    losses: Losses,
    /// The snapshot stands still.
    held: bool,
    /// The source no longer has what follows.
    gone: bool,
}

impl Reader {
    /// What goes on beside the capture; ends when the result is dropped.
    fn start_helpers(&self) -> [AbortOnDrop; 2] {
        let (log, pending) = (Arc::clone(&self.log), self.merge.pending().clone());
        let reports = tokio::spawn(report(log, pending, self.reporter.clone()));
        let (control, log) = (self.means.control.clone(), Arc::clone(&self.log));
        let copies = tokio::spawn(in_sync::keep(control, log, self.epoch));
        [AbortOnDrop(reports.abort_handle()), AbortOnDrop(copies.abort_handle())]
    }

    /// The stream from where the log ends.
    async fn open(&mut self, job: &Job, spec: &ShardSpec) -> Result<Box<dyn ChangeStream>> {
        let captured = Arc::new(Documents(Arc::clone(&self.log)));
        let position = &self.merge.progress().stream;
        let opened = job.source.stream_from(spec, position, captured).await;
        opened.map_err(|error| self.note_gone(error))
    }

    fn note_gone(&mut self, error: Error) -> Error {
        self.gone = error.kind() == ErrorKind::Gone && self.losses.rows() == Rows::Chunked;
        error
    }

    /// Records that what follows is lost, and moves to where the source is now: whoever
    /// starts next goes on there.
    async fn pass_loss(&mut self, job: &Job, spec: &ShardSpec, error: &Error) -> Result<()> {
        tracing::error!(error = %error, "the stream cannot go on from where it was captured");
        let now = job.source.anchor(spec).await?;
        let position = xxh3_64(&self.merge.progress().stream);
        let detail = format!("the source no longer has what follows position {position:016x}");
        let loss = Loss { kind: GapKind::Trimmed, detail, mended: String::new() };
        let mut out = BatchBuilder::default();
        let gap = self.losses.record(&loss).await?;
        mark(&mut out, std::slice::from_ref(&gap))?;
        let read = Read { position: now.position, ..Read::default() };
        self.merge.take_stream(&out, read, vec![gap.number])?;
        // Whoever starts next begins where the cluster knows us to be.
        self.finish(&mut self.log.safe()).await;
        Err(Error::new(ErrorKind::Unavailable, "the stream goes on behind a gap"))
    }

    async fn capture(
        &mut self,
        stream: &mut dyn ChangeStream,
        mut chunks: Option<Chunks>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<()> {
        let mut out = BatchBuilder::default();
        let mut safe = self.log.safe();
        let mut idle = IDLE;
        let mut headroom_due = Instant::now();
        while !*stop.borrow() && !self.captured_to_the_end() {
            // The source is read no faster than the spool has room.
            tokio::select! {
                () = room(&self.means.spool) => {}
                _ = stop.changed() => break,
            }
            let busy = (chunks.is_some() && !self.way.waits())
                || self.merge.held() > 0
                || self.is_sweeping();
            let wait = if busy { BUSY } else { idle };
            let read = tokio::select! {
                read = self.take_stream(stream, &mut out, wait) => Some(read?),
                // What it had taken is read again by whoever goes on.
                _ = stop.changed() => None,
            };
            if read.is_none() {
                break;
            }
            idle = if out.is_empty() { (idle * 2).min(IDLE_MAX) } else { IDLE };
            if let Some(source) = &mut chunks
                && !self.way.waits()
                && self.take_pages(source).await?
            {
                chunks = None;
            }
            self.merge.release(|seen| stream.passed(seen))?;
            if self.is_sweeping() {
                self.sweep().await?;
            }
            self.tell_headroom(&mut headroom_due, stream);
            self.losses.settle(stream.mends(), self.merge.last(), safe.now());
            tokio::select! {
                () = self.pace.after(out.len()) => {}
                _ = stop.changed() => {}
            }
            // A source at full speed would keep its thread from all others.
            tokio::task::yield_now().await;
            // An idle step appends nothing: if all is safe already, so is this.
            self.report(safe.see());
            while self.merge.pending().len() > UNSAFE_MAX && !*stop.borrow() {
                tokio::select! {
                    _ = safe.moved() => self.report(safe.see()),
                    _ = stop.changed() => {}
                }
            }
        }
        self.finish(&mut safe).await;
        Ok(())
    }

    fn is_sweeping(&self) -> bool {
        self.merge.is_sweeping() && !self.held
    }

    /// Deletes some of what the snapshot did not find. A log that does not know all keys
    /// finds nothing out: that is said before the snapshot is complete without it.
    async fn sweep(&mut self) -> Result<()> {
        if self.log.known().whole {
            return self.merge.sweep();
        }
        tracing::warn!("this node's copy of the spool lacks older keys: nothing is swept");
        let id = self.log.shard();
        rounds::forgo_sweep(&self.means.control, id, self.epoch).await?;
        self.merge.complete()
    }

    /// Reports how long the source keeps what follows, if it is time for that.
    fn tell_headroom(&mut self, due: &mut Instant, stream: &dyn ChangeStream) {
        let now = Instant::now();
        if now < *due {
            return;
        }
        let until_ms = stream.kept_until_ms();
        *due = now + until_ms.map_or(HEADROOM_UNTOLD, |_| HEADROOM);
        let Some(until_ms) = until_ms else { return };
        self.merge.kept_until(until_ms);
        self.way.note(until_ms - clock::now_ms());
    }

    /// There will never be another change, nor another row.
    fn captured_to_the_end(&self) -> bool {
        self.merge.progress().ended && !self.merge.copying()
    }

    /// Waits until the rest is safe: a planned stop leaves nothing that a new
    /// owner would have to read again. Once there is another epoch there is nothing to
    /// wait for: copies follow its owner.
    async fn finish(&mut self, safe: &mut MarkWatch) {
        let (id, epoch, last) = (self.log.shard(), self.epoch.0, self.merge.last());
        let over = self
            .means
            .control
            .until(|state| state.shard(id).is_none_or(|shard| shard.epoch != epoch).then_some(()));
        let rest = safe.reached(last);
        tokio::select! {
            biased;
            _ = over => {}
            _ = rest => self.report(last),
            () = tokio::time::sleep(FINISH) => {
                tracing::warn!("the copies are slow; what they have not is read again");
            }
        }
    }

    /// Reads the stream once. One that has ended is not asked again: its shard
    /// goes on until its rows are there.
    async fn take_stream(
        &mut self,
        stream: &mut dyn ChangeStream,
        out: &mut BatchBuilder,
        wait: Duration,
    ) -> Result<()> {
        if self.merge.progress().ended {
            tokio::time::sleep(wait).await;
            return Ok(());
        }
        let bytes = self.pace.portion((out.len(), out.bytes()), self.means.limits.batch_bytes);
        out.clear();
        let read = stream.read(out, bytes, wait).await;
        let read = read.map_err(|error| self.note_gone(error))?;
        let mut gaps = Vec::new();
        for loss in &read.losses {
            gaps.push(self.losses.record(loss).await?);
        }
        mark(out, &gaps)?;
        self.merge.take_stream(out, read, gaps.iter().map(|gap| gap.number).collect())
    }

    /// Takes the pages at hand; true when there will be no more.
    async fn take_pages(&mut self, chunks: &mut Chunks) -> Result<bool> {
        while self.merge.held() < HELD_MAX {
            let next = chunks.next();
            match tokio::time::timeout(Duration::ZERO, next).await {
                Ok(Some(page)) => self.merge.hold(page?),
                Ok(None) => return Ok(true),
                Err(_) => break,
            }
        }
        Ok(false)
    }

    fn report(&self, safe: Sequence) {
        let reporter = &self.reporter;
        self.merge.pending().settle(safe, |upto, added| reporter.captured(upto, added));
    }
}
