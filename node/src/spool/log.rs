//! One shard's log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rocksdb::WriteBatch;
use tidegate_proto::v1::{Progress, ShardId};
use tidegate_proto::{BatchBuilder, Epoch, Frame, Sequence};
use tidegate_raft_store::absorb;
use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};
use crate::spool::keys::Key;
use crate::spool::store::Spool;

/// What is stored about a log besides its batches.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Head {
    /// The owner's epoch at the last append.
    pub(super) epoch: Epoch,
    /// The oldest sequence still there; `next` if there is none.
    pub(super) first: Sequence,
    /// What the next change gets.
    pub(super) next: Sequence,
    /// How far the shard is in its source after the last append.
    pub(super) progress: Progress,
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
///   retained: first ..................... stable ....... synced ..... next
///                   seen by everyone            on disk      in memory
/// ```
#[derive(Debug)]
pub struct ShardLog {
    spool: Weak<Spool>,
    shard: ShardId,
    inner: Mutex<Inner>,
    stable: watch::Sender<Sequence>,
    synced: watch::Sender<Sequence>,
    recent_bytes_max: usize,
}

#[derive(Debug)]
struct Inner {
    head: Head,
    /// The newest batches, without a hole, up to the last appended.
    recent: VecDeque<Frame>,
    recent_bytes: usize,
    /// Bytes appended since this process opened the log.
    appended_bytes: u64,
    closed: bool,
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
            stable: watch::Sender::new(Sequence(head.first.0 - 1)),
            inner: Mutex::new(Inner { head, recent: VecDeque::new(), recent_bytes: 0, appended_bytes: 0, closed: false }),
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
        let mut inner = self.inner();
        if frame.epoch() < inner.head.epoch || inner.closed {
            let why = format!("shard {} has been captured under a newer epoch here", self.shard);
            return Err(Error::new(ErrorKind::Fenced, why));
        }
        assert_eq!(frame.first(), inner.head.next, "batches follow each other without a hole");
        let mut head = inner.head.clone();
        head.epoch = frame.epoch();
        head.next = frame.last().next();
        absorb(&mut head.progress, delta);

        let mut batch = WriteBatch::default();
        batch.put(Key::Head(self.shard).encode(), head.encode());
        if frame.count() > 0 {
            batch.put(Key::Frame(self.shard, frame.first()).encode(), frame.bytes());
        }
        for pending in touched.into_iter().flat_map(BatchBuilder::pending) {
            batch.put(Key::Touched(self.shard, pending.collection, pending.key).encode(), []);
        }
        spool.write(batch)?;
        inner.head = head;
        inner.appended_bytes += frame.bytes().len() as u64;
        if frame.count() > 0 {
            inner.remember(frame.clone(), self.recent_bytes_max);
        }
        drop(inner);
        spool.notify_appended();
        Ok(())
    }

    /// Takes the log over for the owner of `epoch`; an older one is refused from
    /// then on. A repeat changes nothing.
    pub fn take_over(&self, epoch: Epoch) -> Result<()> {
        let spool = self.spool()?;
        let mut inner = self.inner();
        if epoch < inner.head.epoch {
            let why = format!("shard {} has been captured under a newer epoch here", self.shard);
            return Err(Error::new(ErrorKind::Fenced, why));
        }
        inner.head.epoch = epoch;
        let mut batch = WriteBatch::default();
        batch.put(Key::Head(self.shard).encode(), inner.head.encode());
        spool.write(batch)
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

    /// The stable batches after `after`, about `bytes_max` bytes of them; none
    /// if there are none yet. The first may begin at or below `after`. Fails
    /// with `Gone`, naming the oldest there is, when retention was faster.
    pub fn read(&self, after: Sequence, bytes_max: usize) -> Result<Vec<Frame>> {
        let stable = *self.stable.borrow();
        let first = {
            let inner = self.inner();
            if after >= stable {
                return Ok(Vec::new());
            }
            if let Some(frames) = inner.from_memory(after.next(), stable, bytes_max) {
                return Ok(frames);
            }
            inner.head.first
        };
        if after.next() < first {
            let why = format!(
                "sequences after {after} of shard {} are no longer retained; the oldest is {first}",
                self.shard
            );
            return Err(Error::new(ErrorKind::Gone, why));
        }
        self.spool()?.frames(self.shard, after.next(), stable, bytes_max)
    }

    /// Moves when more batches become stable; closed when the log is removed.
    #[must_use]
    pub fn stable(&self) -> watch::Receiver<Sequence> {
        self.stable.subscribe()
    }

    /// Moves when more batches have reached the disk.
    #[must_use]
    pub fn synced(&self) -> watch::Receiver<Sequence> {
        self.synced.subscribe()
    }

    /// The cluster has recorded that everything up to `upto` was captured.
    pub fn set_stable(&self, upto: Sequence) {
        let last = Sequence(self.inner().head.next.0 - 1);
        let upto = upto.min(last);
        self.stable.send_if_modified(|stable| {
            let moved = upto > *stable;
            *stable = upto.max(*stable);
            moved
        });
    }

    /// Deletes whole batches up to and including `upto`; never a batch that
    /// is not stable.
    pub fn truncate_front(&self, upto: Sequence) -> Result<()> {
        let spool = self.spool()?;
        let upto = upto.min(*self.stable.borrow());
        let first = {
            let inner = self.inner();
            if upto < inner.head.first {
                return Ok(());
            }
            inner.head.first
        };
        // The batch that holds the sequence behind `upto` stays whole.
        let keep = spool.frames(self.shard, upto.next(), Sequence(u64::MAX), 1)?;
        let mut inner = self.inner();
        let new_first = keep.first().map_or(inner.head.next, Frame::first);
        if new_first <= first {
            return Ok(());
        }
        inner.head.first = new_first;
        let mut batch = WriteBatch::default();
        batch.delete_range(
            Key::Frame(self.shard, Sequence(0)).encode(),
            Key::Frame(self.shard, new_first).encode(),
        );
        batch.put(Key::Head(self.shard).encode(), inner.head.encode());
        spool.write(batch)
    }

    /// The last sequence not yet known to be on disk; `None` if all are.
    pub(super) fn unsynced(&self) -> Option<Sequence> {
        let last = Sequence(self.inner().head.next.0 - 1);
        (last > *self.synced.borrow()).then_some(last)
    }

    pub(super) fn set_synced(&self, upto: Sequence) {
        self.synced.send_replace(upto);
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

impl Inner {
    fn remember(&mut self, frame: Frame, bytes_max: usize) {
        self.recent_bytes += frame.bytes().len();
        self.recent.push_back(frame);
        while self.recent_bytes > bytes_max && self.recent.len() > 1 {
            if let Some(old) = self.recent.pop_front() {
                self.recent_bytes -= old.bytes().len();
            }
        }
    }

    /// The frames from the one that holds `next`, if they are in memory.
    fn from_memory(&self, next: Sequence, upto: Sequence, bytes_max: usize) -> Option<Vec<Frame>> {
        let oldest = self.recent.front()?;
        if next < oldest.first() {
            return None;
        }
        let from = self.recent.partition_point(|frame| frame.last() < next);
        let mut bytes = 0;
        let mut frames = Vec::new();
        for frame in self.recent.range(from..) {
            if frame.last() > upto || bytes >= bytes_max {
                break;
            }
            bytes += frame.bytes().len();
            frames.push(frame.clone());
        }
        Some(frames)
    }
}
