//! One shard's log.

mod marks;
mod read;
mod recent;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rocksdb::WriteBatch;
use tidegate_proto::v1::{Progress, ShardId};
use tidegate_proto::{BatchBuilder, Epoch, Frame, NodeId, Sequence};
use tidegate_raft_store::absorb;
use tokio::sync::{Notify, watch};

use crate::error::{Error, ErrorKind, Result};
use crate::spool::begins::Begins;
use crate::spool::copies::Copies;
use crate::spool::keys::Key;
use crate::spool::log::recent::Recent;
use crate::spool::store::Spool;

/// How far beyond the captured checkpoint changes may be seen that other copies
/// have: some seconds of a fast source, as an election takes. When all copies
/// are lost, so many sequences are left out, so that none is used again.
pub const AHEAD_MAX: u64 = 1 << 20;

/// What is stored about a log besides its batches.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Head {
    /// The owner's epoch at the last append.
    pub(super) epoch: Epoch,
    /// The epoch under which the log was begun.
    pub(super) made: Epoch,
    /// The oldest sequence still there; `next` if there is none.
    pub(super) first: Sequence,
    /// What the next change gets.
    pub(super) next: Sequence,
    /// How far the shard is in its source after the last append, by its owner.
    pub(super) progress: Progress,
    pub(super) begins: Begins,
}

/// Where a log ends, for whoever goes on from there.
#[derive(Clone, Debug, PartialEq)]
pub struct Tail {
    /// The owner's epoch at the last append.
    pub epoch: Epoch,
    /// What the next change gets.
    pub next: Sequence,
    /// How far the shard is in its source.
    pub progress: Progress,
}

/// A shard's batches, in order, from the oldest retained.
///
/// ```text
///   retained: first ............ stable ........... safe ............ next
///              seen by everyone         on all copies    only here
/// ```
///
/// Alone in sync, a change is safe when it is on the disk, and stable when it is
/// recorded as captured. With others, it is safe when all of them have it, and
/// stable at once, as long as the record is not more than [`AHEAD_MAX`] behind.
#[derive(Debug)]
pub struct ShardLog {
    spool: Weak<Spool>,
    shard: ShardId,
    inner: Mutex<Inner>,
    appended: watch::Sender<Sequence>,
    synced: watch::Sender<Sequence>,
    safe: watch::Sender<Sequence>,
    stable: watch::Sender<Sequence>,
    /// For whoever looks after the copies: something was appended, or a copy came
    /// or went.
    stirred: Notify,
    recent_bytes_max: usize,
}

#[derive(Debug)]
struct Inner {
    head: Head,
    recent: Recent,
    /// Bytes appended since this process opened the log.
    appended_bytes: u64,
    closed: bool,
    /// This node captures the shard; if not, it keeps a copy.
    owned: bool,
    /// How often the end was cut off.
    cuts: u64,
    copies: Copies,
    /// The last sequence the cluster recorded as captured.
    recorded: Sequence,
}

impl Inner {
    fn last(&self) -> Sequence {
        Sequence(self.head.next.0 - 1)
    }
}

impl ShardLog {
    pub(super) fn new(
        spool: Weak<Spool>,
        shard: ShardId,
        head: Head,
        recent_bytes_max: usize,
    ) -> Self {
        let last = Sequence(head.next.0 - 1);
        Self {
            spool,
            shard,
            // What lies on disk after a start was synced, or is what survived.
            synced: watch::Sender::new(last),
            appended: watch::Sender::new(last),
            safe: watch::Sender::new(Sequence(head.first.0 - 1)),
            stable: watch::Sender::new(Sequence(head.first.0 - 1)),
            inner: Mutex::new(Inner {
                head,
                recent: Recent::default(),
                appended_bytes: 0,
                closed: false,
                owned: false,
                cuts: 0,
                copies: Copies::default(),
                recorded: Sequence(0),
            }),
            stirred: Notify::new(),
            recent_bytes_max,
        }
    }

    /// Whose log this is.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Where it ends now.
    #[must_use]
    pub fn tail(&self) -> Tail {
        let head = &self.inner().head;
        Tail { epoch: head.epoch, next: head.next, progress: head.progress.clone() }
    }

    /// What the next change gets.
    #[must_use]
    pub fn next(&self) -> Sequence {
        self.inner().head.next
    }

    /// The last sequence given; before the first change, the one before it.
    #[must_use]
    pub fn last(&self) -> Sequence {
        self.inner().last()
    }

    /// The oldest sequence still there; the next one if there is none.
    #[must_use]
    pub fn first(&self) -> Sequence {
        self.inner().head.first
    }

    /// Bytes appended since this process opened it.
    #[must_use]
    pub fn appended_bytes(&self) -> u64 {
        self.inner().appended_bytes
    }

    /// Appends a batch that its owner has just encoded, and in the same write
    /// notes the keys in `touched`. Not yet on disk when it returns: see
    /// [`ShardLog::synced`]. The batch must follow the last without a hole; an
    /// owner of an older epoch is refused.
    pub fn append(
        &self,
        frame: &Frame,
        delta: &Progress,
        touched: Option<&BatchBuilder>,
    ) -> Result<()> {
        let spool = self.spool()?;
        spool.check_room()?;
        let inner = self.inner();
        if frame.epoch() != inner.head.epoch || !inner.owned || inner.closed {
            return Err(self.fenced());
        }
        assert_eq!(frame.first(), inner.head.next, "batches follow each other without a hole");
        let mut batch = WriteBatch::default();
        for pending in touched.into_iter().flat_map(BatchBuilder::pending) {
            batch.put(Key::Touched(self.shard, pending.collection, pending.key).encode(), []);
        }
        self.commit(&spool, inner, frame, (Some(delta), batch))
    }

    /// Appends a batch that the owner of `under` sent to this copy. Not yet on
    /// disk when it returns. A batch that leaves a hole is refused, and so is
    /// any once this node follows another owner or is the owner.
    pub fn append_copy(&self, frame: &Frame, under: Epoch) -> Result<()> {
        let spool = self.spool()?;
        spool.check_room()?;
        let inner = self.inner();
        if under != inner.head.epoch || inner.owned || inner.closed {
            return Err(self.fenced());
        }
        if frame.first() != inner.head.next || frame.count() == 0 {
            let (next, first) = (inner.head.next, frame.first());
            let why = format!("the owner of shard {} sent {first} to a copy at {next}", self.shard);
            return Err(Error::new(ErrorKind::Unavailable, why));
        }
        self.commit(&spool, inner, frame, (None, WriteBatch::default()))
    }

    /// Writes a batch and the head behind it, beside what is in `write` already.
    fn commit(
        &self,
        spool: &Spool,
        mut inner: MutexGuard<'_, Inner>,
        frame: &Frame,
        (delta, mut write): (Option<&Progress>, WriteBatch),
    ) -> Result<()> {
        let mut head = inner.head.clone();
        head.next = frame.last().next();
        if let Some(delta) = delta {
            absorb(&mut head.progress, delta);
        }
        if frame.count() > 0 {
            head.begins.note(frame.epoch(), frame.first());
            write.put(Key::Frame(self.shard, frame.first()).encode(), frame.bytes());
        }
        write.put(Key::Head(self.shard).encode(), head.encode());
        spool.write(write)?;
        inner.head = head;
        inner.appended_bytes += frame.bytes().len() as u64;
        if frame.count() > 0 {
            inner.recent.remember(frame.clone(), self.recent_bytes_max);
        }
        self.appended.send_replace(frame.last());
        self.settle(&inner);
        self.stirred.notify_one();
        drop(inner);
        spool.notify_appended();
        Ok(())
    }

    /// Takes the log over for the owner of `epoch`, who stands at `progress` and
    /// beside whom `others` are recorded as in sync; an older owner is refused
    /// from then on. A repeat changes nothing.
    pub fn take_over(
        &self,
        epoch: Epoch,
        progress: Progress,
        others: BTreeSet<NodeId>,
    ) -> Result<()> {
        let spool = self.spool()?;
        let mut inner = self.inner();
        if epoch < inner.head.epoch {
            return Err(self.fenced());
        }
        // A reader that starts again under its epoch keeps the copies' connections.
        if !inner.owned || inner.head.epoch != epoch {
            inner.copies.forget();
        }
        inner.head.epoch = epoch;
        inner.head.progress = progress;
        inner.owned = true;
        // As a copy it took the owner's word for it.
        inner.recorded = Sequence(0);
        inner.copies.set_in_sync(others);
        let mut batch = WriteBatch::default();
        batch.put(Key::Head(self.shard).encode(), inner.head.encode());
        spool.write(batch)?;
        self.settle(&inner);
        Ok(())
    }

    /// Makes this log a copy of the one the owner of `epoch` has: drops all
    /// after `keep`. Fails if this node knows a newer owner, or if what would be
    /// dropped has been seen.
    pub fn follow(&self, epoch: Epoch, keep: Sequence) -> Result<()> {
        let spool = self.spool()?;
        let mut inner = self.inner();
        if epoch < inner.head.epoch || inner.closed {
            return Err(self.fenced());
        }
        let stable = *self.stable.borrow();
        let mut head = inner.head.clone();
        let mut batch = WriteBatch::default();
        if keep.next() < head.next {
            if keep < stable {
                let why = format!(
                    "the owner of shard {} has {keep}, and {stable} was seen here; look at \
                     `tidegate shard show` before you go on",
                    self.shard
                );
                return Err(Error::new(ErrorKind::Corrupt, why));
            }
            let (_, behind) = Key::all_frames(self.shard);
            batch.delete_range(Key::Frame(self.shard, keep.next()).encode(), behind);
            head.next = keep.next();
            head.begins.cut_back(keep);
            inner.recent.forget_after(keep);
            inner.cuts += 1;
        }
        head.epoch = epoch;
        batch.put(Key::Head(self.shard).encode(), head.encode());
        spool.write(batch)?;
        inner.head = head;
        inner.owned = false;
        inner.copies.forget();
        let last = inner.last();
        for mark in [&self.appended, &self.synced, &self.safe] {
            mark.send_if_modified(|at| {
                let moved = *at > last;
                *at = last.min(*at);
                moved
            });
        }
        Ok(())
    }

    /// Where each epoch began in it.
    #[must_use]
    pub fn begins(&self) -> Begins {
        self.inner().head.begins.clone()
    }

    /// The epoch under which it was begun.
    #[must_use]
    pub fn made(&self) -> Epoch {
        self.inner().head.made
    }

    /// This node captures the shard under `epoch`.
    #[must_use]
    pub fn owned_under(&self, epoch: Epoch) -> bool {
        let inner = self.inner();
        inner.owned && !inner.closed && inner.head.epoch == epoch
    }

    fn fenced(&self) -> Error {
        let why = format!("shard {} has another owner by now, as this node knows", self.shard);
        Error::new(ErrorKind::Fenced, why)
    }

    /// The epoch of the owner.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.inner().head.epoch
    }

    /// Notes that the source was read further without a change. Survives with
    /// the next append at the latest.
    pub fn advance(&self, delta: &Progress) -> Result<()> {
        let spool = self.spool()?;
        let mut inner = self.inner();
        absorb(&mut inner.head.progress, delta);
        let mut batch = WriteBatch::default();
        batch.put(Key::Head(self.shard).encode(), inner.head.encode());
        spool.write(batch)
    }

    /// The stream brought this key since the reader started.
    pub fn is_touched(&self, collection: &str, key: &[u8]) -> Result<bool> {
        let key = Key::Touched(self.shard, collection, key).encode();
        let spool = self.spool()?;
        let found = spool.db.get_pinned(key).map(|value| value.is_some());
        found.map_err(|error| {
            Error::new(ErrorKind::Corrupt, "look up a touched key in the spool").because(error)
        })
    }

    /// Forgets all touched keys: before a reader starts, and once it needs none.
    pub fn forget_touched(&self) -> Result<()> {
        let (from, behind) = Key::all_touched(self.shard);
        let mut batch = WriteBatch::default();
        batch.delete_range(from, behind);
        self.spool()?.write(batch)
    }

    /// Wakes whoever waits: there will be no more.
    pub(super) fn close(&self) {
        self.inner().closed = true;
        self.stable.send_modify(|_| {});
    }

    /// The log was removed; what is left of it in memory is nobody's.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.inner().closed
    }

    fn spool(&self) -> Result<Arc<Spool>> {
        let gone = || Error::new(ErrorKind::Fenced, "the spool of this node is closed");
        self.spool.upgrade().ok_or_else(gone)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
