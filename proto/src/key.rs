//! Keys as bytes whose order is the order of the keys.
//!
//! An encoded key is its parts, one behind the other, each a tag and a body:
//!
//! | part    | tag          | body                                                         |
//! | ------- | ------------ | ------------------------------------------------------------ |
//! | null    | `10`         | none                                                         |
//! | boolean | `20`, `21`   | none; false, true                                            |
//! | number  | `30`         | `02` for zero; else `03` and its size; below zero `01` and all bytes of its size inverted |
//! | bytes   | `40`         | as they are, `00` as `00 ff`; then `00`                      |
//! | string  | `50`         | UTF-8, `00` as `00 ff`; then `00`                            |
//!
//! A number's size is the power of ten in `0.DIGITS × 10^power` (u16, big
//! endian, plus 2^15), its digits in pairs, each pair plus one, and `00`. An odd
//! last digit is paired with 0. Digits have no zeros at either end, so equal
//! numbers have equal bytes: `1`, `1.0`, `1e0`.
//!
//! Keys of equal types order as their parts do; a key comes before one that has
//! further parts. Layout and hash are fixed for ever: stored data rests on them.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::decimal::{DIGITS_MAX, Decimal};
use crate::document::{write_binary, write_string};

/// Bytes a key may have encoded: the longest of DynamoDB, 2048 and 1024 bytes,
/// fits even if all of them are escaped.
pub const KEY_BYTES_MAX: usize = 8192;

const NULL: u8 = 0x10;
const FALSE: u8 = 0x20;
const TRUE: u8 = 0x21;
const NUMBER: u8 = 0x30;
const BYTES: u8 = 0x40;
const STRING: u8 = 0x50;

const BELOW_ZERO: u8 = 1;
const ZERO: u8 = 2;
const ABOVE_ZERO: u8 = 3;

const CUT: KeyError = KeyError::Corrupt("it ends early");
const END: u8 = 0;
/// Behind a 0 that is not the end. Above every tag, so that a string with a 0
/// comes after the same string without, whatever part follows.
const ESCAPED: u8 = 0xff;

/// A document's key, encoded. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

/// One part of a key: most stores have one, DynamoDB and tables up to several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// There, but nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// `unscaled × 10^-scale`, at most 38 digits. Comes back from a key without
    /// zeros at the end of `unscaled`.
    Number {
        /// All digits.
        unscaled: i128,
        /// How many stand behind the point; below 0, how many zeros follow.
        scale: i16,
    },
    /// Bytes.
    Bytes(Vec<u8>),
    /// Text.
    String(String),
}

/// Why something is no key. Holds nothing out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// More bytes than [`KEY_BYTES_MAX`].
    TooLong {
        /// What it has, encoded.
        bytes: usize,
    },
    /// A number with more than 38 digits, or text that is no number.
    Number,
    /// Bytes that are not an encoded key; says where they go wrong.
    Corrupt(&'static str),
}

impl Key {
    /// The key that has these parts.
    pub fn encode(parts: &[KeyPart]) -> Result<Self, KeyError> {
        let mut out = Vec::new();
        for part in parts {
            push_part(part, &mut out)?;
        }
        Self::of(out)
    }

    /// The key whose one part is this text.
    pub fn string(text: &str) -> Result<Self, KeyError> {
        Self::one(STRING, text.as_bytes())
    }

    /// The key whose one part are these bytes.
    pub fn bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::one(BYTES, bytes)
    }

    fn one(tag: u8, bytes: &[u8]) -> Result<Self, KeyError> {
        // Exactly as many, unless some are escaped.
        let mut out = Vec::with_capacity(bytes.len() + 2);
        push_escaped(tag, bytes, &mut out);
        Self::of(out)
    }

    fn of(encoded: Vec<u8>) -> Result<Self, KeyError> {
        bounded(&encoded)?;
        Ok(Self(encoded.into()))
    }

    /// A key out of a batch or off a disk; [`Key::parts`] says whether it is one.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The key encoded.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key encoded, sharing its memory.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// What the key consists of, all of it checked.
    pub fn parts(&self) -> Result<Vec<KeyPart>, KeyError> {
        let (mut parts, mut rest) = (Vec::new(), bounded(&self.0)?);
        while !rest.is_empty() {
            parts.push(take_part(&mut rest)?.into_owned());
        }
        Ok(parts)
    }

    /// Spreads keys evenly: xxh3-64 of the encoded key, seed 0. Fixed for ever.
    #[must_use]
    pub fn hash(&self) -> u64 {
        xxh3_64(&self.0)
    }

    /// Appends the key as JSON: its part, or an array if it has several or none.
    /// Bytes as [`tags::BINARY`](crate::document::tags::BINARY).
    /// On error `out` is as it was.
    pub fn write_json(&self, out: &mut Vec<u8>) -> Result<(), KeyError> {
        let start = out.len();
        let written = write_parts(&self.0, out);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The key as JSON, or a note that it is none. For people who may see the data;
/// not for logs and errors.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut json = Vec::new();
        match self.write_json(&mut json) {
            Ok(()) => f.write_str(&String::from_utf8_lossy(&json)),
            Err(_) => f.write_str("(not a key)"),
        }
    }
}

impl KeyPart {
    /// The part that is the number `text` writes, as DynamoDB has them.
    pub fn number(text: &str) -> Result<Self, KeyError> {
        let parts = Decimal::parse(text).and_then(|number| number.to_parts());
        let (unscaled, scale) = parts.ok_or(KeyError::Number)?;
        Ok(Self::Number { unscaled, scale })
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => write!(
                f,
                "a key of {bytes} bytes is over the limit of {KEY_BYTES_MAX} bytes; shorten it"
            ),
            Self::Number => write!(
                f,
                "a number in a key has more than {DIGITS_MAX} digits or is none; use a string"
            ),
            Self::Corrupt(what) => write!(f, "not an encoded key: {what}"),
        }
    }
}

impl std::error::Error for KeyError {}

fn push_part(part: &KeyPart, out: &mut Vec<u8>) -> Result<(), KeyError> {
    match part {
        KeyPart::Null => out.push(NULL),
        KeyPart::Bool(truth) => out.push(if *truth { TRUE } else { FALSE }),
        KeyPart::Number { unscaled, scale } => {
            out.push(NUMBER);
            push_number(&Decimal::from_parts(*unscaled, *scale), out)?;
        }
        KeyPart::Bytes(bytes) => push_escaped(BYTES, bytes, out),
        KeyPart::String(text) => push_escaped(STRING, text.as_bytes(), out),
    }
    Ok(())
}

fn push_escaped(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    if bytes.contains(&END) {
        for byte in bytes {
            out.push(*byte);
            if *byte == END {
                out.push(ESCAPED);
            }
        }
    } else {
        out.extend_from_slice(bytes);
    }
    out.push(END);
}

fn push_number(number: &Decimal, out: &mut Vec<u8>) -> Result<(), KeyError> {
    // What does not come back is refused: too many digits, or no `i16` of a scale.
    number.to_parts().ok_or(KeyError::Number)?;
    if number.digits().is_empty() {
        out.push(ZERO);
        return Ok(());
    }
    let power = i16::try_from(number.power()).map_err(|_| KeyError::Number)?;
    out.push(if number.is_negative() { BELOW_ZERO } else { ABOVE_ZERO });
    let size = out.len();
    // Flipping the sign bit is adding 2^15.
    out.extend_from_slice(&(power ^ i16::MIN).to_be_bytes());
    for pair in number.digits().chunks(2) {
        let low = pair.get(1).map_or(0, |digit| digit - b'0');
        out.push((pair[0] - b'0') * 10 + low + 1);
    }
    out.push(END);
    if number.is_negative() {
        out[size..].iter_mut().for_each(|byte| *byte = !*byte);
    }
    Ok(())
}

/// A part as it stands in a key; lends what it can.
enum Part<'a> {
    Null,
    Bool(bool),
    Number { unscaled: i128, scale: i16 },
    Bytes(Cow<'a, [u8]>),
    String(Cow<'a, str>),
}

impl Part<'_> {
    fn into_owned(self) -> KeyPart {
        match self {
            Self::Null => KeyPart::Null,
            Self::Bool(truth) => KeyPart::Bool(truth),
            Self::Number { unscaled, scale } => KeyPart::Number { unscaled, scale },
            Self::Bytes(bytes) => KeyPart::Bytes(bytes.into_owned()),
            Self::String(text) => KeyPart::String(text.into_owned()),
        }
    }
}

fn bounded(key: &[u8]) -> Result<&[u8], KeyError> {
    let fits = key.len() <= KEY_BYTES_MAX;
    fits.then_some(key).ok_or(KeyError::TooLong { bytes: key.len() })
}

fn take_part<'a>(rest: &mut &'a [u8]) -> Result<Part<'a>, KeyError> {
    Ok(match take_byte(rest)? {
        NULL => Part::Null,
        FALSE => Part::Bool(false),
        TRUE => Part::Bool(true),
        NUMBER => take_number(rest)?,
        BYTES => Part::Bytes(take_escaped(rest)?),
        STRING => {
            let text = match take_escaped(rest)? {
                Cow::Borrowed(bytes) => str::from_utf8(bytes).ok().map(Cow::Borrowed),
                Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
            };
            Part::String(text.ok_or(KeyError::Corrupt("text is not UTF-8"))?)
        }
        _ => return Err(KeyError::Corrupt("a part is of no known type")),
    })
}

/// Nearly always there is nothing escaped, and the bytes can be lent.
fn take_escaped<'a>(rest: &mut &'a [u8]) -> Result<Cow<'a, [u8]>, KeyError> {
    let mut bytes = Cow::Borrowed(&[][..]);
    loop {
        let end = rest.iter().position(|byte| *byte == END).ok_or(CUT)?;
        let (piece, behind) = rest.split_at(end);
        if bytes.is_empty() {
            bytes = Cow::Borrowed(piece);
        } else {
            bytes.to_mut().extend_from_slice(piece);
        }
        *rest = &behind[1..];
        if rest.first() != Some(&ESCAPED) {
            return Ok(bytes);
        }
        *rest = &rest[1..];
        bytes.to_mut().push(END);
    }
}

fn take_number<'a>(rest: &mut &[u8]) -> Result<Part<'a>, KeyError> {
    let wrong = KeyError::Corrupt("a number is not as numbers are written");
    let mask = match take_byte(rest)? {
        ZERO => return Ok(Part::Number { unscaled: 0, scale: 0 }),
        BELOW_ZERO => 0xff,
        ABOVE_ZERO => 0,
        _ => return Err(wrong),
    };
    let power = [take_byte(rest)? ^ mask, take_byte(rest)? ^ mask];
    let power = i16::from_be_bytes(power) ^ i16::MIN;
    let mut digits = Vec::new();
    loop {
        match take_byte(rest)? ^ mask {
            END => break,
            pair @ 1..=100 => digits.extend([(pair - 1) / 10 + b'0', (pair - 1) % 10 + b'0']),
            _ => return Err(wrong),
        }
    }
    let number = Decimal::trimmed(mask != 0, &digits, i64::from(power)).ok_or(wrong)?;
    let (unscaled, scale) = number.to_parts().ok_or(wrong)?;
    // One number, one encoding: anything else would be a second key for it.
    let trimmed = number.digits().len();
    if number.power() != i32::from(power) || digits.len() != trimmed.next_multiple_of(2) {
        return Err(wrong);
    }
    Ok(Part::Number { unscaled, scale })
}

fn take_byte(rest: &mut &[u8]) -> Result<u8, KeyError> {
    let (byte, behind) = rest.split_first().ok_or(CUT)?;
    *rest = behind;
    Ok(*byte)
}

fn write_parts(key: &[u8], out: &mut Vec<u8>) -> Result<(), KeyError> {
    let (start, mut rest) = (out.len(), bounded(key)?);
    let mut count = 0;
    while !rest.is_empty() {
        out.push(if count == 0 { b'[' } else { b',' });
        write_part(&take_part(&mut rest)?, out);
        count += 1;
    }
    match count {
        0 => out.extend_from_slice(b"[]"),
        1 => drop(out.remove(start)),
        _ => out.push(b']'),
    }
    Ok(())
}

fn write_part(part: &Part<'_>, out: &mut Vec<u8>) {
    match part {
        Part::Null => out.extend_from_slice(b"null"),
        Part::Bool(truth) => out.extend_from_slice(truth.to_string().as_bytes()),
        Part::Number { unscaled, scale } => {
            let number = Decimal::from_parts(*unscaled, *scale).to_string();
            out.extend_from_slice(number.as_bytes());
        }
        Part::Bytes(bytes) => write_binary(bytes, out),
        Part::String(text) => write_string(text, out),
    }
}

#[cfg(test)]
mod tests;
