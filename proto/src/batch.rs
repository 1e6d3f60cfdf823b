//! Gathers changes into one buffer and encodes them as a frame.

use std::collections::HashMap;
use std::ops::Range;

use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use xxhash_rust::xxh3::xxh3_128;

use crate::document::content_hash;
use crate::frame::{Codec, Frame};
use crate::ids::{Epoch, Sequence};
use crate::v1::{Change, ChangeBatch, Novelty, Operation, Progress, Rewound};

/// A change on its way into a [`BatchBuilder`]; everything is copied from it.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// What happened.
    pub operation: Operation,
    /// The collection's name.
    pub collection: &'a str,
    /// The encoded key.
    pub key: &'a [u8],
    /// Variant metadata and value after the change; `None` on delete.
    pub document: Option<(&'a [u8], &'a [u8])>,
    /// The same before the change, where the source tells it.
    pub before: Option<(&'a [u8], &'a [u8])>,
    /// When the source committed it: milliseconds since 1970; 0 if untold.
    pub committed_ms: i64,
}

/// What an owner adds when it turns gathered changes into a frame.
#[derive(Clone, Debug, Default)]
pub struct Stamp {
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The first change's sequence.
    pub first: Sequence,
    /// What these changes add to the shard's progress.
    pub progress: Progress,
    /// Milliseconds since 1970 at capture.
    pub captured_ms: i64,
    /// Hybrid logical clock of the first change; the others count up from it.
    pub clock: u64,
    /// A recorded loss these changes follow.
    pub rewound: Option<Rewound>,
    /// What each change is to its key, in their order; of those behind its end nothing is
    /// told.
    pub told: Vec<Told>,
}

/// What a change is to its key: see the fields of `Change`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Against what was captured before.
    pub novelty: Novelty,
    /// The change that brought the key last; 0 for none.
    pub previous: Sequence,
}

impl Told {
    /// What was told of a change.
    #[must_use]
    pub fn of(change: &Change) -> Self {
        Self { novelty: change.novelty(), previous: Sequence(change.previous) }
    }

    /// The novelty in one word; `None` if it is not told.
    #[must_use]
    pub fn word(&self) -> Option<&'static str> {
        match self.novelty {
            Novelty::Unspecified => None,
            Novelty::New => Some("new"),
            Novelty::Update => Some("update"),
            Novelty::Duplicate => Some("duplicate"),
        }
    }
}

/// Changes in the order they were pushed, in one buffer that is used again.
///
/// Sources push into it, the merge step looks at its keys and takes rows out,
/// and [`BatchBuilder::encode`] makes the frame. No change owns memory.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    collections: Vec<String>,
    dictionaries: Vec<Range<usize>>,
    known: HashMap<u128, u32>,
    /// The number of the dictionary used last.
    recent: u32,
    committed_ms: i64,
}

#[derive(Clone, Debug)]
struct Entry {
    operation: Operation,
    collection: u32,
    key: Range<usize>,
    dictionary: u32,
    document: Range<usize>,
    before_dictionary: u32,
    before: Range<usize>,
    content_hash: [u8; 16],
    committed_ms: i64,
}

/// A change in a builder, as the merge step and the key index see it.
#[derive(Clone, Copy, Debug)]
pub struct Pending<'a> {
    /// What happened.
    pub operation: Operation,
    /// The collection's name.
    pub collection: &'a str,
    /// The encoded key.
    pub key: &'a [u8],
    /// Variant metadata after the change; of no meaning without a document.
    pub dictionary: &'a [u8],
    /// Variant value after the change; empty if there is none.
    pub document: &'a [u8],
    /// [`content_hash`] of the two; of no meaning without a document.
    pub content_hash: &'a [u8],
}

impl BatchBuilder {
    /// Adds one change behind the others.
    pub fn push(&mut self, draft: &Draft<'_>) {
        let collection = self.collection(draft.collection);
        let key = self.copy(draft.key);
        let (dictionary, document, content_hash) = match draft.document {
            Some((dictionary, value)) => {
                let hash = content_hash(dictionary, value);
                (self.dictionary(dictionary), self.copy(value), hash)
            }
            None => (0, 0..0, [0; 16]),
        };
        let (before_dictionary, before) = match draft.before {
            Some((dictionary, value)) => (self.dictionary(dictionary), self.copy(value)),
            None => (0, 0..0),
        };
        self.committed_ms = self.committed_ms.max(draft.committed_ms);
        self.entries.push(Entry {
            operation: draft.operation,
            collection,
            key,
            dictionary,
            document,
            before_dictionary,
            before,
            content_hash,
            committed_ms: draft.committed_ms,
        });
    }

    /// Adds one change in front of the others; looks at all of them for that.
    pub fn push_front(&mut self, draft: &Draft<'_>) {
        self.push(draft);
        self.entries.rotate_right(1);
    }

    /// How many changes are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes gathered: about what the frame will have before compression.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.arena.len() + self.entries.len() * 32
    }

    /// When the newest change in it was committed at the source; 0 if untold.
    #[must_use]
    pub fn committed_ms(&self) -> i64 {
        self.committed_ms
    }

    /// The changes in it, in order.
    pub fn pending(&self) -> impl Iterator<Item = Pending<'_>> {
        self.entries.iter().map(|entry| self.look(entry))
    }

    /// Takes out every change for which `keep` says no; says how many went.
    pub fn retain(&mut self, mut keep: impl FnMut(Pending<'_>) -> bool) -> usize {
        let entries = std::mem::take(&mut self.entries);
        let before = entries.len();
        self.entries = entries.into_iter().filter(|entry| keep(self.look(entry))).collect();
        before - self.entries.len()
    }

    /// Empties it; its memory is kept for the next batch.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
        self.collections.clear();
        self.dictionaries.clear();
        self.known.clear();
        self.recent = 0;
        self.committed_ms = 0;
    }

    /// The changes as a frame. The builder keeps them: `clear` it afterwards.
    #[must_use]
    pub fn encode(&self, stamp: Stamp, codec: Codec) -> Frame {
        let count = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let head = ChangeBatch {
            collections: self.collections.clone(),
            dictionaries: Vec::new(),
            changes: Vec::new(),
            progress: Some(stamp.progress),
            captured_ms: stamp.captured_ms,
            clock: stamp.clock,
            rewound: stamp.rewound,
        };
        let mut payload = Vec::with_capacity(head.encoded_len() + self.bytes());
        // Protobuf does not care for the order of fields: lists are appended.
        head.encode_raw(&mut payload);
        for dictionary in &self.dictionaries {
            put_bytes(2, &self.arena[dictionary.clone()], &mut payload);
        }
        let told = stamp.told.iter().copied().chain(std::iter::repeat(Told::default()));
        for (entry, told) in self.entries.iter().zip(told) {
            self.put_change(entry, told, &mut payload);
        }
        Frame::pack(stamp.epoch, stamp.first, count, &payload, codec)
    }

    fn look<'a>(&'a self, entry: &'a Entry) -> Pending<'a> {
        let dictionary = self.dictionaries.get(entry.dictionary as usize).cloned();
        Pending {
            operation: entry.operation,
            collection: &self.collections[entry.collection as usize],
            key: &self.arena[entry.key.clone()],
            dictionary: &self.arena[dictionary.unwrap_or_default()],
            document: &self.arena[entry.document.clone()],
            content_hash: &entry.content_hash,
        }
    }

    fn copy(&mut self, bytes: &[u8]) -> Range<usize> {
        let from = self.arena.len();
        self.arena.extend_from_slice(bytes);
        from..self.arena.len()
    }

    fn collection(&mut self, name: &str) -> u32 {
        // Few, and mostly the same as the one before.
        let found = self.collections.iter().rposition(|known| known == name);
        let index = found.unwrap_or_else(|| {
            self.collections.push(name.to_owned());
            self.collections.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    fn dictionary(&mut self, bytes: &[u8]) -> u32 {
        // Mostly that of the change before.
        let recent = self.dictionaries.get(self.recent as usize);
        if recent.is_some_and(|range| self.arena[range.clone()] == *bytes) {
            return self.recent;
        }
        let hash = xxh3_128(bytes);
        self.recent = match self.known.get(&hash) {
            Some(index) => *index,
            None => {
                let index = u32::try_from(self.dictionaries.len()).unwrap_or(u32::MAX);
                let range = self.copy(bytes);
                self.dictionaries.push(range);
                self.known.insert(hash, index);
                index
            }
        };
        self.recent
    }

    fn put_change(&self, entry: &Entry, told: Told, out: &mut Vec<u8>) {
        let mut length = 0;
        self.each_field(entry, told, |field| length += field.encoded_len());
        encode_key(3, WireType::LengthDelimited, out);
        encode_varint(length as u64, out);
        self.each_field(entry, told, |field| field.encode(out));
    }

    /// The fields of `Change` that differ from their defaults, in order.
    fn each_field(&self, entry: &Entry, told: Told, mut visit: impl FnMut(Field<'_>)) {
        let mut number = |tag, value: u64| {
            if value != 0 {
                visit(Field::Number(tag, value));
            }
        };
        number(1, entry.operation as u64);
        number(2, u64::from(entry.collection));
        number(4, u64::from(entry.dictionary));
        number(7, u64::from(entry.before_dictionary));
        number(9, entry.committed_ms.cast_unsigned());
        number(10, told.novelty as u64);
        number(11, told.previous.0);
        let mut bytes = |tag, range: &Range<usize>| {
            if !range.is_empty() {
                visit(Field::Bytes(tag, &self.arena[range.clone()]));
            }
        };
        bytes(3, &entry.key);
        bytes(5, &entry.document);
        bytes(6, &entry.before);
        if !entry.document.is_empty() {
            visit(Field::Bytes(8, &entry.content_hash));
        }
    }
}

enum Field<'a> {
    Number(u32, u64),
    Bytes(u32, &'a [u8]),
}

impl Field<'_> {
    fn encoded_len(&self) -> usize {
        // All tags here are below 16: one byte each.
        match self {
            Self::Number(_, value) => 1 + encoded_len_varint(*value),
            Self::Bytes(_, bytes) => 1 + encoded_len_varint(bytes.len() as u64) + bytes.len(),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(tag, value) => {
                encode_key(*tag, WireType::Varint, out);
                encode_varint(*value, out);
            }
            Self::Bytes(tag, bytes) => put_bytes(*tag, bytes, out),
        }
    }
}

fn put_bytes(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stamp() -> Stamp {
        Stamp { epoch: Epoch(2), first: Sequence(10), clock: 99, ..Default::default() }
    }

    fn draft<'a>(key: &'a [u8], document: Option<(&'a [u8], &'a [u8])>) -> Draft<'a> {
        let operation = if document.is_some() { Operation::Update } else { Operation::Delete };
        Draft { operation, collection: "orders", key, document, before: None, committed_ms: 5 }
    }

    #[test]
    fn a_dictionary_is_stored_once_however_often_it_is_used() {
        let mut builder = BatchBuilder::default();
        for key in [b"a", b"b", b"c"] {
            builder.push(&draft(key, Some((b"fields", b"value"))));
        }
        let batch = builder.encode(stamp(), Codec::None).decode().unwrap();
        assert_eq!(batch.dictionaries.len(), 1);
        assert_eq!(batch.collections, ["orders"]);
        assert!(batch.changes.iter().all(|change| change.dictionary == 0));
    }

    #[test]
    fn what_was_taken_out_is_not_in_the_frame() {
        let mut builder = BatchBuilder::default();
        builder.push(&draft(b"a", None));
        builder.push(&draft(b"b", None));
        assert_eq!(builder.retain(|pending| pending.key != b"a"), 1);
        let frame = builder.encode(stamp(), Codec::Zstd);
        assert_eq!((frame.first(), frame.last()), (Sequence(10), Sequence(10)));
        assert_eq!(&frame.decode().unwrap().changes[0].key[..], b"b");
    }

    #[test]
    fn a_cleared_builder_is_as_new() {
        let mut builder = BatchBuilder::default();
        builder.push(&draft(b"a", Some((b"d", b"v"))));
        builder.clear();
        assert_eq!((builder.len(), builder.bytes(), builder.committed_ms()), (0, 0, 0));
        builder.push(&draft(b"b", Some((b"e", b"w"))));
        let batch = builder.encode(stamp(), Codec::None).decode().unwrap();
        assert_eq!(&batch.dictionaries[0][..], b"e");
    }

    #[test]
    fn what_is_told_of_changes_is_in_the_frame() {
        let mut builder = BatchBuilder::default();
        builder.push(&draft(b"a", None));
        builder.push(&draft(b"b", None));
        let told = vec![Told { novelty: Novelty::Duplicate, previous: Sequence(300) }];
        let frame = builder.encode(Stamp { told, ..stamp() }, Codec::None);
        let changes = frame.decode().unwrap().changes;
        assert_eq!((changes[0].novelty(), changes[0].previous), (Novelty::Duplicate, 300));
        assert_eq!((changes[1].novelty(), changes[1].previous), (Novelty::Unspecified, 0));
    }

    type Sample = (Vec<u8>, Option<(Vec<u8>, Vec<u8>)>, i64);

    proptest! {
        #[test]
        fn every_change_comes_back_as_it_was_pushed(
            samples in proptest::collection::vec(any::<Sample>(), 0..40)
        ) {
            let mut builder = BatchBuilder::default();
            for (key, document, committed_ms) in &samples {
                let document = document.as_ref().map(|(d, v)| (&d[..], &v[..]));
                builder.push(&Draft { committed_ms: *committed_ms, ..draft(key, document) });
            }
            let frame = builder.encode(stamp(), Codec::Zstd);
            let batch = Frame::parse(frame.bytes().clone()).unwrap().decode().unwrap();
            prop_assert_eq!(batch.changes.len(), samples.len());
            for (change, (key, document, committed_ms)) in batch.changes.iter().zip(&samples) {
                prop_assert_eq!(&change.key[..], &key[..]);
                prop_assert_eq!(change.committed_ms, *committed_ms);
                let value = document.as_ref().map_or(&[][..], |(_, value)| value);
                prop_assert_eq!(&change.document[..], value);
                if let Some((dictionary, value)) = document && !value.is_empty() {
                    let stored = &batch.dictionaries[change.dictionary as usize];
                    prop_assert_eq!(&stored[..], &dictionary[..]);
                    prop_assert_eq!(&change.content_hash[..], content_hash(dictionary, value));
                }
            }
        }
    }
}
