//! Sets.

use super::arguments::Arguments;
use super::{Done, Place, Stop};
use crate::sources::redis::object::{Entry, Object, Set};

pub(super) fn apply(place: &mut Place<'_>, name: &[u8], rest: &mut Arguments<'_>) -> Done {
    match name {
        b"SADD" => edit(place, rest, |set, rest| {
            set.extend(rest.rest().iter().map(|member| member.to_vec()));
            Ok(())
        }),
        b"SREM" => edit(place, rest, |set, rest| {
            for member in rest.rest() {
                set.remove(&member[..]);
            }
            Ok(())
        }),
        b"SMOVE" => {
            let (from, to, member) = (rest.next()?, rest.next()?, rest.next()?);
            // Known before anything is changed.
            place.keys.content::<Set>(*place.db, to)?;
            place.keys.edit(*place.db, from, |set: &mut Set| {
                set.remove(member);
                Ok(())
            })?;
            place.keys.edit(*place.db, to, |set: &mut Set| {
                set.insert(member.to_vec());
                Ok(())
            })
        }
        b"SUNIONSTORE" | b"SINTERSTORE" | b"SDIFFSTORE" => store(place, name, rest),
        // It comes as SREM.
        b"SPOP" => Err(Stop::Reread("a random member is taken")),
        _ => Err(Stop::Unknown),
    }
}

fn edit(
    place: &mut Place<'_>,
    rest: &mut Arguments<'_>,
    change: impl FnOnce(&mut Set, &mut Arguments<'_>) -> Done,
) -> Done {
    let key = rest.next()?;
    place.keys.edit(*place.db, key, |set| change(set, rest))
}

fn store(place: &mut Place<'_>, name: &[u8], rest: &mut Arguments<'_>) -> Done {
    let target = rest.next()?;
    let mut sets = Vec::new();
    for key in rest.rest() {
        sets.push(place.keys.content::<Set>(*place.db, key)?);
    }
    let combined = sets.into_iter().reduce(|mut one, two| {
        match name {
            b"SUNIONSTORE" => one.extend(two),
            b"SINTERSTORE" => one.retain(|member| two.contains(member)),
            _ => one.retain(|member| !two.contains(member)),
        }
        one
    });
    let object = Object::Set(combined.unwrap_or_default());
    Ok(place.keys.put(*place.db, target, Entry::of(object))?)
}
