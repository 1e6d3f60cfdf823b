//! A sink that does as ours do: data, sequence and epoch are committed together,
//! behind the last commit, or not at all. It may be slow.

use rand::Rng as _;
use tidegate_proto::Sequence;
use tidegate_proto::v1::{Progress, ShardId};

use super::Broken;
use super::event::{Event, MS, Message, Micros, Process};
use super::spool::Batch;
use super::world::World;
use crate::error::ErrorKind;
use crate::sinks::Committed;

/// One shard's part of one sink.
pub(super) type SinkId = (ShardId, String);

/// What the sink holds about itself.
#[derive(Debug, Default)]
pub(super) struct Sink {
    pub(super) epoch: u64,
    /// Grows with each commit and each fence: of two writers that know the same
    /// number, only one gets the next.
    pub(super) number: u64,
    pub(super) committed: Option<Committed>,
}

/// A writer asks to be let in.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub(super) sink: SinkId,
    pub(super) epoch: u64,
    pub(super) from: Process,
    pub(super) task: u64,
}

/// What the sink says to that.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub(super) number: Result<u64, ErrorKind>,
    pub(super) committed: Option<Committed>,
}

/// A commit on its way.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) sink: SinkId,
    pub(super) epoch: u64,
    /// The last the writer knows of.
    pub(super) number: u64,
    pub(super) batches: Vec<Batch>,
    /// Changes up to here are not to be written: they are there already.
    pub(super) after: Sequence,
    pub(super) progress: Progress,
    pub(super) from: Process,
    pub(super) task: u64,
}

impl Attempt {
    pub(super) fn upto(&self) -> Sequence {
        self.batches.last().map_or(self.after, Batch::last)
    }
}

impl Sink {
    /// Shuts out epochs below `epoch`, unless it is told not to look.
    pub(super) fn open(&mut self, epoch: u64, blind: bool) -> Opened {
        if epoch < self.epoch && !blind {
            return Opened { number: Err(ErrorKind::Fenced), committed: None };
        }
        if epoch > self.epoch {
            self.epoch = epoch;
            self.number += 1;
        }
        Opened { number: Ok(self.number), committed: self.committed.clone() }
    }

    /// Commits, or says who was there before.
    pub(super) fn commit(&mut self, attempt: &Attempt, blind: bool) -> Result<u64, ErrorKind> {
        if !blind && attempt.epoch < self.epoch {
            return Err(ErrorKind::Fenced);
        }
        if !blind && attempt.number != self.number {
            return Err(ErrorKind::Unknown);
        }
        self.number += 1;
        let known = self.committed.as_ref().map_or(0, |committed| committed.records);
        let rows = attempt.batches.iter().flat_map(Batch::rows);
        let records = known + rows.filter(|(at, _)| *at > attempt.after).count() as u64;
        let (sequence, progress) = (attempt.upto(), attempt.progress.clone());
        self.committed = Some(Committed { sequence, progress, records });
        Ok(self.number)
    }
}

impl World {
    pub(super) fn on_sink_open(&mut self, opening: Opening) {
        let Opening { sink, epoch, from, task } = opening;
        let blind =
            self.is_broken(Broken::SinkIgnoresEpochs) || self.is_broken(Broken::StartBeforeStop);
        let opened = self.sinks.entry(sink.clone()).or_default().open(epoch, blind);
        self.sink_opened(&sink, epoch);
        let message = Message::SinkOpened { to: from, task, opened };
        self.push(MS, Event::Arrive(from.machine, message));
    }

    pub(super) fn on_sink_commit(&mut self, attempt: &Attempt) {
        let blind =
            self.is_broken(Broken::SinkIgnoresEpochs) || self.is_broken(Broken::StartBeforeStop);
        let sink = self.sinks.entry(attempt.sink.clone()).or_default();
        let committed = sink.commit(attempt, blind);
        if committed.is_ok() {
            self.sink_committed(attempt);
        }
        let (to, task) = (attempt.from, attempt.task);
        // Its answer may be lost: then the writer has to open the sink anew.
        let committed = if self.one_in(200) { Err(ErrorKind::Unknown) } else { committed };
        let message = Message::SinkCommitted { to, task, committed };
        self.push(MS, Event::Arrive(to.machine, message));
    }

    pub(super) fn sink_delay(&mut self) -> Micros {
        let usual = self.rng.random_range(2 * MS..20 * MS);
        let slow = if self.slow_sinks { 3 } else { 60 };
        if self.one_in(slow) { usual * 120 } else { usual }
    }
}
