//! Reads Variant bytes of any origin, without trusting them.
//!
//! `parquet-variant` reads too, but it follows offsets wherever they lead: bytes
//! in which the members of an array share one place, nested, cost it time that
//! is exponential in their size. Here no byte is read twice: every value is
//! charged for its bytes, and in the end they have to come out even.

use super::dictionary::{Dictionary, UNNAMED, number};
use super::{BYTES_MAX, DEPTH_MAX, DocumentError, NAMES_BYTES_MAX, TIMESTAMP_MICROS};
use crate::decimal::DIGITS_MAX;

/// Shorthand for results of this module.
type Result<T> = std::result::Result<T, DocumentError>;

/// A value, with what is in it still to be read.
#[derive(Clone, Copy, Debug)]
pub enum Node<'a> {
    /// There, but nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer of any width.
    Int(i64),
    /// `unscaled × 10^-scale`, as it was written.
    Decimal {
        /// All digits.
        unscaled: i128,
        /// How many of them stand behind the point.
        scale: u8,
    },
    /// A number of 32 bits; no encoding of ours has it.
    Float(f32),
    /// A number of 64 bits.
    Double(f64),
    /// Text.
    String(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
    /// Microseconds since 1970, within [`TIMESTAMP_MICROS`].
    TimestampMicros(i64),
    /// Values in order.
    Array(Members<'a>),
    /// Values with names.
    Object(Members<'a>),
}

/// What an array or object holds: read one after the other by the reader.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a> {
    /// How many there are.
    pub count: usize,
    /// The whole array or object.
    bytes: &'a [u8],
    depth: usize,
    /// Where in `bytes` the numbers of the names begin, where each value starts,
    /// and the values; how wide the numbers are.
    ids: usize,
    starts: usize,
    values: usize,
    id_width: u8,
    start_width: u8,
}

/// A value within another.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// What it is.
    pub node: Node<'a>,
    /// Its encoding. Sound only once all that is in it was read.
    pub bytes: &'a [u8],
}

/// Reads one document. Its values are checked as they are asked for, so the
/// whole is known to be sound when all were, and [`Reader::finish`] says so.
#[derive(Debug)]
pub struct Reader<'a> {
    dictionary: Dictionary<'a>,
    /// Bytes of the value that no value has been charged for.
    left: usize,
    names_left: usize,
}

impl<'a> Reader<'a> {
    /// A reader, and the document itself.
    pub fn open(dictionary: Dictionary<'a>, value: &'a [u8]) -> Result<(Self, Node<'a>)> {
        let bytes = dictionary.length + value.len();
        if bytes > BYTES_MAX {
            return Err(DocumentError::TooLarge { bytes });
        }
        let mut reader = Self { dictionary, left: value.len(), names_left: NAMES_BYTES_MAX };
        let node = reader.node(value, 1)?;
        Ok((reader, node))
    }

    /// The member at `index`; each is to be asked for once, in order.
    #[inline]
    pub fn member(&mut self, members: &Members<'a>, index: usize) -> Result<Member<'a>> {
        let bytes = members.from(index)?;
        let left = self.left;
        let node = self.node(bytes, members.depth + 1)?;
        let mut length = left - self.left;
        if let Node::Array(inner) | Node::Object(inner) = &node {
            length = inner.bytes.len();
        }
        Ok(Member { node, bytes: &bytes[..length] })
    }

    /// Where the dictionary has the name of the field at `index`, which has to
    /// stand behind the name of the field before it.
    #[inline]
    pub fn id(&self, members: &Members<'a>, index: usize) -> Result<usize> {
        let id = members.id(index)?;
        if id >= self.dictionary.count {
            return Err(UNNAMED);
        }
        if index > 0 && !self.dictionary.is_before(members.id(index - 1)?, id)? {
            return Err(DocumentError::Corrupt("an object's fields are not in order"));
        }
        Ok(id)
    }

    /// The name of the field at `index`, under the same condition.
    pub fn name(&mut self, members: &Members<'a>, index: usize) -> Result<&'a str> {
        let name = self.dictionary.name(self.id(members, index)?)?;
        self.names_left =
            self.names_left.checked_sub(name.len()).ok_or(DocumentError::TooManyNames)?;
        Ok(name)
    }

    /// Reads all that is in `node`, only to have it checked.
    pub fn check(&mut self, node: &Node<'a>) -> Result<()> {
        let (Node::Array(members) | Node::Object(members)) = node else { return Ok(()) };
        self.check_members(members)
    }

    /// The encoding of the member at `index`, after all of it was checked.
    pub fn skip(&mut self, members: &Members<'a>, index: usize) -> Result<&'a [u8]> {
        let bytes = members.from(index)?;
        let length = self.pass(bytes, members.depth + 1)?;
        Ok(&bytes[..length])
    }

    fn check_members(&mut self, members: &Members<'a>) -> Result<()> {
        for index in 0..members.count {
            if members.id_width > 0 {
                self.id(members, index)?;
            }
            self.pass(members.from(index)?, members.depth + 1)?;
        }
        Ok(())
    }

    /// Checks the value that `bytes` begin with; says how long it is. Makes no
    /// nodes of members: to move them costs more than to read them.
    fn pass(&mut self, bytes: &'a [u8], depth: usize) -> Result<usize> {
        let left = self.left;
        if let Node::Array(members) | Node::Object(members) = &self.node(bytes, depth)? {
            self.check_members(members)?;
            return Ok(members.bytes.len());
        }
        Ok(left - self.left)
    }

    /// To be called when all values have been read.
    pub fn finish(&self) -> Result<()> {
        match self.left {
            0 => Ok(()),
            _ => Err(DocumentError::Corrupt("there are bytes that belong to no value")),
        }
    }

    #[inline(always)]
    fn node(&mut self, bytes: &'a [u8], depth: usize) -> Result<Node<'a>> {
        let Some((head, rest)) = bytes.split_first() else { return Err(CUT) };
        let shape = head >> 2;
        Ok(match head & 3 {
            0 => {
                self.charge(1)?;
                self.primitive(shape, rest)?
            }
            1 => {
                self.charge(1)?;
                Node::String(utf8(self.take(rest, usize::from(shape))?)?)
            }
            2 => {
                let id_width = (shape >> 2 & 3) + 1;
                Node::Object(self.members(bytes, depth, (shape >> 4 & 1, id_width, shape & 3))?)
            }
            _ => Node::Array(self.members(bytes, depth, (shape >> 2 & 1, 0, shape & 3))?),
        })
    }

    /// `shape`: whether the count is wide, bytes per id, bytes per start less one.
    fn members(
        &mut self,
        bytes: &'a [u8],
        depth: usize,
        (wide, id_width, start_width): (u8, u8, u8),
    ) -> Result<Members<'a>> {
        if depth >= DEPTH_MAX {
            return Err(DocumentError::TooDeep);
        }
        let (start_width, count_width) = (start_width + 1, if wide == 1 { 4 } else { 1 });
        let count = number(bytes, 1, count_width).ok_or(CUT)?;
        let ids = 1 + usize::from(count_width);
        let starts = count.checked_mul(id_width.into()).and_then(|length| length.checked_add(ids));
        let ends = count.checked_add(1).and_then(|ends| ends.checked_mul(start_width.into()));
        let values = starts.zip(ends).and_then(|(starts, ends)| starts.checked_add(ends));
        let (starts, values) = starts.zip(values).ok_or(CUT)?;
        self.charge(values)?;
        let end = number(bytes, values - usize::from(start_width), start_width).ok_or(CUT)?;
        let bytes = bytes.get(..values + end).ok_or(BEYOND)?;
        Ok(Members { count, bytes, depth, ids, starts, values, id_width, start_width })
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
            14 => Node::Float(f32::from_le_bytes(self.array(bytes)?)),
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
        let length = number(bytes, 0, 4).ok_or(CUT)?;
        self.charge(4)?;
        self.take(&bytes[4..], length)
    }

    #[inline]
    fn array<const N: usize>(&mut self, bytes: &'a [u8]) -> Result<[u8; N]> {
        self.charge(N)?;
        let Some(taken) = bytes.first_chunk() else { return Err(CUT) };
        Ok(*taken)
    }

    #[inline]
    fn take(&mut self, bytes: &'a [u8], count: usize) -> Result<&'a [u8]> {
        self.charge(count)?;
        let Some(taken) = bytes.get(..count) else { return Err(CUT) };
        Ok(taken)
    }

    #[inline]
    fn charge(&mut self, bytes: usize) -> Result<()> {
        if bytes > self.left {
            return Err(DocumentError::Corrupt("two values share bytes"));
        }
        self.left -= bytes;
        Ok(())
    }
}

impl<'a> Members<'a> {
    #[inline]
    fn id(&self, index: usize) -> Result<usize> {
        let at = self.ids + index * usize::from(self.id_width);
        let id = number(&self.bytes[..self.starts], at, self.id_width);
        if let Some(id) = id { Ok(id) } else { Err(BEYOND) }
    }

    /// The bytes from the value at `index` on.
    #[inline]
    fn from(&self, index: usize) -> Result<&'a [u8]> {
        let at = self.starts + index * usize::from(self.start_width);
        let start = number(&self.bytes[..self.values], at, self.start_width);
        let bytes = start.and_then(|start| self.bytes.get(self.values + start..));
        if let Some(bytes) = bytes { Ok(bytes) } else { Err(BEYOND) }
    }
}

pub(super) const CUT: DocumentError = DocumentError::Corrupt("it ends early");
pub(super) const BEYOND: DocumentError = DocumentError::Corrupt("it points outside of itself");

fn timestamp<'a>(micros: i64) -> Result<Node<'a>> {
    let known = TIMESTAMP_MICROS.contains(&micros);
    if known { Ok(Node::TimestampMicros(micros)) } else { Err(DocumentError::Timestamp) }
}

pub(super) fn utf8(bytes: &[u8]) -> Result<&str> {
    str::from_utf8(bytes).map_err(|_| DocumentError::Corrupt("text is not UTF-8"))
}
