//! The key index of a shard: a fold of its log, beside it.
//!
//! Kept for sources that compute a change from what was captured before, and to find
//! what is gone when rows are read again. It is written with the batch that moves it, on the owner and on every copy, so it
//! stands where the log ends whoever goes on. What it cannot know it says:
//!
//! ```text
//!   a log that was begun behind sequence 1          not whole: keys may be missing,
//!                                                    until the owner has sent them
//!   a log whose end was cut off                      not exact: what the cut part
//!                                                    brought is marked as unknown
//! ```

use rocksdb::WriteBatch;
use tidegate_proto::v1::{Change, ChangeBatch, Operation, Progress, ShardId};
use tidegate_proto::{Frame, Pending, Sequence};

use super::fill::{Filling, completed, drop_rows};
use super::rows::{document, seen};
use super::standing::Turn;
use super::{Gathered, Inner, Refusal, ShardLog};
use crate::error::{Error, ErrorKind, Result};
use crate::sources::Known;
use crate::spool::keys::Key;
use crate::spool::store::Spool;

const VERSION: u8 = 1;
/// What flags say: no is zero.
const YES: u8 = 1;
const NO_YET: u8 = 2;
/// The round of what was brought before the log said which it was in.
const UNTOLD: u32 = u32::MAX;
/// Bytes of batches folded in one go.
const FOLD_BYTES: usize = 4 << 20;

/// What is kept of each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Its last document.
    Documents,
    /// The snapshot during which stream or rows brought it last: what a later one does
    /// not bring is gone.
    Rounds,
}

/// What an index keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeps {
    /// Of each key.
    pub kept: Kept,
    /// Also, which change brought it last, with which content: [`ShardLog::told`].
    pub novelty: bool,
    /// The shard goes on for another, whose keys are not in its log.
    pub continues: bool,
}

/// How far the last documents of a shard are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Index {
    /// What of the log is counted in.
    pub(super) upto: Sequence,
    pub(super) known: Known,
    /// Not exact, but every key of which nothing is known is listed.
    pub(super) listed: bool,
    /// Not whole, but what is missing is on its way: `Filling` counts.
    pub(super) fills: bool,
    pub(super) kept: Kept,
    /// Which snapshot the log is in there.
    round: u32,
}

impl Index {
    /// With a batch counted in, whose documents go into `write`: from what it was made
    /// of, where that is at hand.
    pub(super) fn with(
        mut self,
        (shard, novelty): (ShardId, bool),
        (frame, gathered): (&Frame, Option<Gathered<'_>>),
        write: &mut WriteBatch,
    ) -> Result<Self> {
        if frame.count() == 0 {
            return Ok(self);
        }
        let mut row = Vec::new();
        let sequences = (frame.first().0..).map(|sequence| novelty.then_some(Sequence(sequence)));
        if let Some(Gathered { out, progress, .. }) = gathered {
            self.round = round_of(self.round, Some(progress));
            for (change, by) in out.pending().zip(sequences) {
                self.take(shard, (change, by), &mut row, write);
            }
        } else {
            let batch = frame.decode()?;
            self.round = round_of(self.round, batch.progress.as_ref());
            for (change, by) in batch.changes.iter().zip(sequences) {
                self.take(shard, (look(&batch, change)?, by), &mut row, write);
            }
        }
        self.upto = frame.last();
        write.put(Key::Index(shard).encode(), self.encode());
        Ok(self)
    }

    /// Keeps what a change brought, and which one it was, if that is to be told; `row` is
    /// used for it.
    fn take(
        self,
        shard: ShardId,
        (change, by): (Pending<'_>, Option<Sequence>),
        row: &mut Vec<u8>,
        write: &mut WriteBatch,
    ) {
        if change.operation == Operation::Gap {
            return;
        }
        let place = Key::Last(shard, change.collection, change.key).encode();
        if change.operation == Operation::Delete {
            return write.delete(place);
        }
        match self.kept {
            Kept::Rounds => seen(self.round, by.map(|by| (by, change.content_hash)), row),
            Kept::Documents => document(by, (change.dictionary, change.document), row),
        }
        write.put(place, row);
    }

    /// No key is missing any more.
    pub(super) fn made_whole(mut self) -> Self {
        (self.known.whole, self.fills) = (true, false);
        self
    }

    pub(super) fn encode(self) -> Vec<u8> {
        // A version that knows no second way of saying no writes the first one.
        let flag = |is: bool, mends: bool| if is { YES } else { u8::from(mends) * NO_YET };
        let whole = flag(self.known.whole, self.fills);
        let mut out = vec![VERSION, whole, flag(self.known.exact, self.listed)];
        out.extend_from_slice(&self.upto.0.to_be_bytes());
        if self.kept == Kept::Rounds {
            out.extend_from_slice(&self.round.to_be_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.strip_prefix(&[VERSION])?.split_first_chunk::<2>()?;
        let (upto, round) = rest.split_first_chunk::<8>()?;
        let upto = Sequence(u64::from_be_bytes(*upto));
        let known = Known { whole: flags[0] == YES, exact: flags[1] == YES };
        let (fills, listed) = (flags[0] == NO_YET, flags[1] == NO_YET);
        let (kept, round) = match round {
            [] => (Kept::Documents, UNTOLD),
            round => (Kept::Rounds, u32::from_be_bytes(round.try_into().ok()?)),
        };
        Some(Self { upto, known, listed, fills, kept, round })
    }

    /// Of a shard of which nothing is counted in.
    fn empty(keeps: Keeps) -> Self {
        // Its first batch says in which round it is.
        let known = Known { whole: !keeps.continues, exact: true };
        let (upto, kept) = (Sequence(0), keeps.kept);
        Self { upto, known, listed: false, fills: false, kept, round: UNTOLD }
    }
}

/// The round of a log at `round`, behind a batch that moves its progress so.
fn round_of(round: u32, moved: Option<&Progress>) -> u32 {
    match moved {
        Some(moved) if moved.whole => moved.round,
        Some(moved) if moved.round > 0 && (round == UNTOLD || moved.round > round) => moved.round,
        Some(_) | None => round,
    }
}

/// A change of a batch, with what it refers to.
fn look<'a>(batch: &'a ChangeBatch, change: &'a Change) -> Result<Pending<'a>> {
    let collection = batch.collections.get(usize::try_from(change.collection).unwrap_or(0));
    let dictionary = batch.dictionaries.get(usize::try_from(change.dictionary).unwrap_or(0));
    // Only who has a document has one.
    let dictionary =
        dictionary.map(|it| &it[..]).or_else(|| change.document.is_empty().then_some(&[]));
    Ok(Pending {
        operation: change.operation(),
        collection: collection.ok_or_else(damaged)?,
        key: &change.key,
        dictionary: dictionary.ok_or_else(damaged)?,
        document: &change.document,
        content_hash: &change.content_hash,
    })
}

/// Of the keys in a batch nothing is known any more.
fn unknown(shard: ShardId, frame: &Frame, write: &mut WriteBatch) -> Result<()> {
    let batch = frame.decode()?;
    for change in batch.changes.iter().filter(|it| it.operation() != Operation::Gap) {
        let change = look(&batch, change)?;
        write.put(Key::Last(shard, change.collection, change.key).encode(), []);
        write.put(Key::Unknown(shard, change.collection, change.key).encode(), []);
    }
    Ok(())
}

pub(super) fn damaged() -> Error {
    Error::new(ErrorKind::Corrupt, "what was captured last of a key, in the spool, is damaged")
}

impl Inner {
    /// This index stands where the log ends, and was not made of another owner's rows.
    fn counts(&self, index: Index) -> bool {
        let filling = self.filling.as_ref().filter(|_| !index.known.whole);
        let follows = filling.is_none_or(|it| self.standing.follows(it.epoch()));
        follows && index.upto.next() >= self.standing.head().next
    }
}

impl ShardLog {
    /// From now on something is kept of each key; the keys of batches that are there
    /// already are counted in first.
    pub fn keep_index(&self, keeps: Keeps) -> Result<()> {
        let spool = self.spool()?;
        let at = {
            let mut inner = self.inner();
            inner.novelty = keeps.novelty;
            if inner.index.is_some_and(|index| inner.counts(index)) {
                return Ok(());
            }
            inner.standing.turn()
        };
        let (stored, mut filling) = self.stored_index(&spool)?;
        let mut drops = stored.is_none();
        let mut index = stored.unwrap_or_else(|| Index::empty(keeps));
        loop {
            let mut write = WriteBatch::default();
            let first = self.first();
            if index.upto.next() < first {
                // What came before is retained no more, or was never here: of what is kept,
                // nobody can say if it is old.
                (drops, filling) = (true, None);
                let known = Known { whole: false, exact: true };
                index = Index { upto: Sequence(first.0 - 1), known, ..Index::empty(keeps) };
            }
            if drops {
                drop_rows(self.shard, &mut write);
            }
            let frames = match self.read_appended(index.upto, FOLD_BYTES) {
                Err(error) if error.kind() == ErrorKind::Gone => continue,
                frames => frames?,
            };
            for frame in &frames {
                index = index.with((self.shard, keeps.novelty), (frame, None), &mut write)?;
            }
            index = completed(self.shard, index, filling.as_ref(), &mut write);
            if self.takes_index((index, filling.as_ref()), at, write)? {
                return Ok(());
            }
            drops = false;
        }
    }

    /// Writes how far an index is; it is this log's if it stands where the log ends. Nothing
    /// may come between the look and the switch, least of all another owner.
    fn takes_index(
        &self,
        (index, filling): (Index, Option<&Filling>),
        at: Turn,
        mut write: WriteBatch,
    ) -> Result<bool> {
        let mut inner = self.inner();
        if inner.standing.turn() != at {
            let why = format!("shard {} changed hands while its keys were counted", self.shard);
            return Err(Error::new(ErrorKind::Unavailable, why));
        }
        write.put(Key::Index(self.shard).encode(), index.encode());
        self.spool()?.write(write)?;
        let there = index.upto.next() >= inner.standing.head().next;
        if there {
            (inner.index, inner.filling) = (Some(index), filling.cloned());
            // A copy may wait for what is known now.
            self.appended.send_modify(|_| {});
        }
        Ok(there)
    }

    /// As the spool has it, less what this node's owner did not send: that may be ahead of
    /// its log.
    fn stored_index(&self, spool: &Spool) -> Result<(Option<Index>, Option<Filling>)> {
        let filling = Filling::stored(spool, self.shard)?;
        let stored = spool.db.get(Key::Index(self.shard).encode());
        let stored = stored.map_err(|error| damaged().because(error))?;
        let index = stored.map(|bytes| Index::decode(&bytes).ok_or_else(damaged)).transpose()?;
        let follows = |it: &Filling| {
            index.is_some_and(|index| index.fills) && self.inner().standing.follows(it.epoch())
        };
        if filling.as_ref().is_some_and(|it| !follows(it)) {
            return Ok((None, None));
        }
        Ok((index, filling))
    }

    /// What is behind `keep` is taken back: of the keys it brought nothing is known.
    pub(super) fn cut_index(
        &self,
        spool: &Spool,
        keep: Sequence,
        write: &mut WriteBatch,
    ) -> Result<Option<Index>> {
        let shard = self.shard;
        let stored = spool.db.get(Key::Index(shard).encode());
        let Some(stored) = stored.map_err(|error| damaged().because(error))? else {
            return Ok(None);
        };
        let mut index = Index::decode(&stored).ok_or_else(damaged)?;
        let mut at = keep;
        while at < index.upto {
            let frames = spool.frames(shard, at.next(), Sequence(u64::MAX), FOLD_BYTES)?;
            let Some(last) = frames.last() else { break };
            at = last.last();
            for frame in &frames {
                unknown(shard, frame, write)?;
            }
            // Of those before this version nobody made a list.
            index.listed |= index.known.exact;
            index.known.exact = false;
        }
        index.upto = index.upto.min(keep);
        write.put(Key::Index(shard).encode(), index.encode());
        // One that lagged behind goes on once it is asked for.
        Ok((index.upto == keep).then_some(index))
    }

    /// How far the last documents can be relied on; not at all if none are kept.
    pub fn known(&self) -> Known {
        let nothing = Known { whole: false, exact: false };
        self.inner().index.map_or(nothing, |index| index.known)
    }

    /// They are all there is, exactly.
    pub fn settle_index(&self) -> Result<()> {
        let spool = self.spool()?;
        let mut inner = self.inner();
        let Some(mut index) = inner.index else { return Ok(()) };
        if !inner.standing.owned() {
            return Err(self.refused(Refusal::Fenced));
        }
        index.known = Known { whole: true, exact: true };
        (index.listed, index.fills) = (false, false);
        let mut write = WriteBatch::default();
        write.put(Key::Index(self.shard).encode(), index.encode());
        let (from, behind) = Key::all_unknown(self.shard);
        write.delete_range(from, behind);
        spool.write(write)?;
        inner.index = Some(index);
        self.appended.send_modify(|_| {});
        Ok(())
    }
}

#[cfg(test)]
#[path = "index/tests.rs"]
pub(super) mod tests;
