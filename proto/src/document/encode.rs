//! From a [`Value`] to its one Variant encoding.

use std::collections::BTreeSet;

use super::{
    BYTES_MAX, DEPTH_MAX, DocumentError, Encoded, NAMES_BYTES_MAX, TIMESTAMP_MICROS, Value,
};
use crate::decimal::DIGITS_MAX;

/// The encoding of a document: equal documents give equal bytes.
pub fn encode(document: &Value) -> Result<Encoded, DocumentError> {
    let mut names = Names::default();
    names.gather(document, 1)?;
    let names: Vec<_> = names.distinct.into_iter().collect();
    let dictionary = dictionary(&names);
    let mut writer = Writer { names: &names, out: Vec::new() };
    writer.write(document)?;
    sized(dictionary, writer.out)
}

/// A value that holds no other, lent.
#[derive(Clone, Copy, Debug)]
pub enum Plain<'a> {
    /// As [`Value::String`].
    String(&'a str),
    /// As [`Value::Binary`].
    Binary(&'a [u8]),
    /// As [`Value::Int`].
    Int(i64),
    /// As [`Value::TimestampMicros`].
    TimestampMicros(i64),
}

/// What [`encode`] makes of an object with these fields, which are sorted by their names,
/// each there once. Panics if they are not.
pub fn encode_plain<const FIELDS: usize>(
    fields: [(&str, Plain<'_>); FIELDS],
) -> Result<Encoded, DocumentError> {
    const HEAD_BYTES: usize = 32;
    let names = fields.map(|(name, _)| name);
    assert!(names.is_sorted_by(|one, next| one < next), "fields are sorted by their names");
    let dictionary = dictionary(&names);
    let bytes: usize = fields.iter().map(|(_, value)| HEAD_BYTES + value.bytes()).sum();
    let mut writer = Writer { names: &names, out: Vec::with_capacity(bytes) };
    let mut ends = [0; FIELDS];
    for (end, (_, value)) in ends.iter_mut().zip(fields) {
        writer.plain(value)?;
        *end = writer.out.len();
    }
    let mut head = Vec::with_capacity(HEAD_BYTES);
    push_object_head(&std::array::from_fn::<_, FIELDS, _>(|id| id), &ends, &mut head);
    writer.out.splice(0..0, head);
    sized(dictionary, writer.out)
}

fn sized(dictionary: Vec<u8>, value: Vec<u8>) -> Result<Encoded, DocumentError> {
    let bytes = dictionary.len() + value.len();
    if bytes > BYTES_MAX {
        return Err(DocumentError::TooLarge { bytes });
    }
    Ok(Encoded { dictionary, value })
}

impl From<Plain<'_>> for Value {
    fn from(plain: Plain<'_>) -> Self {
        match plain {
            Plain::String(text) => Self::String(text.to_owned()),
            Plain::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Plain::Int(whole) => Self::Int(whole),
            Plain::TimestampMicros(micros) => Self::TimestampMicros(micros),
        }
    }
}

impl Plain<'_> {
    /// Of its content.
    fn bytes(&self) -> usize {
        match self {
            Self::String(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
            Self::Int(_) | Self::TimestampMicros(_) => size_of::<i64>(),
        }
    }
}

/// The field names of a document, on the way to its dictionary.
#[derive(Default)]
struct Names<'a> {
    distinct: BTreeSet<&'a str>,
    bytes: usize,
}

impl<'a> Names<'a> {
    /// Visits `value`, which is the `depth`th from the document, both included.
    fn gather(&mut self, value: &'a Value, depth: usize) -> Result<(), DocumentError> {
        if depth >= DEPTH_MAX && matches!(value, Value::Array(_) | Value::Object(_)) {
            return Err(DocumentError::TooDeep);
        }
        if let Value::Array(members) = value {
            for member in members {
                self.gather(member, depth + 1)?;
            }
        }
        if let Value::Object(fields) = value {
            for (name, field) in fields {
                self.take(name)?;
                self.gather(field, depth + 1)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, name: &'a str) -> Result<(), DocumentError> {
        self.bytes += name.len();
        if self.bytes > NAMES_BYTES_MAX {
            return Err(DocumentError::TooManyNames);
        }
        self.distinct.insert(name);
        Ok(())
    }
}

/// Variant metadata: header, count, where each name starts, the names.
fn dictionary(names: &[&str]) -> Vec<u8> {
    const VERSION: u8 = 1;
    const SORTED: u8 = 1 << 4;
    let length: usize = names.iter().map(|name| name.len()).sum();
    let width = width(length.max(names.len()));
    let mut out = vec![VERSION | SORTED | (width - 1) << 6];
    push_number(&mut out, names.len(), width);
    push_number(&mut out, 0, width);
    let mut end = 0;
    for name in names {
        end += name.len();
        push_number(&mut out, end, width);
    }
    for name in names {
        out.extend_from_slice(name.as_bytes());
    }
    out
}

struct Writer<'a> {
    names: &'a [&'a str],
    out: Vec<u8>,
}

impl Writer<'_> {
    fn write(&mut self, value: &Value) -> Result<(), DocumentError> {
        match value {
            Value::Null => self.primitive(0, &[]),
            Value::Bool(true) => self.primitive(1, &[]),
            Value::Bool(false) => self.primitive(2, &[]),
            Value::Int(whole) => self.plain(Plain::Int(*whole))?,
            Value::Decimal { unscaled, scale } => self.decimal(*unscaled, *scale)?,
            Value::Double(number) => {
                let number = if number.is_nan() { f64::NAN } else { *number };
                self.primitive(7, &number.to_le_bytes());
            }
            Value::String(text) => self.plain(Plain::String(text))?,
            Value::Binary(bytes) => self.plain(Plain::Binary(bytes))?,
            Value::TimestampMicros(micros) => self.plain(Plain::TimestampMicros(*micros))?,
            Value::Array(members) => self.array(members)?,
            Value::Object(fields) => self.object(fields)?,
        }
        Ok(())
    }

    fn plain(&mut self, value: Plain<'_>) -> Result<(), DocumentError> {
        match value {
            Plain::String(text) => self.text(text),
            Plain::Binary(bytes) => self.long(15, bytes),
            Plain::Int(whole) => self.int(whole),
            Plain::TimestampMicros(micros) if !TIMESTAMP_MICROS.contains(&micros) => {
                return Err(DocumentError::Timestamp);
            }
            Plain::TimestampMicros(micros) => self.primitive(12, &micros.to_le_bytes()),
        }
        Ok(())
    }

    fn primitive(&mut self, kind: u8, bytes: &[u8]) {
        self.out.push(kind << 2);
        self.out.extend_from_slice(bytes);
    }

    fn long(&mut self, kind: u8, bytes: &[u8]) {
        self.out.push(kind << 2);
        push_number(&mut self.out, bytes.len(), 4);
        self.out.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        match u8::try_from(text.len()) {
            Ok(length) if length < 64 => {
                self.out.push(length << 2 | 1);
                self.out.extend_from_slice(text.as_bytes());
            }
            _ => self.long(16, text.as_bytes()),
        }
    }

    fn int(&mut self, whole: i64) {
        if let Ok(short) = i8::try_from(whole) {
            self.primitive(3, &short.to_le_bytes());
        } else if let Ok(short) = i16::try_from(whole) {
            self.primitive(4, &short.to_le_bytes());
        } else if let Ok(short) = i32::try_from(whole) {
            self.primitive(5, &short.to_le_bytes());
        } else {
            self.primitive(6, &whole.to_le_bytes());
        }
    }

    fn decimal(&mut self, unscaled: i128, scale: u8) -> Result<(), DocumentError> {
        let canonical = Value::fixed(unscaled, scale);
        let Value::Decimal { unscaled, scale } = canonical else {
            return self.write(&canonical);
        };
        let size = unscaled.unsigned_abs();
        let fits = |digits: u8| scale <= digits && size < 10_u128.pow(u32::from(digits));
        // A scale byte, then the unscaled number in 4, 8 or 16 bytes.
        let (kind, bytes) = match () {
            () if fits(9) => (8, 4),
            () if fits(18) => (9, 8),
            () if fits(DIGITS_MAX) => (10, 16),
            () => return Err(DocumentError::Decimal),
        };
        self.primitive(kind, &[scale]);
        self.out.extend_from_slice(&unscaled.to_le_bytes()[..bytes]);
        Ok(())
    }

    fn array(&mut self, members: &[Value]) -> Result<(), DocumentError> {
        let start = self.out.len();
        let mut ends = Vec::with_capacity(members.len());
        for member in members {
            self.write(member)?;
            ends.push(self.out.len() - start);
        }
        let wide = ends.len() > usize::from(u8::MAX);
        let end_width = width(ends.last().copied().unwrap_or(0));
        let mut head = vec![(u8::from(wide) << 2 | (end_width - 1)) << 2 | 3];
        push_number(&mut head, ends.len(), if wide { 4 } else { 1 });
        push_ends(&ends, &mut head);
        self.out.splice(start..start, head);
        Ok(())
    }

    fn object(&mut self, fields: &[(String, Value)]) -> Result<(), DocumentError> {
        let mut sorted: Vec<_> = fields.iter().collect();
        sorted.sort_by(|one, two| one.0.cmp(&two.0));
        let start = self.out.len();
        let (mut ids, mut ends) =
            (Vec::with_capacity(sorted.len()), Vec::with_capacity(sorted.len()));
        for (at, (name, field)) in sorted.iter().enumerate() {
            // Sorting is stable: the last of equal names stands last.
            if sorted.get(at + 1).is_some_and(|next| next.0 == *name) {
                continue;
            }
            let id = self.names.binary_search(&name.as_str());
            ids.push(id.expect("every name was gathered into the dictionary"));
            self.write(field)?;
            ends.push(self.out.len() - start);
        }
        let mut head = Vec::new();
        push_object_head(&ids, &ends, &mut head);
        self.out.splice(start..start, head);
        Ok(())
    }
}

/// Appends what an object has before its values: the numbers of its fields'
/// names, in the order of the names, and where each value ends, counted from
/// the first one's start.
pub fn push_object_head(ids: &[usize], ends: &[usize], out: &mut Vec<u8>) {
    let wide = ids.len() > usize::from(u8::MAX);
    let id_width = width(ids.iter().copied().max().unwrap_or(0));
    let end_width = width(ends.last().copied().unwrap_or(0));
    let shape = u8::from(wide) << 4 | (id_width - 1) << 2 | (end_width - 1);
    out.push(shape << 2 | 2);
    push_number(out, ids.len(), if wide { 4 } else { 1 });
    for id in ids {
        push_number(out, *id, id_width);
    }
    push_ends(ends, out);
}

fn push_ends(ends: &[usize], out: &mut Vec<u8>) {
    let width = width(ends.last().copied().unwrap_or(0));
    push_number(out, 0, width);
    for end in ends {
        push_number(out, *end, width);
    }
}

/// The fewest bytes that hold `number`, up to the four that Variant knows; what
/// needs more is over [`BYTES_MAX`] and refused in the end.
fn width(number: usize) -> u8 {
    match number {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xff_ffff => 3,
        _ => 4,
    }
}

fn push_number(out: &mut Vec<u8>, number: usize, width: u8) {
    out.extend_from_slice(&number.to_le_bytes()[..usize::from(width)]);
}
