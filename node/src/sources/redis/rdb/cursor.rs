//! Takes numbers and strings off the bytes of a dump.

use super::lzf;

/// Bytes one string may have, once unpacked.
pub(super) const STRING_BYTES_MAX: usize = 128 << 20;

/// Why the next thing in a dump could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sources::redis) enum RdbError {
    /// More bytes are needed: so many in all, at least.
    Short(usize),
    /// Not a dump; says where it goes wrong.
    Corrupt(&'static str),
    /// A dump of something that is not read here.
    Unsupported(String),
}

/// Bytes and how many of them were taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A length, or how a string is written that is not so many plain bytes.
enum Length {
    Plain(u64),
    Special(u8),
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes taken so far.
    pub(super) fn taken(&self) -> usize {
        self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], RdbError> {
        let end = self.at.checked_add(count).ok_or(RdbError::Corrupt("a length"))?;
        let taken = self.bytes.get(self.at..end).ok_or(RdbError::Short(end))?;
        self.at = end;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], RdbError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| RdbError::Corrupt("a number"))
    }

    pub(super) fn byte(&mut self) -> Result<u8, RdbError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn length(&mut self) -> Result<Length, RdbError> {
        let first = self.byte()?;
        let low = first & 0x3f;
        Ok(match first >> 6 {
            0 => Length::Plain(u64::from(low)),
            1 => Length::Plain(u64::from(low) << 8 | u64::from(self.byte()?)),
            2 if first == 0x80 => Length::Plain(u64::from(u32::from_be_bytes(self.array()?))),
            2 if first == 0x81 => Length::Plain(u64::from_be_bytes(self.array()?)),
            2 => return Err(RdbError::Corrupt("the width of a length")),
            _ => Length::Special(low),
        })
    }

    /// A number written as a length.
    pub(super) fn number(&mut self) -> Result<u64, RdbError> {
        match self.length()? {
            Length::Plain(number) => Ok(number),
            Length::Special(_) => Err(RdbError::Corrupt("a length that is a string")),
        }
    }

    /// How many follow; each takes a byte at least, so no more than memory holds.
    pub(super) fn count(&mut self) -> Result<usize, RdbError> {
        let count = usize::try_from(self.number()?).ok();
        count.filter(|count| *count <= STRING_BYTES_MAX).ok_or(RdbError::Corrupt("a count"))
    }

    fn size(&mut self) -> Result<usize, RdbError> {
        let size = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        within(size)
    }

    /// A string, however it is written.
    pub(super) fn string(&mut self) -> Result<Vec<u8>, RdbError> {
        let special = match self.length()? {
            Length::Plain(size) => {
                let size = within(usize::try_from(size).unwrap_or(usize::MAX))?;
                return self.take(size).map(<[u8]>::to_vec);
            }
            Length::Special(special) => special,
        };
        let whole = match special {
            0 => i64::from(i8::from_le_bytes(self.array()?)),
            1 => i64::from(i16::from_le_bytes(self.array()?)),
            2 => i64::from(i32::from_le_bytes(self.array()?)),
            3 => {
                let (packed, wanted) = (self.size()?, self.size()?);
                let packed = self.take(packed)?;
                return lzf::unpack(packed, wanted).ok_or(RdbError::Corrupt("compressed bytes"));
            }
            _ => return Err(RdbError::Corrupt("the kind of a string")),
        };
        Ok(whole.to_string().into_bytes())
    }
}

fn within(size: usize) -> Result<usize, RdbError> {
    if size > STRING_BYTES_MAX {
        let why = format!(
            "a value or key of {size} bytes is over the limit of {STRING_BYTES_MAX} bytes; shorten \
             or delete it (redis-cli --memkeys finds it)"
        );
        return Err(RdbError::Unsupported(why));
    }
    Ok(size)
}
