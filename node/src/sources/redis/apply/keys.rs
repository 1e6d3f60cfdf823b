//! Keys as a whole.

use super::arguments::{Arguments, parse};
use super::{Done, Place, Stop};
use crate::sources::redis::object::Entry;
use crate::sources::redis::rdb::{RdbError, restored};

pub(super) fn apply(place: &mut Place<'_>, name: &[u8], rest: &mut Arguments<'_>) -> Done {
    match name {
        b"DEL" | b"UNLINK" | b"GETDEL" => {
            for key in rest.rest() {
                if place.keys.exists(*place.db, key)? {
                    place.keys.delete(*place.db, key)?;
                }
            }
            Ok(())
        }
        b"PEXPIREAT" => expire(place, rest, |at, _| at),
        b"EXPIREAT" => expire(place, rest, |at, _| at.saturating_mul(1000)),
        b"PEXPIRE" => expire(place, rest, |after, now| now.saturating_add(after)),
        b"EXPIRE" => {
            expire(place, rest, |after, now| now.saturating_add(after.saturating_mul(1000)))
        }
        b"PERSIST" => set_expiry(place, rest.next()?, None),
        b"GETEX" => getex(place, rest),
        b"RENAME" | b"RENAMENX" => {
            let (from, to) = (rest.next()?, rest.next()?);
            if from == to {
                return Ok(());
            }
            let entry = place.keys.take(*place.db, from)?.ok_or(MISSING)?;
            place.keys.delete(*place.db, from)?;
            Ok(place.keys.put(*place.db, to, entry)?)
        }
        b"COPY" => copy(place, rest),
        b"MOVE" => {
            let (key, to): (_, u32) = (rest.next()?, rest.parse("a database")?);
            let entry = place.keys.take(*place.db, key)?.ok_or(MISSING)?;
            place.keys.delete(*place.db, key)?;
            Ok(place.keys.put(to, key, entry)?)
        }
        b"RESTORE" | b"RESTORE-ASKING" => restore(place, rest),
        b"SWAPDB" => Err(Stop::Reread("two databases change places")),
        b"SORT" => Err(Stop::Reread("a sorted list is stored")),
        _ => Err(Stop::Unknown),
    }
}

const MISSING: Stop = Stop::Reread("a key it names is not known");

/// `until` gives the time from the argument and from now.
fn expire(
    place: &mut Place<'_>,
    rest: &mut Arguments<'_>,
    until: impl FnOnce(i64, i64) -> i64,
) -> Done {
    let (key, argument) = (rest.next()?, rest.parse("a time")?);
    let at = until(argument, place.now_ms);
    set_expiry(place, key, Some(at))
}

fn set_expiry(place: &mut Place<'_>, key: &[u8], expire_ms: Option<i64>) -> Done {
    let entry = place.keys.take(*place.db, key)?.ok_or(MISSING)?;
    Ok(place.keys.put(*place.db, key, Entry { expire_ms, ..entry })?)
}

/// As servers before 7 send it.
fn getex(place: &mut Place<'_>, rest: &mut Arguments<'_>) -> Done {
    let key = rest.next()?;
    let Some(option) = rest.rest().split_first() else { return Ok(()) };
    let number = |unit: i64| match option.1 {
        [number, ..] => parse::<i64>(number, "a time").map(|number| number.saturating_mul(unit)),
        [] => Err(Stop::Reread("it lacks an argument")),
    };
    let now = place.now_ms;
    let at = match &option.0.to_ascii_uppercase()[..] {
        b"PERSIST" => None,
        b"PXAT" => Some(number(1)?),
        b"EXAT" => Some(number(1000)?),
        b"PX" => Some(now.saturating_add(number(1)?)),
        b"EX" => Some(now.saturating_add(number(1000)?)),
        _ => return Err(Stop::Unknown),
    };
    set_expiry(place, key, at)
}

fn copy(place: &mut Place<'_>, rest: &mut Arguments<'_>) -> Done {
    let (from, to) = (rest.next()?, rest.next()?);
    let mut db = *place.db;
    while !rest.is_empty() {
        if rest.take_word("DB") {
            db = rest.parse("a database")?;
        } else if !rest.take_word("REPLACE") {
            return Err(Stop::Unknown);
        }
    }
    let entry = place.keys.get(*place.db, from)?.cloned().ok_or(MISSING)?;
    Ok(place.keys.put(db, to, entry)?)
}

fn restore(place: &mut Place<'_>, rest: &mut Arguments<'_>) -> Done {
    let (key, ttl): (_, i64) = (rest.next()?, rest.parse("a time to live")?);
    let payload = rest.next()?;
    let absolute = rest.rest().iter().any(|word| word.eq_ignore_ascii_case(b"ABSTTL"));
    let expire_ms = match ttl {
        0 => None,
        at if absolute => Some(at),
        after => Some(place.now_ms.saturating_add(after)),
    };
    let object = restored(payload).map_err(|error| match error {
        RdbError::Corrupt(why) => Stop::Reread(why),
        RdbError::Short(_) | RdbError::Unsupported(_) => Stop::Reread("a value of an unknown type"),
    })?;
    Ok(place.keys.put(*place.db, key, Entry { object, expire_ms })?)
}
