//! Hashes.

use super::arguments::{Arguments, parse};
use super::{Done, Place, Stop};
use crate::sources::redis::object::Hash;

pub(super) fn apply(place: &mut Place<'_>, name: &[u8], rest: &mut Arguments<'_>) -> Done {
    match name {
        b"HSET" | b"HMSET" | b"HSETNX" => edit(place, rest, |hash, rest| {
            for (field, value) in rest.pairs()? {
                hash.insert(field.to_vec(), value.to_vec());
            }
            Ok(())
        }),
        b"HDEL" => edit(place, rest, |hash, rest| {
            for field in rest.rest() {
                hash.remove(&field[..]);
            }
            Ok(())
        }),
        b"HINCRBY" => edit(place, rest, |hash, rest| {
            let field = rest.next()?;
            let by: i64 = rest.parse("a number to add")?;
            let now = match hash.get(field) {
                Some(value) => parse(value, "a number is added to text")?,
                None => 0_i64,
            };
            let sum = now.checked_add(by).ok_or(Stop::Reread("a sum"))?;
            hash.insert(field.to_vec(), sum.to_string().into_bytes());
            Ok(())
        }),
        _ => Err(Stop::Unknown),
    }
}

fn edit(
    place: &mut Place<'_>,
    rest: &mut Arguments<'_>,
    change: impl FnOnce(&mut Hash, &mut Arguments<'_>) -> Done,
) -> Done {
    let key = rest.next()?;
    place.keys.edit(*place.db, key, |hash| change(hash, rest))
}
