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
        if out.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong { bytes: out.len() });
        }
        Ok(Self(out.into()))
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
        if self.0.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong { bytes: self.0.len() });
        }
        let (mut parts, mut rest) = (Vec::new(), &self.0[..]);
        while !rest.is_empty() {
            parts.push(take_part(&mut rest)?);
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
    pub fn write_json(&self, out: &mut Vec<u8>) -> Result<(), KeyError> {
        let parts = self.parts()?;
        if let [part] = parts.as_slice() {
            write_part(part, out);
            return Ok(());
        }
        out.push(b'[');
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_part(part, out);
        }
        out.push(b']');
        Ok(())
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
    for byte in bytes {
        out.push(*byte);
        if *byte == END {
            out.push(ESCAPED);
        }
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

fn take_part(rest: &mut &[u8]) -> Result<KeyPart, KeyError> {
    Ok(match take_byte(rest)? {
        NULL => KeyPart::Null,
        FALSE => KeyPart::Bool(false),
        TRUE => KeyPart::Bool(true),
        NUMBER => take_number(rest)?,
        BYTES => KeyPart::Bytes(take_escaped(rest)?),
        STRING => {
            let text = String::from_utf8(take_escaped(rest)?);
            KeyPart::String(text.map_err(|_| KeyError::Corrupt("text is not UTF-8"))?)
        }
        _ => return Err(KeyError::Corrupt("a part is of no known type")),
    })
}

fn take_escaped(rest: &mut &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut bytes = Vec::new();
    loop {
        let byte = take_byte(rest)?;
        if byte == END {
            if rest.first() != Some(&ESCAPED) {
                return Ok(bytes);
            }
            *rest = &rest[1..];
        }
        bytes.push(byte);
    }
}

fn take_number(rest: &mut &[u8]) -> Result<KeyPart, KeyError> {
    let wrong = KeyError::Corrupt("a number is not as numbers are written");
    let mask = match take_byte(rest)? {
        ZERO => return Ok(KeyPart::Number { unscaled: 0, scale: 0 }),
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
    Ok(KeyPart::Number { unscaled, scale })
}

fn take_byte(rest: &mut &[u8]) -> Result<u8, KeyError> {
    let (byte, behind) = rest.split_first().ok_or(KeyError::Corrupt("it ends early"))?;
    *rest = behind;
    Ok(*byte)
}

fn write_part(part: &KeyPart, out: &mut Vec<u8>) {
    match part {
        KeyPart::Null => out.extend_from_slice(b"null"),
        KeyPart::Bool(truth) => out.extend_from_slice(truth.to_string().as_bytes()),
        KeyPart::Number { unscaled, scale } => {
            let number = Decimal::from_parts(*unscaled, *scale).to_string();
            out.extend_from_slice(number.as_bytes());
        }
        KeyPart::Bytes(bytes) => write_binary(bytes, out),
        KeyPart::String(text) => write_string(text, out),
    }
}

#[cfg(test)]
mod tests;
