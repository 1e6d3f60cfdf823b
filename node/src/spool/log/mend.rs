//! Rows of a key index that a copy knows nothing of, out of its owner's.
//!
//! When another owner comes, what a copy has and that one has not is cut off, and of the keys
//! in it nothing is known. The copy names them when it opens its fetch. What it is told is
//! right where the owner's log ended then, so it waits for its own to be there:
//!
//! ```text
//!   told of a key, and since the cut no batch has brought it      the row is what there is
//!   told of a key that a batch has brought since                  the batch is right
//! ```

use std::collections::VecDeque;

use bytes::Bytes;
use rocksdb::{IteratorMode, WriteBatch};
use tidegate_proto::v1::{IndexRow, IndexRows, ShardId};
use tidegate_proto::{Epoch, Sequence};

use super::index::damaged;
use super::{Inner, ShardLog};
use crate::error::{Error, ErrorKind, Result};
use crate::spool::keys::Key;
use crate::spool::store::Spool;

/// Bytes of places named in one fetch: the rest is unknown until the next is opened.
const PLACES_BYTES: usize = 1 << 20;

/// A place, and what there is.
type Told = (Bytes, Option<Bytes>);

/// What a copy asked for, and what it was told.
#[derive(Debug)]
pub(super) struct Mending {
    /// Of the owner who is asked.
    epoch: Epoch,
    /// Not told yet.
    asked: VecDeque<Bytes>,
    /// There are more than could be named.
    more: bool,
    /// Told, of an owner whose log ended there.
    told: VecDeque<(Sequence, Vec<Told>)>,
}

impl Mending {
    /// Asks for what is unknown.
    pub(super) fn begin(spool: &Spool, shard: ShardId, epoch: Epoch) -> Result<Self> {
        let (from, behind) = Key::all_unknown(shard);
        let (mut asked, mut bytes, mut more) = (VecDeque::new(), 0, false);
        for row in spool.db.iterator(IteratorMode::From(&from, rocksdb::Direction::Forward)) {
            let (key, _) = row.map_err(|error| damaged().because(error))?;
            if key[..] >= behind[..] {
                break;
            }
            if bytes >= PLACES_BYTES {
                more = true;
                break;
            }
            bytes += key.len();
            asked.push_back(Bytes::copy_from_slice(&key[from.len()..]));
        }
        Ok(Self { epoch, asked, more, told: VecDeque::new() })
    }

    /// Places not told of yet.
    pub(super) fn asked(&self) -> Vec<Bytes> {
        self.asked.iter().cloned().collect()
    }

    /// The owner tells of the next ones.
    pub(super) fn take(&mut self, page: &IndexRows) -> Result<()> {
        let mut rows = page.rows.iter().peekable();
        let count = usize::try_from(page.told).unwrap_or(usize::MAX).min(self.asked.len());
        let told = self.asked.drain(..count).map(|place| {
            let row = rows.next_if(|row| row.place == place).map(|row| row.row.clone());
            (place, row)
        });
        let told = told.collect();
        if rows.next().is_some() {
            let why = "the owner tells of keys that it was not asked for";
            return Err(Error::new(ErrorKind::Unavailable, why));
        }
        self.told.push_back((Sequence(page.until), told));
        Ok(())
    }

    /// All that was asked for was told, and counts.
    fn is_over(&self) -> bool {
        self.asked.is_empty() && self.told.is_empty()
    }

    /// What counts now that the log ends at `upto`.
    fn due(&mut self, upto: Sequence) -> Option<Vec<Told>> {
        self.told.pop_front_if(|(until, _)| *until <= upto).map(|(_, rows)| rows)
    }
}

impl ShardLog {
    /// Takes what was told of keys and counts by now.
    pub(super) fn mend(&self, spool: &Spool, inner: &mut Inner) -> Result<()> {
        let (Some(mut index), Some(mending)) = (inner.index, &mut inner.mending) else {
            return Ok(());
        };
        // Another owner's log may be another.
        if !inner.standing.follows(mending.epoch) {
            inner.mending = None;
            return Ok(());
        }
        let mut write = WriteBatch::default();
        while let Some(rows) = mending.due(index.upto) {
            self.mend_rows(spool, rows, &mut write)?;
        }
        if mending.is_over() && !mending.more {
            (index.known.exact, index.listed) = (true, false);
            write.put(Key::Index(self.shard).encode(), index.encode());
        }
        if write.is_empty() {
            return Ok(());
        }
        spool.write(write)?;
        inner.index = Some(index);
        if index.known.exact {
            inner.mending = None;
        }
        Ok(())
    }

    /// Keys are unknown here that the owner can be asked for in another fetch: those that
    /// this one could not name.
    pub fn asks_for_more(&self) -> bool {
        let inner = self.inner();
        let listed = inner.index.is_some_and(|index| index.known.whole && index.listed);
        listed && inner.mending.as_ref().is_none_or(|it| it.is_over() && it.more)
    }

    fn mend_rows(&self, spool: &Spool, rows: Vec<Told>, write: &mut WriteBatch) -> Result<()> {
        let (last, unknown) = (Key::all_last(self.shard).0, Key::all_unknown(self.shard).0);
        for (place, row) in rows {
            let key = [&last, &place[..]].concat();
            let now = spool.db.get_pinned(&key).map_err(|error| damaged().because(error))?;
            // A batch that brought it since is right.
            if now.is_some_and(|now| now.is_empty()) {
                match row {
                    Some(row) => write.put(key, row),
                    None => write.delete(key),
                }
            }
            write.delete([&unknown, &place[..]].concat());
        }
        Ok(())
    }

    /// An owner's rows of the first of these places, about `bytes_max` bytes of them. None
    /// from a node whose own index does not know all keys exactly.
    pub fn rows_of(&self, places: &[Bytes], bytes_max: usize) -> Result<Option<IndexRows>> {
        if !self.knows_all() {
            return Ok(None);
        }
        let spool = self.spool()?;
        let prefix = Key::all_last(self.shard).0;
        let (mut page, mut bytes) = (IndexRows::default(), 0);
        for place in places {
            let row = spool.db.get([&prefix, &place[..]].concat());
            bytes += place.len();
            if let Some(row) = row.map_err(|error| damaged().because(error))? {
                bytes += row.len();
                page.rows.push(IndexRow { place: place.clone(), row: row.into() });
            }
            page.told += 1;
            if bytes >= bytes_max {
                break;
            }
        }
        // Not before the rows were read: they may have come with the last batch.
        page.until = self.last().0;
        Ok(Some(page))
    }
}
