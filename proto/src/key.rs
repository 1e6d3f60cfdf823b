//! Keys of documents: one byte string that sorts as the key does.

use std::fmt;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::decimal::Decimal;
use crate::document::{write_binary, write_string};

/// Bytes a key may have encoded.
pub const KEY_BYTES_MAX: usize = 4096;

/// One part of a key: most keys have one, DynamoDB's up to two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A number, exact. Equal numbers are equal keys: 1 and 1.0.
    Number(Decimal),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Text; may hold NUL.
    String(String),
}

/// An encoded key. Byte order is key order within a type of part; the types
/// sort as they stand in [`KeyPart`].
///
/// ```text
///   null    10
///   bool    20 false   21 true
///   number  30 then    00 ~power ~digits ff   negative
///                      01                     zero
///                      02 power digits 00     positive
///   bytes   40 then the bytes, 00 as 00 ff, closed by 00 01
///   string  50 the same, UTF-8
/// ```
///
/// `power` is the number's power of ten as a biased u32, big endian; `digits`
/// are one byte each, 1 to 10; `~` inverts every bit. On disk, fixed for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

const NULL: u8 = 0x10;
const FALSE: u8 = 0x20;
const TRUE: u8 = 0x21;
const NUMBER: u8 = 0x30;
const BYTES: u8 = 0x40;
const STRING: u8 = 0x50;

const NEGATIVE: u8 = 0;
const ZERO: u8 = 1;
const POSITIVE: u8 = 2;

const ESCAPED: u8 = 0xff;
const CLOSED: u8 = 0x01;

impl Key {
    /// The key of these parts, at least one. Fails beyond [`KEY_BYTES_MAX`].
    pub fn encode(parts: &[KeyPart]) -> Result<Self, KeyError> {
        let mut out = Vec::with_capacity(32);
        for part in parts {
            match part {
                KeyPart::Null => out.push(NULL),
                KeyPart::Bool(value) => out.push(if *value { TRUE } else { FALSE }),
                KeyPart::Number(number) => put_number(number, &mut out),
                KeyPart::Bytes(bytes) => put_text(BYTES, bytes, &mut out),
                KeyPart::String(text) => put_text(STRING, text.as_bytes(), &mut out),
            }
        }
        if out.is_empty() {
            return Err(KeyError::Empty);
        }
        if out.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLarge { bytes: out.len() });
        }
        Ok(Self(out.into()))
    }

    /// Takes bytes that [`Key::encode`] made; they are looked at when read.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Its bytes, as in [`crate::v1::Change`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Spreads keys evenly: xxh3-64 with seed 0, fixed for ever.
    #[must_use]
    pub fn hash(&self) -> u64 {
        xxh3_64(&self.0)
    }

    /// What it was made of.
    pub fn parts(&self) -> Result<Vec<KeyPart>, KeyError> {
        let mut rest = &self.0[..];
        let mut parts = Vec::new();
        while let Some((tag, behind)) = rest.split_first() {
            let (part, behind) = take_part(*tag, behind).ok_or(KeyError::Corrupt)?;
            parts.push(part);
            rest = behind;
        }
        if parts.is_empty() { Err(KeyError::Corrupt) } else { Ok(parts) }
    }

    /// Appends it as JSON: a key of one part as that value, others as an array.
    /// Bytes are `{"$binary": base64}`.
    pub fn write_json(&self, out: &mut Vec<u8>) -> Result<(), KeyError> {
        let parts = self.parts()?;
        if let [part] = &parts[..] {
            write_part(part, out);
            return Ok(());
        }
        for (at, part) in parts.iter().enumerate() {
            out.push(if at == 0 { b'[' } else { b',' });
            write_part(part, out);
        }
        out.push(b']');
        Ok(())
    }
}

fn put_text(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    for byte in bytes {
        out.push(*byte);
        if *byte == 0 {
            out.push(ESCAPED);
        }
    }
    out.extend_from_slice(&[0, CLOSED]);
}

fn put_number(number: &Decimal, out: &mut Vec<u8>) {
    out.push(NUMBER);
    if number.digits().is_empty() {
        out.push(ZERO);
        return;
    }
    let mut body = Vec::with_capacity(8 + number.digits().len());
    let biased = number.power().cast_unsigned() ^ (1 << 31);
    body.extend_from_slice(&biased.to_be_bytes());
    body.extend(number.digits().iter().map(|digit| digit - b'0' + 1));
    body.push(0);
    if number.is_negative() {
        out.push(NEGATIVE);
        out.extend(body.iter().map(|byte| !byte));
    } else {
        out.push(POSITIVE);
        out.extend_from_slice(&body);
    }
}

fn take_part(tag: u8, rest: &[u8]) -> Option<(KeyPart, &[u8])> {
    match tag {
        NULL => Some((KeyPart::Null, rest)),
        FALSE => Some((KeyPart::Bool(false), rest)),
        TRUE => Some((KeyPart::Bool(true), rest)),
        NUMBER => take_number(rest).map(|(number, rest)| (KeyPart::Number(number), rest)),
        BYTES => take_text(rest).map(|(bytes, rest)| (KeyPart::Bytes(bytes), rest)),
        STRING => {
            let (bytes, rest) = take_text(rest)?;
            Some((KeyPart::String(String::from_utf8(bytes).ok()?), rest))
        }
        _ => None,
    }
}

fn take_text(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut text = Vec::new();
    let mut at = 0;
    loop {
        match (bytes.get(at)?, bytes.get(at + 1)) {
            (0, Some(&ESCAPED)) => {
                text.push(0);
                at += 2;
            }
            (0, Some(&CLOSED)) => return Some((text, &bytes[at + 2..])),
            (0, _) => return None,
            (byte, _) => {
                text.push(*byte);
                at += 1;
            }
        }
    }
}

fn take_number(bytes: &[u8]) -> Option<(Decimal, &[u8])> {
    let (sign, rest) = bytes.split_first()?;
    let flip = match *sign {
        ZERO => return Some((Decimal::default(), rest)),
        POSITIVE => 0,
        NEGATIVE => 0xff,
        _ => return None,
    };
    let (power, rest) = rest.split_first_chunk::<4>()?;
    let biased = u32::from_be_bytes(power.map(|byte| byte ^ flip));
    let power = (biased ^ (1 << 31)).cast_signed();
    let end = rest.iter().position(|byte| byte ^ flip == 0)?;
    let mut digits = Vec::with_capacity(end);
    for byte in &rest[..end] {
        let digit = (byte ^ flip).checked_sub(1).filter(|digit| *digit < 10)?;
        digits.push(b'0' + digit);
    }
    let number = Decimal::trimmed(flip != 0, &digits, i64::from(power))?;
    // Bytes that no number encodes to are not a key.
    (number.digits() == digits && !digits.is_empty()).then_some((number, &rest[end + 1..]))
}

fn write_part(part: &KeyPart, out: &mut Vec<u8>) {
    match part {
        KeyPart::Null => out.extend_from_slice(b"null"),
        KeyPart::Bool(value) => out.extend_from_slice(value.to_string().as_bytes()),
        KeyPart::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        KeyPart::Bytes(bytes) => write_binary(bytes, out),
        KeyPart::String(text) => write_string(text, out),
    }
}

/// Why parts are not a key, or bytes are not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// No parts.
    Empty,
    /// Beyond [`KEY_BYTES_MAX`].
    TooLarge {
        /// What it has.
        bytes: usize,
    },
    /// Bytes that [`Key::encode`] did not make.
    Corrupt,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "a key needs at least one part"),
            Self::TooLarge { bytes } => {
                write!(f, "a key of {bytes} bytes is over the limit of {KEY_BYTES_MAX} bytes")
            }
            Self::Corrupt => write!(f, "not an encoded key"),
        }
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Key {
        Key::encode(&[KeyPart::Number(Decimal::parse(text).unwrap())]).unwrap()
    }

    fn decimals() -> impl Strategy<Value = Decimal> {
        (any::<i64>(), -140..140i16).prop_map(|(n, scale)| Decimal::from_parts(n.into(), scale))
    }

    fn parts() -> impl Strategy<Value = KeyPart> {
        prop_oneof![
            Just(KeyPart::Null),
            any::<bool>().prop_map(KeyPart::Bool),
            decimals().prop_map(KeyPart::Number),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(KeyPart::Bytes),
            "\\PC{0,9}".prop_map(KeyPart::String),
        ]
    }

    #[test]
    fn numbers_sort_as_numbers() {
        let sorted = ["-1e9", "-10", "-3", "-1.5", "-1e-130", "0", "1e-130", "1", "1.5", "10", "1e125"];
        for pair in sorted.windows(2) {
            assert!(number(pair[0]) < number(pair[1]), "{} < {}", pair[0], pair[1]);
        }
        assert_eq!(number("1"), number("1.0"));
    }

    #[test]
    fn a_key_of_many_parts_is_an_array() {
        let parts = [KeyPart::String("a\0\"".to_owned()), KeyPart::Bytes(vec![1, 2])];
        let mut json = Vec::new();
        Key::encode(&parts).unwrap().write_json(&mut json).unwrap();
        assert_eq!(String::from_utf8(json).unwrap(), r#"["a\u0000\"",{"$binary":"AQI="}]"#);
    }

    #[test]
    fn a_key_over_the_limit_says_so() {
        let error = Key::encode(&[KeyPart::String("x".repeat(5000))]).unwrap_err();
        assert!(error.to_string().contains("4096"));
        assert_eq!(Key::encode(&[]), Err(KeyError::Empty));
    }

    proptest! {
        #[test]
        fn a_key_comes_back(parts in proptest::collection::vec(parts(), 1..4)) {
            prop_assert_eq!(Key::encode(&parts).unwrap().parts().unwrap(), parts);
        }

        #[test]
        fn byte_order_is_number_order(a in decimals(), b in decimals()) {
            let key = |number: &Decimal| Key::encode(&[KeyPart::Number(number.clone())]).unwrap();
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
        }

        #[test]
        fn byte_order_is_text_order(a in ".*", b in ".*") {
            let key = |text: &str| Key::encode(&[KeyPart::String(text.to_owned())]).unwrap();
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.as_bytes().cmp(b.as_bytes()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let key = Key::from_bytes(bytes.into());
            if let Ok(parts) = key.parts() {
                prop_assert_eq!(Key::encode(&parts).unwrap(), key);
            }
        }
    }
}
