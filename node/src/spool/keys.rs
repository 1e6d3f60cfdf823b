//! Every key of the spool's database.

use tidegate_proto::Sequence;
use tidegate_proto::v1::ShardId;

/// What is stored, and under which bytes. Tags are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// One per database, written when it is made.
    /// Key: tag. Value: format version (u8).
    Format,
    /// One per shard, rewritten with every batch, deleted with the shard.
    /// Key: tag, export (u64), index (u32). Value: `Head`.
    Head(ShardId),
    /// One per batch, written once, deleted by retention.
    /// Key: tag, export, index, first sequence (u64). Value: a frame.
    Frame(ShardId, Sequence),
    /// One per key the stream brought while a snapshot is under way; all
    /// deleted when the snapshot is complete and when a reader starts.
    /// Key: tag, export, index, bytes of the collection's name (u64), the name,
    /// key. Value: empty.
    Touched(ShardId, &'a str, &'a [u8]),
    /// One per shard whose last documents are kept, rewritten with every batch,
    /// deleted with the shard. Key: tag, export, index. Value: `log::index::Index`.
    Index(ShardId),
    /// One per key of such a shard, written with the batch that brings it.
    /// Key: as `Touched`. Value: as `log::rows` writes it; empty if it is not known.
    Last(ShardId, &'a str, &'a [u8]),
    /// One per shard whose last documents are on their way here from its owner, rewritten
    /// with every page of them. Key: tag, export, index. Value: `log::fill::Filling`.
    Filling(ShardId),
    /// One per key of such a shard whose last document was cut off; deleted once it is
    /// known again. Key: as `Touched`. Value: empty.
    Unknown(ShardId, &'a str, &'a [u8]),
}

const FORMAT: u8 = 0x01;
const HEAD: u8 = 0x02;
const FRAME: u8 = 0x03;
const TOUCHED: u8 = 0x04;
const INDEX: u8 = 0x05;
const LAST: u8 = 0x06;
const FILLING: u8 = 0x07;
const UNKNOWN: u8 = 0x08;

impl Key<'_> {
    /// The key's bytes; numbers big endian, so that byte order is their order.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Format => vec![FORMAT],
            Self::Head(shard) => prefix(HEAD, *shard),
            Self::Frame(shard, first) => {
                let mut key = prefix(FRAME, *shard);
                key.extend_from_slice(&first.0.to_be_bytes());
                key
            }
            Self::Touched(shard, collection, bytes) => {
                document(prefix(TOUCHED, *shard), collection, bytes)
            }
            Self::Index(shard) => prefix(INDEX, *shard),
            Self::Last(shard, collection, bytes) => {
                document(prefix(LAST, *shard), collection, bytes)
            }
            Self::Filling(shard) => prefix(FILLING, *shard),
            Self::Unknown(shard, collection, bytes) => {
                document(prefix(UNKNOWN, *shard), collection, bytes)
            }
        }
    }

    /// What all frames of a shard begin with.
    pub(super) fn frames(shard: ShardId) -> Vec<u8> {
        prefix(FRAME, shard)
    }

    /// From the first touched key of a shard to behind its last.
    pub(super) fn all_touched(shard: ShardId) -> (Vec<u8>, Vec<u8>) {
        (prefix(TOUCHED, shard), behind(prefix(TOUCHED, shard)))
    }

    /// From the first key of a shard whose last document is kept to behind its last.
    pub(super) fn all_last(shard: ShardId) -> (Vec<u8>, Vec<u8>) {
        (prefix(LAST, shard), behind(prefix(LAST, shard)))
    }

    /// From the first key of a shard whose last document was cut off to behind its last.
    pub(super) fn all_unknown(shard: ShardId) -> (Vec<u8>, Vec<u8>) {
        (prefix(UNKNOWN, shard), behind(prefix(UNKNOWN, shard)))
    }

    /// From the first frame of a shard to behind its last.
    pub(super) fn all_frames(shard: ShardId) -> (Vec<u8>, Vec<u8>) {
        (prefix(FRAME, shard), behind(prefix(FRAME, shard)))
    }

    /// From the first head to behind the last.
    pub(super) fn all_heads() -> (Vec<u8>, Vec<u8>) {
        (vec![HEAD], vec![HEAD + 1])
    }
}

/// The shard and first sequence in a frame's key.
pub(super) fn read_frame_key(key: &[u8]) -> Option<(ShardId, Sequence)> {
    let (shard, rest) = read_prefix(FRAME, key)?;
    Some((shard, Sequence(u64::from_be_bytes(rest.try_into().ok()?))))
}

/// The collection and key in the key of a last document.
pub(super) fn read_last_key(key: &[u8]) -> Option<(&str, &[u8])> {
    let (_, rest) = read_prefix(LAST, key)?;
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
    let (collection, key) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(collection).ok()?, key))
}

/// The shard in a head's key.
pub(super) fn read_head_key(key: &[u8]) -> Option<ShardId> {
    read_prefix(HEAD, key).map(|(shard, _)| shard)
}

fn prefix(tag: u8, shard: ShardId) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.push(tag);
    key.extend_from_slice(&shard.export_id.to_be_bytes());
    key.extend_from_slice(&shard.index.to_be_bytes());
    key
}

/// A document's place behind `prefix`.
fn document(mut prefix: Vec<u8>, collection: &str, key: &[u8]) -> Vec<u8> {
    // The length first: a name may hold any byte, a zero too.
    prefix.extend_from_slice(&(collection.len() as u64).to_be_bytes());
    prefix.extend_from_slice(collection.as_bytes());
    prefix.extend_from_slice(key);
    prefix
}

/// The smallest key above all that begin with `prefix`.
fn behind(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            break;
        }
    }
    prefix
}

fn read_prefix(tag: u8, key: &[u8]) -> Option<(ShardId, &[u8])> {
    let rest = key.strip_prefix(&[tag])?;
    let (export, rest) = rest.split_first_chunk::<8>()?;
    let (index, rest) = rest.split_first_chunk::<4>()?;
    let shard =
        ShardId { export_id: u64::from_be_bytes(*export), index: u32::from_be_bytes(*index) };
    Some((shard, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_sort_by_shard_then_sequence(a in any::<(u64, u32, u64)>(), b in any::<(u64, u32, u64)>()) {
            let key = |(export_id, index, first)| {
                Key::Frame(ShardId { export_id, index }, Sequence(first)).encode()
            };
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
            let shard = ShardId { export_id: a.0, index: a.1 };
            prop_assert_eq!(read_frame_key(&key(a)), Some((shard, Sequence(a.2))));
            let (from, behind) = Key::all_frames(shard);
            prop_assert!(key(a) >= from && key(a) < behind);
        }

        #[test]
        fn two_touched_keys_are_never_one(
            a in ("[a\0]{0,3}", "[a\0]{0,3}"),
            b in ("[a\0]{0,3}", "[a\0]{0,3}"),
            shard in any::<(u64, u32)>(),
        ) {
            let shard = ShardId { export_id: shard.0, index: shard.1 };
            let key = |of: &(String, String)| Key::Touched(shard, &of.0, of.1.as_bytes()).encode();
            prop_assert_eq!(key(&a) == key(&b), a == b);
            let (from, behind) = Key::all_touched(shard);
            prop_assert!(key(&a) >= from && key(&a) < behind);
            let last = Key::Last(shard, &a.0, a.1.as_bytes()).encode();
            prop_assert_eq!(read_last_key(&last), Some((a.0.as_str(), a.1.as_bytes())));
            let (from, behind) = Key::all_last(shard);
            prop_assert!(last >= from && last < behind);
        }

        #[test]
        fn bytes_are_a_key_or_none(bytes in proptest::collection::vec(0..6u8, 0..24)) {
            if let Some((shard, first)) = read_frame_key(&bytes) {
                prop_assert_eq!(Key::Frame(shard, first).encode(), bytes.clone());
            }
            if let Some((collection, key)) = read_last_key(&bytes) {
                prop_assert!(collection.len() + key.len() < bytes.len());
            }
            if let Some(shard) = read_head_key(&bytes) {
                prop_assert!(bytes.starts_with(&Key::Head(shard).encode()));
            }
        }
    }

    #[test]
    fn a_head_tells_its_shard() {
        let shard = ShardId { export_id: 7, index: 2 };
        assert_eq!(read_head_key(&Key::Head(shard).encode()), Some(shard));
        assert_eq!(read_head_key(&Key::Frame(shard, Sequence(1)).encode()), None);
    }

    #[test]
    fn the_end_of_a_range_carries_over() {
        assert_eq!(behind(vec![3, 255]), [4]);
    }
}
