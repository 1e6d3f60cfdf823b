//! The key index of a copy that began late, out of its owner's.
//!
//! The owner sends the rows of its index in pages, and its batches meanwhile. A page is read
//! after the batches before it were appended, so its rows are never older than what the
//! copy has folded; those that are newer, the copy's log catches up with:
//!
//! ```text
//!   owner    batch 7   rows a..m   batch 8   rows n..z, until 9   batch 9
//!   copy     folds     takes       folds     takes                folds: it is whole
//! ```
//!
//! Before it is whole, its rows may be ahead of its log. Whoever becomes the owner then, or
//! follows another one, drops them and folds its log anew.

use rocksdb::WriteBatch;
use tidegate_proto::v1::{IndexOpen, IndexRow, IndexRows, ShardId};
use tidegate_proto::{Epoch, Sequence};

use super::index::{Index, Kept, damaged};
use super::mend::Mending;
use super::{Inner, Refusal, ShardLog};
use crate::error::{Error, ErrorKind, Result};
use crate::spool::keys::{self, Key};
use crate::spool::store::Spool;

/// How far the rows of an owner's index are here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filling {
    /// Whose they are.
    epoch: Epoch,
    /// The last one that came: its key without the shard.
    after: Vec<u8>,
    /// All came; here the log has to be for them to be right.
    until: Option<Sequence>,
}

impl Filling {
    /// ```text
    ///   epoch (8)  until (8; 0 for none)  after
    /// ```
    fn encode(&self) -> Vec<u8> {
        let until = self.until.map_or(0, |until| until.0);
        [&self.epoch.0.to_be_bytes()[..], &until.to_be_bytes(), &self.after].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (epoch, rest) = bytes.split_first_chunk::<8>()?;
        let (until, after) = rest.split_first_chunk::<8>()?;
        let (epoch, until) = (Epoch(u64::from_be_bytes(*epoch)), u64::from_be_bytes(*until));
        Some(Self { epoch, after: after.to_vec(), until: (until > 0).then_some(Sequence(until)) })
    }

    /// As the spool has it, if rows are on their way.
    pub(super) fn stored(spool: &Spool, shard: ShardId) -> Result<Option<Self>> {
        let stored = spool.db.get(Key::Filling(shard).encode());
        let stored = stored.map_err(|error| damaged().because(error))?;
        stored.map(|bytes| Self::decode(&bytes).ok_or_else(damaged)).transpose()
    }

    /// The epoch of the owner who sends them.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// Nothing is kept of any key any more.
pub(super) fn drop_rows(shard: ShardId, write: &mut WriteBatch) {
    for (from, behind) in [Key::all_last(shard), Key::all_unknown(shard)] {
        write.delete_range(from, behind);
    }
    write.delete(Key::Index(shard).encode());
    write.delete(Key::Filling(shard).encode());
}

/// `index`, which is whole once all rows have come and the log is where they are.
pub(super) fn completed(
    shard: ShardId,
    index: Index,
    filling: Option<&Filling>,
    write: &mut WriteBatch,
) -> Index {
    let until = filling.and_then(|filling| filling.until);
    if index.known.whole || until.is_none_or(|until| index.upto < until) {
        return index;
    }
    let index = index.made_whole();
    write.put(Key::Index(shard).encode(), index.encode());
    write.delete(Key::Filling(shard).encode());
    index
}

impl ShardLog {
    /// What a copy tells the owner of `epoch` of its index, when it opens a fetch. What an
    /// earlier fetch was told of single keys and did not count yet is forgotten.
    pub fn index_open(&self, epoch: Epoch) -> Result<IndexOpen> {
        let spool = self.spool()?;
        let mut inner = self.inner();
        let filling = inner.filling.as_ref().filter(|filling| filling.epoch == epoch);
        let after = filling.map(|filling| filling.after.clone()).unwrap_or_default();
        let whole = inner.index.is_some_and(|index| index.known.whole);
        inner.mending = match inner.index {
            Some(index) if whole && index.listed => {
                Some(Mending::begin(&spool, self.shard, epoch)?)
            }
            Some(_) | None => None,
        };
        let unknown = inner.mending.as_ref().map(Mending::asked).unwrap_or_default();
        Ok(IndexOpen { whole, after: after.into(), unknown })
    }

    /// Each key's last document is here, exactly.
    #[must_use]
    pub fn knows_all(&self) -> bool {
        let index = self.inner().index.filter(|index| index.kept == Kept::Documents);
        index.is_some_and(|index| index.known.whole && index.known.exact)
    }

    /// An owner's rows behind `after`, about `bytes_max` bytes of them, at least one if there
    /// are any. None from a node whose own index does not know all keys exactly.
    pub fn index_rows(&self, after: &[u8], bytes_max: usize) -> Result<Option<IndexRows>> {
        if !self.knows_all() {
            return Ok(None);
        }
        let prefix = Key::all_last(self.shard).0;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let mut more = false;
        self.rows_behind(&[&prefix, after].concat(), |key, row| {
            more = bytes >= bytes_max;
            if !more {
                bytes += key.len() + row.len();
                let place = key[prefix.len()..].to_vec().into();
                rows.push(IndexRow { place, row: row.to_vec().into() });
            }
            Ok(!more)
        })?;
        // Not before the rows were read: they may have come with the last batch. Zero would
        // say that there are more; a copy of a log without a batch has all in any case.
        let until = if more { 0 } else { self.last().0.max(1) };
        Ok(Some(IndexRows { after: after.to_vec().into(), rows, until, told: 0 }))
    }

    /// Takes rows that the owner of `under` sent to this copy, behind the batches that it
    /// sent before. Fails as unavailable if others have to come first, and once this node
    /// follows another owner or is the owner.
    pub fn take_rows(&self, page: &IndexRows, under: Epoch) -> Result<()> {
        let spool = self.spool()?;
        spool.check_room()?;
        let mut inner = self.inner();
        if !inner.standing.follows(under) {
            return Err(self.refused(Refusal::Fenced));
        }
        if page.told == 0 {
            return self.fill(&spool, &mut inner, (page, under));
        }
        if let Some(mending) = &mut inner.mending {
            mending.take(page)?;
        }
        self.mend(&spool, &mut inner)
    }

    fn fill(
        &self,
        spool: &Spool,
        inner: &mut Inner,
        (page, under): (&IndexRows, Epoch),
    ) -> Result<()> {
        let Some(mut index) = inner.index.filter(|index| !index.known.whole) else { return Ok(()) };
        let filling = inner.filling.as_ref().filter(|filling| filling.epoch == under);
        if filling.map_or(&[][..], |filling| &filling.after) != page.after {
            let why = format!("keys of shard {} came to a copy that has others", self.shard);
            return Err(Error::new(ErrorKind::Unavailable, why));
        }
        let mut write = WriteBatch::default();
        let prefix = Key::all_last(self.shard).0;
        for IndexRow { place, row } in &page.rows {
            let key = [&prefix, &place[..]].concat();
            let odd = || Error::new(ErrorKind::Unavailable, "a key of the owner's is none");
            keys::read_last_key(&key).ok_or_else(odd)?;
            write.put(key, row);
        }
        let after = page.rows.last().map_or(&page.after, |row| &row.place).to_vec();
        let until = (page.until > 0).then_some(Sequence(page.until));
        let filling = Filling { epoch: under, after, until };
        write.put(Key::Filling(self.shard).encode(), filling.encode());
        index.fills = true;
        write.put(Key::Index(self.shard).encode(), index.encode());
        let index = completed(self.shard, index, Some(&filling), &mut write);
        spool.write(write)?;
        (inner.index, inner.filling) = (Some(index), Some(filling));
        Ok(())
    }
}

#[cfg(test)]
#[path = "fill/tests.rs"]
mod tests;
