//! One shard's log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rocksdb::WriteBatch;
use tidegate_proto::v1::{Progress, ShardId};
use tidegate_proto::{BatchBuilder, Epoch, Frame, NodeId, Sequence};
use tidegate_raft_store::absorb;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::spool::begins::Begins;
use crate::spool::copies::{Copies, Copy};
use crate::spool::keys::Key;
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
    /// This node captures the shard; if not, it keeps a copy.
    owned: bool,
    /// How often the end was cut off.
    cuts: u64,
    copies: Copies,
    /// The last sequence the cluster recorded as captured.
    recorded: Sequence,
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
                recent: VecDeque::new(),
                recent_bytes: 0,
                appended_bytes: 0,
                closed: false,
                owned: false,
                cuts: 0,
                copies: Copies::default(),
                recorded: Sequence(0),
            }),
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
        if frame.epoch() != inner.head.epoch || !inner.owned || inner.closed {
            return Err(self.fenced());
        }
        assert_eq!(frame.first(), inner.head.next, "batches follow each other without a hole");
        let mut batch = WriteBatch::default();
        let head = self.put(&inner.head, frame, Some(delta), &mut batch);
        for pending in touched.into_iter().flat_map(BatchBuilder::pending) {
            batch.put(Key::Touched(self.shard, pending.collection, pending.key).encode(), []);
        }
        spool.write(batch)?;
        self.appended(&mut inner, head, frame);
        drop(inner);
        spool.notify_appended();
        Ok(())
    }

    /// Appends a batch that the owner of `under` sent to this copy. Not yet on
    /// disk when it returns. A batch that leaves a hole is refused, and so is
    /// any once this node follows another owner or is the owner.
    pub fn append_copy(&self, frame: &Frame, under: Epoch) -> Result<()> {
        let spool = self.spool()?;
        spool.check_room()?;
        let mut inner = self.inner();
        if under != inner.head.epoch || inner.owned || inner.closed {
            return Err(self.fenced());
        }
        if frame.first() != inner.head.next || frame.count() == 0 {
            let (next, first) = (inner.head.next, frame.first());
            let why = format!("the owner of shard {} sent {first} to a copy at {next}", self.shard);
            return Err(Error::new(ErrorKind::Unavailable, why));
        }
        let mut batch = WriteBatch::default();
        let head = self.put(&inner.head, frame, None, &mut batch);
        spool.write(batch)?;
        self.appended(&mut inner, head, frame);
        drop(inner);
        spool.notify_appended();
        Ok(())
    }

    /// Adds a batch and the head behind it to what is to be written.
    fn put(
        &self,
        head: &Head,
        frame: &Frame,
        delta: Option<&Progress>,
        batch: &mut WriteBatch,
    ) -> Head {
        let mut head = head.clone();
        head.next = frame.last().next();
        if let Some(delta) = delta {
            absorb(&mut head.progress, delta);
        }
        if frame.count() > 0 {
            head.begins.note(frame.epoch(), frame.first());
            batch.put(Key::Frame(self.shard, frame.first()).encode(), frame.bytes());
        }
        batch.put(Key::Head(self.shard).encode(), head.encode());
        head
    }

    fn appended(&self, inner: &mut Inner, head: Head, frame: &Frame) {
        inner.head = head;
        inner.appended_bytes += frame.bytes().len() as u64;
        if frame.count() > 0 {
            inner.remember(frame.clone(), self.recent_bytes_max);
        }
        self.appended.send_replace(frame.last());
        self.settle(inner);
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
        inner.head.epoch = epoch;
        inner.head.progress = progress;
        inner.owned = true;
        // As a copy it took the owner's word for it.
        inner.recorded = Sequence(0);
        inner.copies.forget();
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
            inner.forget_after(keep);
            inner.cuts += 1;
        }
        head.epoch = epoch;
        batch.put(Key::Head(self.shard).encode(), head.encode());
        spool.write(batch)?;
        inner.head = head;
        inner.owned = false;
        inner.copies.forget();
        let last = Sequence(inner.head.next.0 - 1);
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

    /// The stable batches after `after`, about `bytes_max` bytes of them; none
    /// if there are none yet. The first may begin at or below `after`. Fails
    /// with `Gone`, naming the oldest there is, when retention was faster.
    pub fn read(&self, after: Sequence, bytes_max: usize) -> Result<Vec<Frame>> {
        let stable = *self.stable.borrow();
        self.read_upto(after, stable, bytes_max)
    }

    /// As [`ShardLog::read`], with what is not stable yet: for a copy.
    pub fn read_appended(&self, after: Sequence, bytes_max: usize) -> Result<Vec<Frame>> {
        let appended = *self.appended.borrow();
        self.read_upto(after, appended, bytes_max)
    }

    fn read_upto(&self, after: Sequence, stable: Sequence, bytes_max: usize) -> Result<Vec<Frame>> {
        let first = {
            let inner = self.inner();
            if after >= stable {
                return Ok(Vec::new());
            }
            if let Some(frames) = inner.in_memory(after.next(), stable, bytes_max) {
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

    /// Moves when more batches have reached this node's disk.
    #[must_use]
    pub fn synced(&self) -> watch::Receiver<Sequence> {
        self.synced.subscribe()
    }

    /// Moves when more batches were appended, and when the end was cut off.
    #[must_use]
    pub fn appended_mark(&self) -> watch::Receiver<Sequence> {
        self.appended.subscribe()
    }

    /// Moves when more batches are where they must be before their capture may
    /// be recorded: on every copy in sync.
    #[must_use]
    pub fn safe(&self) -> watch::Receiver<Sequence> {
        self.safe.subscribe()
    }

    /// The cluster has recorded that everything up to `upto` was captured; on a
    /// copy, the owner says that it is stable.
    pub fn set_stable(&self, upto: Sequence) {
        let mut inner = self.inner();
        inner.recorded = upto.max(inner.recorded);
        self.settle(&inner);
    }

    /// Besides this node, its owner, these are recorded as in sync.
    pub fn set_in_sync(&self, others: BTreeSet<NodeId>) {
        let mut inner = self.inner();
        inner.copies.set_in_sync(others);
        self.settle(&inner);
    }

    /// Waits for this copy from now on; see [`ShardLog::set_in_sync`].
    pub fn join_copy(&self, node: NodeId) {
        let mut inner = self.inner();
        inner.copies.join(node);
        self.settle(&inner);
    }

    /// Waits for this copy no longer, unless it is recorded as in sync.
    pub fn leave_copy(&self, node: NodeId) {
        let mut inner = self.inner();
        inner.copies.leave(node);
        self.settle(&inner);
    }

    /// The copy is waited for and not recorded yet.
    #[must_use]
    pub fn is_joining(&self, node: NodeId) -> bool {
        self.inner().copies.is_joining(node)
    }

    /// The copies that were ever heard under this owner.
    #[must_use]
    pub fn copies(&self) -> BTreeMap<NodeId, Copy> {
        self.inner().copies.seen()
    }

    /// A copy came and has all up to `acked`; gives its connection's number.
    /// Fails unless this node owns the shard under `epoch`.
    pub fn copy_opened(&self, copy: (NodeId, u64), acked: Sequence, epoch: Epoch) -> Result<u64> {
        let mut inner = self.inner();
        if !inner.owned || inner.head.epoch != epoch {
            return Err(self.fenced());
        }
        let connection = inner.copies.open(copy, acked, Instant::now());
        self.settle(&inner);
        Ok(connection)
    }

    /// The copy has all up to `acked`.
    pub fn copy_acked(&self, node: NodeId, connection: u64, acked: Sequence) {
        let mut inner = self.inner();
        inner.copies.ack(node, connection, acked, Instant::now());
        self.settle(&inner);
    }

    /// The copy's connection ended.
    pub fn copy_closed(&self, node: NodeId, connection: u64) {
        self.inner().copies.close(node, connection, Instant::now());
    }

    /// Moves the marks that follow from others.
    fn settle(&self, inner: &Inner) {
        let last = Sequence(inner.head.next.0 - 1);
        let mut stable = inner.recorded;
        if inner.owned {
            let safe = inner.copies.safe(last, *self.synced.borrow());
            raise(&self.safe, safe);
            let ahead = Sequence(inner.recorded.0.saturating_add(AHEAD_MAX));
            if inner.copies.shared() {
                stable = stable.max(safe.min(ahead));
            }
        }
        raise(&self.stable, stable.min(last));
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
        inner.head.begins.cut_front(new_first);
        let mut batch = WriteBatch::default();
        batch.delete_range(
            Key::Frame(self.shard, Sequence(0)).encode(),
            Key::Frame(self.shard, new_first).encode(),
        );
        batch.put(Key::Head(self.shard).encode(), inner.head.encode());
        spool.write(batch)
    }

    /// The last sequence not yet known to be on disk, and how often the end has
    /// been cut off; `None` if all are.
    pub(super) fn unsynced(&self) -> Option<(Sequence, u64)> {
        let inner = self.inner();
        let last = Sequence(inner.head.next.0 - 1);
        (last > *self.synced.borrow()).then_some((last, inner.cuts))
    }

    /// Everything up to `upto` is on disk, unless the end was cut off since
    /// that was asked: then these are other changes.
    pub(super) fn set_synced(&self, (upto, cuts): (Sequence, u64)) {
        let inner = self.inner();
        if inner.cuts == cuts {
            self.synced.send_replace(upto);
            self.settle(&inner);
        }
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

/// Marks only rise.
fn raise(mark: &watch::Sender<Sequence>, to: Sequence) {
    mark.send_if_modified(|at| {
        let moved = to > *at;
        *at = to.max(*at);
        moved
    });
}

impl Inner {
    fn forget_after(&mut self, keep: Sequence) {
        while self.recent.back().is_some_and(|frame| frame.last() > keep) {
            if let Some(frame) = self.recent.pop_back() {
                self.recent_bytes -= frame.bytes().len();
            }
        }
    }

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
    fn in_memory(&self, next: Sequence, upto: Sequence, bytes_max: usize) -> Option<Vec<Frame>> {
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
