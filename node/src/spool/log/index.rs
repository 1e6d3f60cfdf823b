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

use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint};
use rocksdb::{IteratorMode, WriteBatch};
use tidegate_proto::v1::{Change, ChangeBatch, Operation, Progress, ShardId};
use tidegate_proto::{Frame, Pending, Sequence};

use super::fill::{Filling, completed, drop_rows};
use super::{Gathered, ShardLog};
use crate::error::{Error, ErrorKind, Result};
use crate::sources::{Known, Last};
use crate::spool::keys::{self, Key};
use crate::spool::store::Spool;

const VERSION: u8 = 1;
/// Of rows that tell of no document, only in which round their key was brought last.
const SEEN: u8 = 2;
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

/// How far the last documents of a shard are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Index {
    /// What of the log is counted in.
    pub(super) upto: Sequence,
    pub(super) known: Known,
    pub(super) kept: Kept,
    /// Which snapshot the log is in there.
    round: u32,
}

/// Keys that a snapshot did not bring.
#[derive(Debug, Default)]
pub struct Gone {
    /// With their collections.
    pub keys: Vec<(String, Vec<u8>)>,
    /// The last key that was looked at; `None` if there are no more.
    pub upto: Option<(String, Vec<u8>)>,
}

impl Index {
    /// With a batch counted in, whose documents go into `write`: from what it was made
    /// of, where that is at hand.
    pub(super) fn with(
        mut self,
        shard: ShardId,
        (frame, gathered): (&Frame, Option<Gathered<'_>>),
        write: &mut WriteBatch,
    ) -> Result<Self> {
        if frame.count() == 0 {
            return Ok(self);
        }
        let mut row = Vec::new();
        if let Some(Gathered { out, progress, .. }) = gathered {
            self.round = round_of(self.round, Some(progress));
            out.pending().for_each(|change| self.take(shard, change, &mut row, write));
        } else {
            let batch = frame.decode()?;
            self.round = round_of(self.round, batch.progress.as_ref());
            for change in &batch.changes {
                self.take(shard, look(&batch, change)?, &mut row, write);
            }
        }
        self.upto = frame.last();
        write.put(Key::Index(shard).encode(), self.encode());
        Ok(self)
    }

    /// Keeps what a change brought; `row` is used for it.
    fn take(self, shard: ShardId, change: Pending<'_>, row: &mut Vec<u8>, write: &mut WriteBatch) {
        if change.operation == Operation::Gap {
            return;
        }
        let place = Key::Last(shard, change.collection, change.key).encode();
        if change.operation == Operation::Delete {
            return write.delete(place);
        }
        match self.kept {
            Kept::Rounds => seen(self.round, row),
            Kept::Documents => document(change.dictionary, change.document, row),
        }
        write.put(place, row);
    }

    /// No key is missing any more.
    pub(super) fn made_whole(mut self) -> Self {
        self.known.whole = true;
        self
    }

    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.known.whole), u8::from(self.known.exact)];
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
        let known = Known { whole: flags[0] == 1, exact: flags[1] == 1 };
        let (kept, round) = match round {
            [] => (Kept::Documents, UNTOLD),
            round => (Kept::Rounds, u32::from_be_bytes(round.try_into().ok()?)),
        };
        Some(Self { upto, known, kept, round })
    }

    /// Of a shard of which nothing is counted in.
    fn empty(kept: Kept) -> Self {
        // Its first batch says in which round it is.
        Self { upto: Sequence(0), known: Known { whole: true, exact: true }, kept, round: UNTOLD }
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
    })
}

fn seen(round: u32, out: &mut Vec<u8>) {
    out.clear();
    out.push(SEEN);
    out.extend_from_slice(&round.to_be_bytes());
}

/// This key was not brought in `round`, nor since; not so if that is not known.
fn is_before(row: &[u8], round: u32) -> bool {
    let told = row.strip_prefix(&[SEEN]).and_then(|told| told.try_into().ok());
    told.is_some_and(|told| u32::from_be_bytes(told) < round)
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

/// A document as it is kept: version, length of the dictionary, dictionary, value.
fn document(dictionary: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.push(VERSION);
    encode_varint(dictionary.len() as u64, out);
    out.extend_from_slice(dictionary);
    out.extend_from_slice(value);
}

fn read_row(bytes: Vec<u8>) -> Option<Last> {
    if bytes.is_empty() {
        return Some(Last::Unknown);
    }
    let mut rest = Bytes::from(bytes);
    if rest.split_to(1) != [VERSION][..] {
        return None;
    }
    let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
    let dictionary = (length <= rest.len()).then(|| rest.split_to(length))?;
    Some(Last::Document { dictionary, value: rest })
}

pub(super) fn damaged() -> Error {
    Error::new(ErrorKind::Corrupt, "what was captured last of a key, in the spool, is damaged")
}

impl ShardLog {
    /// From now on something is kept of each key; the keys of batches that are there
    /// already are counted in first.
    pub fn keep_index(&self, kept: Kept) -> Result<()> {
        let spool = self.spool()?;
        let (stored, mut filling) = self.stored_index(&spool)?;
        let mut index = stored.unwrap_or_else(|| Index::empty(kept));
        loop {
            let mut write = WriteBatch::default();
            let first = self.first();
            if index.upto.next() < first {
                // What came before is retained no more, or was never here: of what is kept,
                // nobody can say if it is old.
                drop_rows(self.shard, &mut write);
                filling = None;
                let known = Known { whole: false, exact: true };
                index = Index { upto: Sequence(first.0 - 1), known, ..Index::empty(kept) };
            }
            let frames = match self.read_appended(index.upto, FOLD_BYTES) {
                Err(error) if error.kind() == ErrorKind::Gone => continue,
                frames => frames?,
            };
            for frame in &frames {
                index = index.with(self.shard, (frame, None), &mut write)?;
            }
            // Nothing may come between the look and the switch.
            let mut inner = self.inner();
            write.put(Key::Index(self.shard).encode(), index.encode());
            index = completed(self.shard, index, filling.as_ref(), &mut write);
            spool.write(write)?;
            if index.upto.next() >= inner.standing.head().next {
                (inner.index, inner.filling) = (Some(index), filling);
                return Ok(());
            }
        }
    }

    /// As the spool has it, less what this node's owner did not send: that may be ahead of
    /// its log.
    fn stored_index(&self, spool: &Spool) -> Result<(Option<Index>, Option<Filling>)> {
        let filling = Filling::stored(spool, self.shard)?;
        let follows = |it: &Filling| self.inner().standing.follows(it.epoch());
        if filling.as_ref().is_some_and(|it| !follows(it)) {
            let mut write = WriteBatch::default();
            drop_rows(self.shard, &mut write);
            spool.write(write)?;
            return Ok((None, None));
        }
        let stored = spool.db.get(Key::Index(self.shard).encode());
        let stored = stored.map_err(|error| damaged().because(error))?;
        let index = stored.map(|bytes| Index::decode(&bytes).ok_or_else(damaged));
        Ok((index.transpose()?, filling))
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
        index.known = Known { whole: true, exact: true };
        let mut write = WriteBatch::default();
        write.put(Key::Index(self.shard).encode(), index.encode());
        let (from, behind) = Key::all_unknown(self.shard);
        write.delete_range(from, behind);
        spool.write(write)?;
        inner.index = Some(index);
        Ok(())
    }

    /// What was captured last of a key.
    pub fn last_document(&self, collection: &str, key: &[u8]) -> Result<Option<Last>> {
        let found = self.spool()?.db.get(Key::Last(self.shard, collection, key).encode());
        let found = found.map_err(|error| damaged().because(error))?;
        found.map(|bytes| read_row(bytes).ok_or_else(damaged)).transpose()
    }

    /// The next keys behind this one, in their order.
    pub fn keys_after(
        &self,
        collection: &str,
        key: &[u8],
        most: usize,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let mut found = Vec::new();
        self.rows_after((collection, key), most, |place, _| found.push(place))?;
        Ok(found)
    }

    /// Which of the next `most` keys behind this one neither stream nor rows brought in
    /// `round`. Keys of which that is not known are not among them.
    pub fn gone_after(&self, place: (&str, &[u8]), round: u32, most: usize) -> Result<Gone> {
        let mut gone = Gone::default();
        self.rows_after(place, most, |place, row| {
            gone.upto = Some(place.clone());
            if is_before(row, round) {
                gone.keys.push(place);
            }
        })?;
        Ok(gone)
    }

    fn rows_after(
        &self,
        (collection, key): (&str, &[u8]),
        most: usize,
        mut take: impl FnMut((String, Vec<u8>), &[u8]),
    ) -> Result<()> {
        let from = Key::Last(self.shard, collection, key).encode();
        let mut left = most;
        self.rows_behind(&from, |place, row| {
            if left > 0 {
                let (collection, key) = keys::read_last_key(place).ok_or_else(damaged)?;
                take((collection.to_owned(), key.to_vec()), row);
                left -= 1;
            }
            Ok(left > 0)
        })
    }

    /// Shows the rows behind the key `from`, in their order, for as long as `take` wants
    /// more.
    pub(super) fn rows_behind(
        &self,
        from: &[u8],
        mut take: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let spool = self.spool()?;
        let (_, behind) = Key::all_last(self.shard);
        for row in spool.db.iterator(IteratorMode::From(from, rocksdb::Direction::Forward)) {
            let (place, row) = row.map_err(|error| damaged().because(error))?;
            if place[..] >= behind[..] || (place[..] != *from && !take(&place, &row)?) {
                break;
            }
        }
        Ok(())
    }

    /// Notes keys as touched, without a batch.
    pub fn touch(&self, keys: &[(String, Vec<u8>)]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (collection, key) in keys {
            batch.put(Key::Touched(self.shard, collection, key).encode(), []);
        }
        self.spool()?.write(batch)
    }
}

#[cfg(test)]
#[path = "index/tests.rs"]
pub(super) mod tests;
