//! Every key of the document store's database.

/// Hash ranges a store is cut into. On disk, so it never changes.
pub(super) const SLOTS: u32 = 64;

/// What is stored, and under which bytes. Tags are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// One, written when the store is made. Value: format version (u8).
    Format,
    /// One, written when the store is made. Value: the store's id, text.
    StoreId,
    /// One, rewritten with every commit. Value: the last revision (u64).
    Revision,
    /// One, rewritten when old changes go. Value: the oldest revision whose
    /// change is still there (u64).
    Oldest,
    /// One per collection, rewritten with every commit that changes it.
    /// Key: tag, collection. Value: documents in it (u64).
    Count(&'a str),
    /// One per document, rewritten with it, deleted with it.
    /// Key: tag, slot (u16), collection, 0, key. Value: `StoredDocument`.
    Row(u32, &'a str, &'a str),
    /// One per change, written once, deleted when it is old.
    /// Key: tag, slot (u16), revision (u64). Value: `DocumentChange`.
    Change(u32, u64),
}

const FORMAT: u8 = 0x01;
const STORE_ID: u8 = 0x02;
const REVISION: u8 = 0x03;
const OLDEST: u8 = 0x04;
const COUNT: u8 = 0x05;
const ROW: u8 = 0x06;
const CHANGE: u8 = 0x07;

impl Key<'_> {
    /// The key's bytes; numbers big endian, so that byte order is their order.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Format => vec![FORMAT],
            Self::StoreId => vec![STORE_ID],
            Self::Revision => vec![REVISION],
            Self::Oldest => vec![OLDEST],
            Self::Count(collection) => {
                let mut key = vec![COUNT];
                key.extend_from_slice(collection.as_bytes());
                key
            }
            Self::Row(slot, collection, name) => {
                let mut key = Self::rows(*slot);
                key.extend_from_slice(collection.as_bytes());
                key.push(0);
                key.extend_from_slice(name.as_bytes());
                key
            }
            Self::Change(slot, revision) => {
                let mut key = Self::changes(*slot);
                key.extend_from_slice(&revision.to_be_bytes());
                key
            }
        }
    }

    /// What all rows of a slot begin with.
    pub(super) fn rows(slot: u32) -> Vec<u8> {
        with_slot(ROW, slot)
    }

    /// What all changes of a slot begin with.
    pub(super) fn changes(slot: u32) -> Vec<u8> {
        with_slot(CHANGE, slot)
    }

    /// What all counts begin with.
    pub(super) fn counts() -> Vec<u8> {
        vec![COUNT]
    }
}

fn with_slot(tag: u8, slot: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    key.push(tag);
    key.extend_from_slice(&u16::try_from(slot).unwrap_or(u16::MAX).to_be_bytes());
    key
}

/// The revision in a change's key.
pub(super) fn revision_of(key: &[u8]) -> Option<u64> {
    let (tag_and_slot, revision) = key.split_at_checked(3)?;
    (tag_and_slot[0] == CHANGE).then_some(u64::from_be_bytes(revision.try_into().ok()?))
}

/// The slot of a document, fixed for ever: xxh3-64 (seed 0) of collection, a
/// zero, and key, scaled to [`SLOTS`].
pub(super) fn slot_of(collection: &str, name: &str) -> u32 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(collection.as_bytes());
    hasher.update(&[0]);
    hasher.update(name.as_bytes());
    let slot = (u128::from(hasher.digest()) * u128::from(SLOTS)) >> 64;
    u32::try_from(slot).unwrap_or(SLOTS - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn changes_of_a_slot_sort_by_revision(a in any::<u64>(), b in any::<u64>()) {
            let key = |revision| Key::Change(3, revision).encode();
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
            prop_assert_eq!(revision_of(&key(a)), Some(a));
        }

        #[test]
        fn every_document_has_a_slot(collection in ".*", name in ".*") {
            prop_assert!(slot_of(&collection, &name) < SLOTS);
        }
    }

    #[test]
    fn slots_never_move() {
        assert_eq!([slot_of("orders", "a"), slot_of("orders", "b"), slot_of("users", "a")], SAMPLES);
    }

    /// What the first release gave: on disk everywhere since.
    const SAMPLES: [u32; 3] = [4, 36, 29];
}
