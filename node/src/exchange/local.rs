//! Batches from this node's own spool.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_proto::v1::{IndexRows, ShardId};
use tidegate_proto::{Epoch, NodeId, Sequence};
use tonic::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::exchange::fetch::{Fetch, Fetched, OLDEST};
use crate::spool::{MarkWatch, ShardLog, Spool};

/// Bytes of rows of the key index sent in one go, about, before they are compressed.
const PAGE_BYTES: usize = 1 << 20;

/// What a node sends to another that fetches from it.
#[async_trait]
pub(super) trait Outflow: Send {
    /// What is to be sent next. Without `room` no batches; waits if that leaves
    /// nothing. Dropping the call loses nothing.
    async fn next(&mut self, room: bool) -> Result<Fetched>;

    /// The receiver has all up to `upto`.
    fn acked(&self, upto: Sequence);

    /// The receiver has all rows of the key index.
    fn indexed(&self);
}

/// Reads a log of this process. Serves local writers and feeds, and the
/// exchange service.
#[derive(Debug)]
pub(super) struct LocalFetch {
    log: Arc<ShardLog>,
    epoch: Epoch,
    after: Sequence,
    stable: MarkWatch,
    chunk_bytes: usize,
}

impl LocalFetch {
    /// Opens the log of `shard` if this node holds it under `epoch`.
    pub(super) fn open(
        spool: &Spool,
        shard: ShardId,
        epoch: Epoch,
        after: Sequence,
        credit_bytes: u64,
    ) -> Result<Self> {
        let log = spool.log(shard).filter(|log| log.epoch() == epoch);
        let log = log.ok_or_else(|| not_held(shard, epoch))?;
        let after = place(shard, (log.first(), log.last()), after)?;
        let stable = log.stable();
        // Half of the credit at a time, so that the next read overlaps the last.
        let chunk_bytes = usize::try_from(credit_bytes / 2).unwrap_or(usize::MAX);
        Ok(Self { log, epoch, after, stable, chunk_bytes })
    }

    fn still_held(&self) -> Result<()> {
        if self.log.epoch() == self.epoch && !self.log.closed() {
            return Ok(());
        }
        Err(not_held(self.log.shard(), self.epoch))
    }
}

/// Behind which sequence a fetch of `after` begins, of a log from `first` to `last`.
pub(crate) fn place(
    shard: ShardId,
    (first, last): (Sequence, Sequence),
    after: Sequence,
) -> Result<Sequence> {
    let after = if after == OLDEST { Sequence(first.0 - 1) } else { after };
    if after.next() < first {
        let next = after.next();
        let why = format!(
            "sequence {next} of shard {shard} is no longer retained; the oldest is {first}"
        );
        return Err(Error::new(ErrorKind::Gone, why));
    }
    if after > last {
        let why = format!(
            "sequence {after} of shard {shard} is not there: its spool ends at {last}; start \
             from earliest or latest"
        );
        return Err(Error::new(ErrorKind::Gone, why));
    }
    Ok(after)
}

/// What a log's owner sends to one copy: also what is not stable yet, and the
/// stable mark whenever it moves.
#[derive(Debug)]
pub(super) struct CopyFeed {
    log: Arc<ShardLog>,
    epoch: Epoch,
    after: Sequence,
    stable: MarkWatch,
    appended: MarkWatch,
    chunk_bytes: usize,
    node: NodeId,
    connection: u64,
    /// What is to be sent of the key index.
    lacks: Lacks,
}

/// Rows of the key index that a copy lacks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lacks {
    Nothing,
    /// All behind this place.
    Behind(Bytes),
    /// Those of these places.
    Places(Vec<Bytes>),
}

impl CopyFeed {
    /// Feeds `node`'s copy, in its process's run `run`, which has all up to `after`.
    pub(super) fn open(
        log: Arc<ShardLog>,
        epoch: Epoch,
        (node, run): (NodeId, u64),
        after: Sequence,
        credit_bytes: u64,
    ) -> Result<Self> {
        let connection = log.copy_opened((node, run), after, epoch)?;
        let (stable, appended) = (log.stable(), log.appended_mark());
        let chunk_bytes = usize::try_from(credit_bytes / 2).unwrap_or(usize::MAX);
        let lacks = Lacks::Nothing;
        Ok(Self { log, epoch, after, stable, appended, chunk_bytes, node, connection, lacks })
    }

    /// The copy lacks these rows. If it needs them to go on and this node has them, it is not
    /// in sync before they are there.
    pub(super) fn lacking(mut self, lacks: Lacks) -> Self {
        if matches!(lacks, Lacks::Behind(_)) && self.log.knows_all() {
            self.log.copy_lacks(self.node, self.connection, true);
        }
        self.lacks = lacks;
        self
    }

    /// The next rows for a copy that lacks some.
    fn index_rows(&mut self) -> Result<Option<IndexRows>> {
        let page = match &self.lacks {
            Lacks::Nothing => None,
            Lacks::Behind(after) => self.log.index_rows(after, PAGE_BYTES)?,
            // Told earlier, they would have to wait there for the batches in between.
            Lacks::Places(_) if self.after < self.log.last() => None,
            Lacks::Places(places) => self.log.rows_of(places, PAGE_BYTES)?,
        };
        let Some(page) = page else { return Ok(None) };
        if matches!(self.lacks, Lacks::Behind(_)) {
            // It may have come before this node knew all keys.
            self.log.copy_lacks(self.node, self.connection, true);
        }
        match &mut self.lacks {
            Lacks::Behind(after) if page.until == 0 => {
                *after = page.rows.last().map_or(&page.after, |row| &row.place).clone();
            }
            Lacks::Places(places) if places.len() > page.told as usize => {
                places.drain(..page.told as usize);
            }
            Lacks::Nothing | Lacks::Behind(_) | Lacks::Places(_) => self.lacks = Lacks::Nothing,
        }
        Ok(Some(page))
    }
}

impl Drop for CopyFeed {
    fn drop(&mut self) {
        self.log.copy_closed(self.node, self.connection);
    }
}

#[async_trait]
impl Fetch for LocalFetch {
    async fn next(&mut self) -> Result<Fetched> {
        loop {
            self.still_held()?;
            let stable = self.stable.see();
            let frames = self.log.read(self.after, self.chunk_bytes)?;
            if let Some(last) = frames.last() {
                self.after = last.last();
                return Ok(Fetched { frames, stable, index: None });
            }
            if self.stable.moved().await.is_err() {
                return Err(not_held(self.log.shard(), self.epoch));
            }
        }
    }

    fn acknowledge(&mut self, _upto: Sequence) {}
}

#[async_trait]
impl Outflow for LocalFetch {
    async fn next(&mut self, room: bool) -> Result<Fetched> {
        if room { Fetch::next(self).await } else { std::future::pending().await }
    }

    fn acked(&self, _upto: Sequence) {}

    fn indexed(&self) {}
}

#[async_trait]
impl Outflow for CopyFeed {
    async fn next(&mut self, room: bool) -> Result<Fetched> {
        loop {
            // One that came late, of a process that has ended, may have displaced this
            // one: the copy has to come anew, or it is not heard any more.
            let counts = self.log.copy_counts(self.node, self.connection);
            if !self.log.owned_under(self.epoch) || !counts {
                return Err(not_held(self.log.shard(), self.epoch));
            }
            let told = self.stable.has_moved();
            let stable = self.stable.see();
            self.appended.see();
            let (frames, index) = if room {
                let frames = self.log.read_appended(self.after, self.chunk_bytes)?;
                (frames, self.index_rows()?)
            } else {
                (Vec::new(), None)
            };
            if let Some(last) = frames.last() {
                self.after = last.last();
            }
            if told || !frames.is_empty() || index.is_some() {
                return Ok(Fetched { frames, stable, index });
            }
            let moved = tokio::select! {
                moved = self.stable.moved() => {
                    self.stable.unsee();
                    moved
                }
                moved = self.appended.moved(), if room => moved,
            };
            moved.map_err(|_| not_held(self.log.shard(), self.epoch))?;
        }
    }

    fn acked(&self, upto: Sequence) {
        self.log.copy_acked(self.node, self.connection, upto);
    }

    fn indexed(&self) {
        self.log.copy_lacks(self.node, self.connection, false);
    }
}

pub(super) fn not_held(shard: ShardId, epoch: Epoch) -> Error {
    let why = format!("this node does not hold shard {shard} under epoch {epoch}; ask its owner");
    Error::new(ErrorKind::Unavailable, why)
}
