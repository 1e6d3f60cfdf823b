//! Ids, epochs and sequences as types.

use std::fmt;
use std::str::FromStr;

use crate::v1::ShardId;

/// How many times ownership of a shard has changed hands.
///
/// 0 before the first assignment; only grows. A write that carries an epoch
/// below the shard's current one comes from a fenced owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the next owner.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A change's place in its shard's spool: dense, the first is 1.
///
/// `Sequence(0)` is the place before the first change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The place right behind this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The place `count` behind this one.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A node, for as long as the cluster lives: the index of the log entry that
/// let it in, or 1 for the first. Never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Printed as `EXPORT/INDEX`, both numbers.
impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.export_id, self.index)
    }
}

impl FromStr for ShardId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(export, index)| {
            Some(Self { export_id: export.parse().ok()?, index: index.parse().ok()? })
        });
        parsed.ok_or_else(|| format!("\"{text}\" is not a shard id; it reads EXPORT/INDEX, as 7/0"))
    }
}
