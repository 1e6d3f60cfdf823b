//! Every key on disk.

use std::fmt;

use tidegate_proto::v1::ShardId;

/// A key of the database. Tags are never used again; numbers are big endian,
/// so that keys of one kind lie together, in order.
///
/// What a value holds stands with its key; [`crate::codec`] wraps each in a
/// format version and a checksum that covers the key as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// One, written when the directory is made and never again.
    /// Key: tag. Value: the format of everything else, u32.
    Format,
    /// One, rewritten at each election. Key: tag. Value: term, node, committed.
    Vote,
    /// One, rewritten at each purge. Key: tag. Value: the last log id purged.
    Purged,
    /// One, rewritten with each commit, not synced. Key: tag. Value: a log id.
    Committed,
    /// One, rewritten with each batch applied, not synced. Key: tag.
    /// Value: the last log id applied.
    Applied,
    /// One, rewritten when members come or go. Key: tag.
    /// Value: the last membership applied, JSON.
    Membership,
    /// One per log entry, written once, deleted by truncate or purge.
    /// Key: tag, index u64. Value: log id, kind, payload.
    Log(u64),
    /// A row of the replicated state, rewritten whenever a command changed it.
    Row(Row),
}

/// A row of a table of [`crate::State`]. Values are messages of `state.proto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    /// One, written once. Key: tag. Value: `Cluster`.
    Cluster,
    /// One per node, deleted when it is removed. Key: tag, id u64. Value: `Node`.
    Node(u64),
    /// One per export, deleted with it. Key: tag, id u64. Value: `Export`.
    Export(u64),
    /// One per shard, rewritten on every checkpoint, deleted with its export.
    /// Key: tag, export u64, index u32. Value: `Shard`.
    Shard(ShardId),
    /// One per recorded loss, deleted with its export.
    /// Key: tag, export u64, index u32, number u64. Value: `Gap`.
    Gap(ShardId, u64),
}

const FORMAT: u8 = 0x00;
const VOTE: u8 = 0x01;
const PURGED: u8 = 0x02;
const COMMITTED: u8 = 0x03;
const APPLIED: u8 = 0x04;
const MEMBERSHIP: u8 = 0x05;
const LOG: u8 = 0x10;
const CLUSTER: u8 = 0x20;
const NODE: u8 = 0x21;
const EXPORT: u8 = 0x22;
const SHARD: u8 = 0x23;
const GAP: u8 = 0x24;

/// Behind the last log entry.
pub(crate) const LOG_END: [u8; 1] = [LOG + 1];
/// Before the first row.
pub(crate) const ROWS_START: [u8; 1] = [CLUSTER];
/// Behind the last row, with room for tables to come.
pub(crate) const ROWS_END: [u8; 1] = [0x40];

impl Key {
    /// The bytes of this key.
    pub(crate) fn encode(self) -> Vec<u8> {
        match self {
            Self::Format => vec![FORMAT],
            Self::Vote => vec![VOTE],
            Self::Purged => vec![PURGED],
            Self::Committed => vec![COMMITTED],
            Self::Applied => vec![APPLIED],
            Self::Membership => vec![MEMBERSHIP],
            Self::Log(index) => join(LOG, &[&index.to_be_bytes()]),
            Self::Row(Row::Cluster) => vec![CLUSTER],
            Self::Row(Row::Node(id)) => join(NODE, &[&id.to_be_bytes()]),
            Self::Row(Row::Export(id)) => join(EXPORT, &[&id.to_be_bytes()]),
            Self::Row(Row::Shard(shard)) => join(SHARD, &[&shard_bytes(shard)]),
            Self::Row(Row::Gap(shard, number)) => {
                join(GAP, &[&shard_bytes(shard), &number.to_be_bytes()])
            }
        }
    }

    /// The key with these bytes; `None` for bytes no key has.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&tag, rest) = bytes.split_first()?;
        let key = match tag {
            FORMAT => Self::Format,
            VOTE => Self::Vote,
            PURGED => Self::Purged,
            COMMITTED => Self::Committed,
            APPLIED => Self::Applied,
            MEMBERSHIP => Self::Membership,
            CLUSTER => Self::Row(Row::Cluster),
            LOG => return number(rest).map(Self::Log),
            NODE => return number(rest).map(|id| Self::Row(Row::Node(id))),
            EXPORT => return number(rest).map(|id| Self::Row(Row::Export(id))),
            SHARD => return shard(rest).map(|shard| Self::Row(Row::Shard(shard))),
            GAP => {
                let (head, tail) = rest.split_at_checked(SHARD_BYTES)?;
                return Some(Self::Row(Row::Gap(shard(head)?, number(tail)?)));
            }
            _ => return None,
        };
        rest.is_empty().then_some(key)
    }
}

/// As an operator reads it in an error.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format => f.write_str("the format"),
            Self::Vote => f.write_str("the vote"),
            Self::Purged => f.write_str("the last purged log id"),
            Self::Committed => f.write_str("the last committed log id"),
            Self::Applied => f.write_str("the last applied log id"),
            Self::Membership => f.write_str("the membership"),
            Self::Log(index) => write!(f, "log entry {index}"),
            Self::Row(Row::Cluster) => f.write_str("the cluster"),
            Self::Row(Row::Node(id)) => write!(f, "node {id}"),
            Self::Row(Row::Export(id)) => write!(f, "export {id}"),
            Self::Row(Row::Shard(shard)) => write!(f, "shard {shard}"),
            Self::Row(Row::Gap(shard, number)) => write!(f, "gap {number} of shard {shard}"),
        }
    }
}

const SHARD_BYTES: usize = 12;

fn join(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![tag];
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

fn shard_bytes(shard: ShardId) -> Vec<u8> {
    [shard.export_id.to_be_bytes().as_slice(), &shard.index.to_be_bytes()].concat()
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn shard(bytes: &[u8]) -> Option<ShardId> {
    let (export, index) = bytes.split_at_checked(8)?;
    let index = u32::from_be_bytes(index.try_into().ok()?);
    Some(ShardId { export_id: number(export)?, index })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = Key> {
        (0..12_u8, any::<u64>(), any::<u32>(), any::<u64>()).prop_map(
            |(kind, id, index, number)| {
                let shard = ShardId { export_id: id, index };
                match kind {
                    0 => Key::Format,
                    1 => Key::Vote,
                    2 => Key::Purged,
                    3 => Key::Committed,
                    4 => Key::Applied,
                    5 => Key::Membership,
                    6 => Key::Log(id),
                    7 => Key::Row(Row::Cluster),
                    8 => Key::Row(Row::Node(id)),
                    9 => Key::Row(Row::Export(id)),
                    10 => Key::Row(Row::Shard(shard)),
                    _ => Key::Row(Row::Gap(shard, number)),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn keys_survive_the_round_trip(key in any_key()) {
            prop_assert_eq!(Key::decode(&key.encode()), Some(key));
        }

        #[test]
        fn keys_lie_on_disk_in_their_order(one in any_key(), other in any_key()) {
            prop_assert_eq!(one.encode().cmp(&other.encode()), one.cmp(&other));
        }

        #[test]
        fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..32)) {
            if let Some(key) = Key::decode(&bytes) {
                prop_assert_eq!(key.encode(), bytes);
            }
        }

        #[test]
        fn rows_and_log_lie_within_their_bounds(key in any_key()) {
            let bytes = key.encode();
            let in_rows = bytes.as_slice() >= &ROWS_START[..] && bytes.as_slice() < &ROWS_END[..];
            prop_assert_eq!(in_rows, matches!(key, Key::Row(_)));
            let in_log = bytes >= Key::Log(0).encode() && bytes.as_slice() < &LOG_END[..];
            prop_assert_eq!(in_log, matches!(key, Key::Log(_)));
        }
    }
}
