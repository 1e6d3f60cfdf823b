//! The names that a Variant's objects point to.

use std::cmp::Ordering;

use super::DocumentError;
use super::reader::{BEYOND, CUT, utf8};

/// Shorthand for results of this module.
type Result<T> = std::result::Result<T, DocumentError>;

pub(super) const UNNAMED: DocumentError =
    DocumentError::Corrupt("a field has a name that is not in the dictionary");

/// Variant metadata, all of whose names are sound. Cheap to copy: documents of
/// one dictionary need it parsed but once.
#[derive(Clone, Copy, Debug)]
pub struct Dictionary<'a> {
    /// How many names it has; they are numbered from 0.
    pub count: usize,
    /// The names stand in order, each but once.
    pub sorted: bool,
    pub(super) length: usize,
    /// Where each name ends, as numbers of `width` bytes; a 0 before the first.
    ends: &'a [u8],
    width: u8,
    names: &'a [u8],
}

impl<'a> Dictionary<'a> {
    /// Checks `bytes` and takes them as a dictionary.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let (head, rest) = bytes.split_first().ok_or(CUT)?;
        if head & 0x0f != 1 {
            return Err(DocumentError::Corrupt("the dictionary is not of version 1"));
        }
        let width = (head >> 6) + 1;
        let count = number(rest, 0, width).ok_or(CUT)?;
        let rest = &rest[usize::from(width)..];
        let length = count.checked_add(1).and_then(|ends| ends.checked_mul(width.into()));
        let (ends, names) = length.and_then(|at| rest.split_at_checked(at)).ok_or(CUT)?;
        let sorted = head & 0x10 != 0;
        let dictionary = Self { count, sorted, length: bytes.len(), ends, width, names };
        if dictionary.end(0)? != 0 || dictionary.end(count)? != names.len() {
            return Err(DocumentError::Corrupt("the dictionary's names do not fill it"));
        }
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

    /// The number of `name`, if it is there. Only where the names are in order.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        let (mut from, mut upto) = (0, self.count);
        while from < upto {
            let middle = from.midpoint(upto);
            match self.name(middle).ok()?.cmp(name) {
                Ordering::Less => from = middle + 1,
                Ordering::Equal => return Some(middle),
                Ordering::Greater => upto = middle,
            }
        }
        None
    }

    /// The name with number `id`.
    pub fn name(&self, id: usize) -> Result<&'a str> {
        let range = self.end(id)?..self.end(id + 1).map_err(|_| UNNAMED)?;
        utf8(self.names.get(range).ok_or(BEYOND)?)
    }

    fn end(&self, index: usize) -> Result<usize> {
        let at = index.checked_mul(self.width.into()).ok_or(BEYOND)?;
        number(self.ends, at, self.width).ok_or(BEYOND)
    }

    /// The name with number `one` stands before that of `two`.
    #[inline]
    pub(super) fn is_before(&self, one: usize, two: usize) -> Result<bool> {
        if self.sorted { Ok(one < two) } else { Ok(self.name(one)? < self.name(two)?) }
    }
}

/// The number of `width` bytes that stands at `at`, little endian.
#[inline]
pub(super) fn number(bytes: &[u8], at: usize, width: u8) -> Option<usize> {
    Some(match (width, bytes.get(at..)?) {
        (1, [a, ..]) => usize::from(*a),
        (2, [a, b, ..]) => usize::from(*a) | usize::from(*b) << 8,
        (3, [a, b, c, ..]) => usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16,
        (4, [a, b, c, d, ..]) => u32::from_le_bytes([*a, *b, *c, *d]) as usize,
        _ => return None,
    })
}
