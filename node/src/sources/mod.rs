//! Where changes come from.
//!
//! A source lists its shards; for each, its reader takes an [`Anchor`], commits
//! it, and then reads the stream from there and the snapshot's chunks beside
//! it. The merge of the two is the reader's work (`shard/`), not the source's.
//! Adding a source is a folder, a variant of `SourceConfig`, and an arm in
//! [`open`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_proto::BatchBuilder;
use tidegate_proto::v1::{Check, GapKind, ShardSpec};
use tonic::async_trait;

use crate::error::{Error, ErrorKind, Result};

mod captured;
mod config;
#[cfg(test)]
mod contract;
pub mod datagen;
pub mod dynamodb;
pub mod embedded;
pub mod redis;

pub use captured::{Captured, Known, Last};
pub use config::{SourceConfig, open};

/// What a source can promise; the reader acts on it.
#[derive(Clone, Copy, Debug)]
pub struct SourceTraits {
    /// Its name in an export file.
    pub kind: &'static str,
    /// How snapshot rows meet the stream.
    pub merge: MergeRule,
    /// Shards appear, split and end by themselves, so discovery is repeated.
    pub dynamic: bool,
    /// How its rows come.
    pub rows: Rows,
    /// How old a change is when it is forgotten; `None` where that does not go by age.
    pub keeps: Option<Duration>,
    /// The longest to wait before a stream that failed is opened again: little where changes
    /// may be forgotten within seconds, [`retry::MOST`](crate::retry::MOST) elsewhere.
    pub again: Duration,
}

/// How a source's rows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Chunk by chunk, at any time again.
    Chunked,
    /// With the stream, when the source wants. Its changes are computed from what was
    /// captured before: the last document of each key is kept beside the log, and its
    /// streams are opened with [`Source::stream_from`]. It mends its losses itself, where
    /// they can be mended.
    Streamed,
}

/// When a snapshot row may pass, given what the stream has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeRule {
    /// Rows carry no version: a row passes only if the stream has not touched
    /// its key since this reader started. Needs reads that are at least as new
    /// as the stream position at which the reader started.
    Touched,
    /// A page says at which stream position it was read ([`Page::seen`]), and
    /// is held until the stream has passed that, so rows are never older than
    /// what they stand for, nor newer than what follows.
    Seen,
}

/// A store to capture changes from. Shared by all shards a node reads from it.
///
/// `stream` and `chunk` may be called again at any time, after an error or on
/// another node; what they return is used by one task at a time.
#[async_trait]
pub trait Source: Send + Sync {
    /// What it can promise.
    fn traits(&self) -> SourceTraits;

    /// The shards there are now. Names are stable: a shard seen before has the
    /// same name. Called on start and, for dynamic sources, on a timer.
    async fn discover(&self) -> Result<Vec<ShardSpec>>;

    /// The stream's position now, and how the snapshot will be cut. Committed
    /// before anything is read.
    async fn anchor(&self, shard: &ShardSpec) -> Result<Anchor>;

    /// About how many rows a shard has, the one with most; 0 if that is not known.
    async fn rows_estimated(&self) -> Result<u64> {
        Ok(0)
    }

    /// The changes after `position`, which an anchor or a [`Read`] gave.
    /// Fails with `Gone` when the source no longer has them all.
    async fn stream(&self, shard: &ShardSpec, position: &[u8]) -> Result<Box<dyn ChangeStream>>;

    /// As [`Source::stream`], for sources whose rows are [`Rows::Streamed`]:
    /// `captured` is what was captured of the shard up to `position`, and holds
    /// what a read pushed by the time of the next.
    async fn stream_from(
        &self,
        shard: &ShardSpec,
        position: &[u8],
        _captured: Arc<dyn Captured>,
    ) -> Result<Box<dyn ChangeStream>> {
        self.stream(shard, position).await
    }

    /// Rows of one chunk after `cursor`, which a [`Page`] gave; empty to start.
    /// Each page is at least as new as the moment it was asked for.
    async fn chunk(
        &self,
        shard: &ShardSpec,
        chunk: u32,
        cursor: &[u8],
    ) -> Result<Box<dyn ChunkReader>>;

    /// The two halves of a shard, which together bring what it would; a position of
    /// the whole is one of both. Refuses where shards are the source's own.
    fn split(&self, _shard: &ShardSpec) -> Result<[ShardSpec; 2]> {
        let why = "shards of this source are what the source makes them: they cannot be split";
        Err(Error::new(ErrorKind::Config, why))
    }

    /// Tests what an export needs of the store, for `plan` and `doctor`: that
    /// it is there, that we may read it, that its log is kept as we need it.
    /// Nothing is changed. Every check that did not pass names its remedy.
    async fn check(&self) -> Vec<Check>;
}

/// Where a shard starts.
#[derive(Clone, Debug, Default)]
pub struct Anchor {
    /// The stream's position now.
    pub position: Bytes,
    /// How many chunks the snapshot has, numbered from 0.
    pub chunks: u32,
    /// The source's own estimate of rows; 0 if it has none.
    pub rows_estimated: u64,
}

/// A shard's changes, in the shard's order, without end.
#[async_trait]
pub trait ChangeStream: Send {
    /// Pushes changes into `out` until it has about `bytes_max` bytes or there
    /// is nothing more at hand. Waits at most `wait` for the first, then returns
    /// with none: an idle source still moves its position. Dropping the call
    /// may lose what it had taken: open the stream anew.
    async fn read(
        &mut self,
        out: &mut BatchBuilder,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Read>;

    /// All changes up to what `seen` (from a [`Page`]) stands for have been
    /// returned by `read`.
    fn passed(&self, seen: &[u8]) -> bool;

    /// What it told as lost, with what mends it, is not all read again yet: so it is from
    /// the `read` that tells until behind the one that gave the last of it, whoever opened
    /// the stream meanwhile.
    fn mends(&self) -> bool {
        false
    }

    /// Until when the source keeps what follows the last read, if nothing is read from
    /// now on: milliseconds since 1970, an estimate where it forgets by size. `None` if
    /// it forgets nothing, or cannot tell yet. Asked every few seconds.
    fn kept_until_ms(&self) -> Option<i64> {
        None
    }
}

/// What one call of [`ChangeStream::read`] did.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// Where the stream is after what was pushed; empty if it has not moved.
    pub position: Bytes,
    /// There will never be more: everything was pushed.
    pub ended: bool,
    /// The source has lost history; the stream goes on behind the loss.
    pub losses: Vec<Loss>,
}

/// History that the source no longer had when we came for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Which way it was lost.
    pub kind: GapKind,
    /// Names the part of the source and its bounds, nothing out of a row. The same for
    /// the same loss, whoever finds it.
    pub detail: String,
    /// How the source has mended it without being asked, once [`ChangeStream::mends`] is
    /// over; empty if it does not.
    pub mended: String,
}

/// The rows of one chunk, in pages.
#[async_trait]
pub trait ChunkReader: Send {
    /// Pushes the next rows (operation snapshot) into `out`, about `bytes_max`
    /// bytes of them. An empty page that is not `done` is fine.
    async fn page(&mut self, out: &mut BatchBuilder, bytes_max: usize) -> Result<Page>;
}

/// What one call of [`ChunkReader::page`] did.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Where to go on after the rows pushed.
    pub cursor: Bytes,
    /// The chunk has no more rows.
    pub done: bool,
    /// The stream position at which the rows were read, for
    /// [`ChangeStream::passed`]; empty where the source cannot tell.
    pub seen: Bytes,
}
