//! What is inside a position, a cursor and a shard's descriptor.
//!
//! All three lie in one envelope:
//!
//! ```text
//!   version (1)   crc32c (4, of the rest, big endian)   protobuf message
//! ```
//!
//! A position holds some 55 bytes for each open stream shard and 15 for each
//! one finished and still listed (a day's worth): below 1 KiB for a table of
//! ten partitions, some 160 KiB for one of a thousand.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use prost::Message;

use super::lineage::{Lineage, Place};
use super::sequence::SequenceNumber;
use crate::error::{Error, ErrorKind, Result};

const VERSION: u8 = 1;
/// What AWS puts before the time in a stream shard's id.
const ID_PREFIX: &str = "shardId-";
/// A packed id begins with how it was packed.
const PACKED: u8 = 0;
const PLAIN: u8 = 1;

/// Where a table's stream was read up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The stream's ARN; another one is another stream.
    pub(super) stream: String,
    pub(super) lineage: Lineage,
}

/// Where a segment's scan goes on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cursor {
    /// In how many segments the table is scanned: a cursor fits no other number.
    pub(super) segments: u32,
    /// The last key read.
    pub(super) last: HashMap<String, AttributeValue>,
}

/// What was found when the table was discovered; never changes afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) table: String,
    pub(super) stream: String,
    pub(super) partition_key: String,
    pub(super) sort_key: Option<String>,
    pub(super) segments: u32,
}

impl Descriptor {
    /// `Config` if the table, as it is found to be now, has keys of other attributes: items
    /// would get the keys of others.
    pub(super) fn check_key(&self, found: &Self) -> Result<()> {
        let names = |it: &Self| [Some(it.partition_key.clone()), it.sort_key.clone()];
        let (then, now) = (names(self), names(found));
        if then == now {
            return Ok(());
        }
        let text = |names: [Option<String>; 2]| names.into_iter().flatten().collect::<Vec<_>>();
        let why = format!(
            "dynamodb: the table was made anew with the key ({}), and had ({}) when the export was \
             created; delete the export and create it again",
            text(now).join(", "),
            text(then).join(", ")
        );
        Err(Error::new(ErrorKind::Config, why))
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct PositionMessage {
    #[prost(string, tag = "1")]
    stream: String,
    #[prost(message, repeated, tag = "2")]
    open: Vec<OpenMessage>,
    #[prost(bytes = "vec", repeated, tag = "3")]
    finished: Vec<Vec<u8>>,
    #[prost(bytes = "vec", tag = "4")]
    forgotten: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OpenMessage {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    /// Empty before the first record.
    #[prost(string, tag = "2")]
    after: String,
    /// Set only before the first record.
    #[prost(int64, tag = "3")]
    since_ms: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CursorMessage {
    #[prost(uint32, tag = "1")]
    segments: u32,
    #[prost(message, repeated, tag = "2")]
    parts: Vec<PartMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PartMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(oneof = "PartValue", tags = "2, 3, 4")]
    value: Option<PartValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum PartValue {
    #[prost(string, tag = "2")]
    Text(String),
    #[prost(string, tag = "3")]
    Number(String),
    #[prost(bytes = "vec", tag = "4")]
    Bytes(Vec<u8>),
}

#[derive(Clone, PartialEq, prost::Message)]
struct DescriptorMessage {
    #[prost(string, tag = "1")]
    table: String,
    #[prost(string, tag = "2")]
    stream: String,
    #[prost(string, tag = "3")]
    partition_key: String,
    #[prost(string, tag = "4")]
    sort_key: String,
    #[prost(uint32, tag = "5")]
    segments: u32,
}

impl Position {
    pub(super) fn encode(&self) -> Bytes {
        let (mut open, mut finished) = (Vec::new(), Vec::new());
        for (id, place) in self.lineage.places() {
            let id = pack(id);
            match place {
                Place::Horizon { since_ms } => {
                    open.push(OpenMessage { id, after: String::new(), since_ms: *since_ms });
                }
                Place::After(last) => {
                    open.push(OpenMessage { id, after: last.as_str().to_owned(), since_ms: 0 });
                }
                Place::Finished => finished.push(id),
            }
        }
        seal(&PositionMessage {
            stream: self.stream.clone(),
            open,
            finished,
            forgotten: pack(self.lineage.forgotten()),
        })
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let message: PositionMessage = unseal(bytes, "position")?;
        let mut places = BTreeMap::new();
        for open in &message.open {
            let place = match open.after.as_str() {
                "" => Place::Horizon { since_ms: open.since_ms },
                text => Place::After(SequenceNumber::parse(text).ok_or_else(|| bad("position"))?),
            };
            places.insert(unpack(&open.id)?, place);
        }
        for id in &message.finished {
            places.insert(unpack(id)?, Place::Finished);
        }
        let lineage = Lineage::restored(places, unpack(&message.forgotten)?);
        Ok(Self { stream: message.stream, lineage })
    }
}

impl Cursor {
    /// Fails only for a key of a type that no key has.
    #[expect(clippy::wildcard_enum_match_arm, reason = "AWS may add types")]
    pub(super) fn encode(&self) -> Result<Bytes> {
        let mut parts = Vec::with_capacity(self.last.len());
        for (name, value) in &self.last {
            let value = match value {
                AttributeValue::S(text) => PartValue::Text(text.clone()),
                AttributeValue::N(number) => PartValue::Number(number.clone()),
                AttributeValue::B(bytes) => PartValue::Bytes(bytes.as_ref().to_vec()),
                _ => return Err(bad("last key of a scan")),
            };
            parts.push(PartMessage { name: name.clone(), value: Some(value) });
        }
        parts.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(seal(&CursorMessage { segments: self.segments, parts }))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let message: CursorMessage = unseal(bytes, "cursor")?;
        let mut last = HashMap::new();
        for part in message.parts {
            let value = match part.value.ok_or_else(|| bad("cursor"))? {
                PartValue::Text(text) => AttributeValue::S(text),
                PartValue::Number(number) => AttributeValue::N(number),
                PartValue::Bytes(bytes) => AttributeValue::B(Blob::new(bytes)),
            };
            last.insert(part.name, value);
        }
        Ok(Self { segments: message.segments, last })
    }
}

impl Descriptor {
    pub(super) fn encode(&self) -> Bytes {
        seal(&DescriptorMessage {
            table: self.table.clone(),
            stream: self.stream.clone(),
            partition_key: self.partition_key.clone(),
            sort_key: self.sort_key.clone().unwrap_or_default(),
            segments: self.segments,
        })
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let message: DescriptorMessage = unseal(bytes, "shard descriptor")?;
        let sort_key = (!message.sort_key.is_empty()).then_some(message.sort_key);
        Ok(Self {
            table: message.table,
            stream: message.stream,
            partition_key: message.partition_key,
            sort_key,
            segments: message.segments,
        })
    }
}

fn seal(message: &impl Message) -> Bytes {
    let body = message.encode_to_vec();
    let mut out = Vec::with_capacity(5 + body.len());
    out.push(VERSION);
    out.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    out.extend_from_slice(&body);
    out.into()
}

fn unseal<M: Message + Default>(bytes: &[u8], what: &str) -> Result<M> {
    let Some((&VERSION, rest)) = bytes.split_first() else { return Err(bad(what)) };
    let (crc, body) = rest.split_first_chunk::<4>().ok_or_else(|| bad(what))?;
    if u32::from_be_bytes(*crc) != crc32c::crc32c(body) {
        return Err(bad(what));
    }
    M::decode(body).map_err(|_| bad(what))
}

fn bad(what: &str) -> Error {
    let why = format!("the stored dynamodb {what} does not decode; restore a checkpoint backup");
    Error::new(ErrorKind::Corrupt, why)
}

/// `shardId-`, 20 digits, `-`, 8 hex digits take 13 bytes; other ids stay text.
fn pack(id: &str) -> Vec<u8> {
    if let Some((time, hash)) = split(id) {
        let mut packed = vec![PACKED];
        packed.extend_from_slice(&time.to_be_bytes());
        packed.extend_from_slice(&hash.to_be_bytes());
        return packed;
    }
    let mut plain = vec![PLAIN];
    plain.extend_from_slice(id.as_bytes());
    plain
}

fn unpack(bytes: &[u8]) -> Result<String> {
    let text = match bytes.split_first() {
        Some((&PACKED, rest)) => rest.split_first_chunk::<8>().and_then(|(time, hash)| {
            let hash = u32::from_be_bytes(hash.try_into().ok()?);
            Some(join(u64::from_be_bytes(*time), hash))
        }),
        Some((&PLAIN, rest)) => String::from_utf8(rest.to_vec()).ok(),
        _ => None,
    };
    text.ok_or_else(|| bad("position"))
}

fn split(id: &str) -> Option<(u64, u32)> {
    let (time, hash) = id.strip_prefix(ID_PREFIX)?.split_once('-')?;
    let parts = (time.parse().ok()?, u32::from_str_radix(hash, 16).ok()?);
    (join(parts.0, parts.1) == id).then_some(parts)
}

fn join(time: u64, hash: u32) -> String {
    format!("{ID_PREFIX}{time:020}-{hash:08x}")
}

#[cfg(test)]
#[path = "token/tests.rs"]
mod tests;
