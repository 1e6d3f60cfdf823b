//! One shard's log.

mod fill;
mod index;
mod mark_watch;
mod marks;
mod mend;
mod read;
mod recent;
mod rows;
mod standing;
mod told;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rocksdb::WriteBatch;
use tidegate_proto::v1::{Progress, ShardId};
use tidegate_proto::{BatchBuilder, Epoch, Frame, NodeId, Sequence};
use tokio::sync::{Notify, watch};

use crate::error::{Error, ErrorKind, Result};
use crate::spool::keys::Key;
use crate::spool::log::fill::{Filling, completed, drop_rows};
use crate::spool::log::index::Index;
use crate::spool::log::mend::Mending;
use crate::spool::log::recent::Recent;
use crate::spool::store::Spool;

pub use index::{Keeps, Kept};
pub use mark_watch::MarkWatch;
pub use rows::Gone;
pub use standing::AHEAD_MAX;
pub(crate) use standing::{Head, Marks, Piece, Refusal, Standing};

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

/// What a batch was made of, at its owner.
#[derive(Clone, Copy, Debug)]
pub struct Gathered<'a> {
    /// The changes.
    pub out: &'a BatchBuilder,
    /// What the batch says they add to the shard's progress.
    pub progress: &'a Progress,
    /// Whether their keys are noted as touched.
    pub touch: bool,
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
    standing: Standing,
    recent: Recent,
    /// Bytes appended since this process opened the log.
    appended_bytes: u64,
    /// Of the last documents, if they are kept.
    index: Option<Index>,
    /// It also keeps what brought each key last.
    novelty: bool,
    /// Of a copy that lacked some of them, when it began.
    filling: Option<Filling>,
    /// Of a copy that knows nothing of some of them.
    mending: Option<Mending>,
}

impl ShardLog {
    pub(super) fn new(
        spool: Weak<Spool>,
        shard: ShardId,
        head: Head,
        recent_bytes_max: usize,
    ) -> Self {
        let standing = Standing::new(head);
        let marks = standing.marks();
        let recent = Recent::default();
        let (appended_bytes, novelty) = (0, false);
        let (index, filling, mending) = (None, None, None);
        let inner = Inner { standing, recent, appended_bytes, index, novelty, filling, mending };
        Self {
            spool,
            shard,
            appended: watch::Sender::new(marks.appended),
            synced: watch::Sender::new(marks.synced),
            safe: watch::Sender::new(marks.safe),
            stable: watch::Sender::new(marks.stable),
            inner: Mutex::new(inner),
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
        let inner = self.inner();
        let head = inner.standing.head();
        Tail { epoch: head.epoch, next: head.next, progress: head.progress.clone() }
    }

    /// What the next change gets.
    #[must_use]
    pub fn next(&self) -> Sequence {
        self.inner().standing.head().next
    }

    /// The last sequence given; before the first change, the one before it.
    #[must_use]
    pub fn last(&self) -> Sequence {
        Sequence(self.next().0 - 1)
    }

    /// The oldest sequence still there; the next one if there is none.
    #[must_use]
    pub fn first(&self) -> Sequence {
        self.inner().standing.head().first
    }

    /// Bytes appended since this process opened it.
    #[must_use]
    pub fn appended_bytes(&self) -> u64 {
        self.inner().appended_bytes
    }

    /// Appends a batch that its owner has just encoded, out of what was `gathered`.
    /// Not yet on disk when it returns: see [`ShardLog::synced`]. The batch must follow
    /// the last without a hole; an owner of an older epoch is refused.
    pub fn append(
        &self,
        frame: &Frame,
        delta: &Progress,
        gathered: Option<Gathered<'_>>,
    ) -> Result<()> {
        let spool = self.spool()?;
        spool.check_room()?;
        let inner = self.inner();
        let head = inner.standing.with(piece(frame), delta).map_err(|why| self.refused(why))?;
        let mut batch = WriteBatch::default();
        if let Some(Gathered { out, touch: true, .. }) = gathered {
            for pending in out.pending() {
                batch.put(Key::Touched(self.shard, pending.collection, pending.key).encode(), []);
            }
        }
        self.commit(&spool, (inner, head), (frame, gathered), batch)
    }

    /// Appends a batch that the owner of `under` sent to this copy. Not yet on
    /// disk when it returns. A batch that leaves a hole is refused, and so is
    /// any once this node follows another owner or is the owner.
    pub fn append_copy(&self, frame: &Frame, under: Epoch) -> Result<()> {
        let spool = self.spool()?;
        spool.check_room()?;
        let inner = self.inner();
        let head = inner.standing.with_copied(piece(frame), under);
        let head = head.map_err(|why| match why {
            Refusal::Hole => self.hole(inner.standing.head().next, frame.first()),
            Refusal::Fenced | Refusal::Seen(_) => self.refused(why),
        })?;
        self.commit(&spool, (inner, head), (frame, None), WriteBatch::default())
    }

    /// Writes a batch and the head behind it, beside what is in `write` already.
    fn commit(
        &self,
        spool: &Spool,
        (mut inner, head): (MutexGuard<'_, Inner>, Head),
        (frame, gathered): (&Frame, Option<Gathered<'_>>),
        mut write: WriteBatch,
    ) -> Result<()> {
        if frame.count() > 0 {
            write.put(Key::Frame(self.shard, frame.first()).encode(), frame.bytes());
        }
        write.put(Key::Head(self.shard).encode(), head.encode());
        let index = match inner.index {
            Some(index) => {
                let whose = (self.shard, inner.novelty);
                let index = index.with(whose, (frame, gathered), &mut write)?;
                Some(completed(self.shard, index, inner.filling.as_ref(), &mut write))
            }
            None => None,
        };
        spool.write(write)?;
        inner.index = index;
        inner.standing.appended(head);
        inner.appended_bytes += frame.bytes().len() as u64;
        if frame.count() > 0 {
            inner.recent.remember(frame.clone(), self.recent_bytes_max);
        }
        self.publish(&inner);
        self.stirred.notify_one();
        spool.notify_appended();
        // The batch is there, whatever comes of this.
        self.mend(spool, &mut inner)
    }

    /// Takes the log over for the owner of `epoch`, who stands at `progress` and
    /// beside whom `others` are recorded as in sync; an older owner is refused
    /// from then on. So is one that has not seen it up to `next`: the reader before it
    /// had not ended yet, and what it appended would be read a second time.
    pub fn take_over(
        &self,
        epoch: Epoch,
        (next, progress): (Sequence, Progress),
        others: BTreeSet<NodeId>,
    ) -> Result<()> {
        let spool = self.spool()?;
        let mut inner = self.inner();
        let head = inner.standing.taken_over(epoch, (next, progress));
        let head = head.map_err(|why| self.refused(why))?;
        let mut batch = WriteBatch::default();
        batch.put(Key::Head(self.shard).encode(), head.encode());
        spool.write(batch)?;
        inner.standing.take_over(head, others);
        inner.mending = None;
        self.publish(&inner);
        Ok(())
    }

    /// Makes this log a copy of the one the owner of `epoch` has: drops all
    /// after `keep`, as that owner said when this log ended at `at`. Fails if this node
    /// knows a newer owner, or if what would be dropped has been seen; as unavailable if
    /// it ends elsewhere by now: then the owner is asked again.
    pub fn follow(&self, epoch: Epoch, (at, keep): (Sequence, Sequence)) -> Result<()> {
        let spool = self.spool()?;
        let mut inner = self.inner();
        let head = inner.standing.following(epoch, (at, keep)).map_err(|why| self.refused(why))?;
        let mut batch = WriteBatch::default();
        let cut = head.next < inner.standing.head().next;
        let filling = Filling::stored(&spool, self.shard)?;
        if filling.is_some_and(|it| cut || it.epoch() != epoch) {
            drop_rows(self.shard, &mut batch);
            (inner.index, inner.filling) = (None, None);
        } else if cut {
            inner.index = self.cut_index(&spool, keep, &mut batch)?;
        }
        if cut {
            let (_, behind) = Key::all_frames(self.shard);
            batch.delete_range(Key::Frame(self.shard, keep.next()).encode(), behind);
        }
        batch.put(Key::Head(self.shard).encode(), head.encode());
        spool.write(batch)?;
        if cut {
            inner.recent.forget_after(keep);
        }
        inner.standing.follow(head);
        if cut {
            // What the owner tells of is not all that is unknown now.
            inner.mending = None;
        }
        self.publish(&inner);
        Ok(())
    }

    /// Where it begins and ends, all at one moment.
    pub(crate) fn head(&self) -> Head {
        self.inner().standing.head().clone()
    }

    /// The epoch under which it was begun.
    #[must_use]
    pub fn made(&self) -> Epoch {
        self.inner().standing.head().made
    }

    /// This node captures the shard under `epoch`.
    #[must_use]
    pub fn owned_under(&self, epoch: Epoch) -> bool {
        self.inner().standing.owned_under(epoch)
    }

    fn refused(&self, refusal: Refusal) -> Error {
        let shard = self.shard;
        match refusal {
            Refusal::Fenced => {
                let why = format!("shard {shard} has another owner by now, as this node knows");
                Error::new(ErrorKind::Fenced, why)
            }
            Refusal::Hole => {
                let why = format!("a batch of shard {shard} does not follow the last one");
                Error::new(ErrorKind::Unavailable, why)
            }
            Refusal::Seen(upto) => {
                let why = format!(
                    "the owner of shard {shard} has less than {upto}, which was seen here; look \
                     at `tidegate shard show` before you go on"
                );
                Error::new(ErrorKind::Corrupt, why)
            }
        }
    }

    fn hole(&self, next: Sequence, first: Sequence) -> Error {
        let why = format!("the owner of shard {} sent {first} to a copy at {next}", self.shard);
        Error::new(ErrorKind::Unavailable, why)
    }

    /// The epoch of the owner.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.inner().standing.head().epoch
    }

    /// Notes that the source was read further without a change. Survives with
    /// the next append at the latest.
    pub fn advance(&self, delta: &Progress) -> Result<()> {
        let spool = self.spool()?;
        let mut inner = self.inner();
        inner.standing.advance(delta);
        let mut batch = WriteBatch::default();
        batch.put(Key::Head(self.shard).encode(), inner.standing.head().encode());
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
        self.inner().standing.close();
        self.stable.send_modify(|_| {});
    }

    /// The log was removed; what is left of it in memory is nobody's.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.inner().standing.closed()
    }

    fn spool(&self) -> Result<Arc<Spool>> {
        let gone = || Error::new(ErrorKind::Fenced, "the spool of this node is closed");
        self.spool.upgrade().ok_or_else(gone)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn piece(frame: &Frame) -> Piece {
    Piece { epoch: frame.epoch(), first: frame.first(), count: frame.count() }
}
