//! Where changes go.
//!
//! A writer opens a sink for one shard under its epoch. Opening fences: from
//! then on the target refuses owners of an older epoch, and says what it has.
//! Adding a sink is a folder, a variant of `SinkConfig`, and an arm in
//! [`open`].

mod config;
#[cfg(test)]
mod contract;
mod jsonl;
mod lake;
mod postgres;

use std::sync::Arc;

use tidegate_proto::v1::{ChangeBatch, Progress};
use tidegate_proto::{Epoch, Frame, Sequence};
use tonic::async_trait;

pub use self::config::{SinkConfig, check, open, parse};
pub use self::jsonl::JsonlConfig;
pub use self::lake::{Compression, LakeConfig};
pub use self::postgres::PostgresConfig;
use crate::error::{Error, ErrorKind, Result};

/// What a sink can promise; shown by the CLI, acted on by the writer.
#[derive(Clone, Copy, Debug)]
pub struct SinkTraits {
    /// Its name in an export file.
    pub kind: &'static str,
    /// What a change delivered again does.
    pub guarantee: Guarantee,
    /// How long accepted changes may wait before the writer flushes them.
    pub flush_after_ms: u64,
}

/// How often the effect of a change is seen at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// Once, through any crash: data and position are committed together, and
    /// an older epoch is refused by the target.
    ExactlyOnce,
    /// At least once; a repeat can be told by shard and sequence.
    AtLeastOnce,
}

/// Who writes what: the shard and the epoch under which it is owned.
#[derive(Clone, Debug)]
pub struct SinkShard {
    /// The export's name.
    pub export: String,
    /// Tells it from other exports of that name: one that was deleted, or of another
    /// cluster. Sequences of two of them say nothing about each other, so a target that
    /// another has written to is refused.
    pub uid: String,
    /// The shard's name within it.
    pub shard: String,
    /// The sink's name within it: two of one export may share a target.
    pub sink: String,
    /// Grows with each owner.
    pub epoch: Epoch,
}

impl SinkShard {
    /// Whether a target's record for this shard is this export's, so that its epoch counts;
    /// false if it is of another export of the name that has delivered nothing, and may be
    /// taken over. `Config` if that one has: `place` says where the record is, `remedy` how
    /// to begin anew. A record of before there were uids has none, and is this export's.
    pub(in crate::sinks) fn owns(
        &self,
        record: (&str, Sequence),
        place: &str,
        remedy: &str,
    ) -> Result<bool> {
        let (uid, delivered) = record;
        if uid.is_empty() || uid == self.uid {
            return Ok(true);
        }
        if delivered == Sequence(0) {
            return Ok(false);
        }
        let what = format!(
            "{place} has what another export \"{}\" delivered: one that was deleted, or \
             of another cluster ({uid}; this one is {}). {remedy}",
            self.export, self.uid
        );
        Err(Error::new(ErrorKind::Config, what))
    }
}

/// A sink, open for one shard, and what it already has.
pub struct Opened {
    /// To write to.
    pub sink: Box<dyn Sink>,
    /// The last thing it committed, whoever wrote it; `None` if it has nothing.
    pub committed: Option<Committed>,
}

/// How far a target is, as it says itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// The last sequence it has.
    pub sequence: Sequence,
    /// The shard's whole progress there: what a reader needs to go on.
    pub progress: Progress,
    /// Changes it has of this shard.
    pub records: u64,
}

/// One batch on its way to a sink.
#[derive(Clone, Debug)]
pub struct SinkBatch {
    /// As it is spooled; names epoch and sequences.
    pub frame: Frame,
    /// Decoded. Changes a restart has already delivered are not in it: then
    /// `first` is above the frame's.
    pub batch: Arc<ChangeBatch>,
    /// The sequence of the first change in `batch`.
    pub first: Sequence,
    /// The shard's whole progress after this batch.
    pub progress: Arc<Progress>,
}

impl SinkBatch {
    /// The sequence of its last change.
    #[must_use]
    pub fn last(&self) -> Sequence {
        self.frame.last()
    }
}

/// A target for one shard's changes.
///
/// The writer calls one method at a time, with batches in order and without
/// holes, from behind what `open` said is committed. Dropping a pending call,
/// or an error of kind `Unknown`, leaves its outcome unknown: the writer then
/// opens the sink anew and goes by what that says. `Fenced` means that a newer
/// epoch has been here.
#[async_trait]
pub trait Sink: Send {
    /// What it can promise.
    fn traits(&self) -> SinkTraits;

    /// Takes a batch. Bounded: it commits by itself when it holds enough, and
    /// then answers `Durable`.
    async fn write(&mut self, batch: &SinkBatch) -> Result<Written>;

    /// Makes everything accepted durable; `None` if nothing was waiting.
    async fn flush(&mut self) -> Result<Option<Durable>>;
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// The sink has it, but a crash may still lose it.
    Accepted,
    /// Everything up to here survives a crash.
    Durable(Durable),
}

/// Proof that a target has made changes durable. Only sinks make it, and
/// nothing else moves a delivered checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    upto: Sequence,
}

impl Durable {
    /// Vouches that every change up to and including `upto` survives a crash.
    #[must_use]
    pub(in crate::sinks) fn vouch(upto: Sequence) -> Self {
        Self { upto }
    }

    /// The last sequence it covers.
    #[must_use]
    pub fn upto(&self) -> Sequence {
        self.upto
    }
}
