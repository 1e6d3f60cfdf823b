//! What a key holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::sketch;

/// A key's value and when it ends.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) object: Object,
    /// Milliseconds since 1970; `None`: never.
    pub(super) expire_ms: Option<i64>,
}

/// A value of one of the six types, or one that is not carried.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object {
    /// A sketch (HyperLogLog) is in its one form: see [`Object::string`].
    String(Vec<u8>),
    List(List),
    Set(Set),
    Zset(Zset),
    Hash(Hash),
    Stream(Stream),
    /// There, but its content is not carried: see [`Opaque`].
    Opaque(Opaque),
}

pub(super) type List = VecDeque<Vec<u8>>;
pub(super) type Set = BTreeSet<Vec<u8>>;
pub(super) type Hash = BTreeMap<Vec<u8>, Vec<u8>>;

/// Members and their scores, none of which is NaN.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Zset(pub(super) BTreeMap<Vec<u8>, f64>);

/// A stream without its consumer groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stream {
    /// By id; fields and values in turn.
    pub(super) entries: BTreeMap<StreamId, Vec<Vec<u8>>>,
    /// The last id ever given; its entry may be gone.
    pub(super) last: StreamId,
}

/// Milliseconds and a count within them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(pub(super) u64, pub(super) u64);

/// Why a value is not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opaque {
    /// Of a type that a module brought.
    Module,
    /// Larger than a document may be.
    TooLarge,
    /// Not known for now: it is read with the next batch.
    Pending,
}

impl Entry {
    /// Without an end.
    pub(super) fn of(object: Object) -> Self {
        Self { object, expire_ms: None }
    }
}

impl Object {
    /// The string `bytes`. A sketch, which has many encodings for one content, is
    /// brought into the one that is kept here: dense, without a cached count.
    pub(super) fn string(bytes: Vec<u8>) -> Self {
        Self::String(sketch::canonical(&bytes).unwrap_or(bytes))
    }

    /// A collection without members, which in Redis is no key at all.
    pub(super) fn is_nothing(&self) -> bool {
        match self {
            Self::List(list) => list.is_empty(),
            Self::Set(set) => set.is_empty(),
            Self::Zset(zset) => zset.0.is_empty(),
            Self::Hash(hash) => hash.is_empty(),
            Self::String(_) | Self::Stream(_) | Self::Opaque(_) => false,
        }
    }
}

impl Zset {
    /// Members with scores in their order: by score, then by bytes.
    pub(super) fn sorted(&self) -> Vec<(&[u8], f64)> {
        let mut sorted: Vec<_> =
            self.0.iter().map(|(member, score)| (&member[..], *score)).collect();
        // Stable, and they come by their bytes.
        sorted.sort_by(|one, two| one.1.partial_cmp(&two.1).unwrap_or(std::cmp::Ordering::Equal));
        sorted
    }
}

impl StreamId {
    /// As `1700000000000-0`; without a count, `count`.
    pub(super) fn parse(text: &[u8], count: u64) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        match text.split_once('-') {
            Some((ms, count)) => Some(Self(ms.parse().ok()?, count.parse().ok()?)),
            None => Some(Self(text.parse().ok()?, count)),
        }
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// The value as the content of one type of object.
pub(super) trait Content: Sized {
    fn of(object: &mut Object) -> Option<&mut Self>;
    fn empty() -> Object;
}

impl Content for List {
    fn of(object: &mut Object) -> Option<&mut Self> {
        if let Object::List(list) = object { Some(list) } else { None }
    }

    fn empty() -> Object {
        Object::List(Self::default())
    }
}

impl Content for Set {
    fn of(object: &mut Object) -> Option<&mut Self> {
        if let Object::Set(set) = object { Some(set) } else { None }
    }

    fn empty() -> Object {
        Object::Set(Self::default())
    }
}

impl Content for Zset {
    fn of(object: &mut Object) -> Option<&mut Self> {
        if let Object::Zset(zset) = object { Some(zset) } else { None }
    }

    fn empty() -> Object {
        Object::Zset(Self::default())
    }
}

impl Content for Hash {
    fn of(object: &mut Object) -> Option<&mut Self> {
        if let Object::Hash(hash) = object { Some(hash) } else { None }
    }

    fn empty() -> Object {
        Object::Hash(Self::default())
    }
}

impl Content for Stream {
    fn of(object: &mut Object) -> Option<&mut Self> {
        if let Object::Stream(stream) = object { Some(stream) } else { None }
    }

    fn empty() -> Object {
        Object::Stream(Self::default())
    }
}

/// The bytes of a string.
impl Content for Vec<u8> {
    fn of(object: &mut Object) -> Option<&mut Self> {
        if let Object::String(bytes) = object { Some(bytes) } else { None }
    }

    fn empty() -> Object {
        Object::String(Self::default())
    }
}
