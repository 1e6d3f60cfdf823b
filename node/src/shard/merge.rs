//! Stream and snapshot of one shard, merged into its log.
//!
//! Reads no source, asks nobody and waits for nothing: whoever has read a batch
//! or a page hands it over, and what may pass is appended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tidegate_proto::v1::{Progress, Rewound, Scope, SnapshotState};
use tidegate_proto::{BatchBuilder, Codec, Epoch, Sequence, Stamp};
use tidegate_raft_store::absorb;

use crate::checkpoint::{Added, Window};
use crate::clock::{self, Hybrid};
use crate::error::Result;
use crate::shard::held::{Held, ReadPage};
use crate::shard::restart::Restart;
use crate::shard::rounds::covers;
use crate::shard::sweep::Sweep;
use crate::sources::Read;
use crate::spool::{Gathered, ShardLog};
use crate::telemetry;

/// Whose changes are merged, under which epoch.
pub(super) struct Owner {
    /// The export's name, for its metrics.
    pub(super) export: String,
    /// This owner's epoch.
    pub(super) epoch: Epoch,
    /// How many chunks the snapshot has.
    pub(super) chunks: u32,
    /// Which of its rows are captured.
    pub(super) scope: Scope,
    /// It begins now: what was captured is of a snapshot before it.
    pub(super) begins: Option<u32>,
    /// What it does not find is deleted.
    pub(super) sweeps: bool,
}

/// Batches captured and not safe yet. Clones share them: the merge adds, another
/// task takes off what has become safe.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending(Arc<Mutex<Window>>);

impl Pending {
    /// How many batches wait.
    pub(super) fn len(&self) -> usize {
        self.window().len()
    }

    /// Everything up to `safe` is: tells what was captured with that, if it is
    /// more than before. Reports keep their order, whoever makes them.
    pub(super) fn settle(&self, safe: Sequence, report: impl FnOnce(Sequence, Added)) {
        let mut window = self.window();
        if let Some((upto, added)) = window.durable(safe) {
            report(upto, added);
        }
    }

    fn push(&self, last: Sequence, added: Added) {
        self.window().push(last, added);
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The merge of one shard under one owner.
///
/// A stream change always passes. A row passes once the stream has passed the
/// moment it was read, and only if the stream has not brought its key since
/// this merge began. What was spooled before that needs no memory: the row was
/// read later, from a store at least as new.
pub(super) struct Merge {
    log: Arc<ShardLog>,
    clock: Arc<Hybrid>,
    owner: Owner,
    carry: Carry,
    pending: Pending,
    held: Held,
    sweep: Option<Sweep>,
}

/// What the next batch has to say besides its changes; a pure core.
#[derive(Debug)]
pub(crate) struct Carry {
    /// All of it, as of the last batch or idle step.
    progress: Progress,
    /// What no batch has carried yet.
    unsent: Progress,
    rewound: Option<Rewound>,
}

impl Carry {
    /// The first batch carries all of `progress`: for writers that start from a
    /// checkpoint between two batches, and for all who had heard of chunks that
    /// are read again since a spool was lost.
    pub(crate) fn new(progress: Progress, rewound: Option<Rewound>) -> Self {
        Self { unsent: Progress { whole: true, ..progress.clone() }, progress, rewound }
    }

    /// How far the shard is.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// A batch that moves the progress by `delta` is made: what it carries.
    pub(crate) fn take(&mut self, delta: &Progress) -> (Progress, Option<Rewound>) {
        self.note(delta);
        (std::mem::take(&mut self.unsent), self.rewound.take())
    }

    /// The source was read further without a change.
    fn note(&mut self, delta: &Progress) {
        absorb(&mut self.unsent, delta);
        absorb(&mut self.progress, delta);
    }
}

impl Merge {
    /// Goes on where the log ends. Rows read from now on may be handed over;
    /// what an earlier merge of the shard held must be read again.
    pub(super) fn begin(restarted: Restart, owner: Owner, clock: Arc<Hybrid>) -> Result<Self> {
        let Restart { log, rewound, unrecorded } = restarted;
        log.forget_touched()?;
        let progress = log.tail().progress;
        let mut merge = Self {
            log,
            clock,
            owner,
            carry: Carry::new(progress, rewound),
            pending: Pending::default(),
            held: Held::default(),
            sweep: None,
        };
        // Whoever appended that can report it no more.
        merge.pending.push(merge.last(), unrecorded.whole());
        let begun = merge.owner.begins.map_or_else(Progress::default, |round| Progress {
            round,
            snapshot: SnapshotState::Running.into(),
            ..Progress::default()
        });
        let begun = merge.completed(begun);
        merge.advance(&begun)?;
        Ok(merge)
    }

    /// How far the shard is.
    pub(super) fn progress(&self) -> &Progress {
        self.carry.progress()
    }

    /// The snapshot is not complete: rows are still to come.
    pub(super) fn copying(&self) -> bool {
        self.progress().snapshot() == SnapshotState::Running
    }

    /// Pages that wait for the stream.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// What was captured and is not safe yet.
    pub(super) fn pending(&self) -> &Pending {
        &self.pending
    }

    /// The last sequence there is.
    pub(super) fn last(&self) -> Sequence {
        self.log.last()
    }

    /// Spools what the stream brought, and remembers its keys while rows are to
    /// come. The marks of the gaps `marked` are in it.
    pub(super) fn take_stream(
        &mut self,
        out: &BatchBuilder,
        read: Read,
        marked: Vec<u64>,
    ) -> Result<()> {
        let Read { position: stream, ended, .. } = read;
        let delta = Progress { stream, ended, marked, ..Progress::default() };
        if out.is_empty() {
            return self.advance(&delta);
        }
        self.append(out, &delta, self.copying())
    }

    /// Goes on at another position, which an operator set, with the mark of its gap.
    pub(super) fn go_on_at(
        &mut self,
        mark: &BatchBuilder,
        position: Bytes,
        gap: u64,
    ) -> Result<()> {
        let delta = Progress { stream: position, position_set: gap, ..Progress::default() };
        self.append(mark, &delta, false)
    }

    /// Says with the next report until when the source keeps what follows.
    pub(super) fn kept_until(&mut self, kept_until_ms: i64) {
        self.pending.push(self.last(), Added { kept_until_ms, ..Added::default() });
    }

    /// Ends the shard here: what the source brings from now on is its children's.
    pub(super) fn end(&mut self) -> Result<()> {
        self.advance(&Progress { ended: true, ..Progress::default() })
    }

    /// All rows are captured, and what was not among them is being deleted.
    pub(super) fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// Deletes some of what no row and no change has brought since the snapshot began;
    /// with the last of it the snapshot is complete. What a source deleted and made
    /// again meanwhile is brought by the stream behind that.
    pub(super) fn sweep(&mut self) -> Result<()> {
        let Some(sweep) = &self.sweep else { return Ok(()) };
        let round = self.progress().round;
        let gone = sweep.next(&self.log, round, &self.owner.scope)?;
        if !gone.out.is_empty() {
            self.append(&gone.out, &Progress::default(), false)?;
        }
        self.sweep = gone.rest;
        if self.sweep.is_none() {
            return self.complete();
        }
        Ok(())
    }

    /// All rows are captured, and nothing more is deleted.
    pub(super) fn complete(&mut self) -> Result<()> {
        self.sweep = None;
        tracing::info!("the snapshot is complete");
        let complete = SnapshotState::Complete.into();
        self.advance(&Progress { snapshot: complete, ..Progress::default() })?;
        self.log.forget_touched()?;
        let here = self.owner.begins == Some(self.progress().round);
        if here && self.owner.scope == Scope::default() {
            // All there is was brought since this log began to keep keys.
            self.log.settle_index()?;
        }
        Ok(())
    }

    /// No more rows of this snapshot, nor of those before it, are captured.
    pub(super) fn cancel(&mut self, round: u32) -> Result<()> {
        self.sweep = None;
        if self.progress().round >= round && !self.copying() {
            return Ok(());
        }
        let canceled = SnapshotState::Canceled.into();
        self.advance(&Progress { round, snapshot: canceled, ..Progress::default() })
    }

    /// Takes a page that was read after this merge began.
    pub(super) fn hold(&mut self, page: ReadPage) {
        self.held.push(page);
    }

    /// Spools the rows that wait for nothing more; `passed` is the stream's.
    pub(super) fn release(&mut self, passed: impl Fn(&[u8]) -> bool) -> Result<()> {
        // There is no moment that an ended stream has not passed.
        let ended = self.progress().ended;
        while let Some(page) = self.held.release(|seen| ended || passed(seen)) {
            self.take_page(page)?;
        }
        Ok(())
    }

    /// Spools a page's rows, less those out of scope or whose key the stream has touched.
    fn take_page(&mut self, page: ReadPage) -> Result<()> {
        let ReadPage { chunk, mut rows, page } = page;
        let mut failed = None;
        let read = rows.len();
        rows.retain(|row| match self.passes(row.collection, row.key) {
            Ok(passes) => passes,
            Err(error) => {
                failed = Some(error);
                true
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let mut at = self.progress().chunks.get(&chunk).cloned().unwrap_or_default();
        at.cursor = page.cursor;
        at.done = page.done;
        at.rows += read as u64;
        at.bytes += rows.bytes() as u64;
        let delta = Progress { chunks: [(chunk, at)].into(), ..Progress::default() };
        let delta = self.completed(delta);
        telemetry::snapshot_rows(&self.owner.export, read as u64);
        if rows.is_empty() {
            self.advance(&delta)?;
        } else {
            self.append(&rows, &delta, false)?;
        }
        if !self.copying() {
            self.log.forget_touched()?;
        }
        Ok(())
    }

    fn passes(&self, collection: &str, key: &[u8]) -> Result<bool> {
        Ok(covers(&self.owner.scope, collection, key)? && !self.log.is_touched(collection, key)?)
    }

    /// `delta`, which says so if every chunk is done with it.
    fn completed(&mut self, mut delta: Progress) -> Progress {
        let before = self.progress();
        let same = delta.round <= before.round;
        let done = (0..self.owner.chunks).all(|chunk| {
            let known = || before.chunks.get(&chunk).filter(|_| same);
            delta.chunks.get(&chunk).or_else(known).is_some_and(|at| at.done)
        });
        if !done || !(self.copying() || delta.snapshot() == SnapshotState::Running) {
            return delta;
        }
        if self.owner.sweeps {
            self.sweep = Some(Sweep::default());
            return delta;
        }
        delta.set_snapshot(SnapshotState::Complete);
        tracing::info!("the snapshot is complete");
        delta
    }

    /// Spools what was gathered as one batch.
    fn append(&mut self, out: &BatchBuilder, delta: &Progress, touch: bool) -> Result<()> {
        let now = clock::now_ms();
        let records = out.len() as u64;
        let (carried, rewound) = self.carry.take(delta);
        let stamp = Stamp {
            epoch: self.owner.epoch,
            first: self.log.next(),
            progress: carried.clone(),
            captured_ms: now,
            clock: self.clock.take(records, now),
            rewound,
            told: self.log.told(out)?,
        };
        telemetry::told(&self.owner.export, &stamp.told);
        let frame = out.encode(stamp, Codec::Zstd);
        self.log.append(&frame, delta, Some(Gathered { out, progress: &carried, touch }))?;
        telemetry::captured(&self.owner.export, records, frame.bytes().len() as u64);
        let added = Added {
            progress: carried,
            records,
            bytes: frame.bytes().len() as u64,
            committed_ms: out.committed_ms(),
            kept_until_ms: 0,
        };
        self.pending.push(frame.last(), added);
        Ok(())
    }

    /// Notes that the source was read further without a change.
    fn advance(&mut self, delta: &Progress) -> Result<()> {
        let mut moved = self.progress().clone();
        absorb(&mut moved, delta);
        if moved == *self.progress() {
            return Ok(());
        }
        self.log.advance(delta)?;
        self.carry.note(delta);
        self.pending.push(self.last(), Added { progress: delta.clone(), ..Added::default() });
        Ok(())
    }
}

#[cfg(test)]
#[path = "merge/tests.rs"]
mod tests;
