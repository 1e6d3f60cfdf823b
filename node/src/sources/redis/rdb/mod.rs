//! Dumps (RDB), read as they come in: a pure core.
//!
//! Whoever has bytes asks for the next thing in them and is given it with how
//! many bytes it took, or told that more are needed.

mod crc64;
mod cursor;
mod lzf;
mod packed;
mod streams;
#[cfg(test)]
pub(super) mod tests;
mod value;

pub(super) use cursor::RdbError;

use cursor::Cursor;

use super::object::{Entry, Object};

/// Versions of dumps: Redis 5 to 8, Valkey 7 to 9.
const VERSIONS: std::ops::RangeInclusive<u32> = 5..=80;

const SLOT_INFO: u8 = 244;
const FUNCTION: u8 = 245;
const MODULE_AUX: u8 = 247;
const IDLE: u8 = 248;
const FREQUENCY: u8 = 249;
const AUX: u8 = 250;
const RESIZE_DB: u8 = 251;
const EXPIRE_MS: u8 = 252;
const EXPIRE_SECONDS: u8 = 253;
const SELECT_DB: u8 = 254;
const END: u8 = 255;

/// The name under which a dump says which database the stream is in.
const STREAM_DB: &[u8] = b"repl-stream-db";

/// A dump in the course of being read.
#[derive(Debug, Default)]
pub(super) struct Dump {
    begun: bool,
    db: u32,
    crc: u64,
}

/// What was found next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    /// A key and what it holds.
    Key { db: u32, key: Vec<u8>, entry: Entry },
    /// The stream behind the dump is in this database. Of a primary it says so itself; a
    /// replica hands on what its primary said before.
    Selected(u32),
    /// Something that is not needed here.
    Other,
    /// The dump ends here, and its checksum is right.
    End,
}

impl Dump {
    /// The next thing at the beginning of `bytes`, and how many of them it took.
    /// [`RdbError::Short`] says how many are needed at least.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<(Found, usize), RdbError> {
        let mut rest = Cursor::new(bytes);
        let mut db = self.db;
        let found = if self.begun {
            Self::read(&mut rest, &mut db)?
        } else {
            header(&mut rest)?;
            Found::Other
        };
        let taken = rest.taken();
        let crc = crc64::update(self.crc, &bytes[..taken]);
        if found == Found::End {
            let wanted = u64::from_le_bytes(rest.array()?);
            // A server may be told to write none.
            if wanted != 0 && wanted != crc {
                return Err(RdbError::Corrupt("the checksum of a dump is not that of its bytes"));
            }
            // Whoever waits for what follows may ask again.
            return Ok((found, rest.taken()));
        }
        (self.begun, self.db, self.crc) = (true, db, crc);
        Ok((found, taken))
    }

    fn read(rest: &mut Cursor<'_>, db: &mut u32) -> Result<Found, RdbError> {
        let mut expire_ms = None;
        loop {
            match rest.byte()? {
                END => return Ok(Found::End),
                SELECT_DB => {
                    let number = u32::try_from(rest.number()?);
                    *db = number.map_err(|_| RdbError::Corrupt("the number of a database"))?;
                    return Ok(Found::Other);
                }
                EXPIRE_MS => expire_ms = Some(i64::from_le_bytes(rest.array()?)),
                EXPIRE_SECONDS => {
                    expire_ms = Some(i64::from(i32::from_le_bytes(rest.array()?)) * 1000);
                }
                IDLE => drop(rest.number()?),
                FREQUENCY => drop(rest.byte()?),
                AUX => {
                    let (name, value) = (rest.string()?, rest.string()?);
                    let db = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                    let selected = db.filter(|_| name == STREAM_DB).map(Found::Selected);
                    return Ok(selected.unwrap_or(Found::Other));
                }
                kind @ SLOT_INFO..=RESIZE_DB => {
                    pass_over(kind, rest)?;
                    return Ok(Found::Other);
                }
                kind => {
                    let key = rest.string()?;
                    let object = value::read(kind, rest)?;
                    let entry = Entry { object, expire_ms };
                    return Ok(Found::Key { db: *db, key, entry });
                }
            }
        }
    }
}

/// `REDIS` and four digits; Valkey 9 writes `VALKEY` and three.
fn header(rest: &mut Cursor<'_>) -> Result<(), RdbError> {
    let header = rest.array::<9>()?;
    let digits = header.strip_prefix(b"REDIS").or_else(|| header.strip_prefix(b"VALKEY"));
    let digits = digits.ok_or(RdbError::Corrupt("it does not begin as a dump does"))?;
    let version = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    if version.is_some_and(|version| VERSIONS.contains(&version)) {
        return Ok(());
    }
    let why = "a dump of a version that is not known here; upgrade Tidegate, or the server if it \
               is older than Redis 5";
    Err(RdbError::Unsupported(why.to_owned()))
}

/// Passes over what says nothing about keys.
fn pass_over(kind: u8, rest: &mut Cursor<'_>) -> Result<(), RdbError> {
    match kind {
        SLOT_INFO => {
            for _ in 0..3 {
                rest.number()?;
            }
        }
        FUNCTION => drop(rest.string()?),
        MODULE_AUX => {
            for _ in 0..3 {
                rest.number()?;
            }
            value::module_parts(rest)?;
        }
        RESIZE_DB => {
            rest.number()?;
            rest.number()?;
        }
        _ => {
            let why = "functions of a release candidate of Redis 7; upgrade the server";
            return Err(RdbError::Unsupported(why.to_owned()));
        }
    }
    Ok(())
}

/// Of the version of dumps, in a payload.
const VERSION_BYTES: usize = 2;

/// What `RESTORE` is given: a value, the version of dumps, a checksum. As for servers, the
/// value may end before the version, or reach into it.
pub(super) fn restored(payload: &[u8]) -> Result<Object, RdbError> {
    let (body, sum) =
        payload.split_last_chunk::<8>().ok_or(RdbError::Corrupt("a short payload"))?;
    let wanted = u64::from_le_bytes(*sum);
    if wanted != 0 && wanted != crc64::update(0, body) {
        return Err(RdbError::Corrupt("the checksum of a payload"));
    }
    if body.len() < VERSION_BYTES {
        return Err(RdbError::Corrupt("a short payload"));
    }
    let mut rest = Cursor::new(payload);
    let kind = rest.byte()?;
    value::read(kind, &mut rest).map_err(|error| match error {
        RdbError::Short(_) => RdbError::Corrupt("a payload ends early"),
        error @ (RdbError::Corrupt(_) | RdbError::Unsupported(_)) => error,
    })
}
