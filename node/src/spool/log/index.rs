//! The last document of each key of a shard: a fold of its log, beside it.
//!
//! Kept for sources that compute a change from what was captured before. It is
//! written with the batch that moves it, on the owner and on every copy, so it
//! stands where the log ends whoever goes on. What it cannot know it says:
//!
//! ```text
//!   a log that was begun behind sequence 1          not whole: keys may be missing
//!   a log whose end was cut off                      not exact: what the cut part
//!                                                    brought is marked as unknown
//! ```

use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint};
use rocksdb::{IteratorMode, WriteBatch};
use tidegate_proto::v1::{Operation, ShardId};
use tidegate_proto::{Frame, Sequence};

use super::ShardLog;
use crate::error::{Error, ErrorKind, Result};
use crate::sources::{Known, Last};
use crate::spool::keys::{self, Key};
use crate::spool::store::Spool;

const VERSION: u8 = 1;
/// Bytes of batches folded in one go.
const FOLD_BYTES: usize = 4 << 20;

/// How far the last documents of a shard are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Index {
    /// What of the log is counted in.
    upto: Sequence,
    known: Known,
}

impl Index {
    /// With a batch counted in, whose documents go into `write`.
    pub(super) fn with(
        mut self,
        shard: ShardId,
        frame: &Frame,
        write: &mut WriteBatch,
    ) -> Result<Self> {
        if frame.count() == 0 {
            return Ok(self);
        }
        let batch = frame.decode()?;
        for change in &batch.changes {
            let collection = batch.collections.get(usize::try_from(change.collection).unwrap_or(0));
            let place = Key::Last(shard, collection.ok_or_else(damaged)?, &change.key).encode();
            if change.operation() == Operation::Delete {
                write.delete(place);
                continue;
            }
            let dictionary =
                batch.dictionaries.get(usize::try_from(change.dictionary).unwrap_or(0));
            write.put(place, row(dictionary.ok_or_else(damaged)?, &change.document));
        }
        self.upto = frame.last();
        write.put(Key::Index(shard).encode(), self.encode());
        Ok(self)
    }

    fn encode(self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.known.whole), u8::from(self.known.exact)];
        out.extend_from_slice(&self.upto.0.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (flags, upto) = bytes.strip_prefix(&[VERSION])?.split_first_chunk::<2>()?;
        let upto = Sequence(u64::from_be_bytes(upto.try_into().ok()?));
        Some(Self { upto, known: Known { whole: flags[0] == 1, exact: flags[1] == 1 } })
    }
}

/// Of the keys in a batch nothing is known any more.
fn unknown(shard: ShardId, frame: &Frame, write: &mut WriteBatch) -> Result<()> {
    let batch = frame.decode()?;
    for change in &batch.changes {
        let collection = batch.collections.get(usize::try_from(change.collection).unwrap_or(0));
        let collection = collection.ok_or_else(damaged)?;
        write.put(Key::Last(shard, collection, &change.key).encode(), []);
    }
    Ok(())
}

/// A document as it is kept: version, length of the dictionary, dictionary, value.
fn row(dictionary: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(dictionary.len() + value.len() + 8);
    out.push(VERSION);
    encode_varint(dictionary.len() as u64, &mut out);
    out.extend_from_slice(dictionary);
    out.extend_from_slice(value);
    out
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

fn damaged() -> Error {
    Error::new(ErrorKind::Corrupt, "what was captured last of a key, in the spool, is damaged")
}

impl ShardLog {
    /// From now on the last document of each key is kept; those of batches that
    /// are there already are counted in first.
    pub fn keep_index(&self) -> Result<()> {
        let spool = self.spool()?;
        let stored = spool.db.get(Key::Index(self.shard).encode());
        let stored = stored.map_err(|error| damaged().because(error))?;
        let mut index = match stored {
            Some(bytes) => Index::decode(&bytes).ok_or_else(damaged)?,
            None => Index { upto: Sequence(0), known: Known { whole: true, exact: true } },
        };
        loop {
            let first = self.first();
            if index.upto.next() < first {
                // What came before is retained no more, or was never here.
                let known = Known { whole: false, exact: index.upto == Sequence(0) };
                index = Index { upto: Sequence(first.0 - 1), known };
            }
            let frames = match self.read_appended(index.upto, FOLD_BYTES) {
                Err(error) if error.kind() == ErrorKind::Gone => continue,
                frames => frames?,
            };
            let mut write = WriteBatch::default();
            for frame in &frames {
                index = index.with(self.shard, frame, &mut write)?;
            }
            // Nothing may come between the look and the switch.
            let mut inner = self.inner();
            write.put(Key::Index(self.shard).encode(), index.encode());
            spool.write(write)?;
            if index.upto.next() >= inner.standing.head().next {
                inner.index = Some(index);
                return Ok(());
            }
        }
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
        let spool = self.spool()?;
        let from = Key::Last(self.shard, collection, key).encode();
        let (_, behind) = Key::all_last(self.shard);
        let mut found = Vec::new();
        for row in spool.db.iterator(IteratorMode::From(&from, rocksdb::Direction::Forward)) {
            let (place, _) = row.map_err(|error| damaged().because(error))?;
            if place[..] >= behind[..] || found.len() >= most {
                break;
            }
            if place[..] != from[..] {
                let (collection, key) = keys::read_last_key(&place).ok_or_else(damaged)?;
                found.push((collection.to_owned(), key.to_vec()));
            }
        }
        Ok(found)
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
mod tests;
