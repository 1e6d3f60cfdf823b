//! Documents: typed values and their one encoding as Parquet Variant.
//!
//! [`encode`] is canonical: equal documents give equal bytes, whatever the order
//! of their fields or the way their numbers were written. [`decode`],
//! [`write_json`] and the [`Reader`] below them take any sound Variant of the
//! types of [`Value`], and never panic on bytes that are none. What JSON or Variant have no type for travels
//! as [`tags`] say.

mod base64;
mod decode;
mod dictionary;
mod encode;
mod json;
mod parse;
mod reader;
pub mod tags;
mod time;

use std::fmt;
use std::ops::RangeInclusive;

use xxhash_rust::xxh3::Xxh3;

use crate::decimal::Decimal;

pub use decode::decode;
pub use dictionary::Dictionary;
pub use encode::{Plain, encode, encode_plain, push_object_head};
pub use json::write_json;
pub(crate) use json::{write_binary, write_string};
pub use parse::parse_json;
pub use reader::{Member, Members, Node, Reader};

/// Bytes a document may have encoded, dictionary and value together.
pub const BYTES_MAX: usize = 16 << 20;

/// Values on the way from the document to its innermost value, which is then a
/// scalar: 127 objects and arrays may be nested.
pub const DEPTH_MAX: usize = 128;

/// Bytes all field names may have, counted wherever they occur: the encoding
/// holds each name once, but what is made of it does not.
pub const NAMES_BYTES_MAX: usize = 64 << 20;

/// The times that other readers of Variant take, too: years -262143 to 262142.
pub const TIMESTAMP_MICROS: RangeInclusive<i64> =
    -8_334_601_228_800_000_000..=8_210_266_876_799_999_999;

/// A document or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// There, but nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number of 64 bits.
    Int(i64),
    /// `unscaled × 10^-scale`, at most 38 digits and 38 places. Encoded without
    /// zeros at its end, and as an integer if it is one: 1.10 is 1.1, 2.0 is 2.
    Decimal {
        /// All digits.
        unscaled: i128,
        /// How many of them stand behind the point.
        scale: u8,
    },
    /// A binary floating-point number. Every NaN is the same.
    Double(f64),
    /// Text.
    String(String),
    /// Bytes.
    Binary(Vec<u8>),
    /// Microseconds since 1970, UTC, within [`TIMESTAMP_MICROS`].
    TimestampMicros(i64),
    /// Values in order.
    Array(Vec<Self>),
    /// Fields in any order. Of two fields with one name the last counts.
    Object(Vec<(String, Self)>),
}

impl Value {
    /// The number that `text` writes, exactly: an integer, else a decimal, else
    /// a tagged object ([`tags::NUMBER`]). `None` if it is not a number.
    #[must_use]
    pub fn number(text: &str) -> Option<Self> {
        let number = Decimal::parse(text)?;
        Some(match number.to_fixed() {
            Some((unscaled, scale)) => Self::fixed(unscaled, scale),
            None => tags::tagged(tags::NUMBER, Self::String(number.to_string())),
        })
    }

    /// The canonical form of `unscaled × 10^-scale`.
    fn fixed(mut unscaled: i128, mut scale: u8) -> Self {
        while scale > 0 && unscaled % 10 == 0 {
            unscaled /= 10;
            scale -= 1;
        }
        match i64::try_from(unscaled) {
            Ok(whole) if scale == 0 => Self::Int(whole),
            _ => Self::Decimal { unscaled, scale },
        }
    }
}

/// A document as Variant has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Encoded {
    /// Variant metadata: the sorted, distinct field names of this document.
    pub dictionary: Vec<u8>,
    /// The Variant value.
    pub value: Vec<u8>,
}

/// Why something is no document. Holds nothing out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentError {
    /// More bytes than [`BYTES_MAX`].
    TooLarge {
        /// What it has.
        bytes: usize,
    },
    /// Nested beyond [`DEPTH_MAX`].
    TooDeep,
    /// Its field names, as often as they occur, exceed [`NAMES_BYTES_MAX`].
    TooManyNames,
    /// A decimal with more than 38 digits or places.
    Decimal,
    /// A time outside of [`TIMESTAMP_MICROS`].
    Timestamp,
    /// A Variant type that documents do not have.
    Type(&'static str),
    /// Bytes that are not a Variant; says where they go wrong.
    Corrupt(&'static str),
    /// Not JSON, or a tagged object that is not what its tag says.
    Json(String),
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes } => write!(
                f,
                "a document of {bytes} bytes is over the limit of {BYTES_MAX} bytes; split it"
            ),
            Self::TooDeep => {
                write!(f, "a document is nested deeper than the limit of {DEPTH_MAX} values")
            }
            Self::TooManyNames => write!(
                f,
                "a document's field names take more than the limit of {NAMES_BYTES_MAX} bytes; \
                 shorten them or split it"
            ),
            Self::Decimal => write!(
                f,
                "a decimal has more than 38 digits or places; write it as {{\"$number\": TEXT}}"
            ),
            Self::Timestamp => {
                write!(f, "a time is outside of the years -262143 to 262142; write it as a number")
            }
            Self::Type(name) => write!(f, "documents have no values of Variant type {name}"),
            Self::Corrupt(what) => write!(f, "not a Variant: {what}"),
            Self::Json(what) => write!(f, "not a JSON document: {what}"),
        }
    }
}

impl std::error::Error for DocumentError {}

/// Tells documents apart: xxh3-128, big endian, of the dictionary followed by
/// the value. Fixed for ever.
#[must_use]
pub fn content_hash(dictionary: &[u8], value: &[u8]) -> [u8; 16] {
    let mut hash = Xxh3::new();
    hash.update(dictionary);
    hash.update(value);
    hash.digest128().to_be_bytes()
}

#[cfg(test)]
mod tests;
