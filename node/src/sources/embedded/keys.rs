//! Every key of the store's database, and what its parts are.

use std::fmt;
use std::ops::Range;

use tidegate_proto::v1::SlotRange;
use tidegate_proto::{Key, KeyError, KeyPart};

use super::error::StoreError;

/// How many slots a store has. Fixed for ever: a document's slot never changes.
pub const SLOTS: u16 = 64;

/// The place of a change among all changes of the store: dense, the first is 1.
///
/// `Revision(0)` is the place before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision right behind this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A hash range of a store: `from` inclusive, `upto` exclusive, not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slots {
    from: u16,
    upto: u16,
}

impl Slots {
    /// The whole store.
    pub const ALL: Self = Self { from: 0, upto: SLOTS };

    /// The slots a request names; all if it names none.
    pub fn asked(range: Option<SlotRange>) -> Result<Self, StoreError> {
        let Some(SlotRange { from, upto }) = range else { return Ok(Self::ALL) };
        let sound = |from: u16, upto: u16| from < upto && upto <= SLOTS;
        match (u16::try_from(from), u16::try_from(upto)) {
            (Ok(from), Ok(upto)) if sound(from, upto) => Ok(Self { from, upto }),
            _ => Err(StoreError::Request(format!(
                "slots {from} to {upto} are no range of this store; it has the slots 0 to {SLOTS}, \
                 the last excluded"
            ))),
        }
    }

    pub(super) fn each(self) -> Range<u16> {
        self.from..self.upto
    }
}

/// The slot of a document: its key's hash, scaled.
pub(super) fn slot(document: &Key) -> u16 {
    let scaled = (u128::from(document.hash()) * u128::from(SLOTS)) >> 64;
    u16::try_from(scaled).unwrap_or(SLOTS - 1)
}

/// The key of a document, which names its collection too.
pub(super) fn document_key(collection: &str, key: &str) -> Result<Key, KeyError> {
    Key::encode(&[KeyPart::String(collection.to_owned()), KeyPart::String(key.to_owned())])
}

/// Collection and key of a document's key.
pub(super) fn names(document: &[u8]) -> Result<(String, String), StoreError> {
    let parts = Key::from_bytes(document.to_vec().into()).parts().ok();
    match parts.and_then(|parts| <[KeyPart; 2]>::try_from(parts).ok()) {
        Some([KeyPart::String(collection), KeyPart::String(key)]) => Ok((collection, key)),
        _ => Err(StoreError::Corrupt("a document has no proper key")),
    }
}

/// What is stored, and under which bytes. Numbers are big endian. Tags are never
/// used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowKey<'a> {
    /// One per store, written when it is made, read on open.
    /// Key: tag. Value: format version (u8).
    Format,
    /// One per store, written when it is made. Tells it from one made later.
    /// Key: tag. Value: its id, as text.
    StoreId,
    /// One per store, rewritten with every commit.
    /// Key: tag. Value: `Head`.
    Head,
    /// One per collection that has documents, rewritten when their number
    /// changes, deleted with the last.
    /// Key: tag, name. Value: how many (u64).
    Collection(&'a str),
    /// One per document, rewritten and deleted with it.
    /// Key: tag, slot (u16), the document's key: collection and key, each with
    /// its type and end as `tidegate_proto::Key` has them. Value: `DocumentRow`.
    Document(u16, &'a [u8]),
    /// One per change, written once, deleted by retention.
    /// Key: tag, slot (u16), revision (u64). Value: `ChangeRow`.
    Change(u16, Revision),
    /// One per some 1/64 of the log, written once, deleted with its changes.
    /// Key: tag, last revision (u64). Value: the bytes of its changes (u64).
    Block(Revision),
}

const FORMAT: u8 = 0x01;
const STORE_ID: u8 = 0x02;
const HEAD: u8 = 0x03;
const COLLECTION: u8 = 0x04;
const DOCUMENT: u8 = 0x05;
const CHANGE: u8 = 0x06;
const BLOCK: u8 = 0x07;

impl RowKey<'_> {
    /// The key's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Format => vec![FORMAT],
            Self::StoreId => vec![STORE_ID],
            Self::Head => vec![HEAD],
            Self::Collection(name) => [&[COLLECTION], name.as_bytes()].concat(),
            Self::Document(slot, key) => [&[DOCUMENT][..], &slot.to_be_bytes(), key].concat(),
            Self::Change(slot, revision) => {
                [&[CHANGE][..], &slot.to_be_bytes(), &revision.0.to_be_bytes()].concat()
            }
            Self::Block(last) => [&[BLOCK][..], &last.0.to_be_bytes()].concat(),
        }
    }

    /// Where the changes of a slot end.
    pub(super) fn behind_changes(slot: u16) -> Vec<u8> {
        RowKey::Change(slot + 1, Revision(0)).encode()
    }
}

/// Slot and document's key of a `RowKey::Document`.
pub(super) fn read_document(row: &[u8]) -> Option<(u16, &[u8])> {
    let (slot, key) = row.strip_prefix(&[DOCUMENT])?.split_first_chunk()?;
    Some((u16::from_be_bytes(*slot), key))
}

/// The revision of a `RowKey::Change`.
pub(super) fn read_change(row: &[u8]) -> Option<Revision> {
    let (_slot, revision) = row.strip_prefix(&[CHANGE])?.split_first_chunk::<2>()?;
    Some(Revision(u64::from_be_bytes(revision.try_into().ok()?)))
}

/// The last revision of a `RowKey::Block`.
pub(super) fn read_block(row: &[u8]) -> Option<Revision> {
    Some(Revision(u64::from_be_bytes(row.strip_prefix(&[BLOCK])?.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_scan_in_the_order_of_their_parts() {
        let one = document_key("a", "x").unwrap();
        let two = document_key("a", "y").unwrap();
        let three = document_key("ab", "a").unwrap();
        let keys = [
            RowKey::Format,
            RowKey::StoreId,
            RowKey::Head,
            RowKey::Collection("a"),
            RowKey::Collection("ab"),
            RowKey::Document(0, three.as_bytes()),
            RowKey::Document(1, one.as_bytes()),
            RowKey::Document(1, two.as_bytes()),
            RowKey::Document(1, three.as_bytes()),
            RowKey::Document(256, one.as_bytes()),
            RowKey::Change(0, Revision(300)),
            RowKey::Change(1, Revision(2)),
            RowKey::Change(1, Revision(256)),
            RowKey::Block(Revision(1)),
        ];
        assert!(keys.map(|key| key.encode()).is_sorted());
        assert!(RowKey::behind_changes(1) > RowKey::Change(1, Revision(u64::MAX)).encode());
    }

    #[test]
    fn keys_come_back() {
        let key = document_key("a\0", "b").unwrap();
        let row = RowKey::Document(7, key.as_bytes()).encode();
        assert_eq!(read_document(&row), Some((7, key.as_bytes())));
        assert_eq!(names(key.as_bytes()), Ok(("a\0".to_owned(), "b".to_owned())));
        assert_eq!(read_change(&RowKey::Change(7, Revision(9)).encode()), Some(Revision(9)));
        assert_eq!(read_block(&RowKey::Block(Revision(9)).encode()), Some(Revision(9)));
        assert_eq!(read_document(&RowKey::Head.encode()), None);
    }

    #[test]
    fn a_slot_is_fixed_and_slots_are_used_alike() {
        assert_eq!(slot(&document_key("orders", "order-1").unwrap()), 56);
        let mut used = [0_u32; SLOTS as usize];
        for n in 0..6400 {
            used[usize::from(slot(&document_key("orders", &n.to_string()).unwrap()))] += 1;
        }
        assert!(used.iter().all(|count| (50..200).contains(count)), "{used:?}");
    }

    #[test]
    fn only_a_range_within_the_store_is_taken() {
        let asked = |from, upto| Slots::asked(Some(SlotRange { from, upto }));
        assert_eq!(Slots::asked(None), Ok(Slots::ALL));
        assert_eq!(asked(0, 64), Ok(Slots::ALL));
        for (from, upto) in [(0, 0), (3, 3), (4, 3), (0, 65), (70_000, 70_001)] {
            assert!(matches!(asked(from, upto), Err(StoreError::Request(_))), "{from} {upto}");
        }
    }
}
