//! Reads Variant bytes of any origin, without trusting them.
//!
//! `parquet-variant` reads too, but it follows offsets wherever they lead: bytes
//! in which the members of an array share one place, nested, cost it time that
//! is exponential in their size. Here no byte is read twice: every value is
//! charged for its bytes, and in the end they have to come out even.

use super::{BYTES_MAX, DEPTH_MAX, DocumentError, NAMES_BYTES_MAX, TIMESTAMP_MICROS};
use crate::decimal::DIGITS_MAX;

/// Shorthand for results of this module.
type Result<T> = std::result::Result<T, DocumentError>;

/// A value, with what is in it still to be read.
pub(super) enum Node<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Decimal { unscaled: i128, scale: u8 },
    Double(f64),
    String(&'a str),
    Binary(&'a [u8]),
    TimestampMicros(i64),
    Array(Members<'a>),
    Object(Members<'a>),
}

/// What an array or object holds: `read` one after the other by the reader.
pub(super) struct Members<'a> {
    /// How many there are.
    pub(super) count: usize,
    depth: usize,
    ids: Numbers<'a>,
    starts: Numbers<'a>,
    values: &'a [u8],
}

/// Reads one document.
pub(super) struct Reader<'a> {
    dictionary: Dictionary<'a>,
    /// Bytes of the value that no value has been charged for.
    left: usize,
    names_left: usize,
}

impl<'a> Reader<'a> {
    /// A reader, and the document itself.
    pub(super) fn open(dictionary: &'a [u8], value: &'a [u8]) -> Result<(Self, Node<'a>)> {
        let bytes = dictionary.len() + value.len();
        if bytes > BYTES_MAX {
            return Err(DocumentError::TooLarge { bytes });
        }
        let dictionary = Dictionary::parse(dictionary)?;
        let mut reader = Self { dictionary, left: value.len(), names_left: NAMES_BYTES_MAX };
        let node = reader.node(value, 1)?;
        Ok((reader, node))
    }

    /// The member at `index`; each is to be asked for once, in order.
    pub(super) fn member(&mut self, members: &Members<'a>, index: usize) -> Result<Node<'a>> {
        let start = members.starts.get(index)?;
        let bytes = members.values.get(start..).ok_or(BEYOND)?;
        self.node(bytes, members.depth + 1)
    }

    /// The name of the field at `index`, which has to stand behind the name of
    /// the field before it.
    pub(super) fn name(&mut self, members: &Members<'a>, index: usize) -> Result<&'a str> {
        let name = self.dictionary.name(members.ids.get(index)?)?;
        if index > 0 && self.dictionary.name(members.ids.get(index - 1)?)? >= name {
            return Err(DocumentError::Corrupt("an object's fields are not in order"));
        }
        self.names_left =
            self.names_left.checked_sub(name.len()).ok_or(DocumentError::TooManyNames)?;
        Ok(name)
    }

    /// To be called when all values have been read.
    pub(super) fn finish(&self) -> Result<()> {
        match self.left {
            0 => Ok(()),
            _ => Err(DocumentError::Corrupt("there are bytes that belong to no value")),
        }
    }

    fn node(&mut self, bytes: &'a [u8], depth: usize) -> Result<Node<'a>> {
        let (head, rest) = bytes.split_first().ok_or(CUT)?;
        self.charge(1)?;
        let shape = head >> 2;
        match head & 3 {
            0 => self.primitive(shape, rest),
            1 => {
                let text = self.take(rest, usize::from(shape))?;
                Ok(Node::String(utf8(text)?))
            }
            2 => {
                let id_width = (shape >> 2 & 3) + 1;
                let members = self.members(rest, depth, (shape >> 4 & 1, id_width, shape & 3))?;
                Ok(Node::Object(members))
            }
            _ => Ok(Node::Array(self.members(rest, depth, (shape >> 2 & 1, 0, shape & 3))?)),
        }
    }

    /// `shape`: whether the count is wide, bytes per id, bytes per start less one.
    fn members(
        &mut self,
        bytes: &'a [u8],
        depth: usize,
        shape: (u8, u8, u8),
    ) -> Result<Members<'a>> {
        if depth >= DEPTH_MAX {
            return Err(DocumentError::TooDeep);
        }
        let (wide, id_width, start_width) = shape;
        let count_width = if wide == 1 { 4 } else { 1 };
        let (count, rest) = Numbers::split(bytes, 1, count_width)?;
        let count = count.get(0)?;
        let (ids, rest) = Numbers::split(rest, count, id_width)?;
        let (starts, values) = Numbers::split(rest, count + 1, start_width + 1)?;
        self.charge(bytes.len() - values.len())?;
        let values = values.get(..starts.get(count)?).ok_or(BEYOND)?;
        Ok(Members { count, depth, ids, starts, values })
    }

    fn primitive(&mut self, kind: u8, bytes: &'a [u8]) -> Result<Node<'a>> {
        Ok(match kind {
            0 => Node::Null,
            1 => Node::Bool(true),
            2 => Node::Bool(false),
            3 => Node::Int(i64::from(i8::from_le_bytes(self.array(bytes)?))),
            4 => Node::Int(i64::from(i16::from_le_bytes(self.array(bytes)?))),
            5 => Node::Int(i64::from(i32::from_le_bytes(self.array(bytes)?))),
            6 => Node::Int(i64::from_le_bytes(self.array(bytes)?)),
            7 => Node::Double(f64::from_le_bytes(self.array(bytes)?)),
            8..=10 => self.decimal(kind, bytes)?,
            12 => timestamp(i64::from_le_bytes(self.array(bytes)?))?,
            14 => Node::Double(f64::from(f32::from_le_bytes(self.array(bytes)?))),
            15 => Node::Binary(self.long(bytes)?),
            16 => Node::String(utf8(self.long(bytes)?)?),
            11 => return Err(DocumentError::Type("date")),
            13 => return Err(DocumentError::Type("timestamp without time zone")),
            17 => return Err(DocumentError::Type("time")),
            18 | 19 => return Err(DocumentError::Type("timestamp in nanoseconds")),
            20 => return Err(DocumentError::Type("uuid")),
            _ => return Err(DocumentError::Corrupt("a value is of no known type")),
        })
    }

    fn decimal(&mut self, kind: u8, bytes: &'a [u8]) -> Result<Node<'a>> {
        let [scale] = self.array(bytes)?;
        let rest = &bytes[1..];
        let (unscaled, digits) = match kind {
            8 => (i128::from(i32::from_le_bytes(self.array(rest)?)), 9),
            9 => (i128::from(i64::from_le_bytes(self.array(rest)?)), 18),
            _ => (i128::from_le_bytes(self.array(rest)?), DIGITS_MAX),
        };
        if scale > digits || unscaled.unsigned_abs() >= 10_u128.pow(u32::from(digits)) {
            return Err(DocumentError::Corrupt("a decimal has more digits than its type"));
        }
        Ok(Node::Decimal { unscaled, scale })
    }

    fn long(&mut self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let (length, rest) = Numbers::split(bytes, 1, 4)?;
        self.charge(4)?;
        self.take(rest, length.get(0)?)
    }

    fn array<const N: usize>(&mut self, bytes: &'a [u8]) -> Result<[u8; N]> {
        self.charge(N)?;
        bytes.first_chunk().copied().ok_or(CUT)
    }

    fn take(&mut self, bytes: &'a [u8], count: usize) -> Result<&'a [u8]> {
        self.charge(count)?;
        bytes.get(..count).ok_or(CUT)
    }

    fn charge(&mut self, bytes: usize) -> Result<()> {
        let short = DocumentError::Corrupt("two values share bytes");
        self.left = self.left.checked_sub(bytes).ok_or(short)?;
        Ok(())
    }
}

/// Variant metadata, all of whose names are sound.
struct Dictionary<'a> {
    ends: Numbers<'a>,
    names: &'a [u8],
}

impl<'a> Dictionary<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        let (head, rest) = bytes.split_first().ok_or(CUT)?;
        if head & 0x0f != 1 {
            return Err(DocumentError::Corrupt("the dictionary is not of version 1"));
        }
        let width = (head >> 6) + 1;
        let (count, rest) = Numbers::split(rest, 1, width)?;
        let count = count.get(0)?;
        let (ends, names) = Numbers::split(rest, count + 1, width)?;
        if ends.get(0)? != 0 || ends.get(count)? != names.len() {
            return Err(DocumentError::Corrupt("the dictionary's names do not fill it"));
        }
        let dictionary = Self { ends, names };
        let sorted = head & 0x10 != 0;
        let mut before = None;
        for id in 0..count {
            let name = Some(dictionary.name(id)?);
            if sorted && before >= name {
                return Err(DocumentError::Corrupt("the dictionary is not in order"));
            }
            before = name;
        }
        Ok(dictionary)
    }

    fn name(&self, id: usize) -> Result<&'a str> {
        let unknown = DocumentError::Corrupt("a field has a name that is not in the dictionary");
        let range = self.ends.get(id)?..self.ends.get(id + 1).map_err(|_| unknown)?;
        utf8(self.names.get(range).ok_or(BEYOND)?)
    }
}

/// Numbers of one width, one behind the other, little endian.
struct Numbers<'a> {
    bytes: &'a [u8],
    width: usize,
}

impl<'a> Numbers<'a> {
    /// Splits off the first `count` numbers of `width` bytes.
    fn split(bytes: &'a [u8], count: usize, width: u8) -> Result<(Self, &'a [u8])> {
        let width = usize::from(width);
        let length = count.checked_mul(width).ok_or(CUT)?;
        let (bytes, rest) = bytes.split_at_checked(length).ok_or(CUT)?;
        Ok((Self { bytes, width }, rest))
    }

    fn get(&self, index: usize) -> Result<usize> {
        let start = index.checked_mul(self.width).ok_or(BEYOND)?;
        let bytes = self.bytes.get(start..).and_then(|bytes| bytes.get(..self.width));
        let bytes = bytes.ok_or(BEYOND)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }
}

const CUT: DocumentError = DocumentError::Corrupt("it ends early");
const BEYOND: DocumentError = DocumentError::Corrupt("it points outside of itself");

fn timestamp<'a>(micros: i64) -> Result<Node<'a>> {
    let known = TIMESTAMP_MICROS.contains(&micros);
    if known { Ok(Node::TimestampMicros(micros)) } else { Err(DocumentError::Timestamp) }
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    str::from_utf8(bytes).map_err(|_| DocumentError::Corrupt("text is not UTF-8"))
}
