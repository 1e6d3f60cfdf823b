//! The rows of a key index, and looking at them.

use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint};
use rocksdb::{IteratorMode, WriteBatch};
use tidegate_proto::{Sequence, content_hash};

use super::ShardLog;
use super::index::damaged;
use crate::error::Result;
use crate::sources::Last;
use crate::spool::keys::{self, Key};

/// Of rows that are a document.
const DOCUMENT: u8 = 1;
/// Of rows that tell of no document, only in which round their key was brought last; and,
/// longer ones, by which change, with which content.
const SEEN: u8 = 2;
/// Of rows that are a document behind the change that brought it.
const TOLD: u8 = 3;

/// Keys that a snapshot did not bring.
#[derive(Debug, Default)]
pub struct Gone {
    /// With their collections.
    pub keys: Vec<(String, Vec<u8>)>,
    /// The last key that was looked at; `None` if there are no more.
    pub upto: Option<(String, Vec<u8>)>,
}

/// What a row tells of the change that brought its key last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Brought {
    /// 0: that is not known.
    pub(super) by: Sequence,
    pub(super) content_hash: [u8; 16],
}

/// A row that tells in which round its key was brought last, and by which change.
///
/// ```text
///   SEEN  round (4)  [sequence (8)  content hash (16)]
/// ```
pub(super) fn seen(round: u32, by: Option<(Sequence, &[u8])>, out: &mut Vec<u8>) {
    out.clear();
    out.push(SEEN);
    out.extend_from_slice(&round.to_be_bytes());
    if let Some((by, content_hash)) = by {
        out.extend_from_slice(&by.0.to_be_bytes());
        out.extend_from_slice(content_hash);
    }
}

/// This key was not brought in `round`, nor since; not so if that is not known.
fn is_before(row: &[u8], round: u32) -> bool {
    let told = row.strip_prefix(&[SEEN]).and_then(|told| told.first_chunk());
    told.is_some_and(|told| u32::from_be_bytes(*told) < round)
}

/// A document as it is kept, with the change that brought it if that is to be told.
///
/// ```text
///   DOCUMENT                length of the dictionary (varint)  dictionary  value
///   TOLD      sequence (8)  length of the dictionary (varint)  dictionary  value
/// ```
pub(super) fn document(
    by: Option<Sequence>,
    (dictionary, value): (&[u8], &[u8]),
    out: &mut Vec<u8>,
) {
    out.clear();
    match by {
        Some(by) => {
            out.push(TOLD);
            out.extend_from_slice(&by.0.to_be_bytes());
        }
        None => out.push(DOCUMENT),
    }
    encode_varint(dictionary.len() as u64, out);
    out.extend_from_slice(dictionary);
    out.extend_from_slice(value);
}

fn read_row(bytes: Vec<u8>) -> Option<Last> {
    if bytes.is_empty() {
        return Some(Last::Unknown);
    }
    let row = Bytes::from(bytes);
    let (_, dictionary, value) = read_document(&row)?;
    Some(Last::Document { dictionary: row.slice_ref(dictionary), value: row.slice_ref(value) })
}

/// The change, the dictionary and the value of a row that is a document.
fn read_document(row: &[u8]) -> Option<(Sequence, &[u8], &[u8])> {
    let (by, mut rest) = match row.split_first()? {
        (&DOCUMENT, rest) => (Sequence(0), rest),
        (&TOLD, rest) => {
            let (by, rest) = rest.split_first_chunk()?;
            (Sequence(u64::from_be_bytes(*by)), rest)
        }
        _ => return None,
    };
    let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
    let (dictionary, value) = rest.split_at_checked(length)?;
    Some((by, dictionary, value))
}

/// By which change a key that has this row was brought; `None` if the row does not tell.
pub(super) fn brought(row: &[u8]) -> Option<Brought> {
    if let Some((by, dictionary, value)) = read_document(row) {
        return Some(Brought { by, content_hash: content_hash(dictionary, value) });
    }
    let told = row.strip_prefix(&[SEEN])?.get(size_of::<u32>()..)?;
    let (by, content_hash) = told.split_first_chunk()?;
    let content_hash = content_hash.try_into().ok()?;
    Some(Brought { by: Sequence(u64::from_be_bytes(*by)), content_hash })
}

impl ShardLog {
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
