//! Strings.

use super::arguments::{Arguments, parse};
use super::{Done, Place, Stop};
use crate::sources::redis::object::{Entry, Object};
use crate::sources::redis::sketch::{self, Sketch};

/// When a key ends, as `SET` says it.
enum Expiry {
    Keep,
    Never,
    At(i64),
}

pub(super) fn apply(place: &mut Place<'_>, name: &[u8], rest: &mut Arguments<'_>) -> Done {
    match name {
        b"SET" => set(place, rest),
        b"GETSET" | b"SETNX" => {
            let (key, value) = (rest.next()?, rest.next()?);
            put(place, key, value, None)
        }
        b"SETEX" | b"PSETEX" => {
            let (key, unit) = (rest.next()?, if name == b"SETEX" { 1000 } else { 1 });
            let after: i64 = rest.parse("a time to live")?;
            let at = place.now_ms.saturating_add(after.saturating_mul(unit));
            put(place, key, rest.next()?, Some(at))
        }
        b"MSET" | b"MSETNX" => {
            for (key, value) in rest.pairs()? {
                put(place, key, value, None)?;
            }
            Ok(())
        }
        b"MSETEX" => set_many(place, rest),
        b"APPEND" => {
            let (key, more) = (rest.next()?, rest.next()?);
            edit(place, key, |bytes| {
                bytes.extend_from_slice(more);
                Ok(())
            })
        }
        b"SETRANGE" => {
            let (key, from) = (rest.next()?, rest.parse::<usize>("an offset")?);
            let part = rest.next()?;
            edit(place, key, |bytes| {
                let end = from.checked_add(part.len()).ok_or(Stop::Reread("an offset"))?;
                if bytes.len() < end {
                    grow(bytes, end)?;
                }
                bytes[from..end].copy_from_slice(part);
                Ok(())
            })
        }
        b"INCR" | b"DECR" => {
            let by = if name == b"INCR" { 1 } else { -1 };
            add(place, rest.next()?, by)
        }
        b"INCRBY" | b"DECRBY" => {
            let key = rest.next()?;
            let by: i128 = rest.parse("a number to add")?;
            add(place, key, if name == b"INCRBY" { by } else { -by })
        }
        _ => Err(Stop::Unknown),
    }
}

/// Sketches.
pub(super) fn apply_sketch(place: &mut Place<'_>, name: &[u8], rest: &mut Arguments<'_>) -> Done {
    match name {
        b"PFADD" => {
            let key = rest.next()?;
            sketch(place, key, |sketch| {
                rest.rest().iter().for_each(|element| sketch.add(element));
                Ok(())
            })
        }
        b"PFMERGE" => {
            let key = rest.next()?;
            let mut sum = Sketch::empty();
            for other in rest.rest() {
                let bytes: Vec<u8> = place.keys.content(*place.db, other)?;
                if !bytes.is_empty() {
                    sum.merge(&Sketch::decode(&bytes).ok_or(Stop::Reread("not a HyperLogLog"))?);
                }
            }
            sketch(place, key, |sketch| {
                sketch.merge(&sum);
                Ok(())
            })
        }
        _ => Err(Stop::Unknown),
    }
}

fn set(place: &mut Place<'_>, rest: &mut Arguments<'_>) -> Done {
    let (key, value) = (rest.next()?, rest.next()?);
    let expiry = Expiry::parse(rest, place.now_ms)?;
    put_until(place, (key, value), &expiry)
}

/// As servers have it from Redis 8.4 and Valkey 9.1 on.
fn set_many(place: &mut Place<'_>, rest: &mut Arguments<'_>) -> Done {
    let count: usize = rest.parse("a number of keys")?;
    let pairs = rest.take(count.saturating_mul(2))?;
    let expiry = Expiry::parse(rest, place.now_ms)?;
    for (key, value) in Arguments::new(pairs).pairs()? {
        put_until(place, (key, value), &expiry)?;
    }
    Ok(())
}

impl Expiry {
    /// From the options that are left.
    fn parse(rest: &mut Arguments<'_>, now_ms: i64) -> Result<Self, Stop> {
        let mut expiry = Self::Never;
        while !rest.is_empty() {
            let option = rest.next()?.to_ascii_uppercase();
            expiry = match &option[..] {
                b"KEEPTTL" => Self::Keep,
                // It was set: the condition held.
                b"NX" | b"XX" | b"GET" => continue,
                b"IFEQ" | b"IFNE" | b"IFDEQ" | b"IFDNE" => {
                    rest.next()?;
                    continue;
                }
                b"PXAT" => Self::At(rest.parse("a time")?),
                b"EXAT" => Self::At(rest.parse::<i64>("a time")?.saturating_mul(1000)),
                b"PX" => Self::At(now_ms.saturating_add(rest.parse("a time to live")?)),
                b"EX" => {
                    let after = rest.parse::<i64>("a time to live")?.saturating_mul(1000);
                    Self::At(now_ms.saturating_add(after))
                }
                _ => return Err(Stop::Unknown),
            };
        }
        Ok(expiry)
    }
}

fn put_until(place: &mut Place<'_>, (key, value): (&[u8], &[u8]), expiry: &Expiry) -> Done {
    let expire_ms = match expiry {
        Expiry::Never => None,
        Expiry::At(ms) => Some(*ms),
        Expiry::Keep => place.keys.get(*place.db, key)?.and_then(|entry| entry.expire_ms),
    };
    put(place, key, value, expire_ms)
}

fn put(place: &mut Place<'_>, key: &[u8], value: &[u8], expire_ms: Option<i64>) -> Done {
    let object = Object::string(value.to_vec());
    Ok(place.keys.put(*place.db, key, Entry { object, expire_ms })?)
}

/// Changes a string's bytes. Those of a sketch are not what Redis has.
pub(super) fn edit(
    place: &mut Place<'_>,
    key: &[u8],
    change: impl FnOnce(&mut Vec<u8>) -> Done,
) -> Done {
    place.keys.edit(*place.db, key, |bytes: &mut Vec<u8>| {
        if sketch::canonical(bytes).is_some() {
            return Err(Stop::Reread("bytes of a HyperLogLog are changed"));
        }
        change(bytes)
    })
}

/// Fills up with zeros.
pub(super) fn grow(bytes: &mut Vec<u8>, to: usize) -> Done {
    const STRING_BYTES_MAX: usize = 512 << 20;
    if to > STRING_BYTES_MAX {
        return Err(Stop::Reread("an offset"));
    }
    bytes.resize(to, 0);
    Ok(())
}

fn add(place: &mut Place<'_>, key: &[u8], by: i128) -> Done {
    edit(place, key, |bytes| {
        let now: i64 =
            if bytes.is_empty() { 0 } else { parse(bytes, "a number is added to text")? };
        let sum = i64::try_from(i128::from(now) + by).map_err(|_| Stop::Reread("a sum"))?;
        *bytes = sum.to_string().into_bytes();
        Ok(())
    })
}

fn sketch(place: &mut Place<'_>, key: &[u8], change: impl FnOnce(&mut Sketch) -> Done) -> Done {
    place.keys.edit(*place.db, key, |bytes: &mut Vec<u8>| {
        let mut sketch = if bytes.is_empty() {
            Sketch::empty()
        } else {
            Sketch::decode(bytes).ok_or(Stop::Reread("not a HyperLogLog"))?
        };
        change(&mut sketch)?;
        *bytes = sketch.encode();
        Ok(())
    })
}
