//! Sorted sets.

use super::arguments::{Arguments, score};
use super::ranges::{Members, Scores, slice};
use super::{Done, Place, Stop};
use crate::sources::redis::object::Zset;

pub(super) fn apply(place: &mut Place<'_>, name: &[u8], rest: &mut Arguments<'_>) -> Done {
    match name {
        b"ZADD" => edit(place, rest, add),
        b"ZINCRBY" => edit(place, rest, |zset, rest| {
            let by = score(rest.next()?)?;
            put(zset, rest.next()?, by, true)
        }),
        b"ZREM" => edit(place, rest, |zset, rest| {
            for member in rest.rest() {
                zset.0.remove(&member[..]);
            }
            Ok(())
        }),
        b"ZREMRANGEBYSCORE" => edit(place, rest, |zset, rest| {
            let scores = Scores::parse(rest.next()?, rest.next()?)?;
            zset.0.retain(|_, score| !scores.holds(*score));
            Ok(())
        }),
        b"ZREMRANGEBYLEX" => edit(place, rest, |zset, rest| {
            let members = Members::parse(rest.next()?, rest.next()?)?;
            equal_scores(zset)?;
            zset.0.retain(|member, _| !members.holds(member));
            Ok(())
        }),
        b"ZREMRANGEBYRANK" => edit(place, rest, |zset, rest| {
            let (start, stop) = (rest.parse("a rank")?, rest.parse("a rank")?);
            let range = slice(start, stop, zset.0.len());
            take(zset, range);
            Ok(())
        }),
        b"ZPOPMIN" | b"ZPOPMAX" => edit(place, rest, |zset, rest| {
            let count: usize = if rest.is_empty() { 1 } else { rest.parse("a count")? };
            let length = zset.0.len();
            let count = count.min(length);
            take(zset, if name == b"ZPOPMIN" { 0..count } else { length - count..length });
            Ok(())
        }),
        _ => Err(Stop::Unknown),
    }
}

/// Fails unless members are ordered by their bytes alone. Which of others a range of bytes
/// holds, Redis leaves open: it depends on the chance by which it has linked them.
pub(super) fn equal_scores(zset: &Zset) -> Done {
    let mut scores = zset.0.values();
    let first = scores.next();
    if scores.all(|score| Some(score) == first) {
        return Ok(());
    }
    Err(Stop::Reread("a range of members of different scores holds what chance has it"))
}

fn edit(
    place: &mut Place<'_>,
    rest: &mut Arguments<'_>,
    change: impl FnOnce(&mut Zset, &mut Arguments<'_>) -> Done,
) -> Done {
    let key = rest.next()?;
    place.keys.edit(*place.db, key, |zset| change(zset, rest))
}

/// Removes the members of these ranks.
fn take(zset: &mut Zset, range: std::ops::Range<usize>) {
    let gone: Vec<Vec<u8>> =
        zset.sorted()[range].iter().map(|(member, _)| member.to_vec()).collect();
    for member in gone {
        zset.0.remove(&member);
    }
}

/// Which members `ZADD` changes.
#[derive(Default)]
struct Conditions {
    only_new: bool,
    only_there: bool,
    /// Only towards greater (true) or smaller scores.
    towards: Option<bool>,
}

fn add(zset: &mut Zset, rest: &mut Arguments<'_>) -> Done {
    let (mut when, mut sums) = (Conditions::default(), false);
    loop {
        if rest.take_word("NX") {
            when.only_new = true;
        } else if rest.take_word("XX") {
            when.only_there = true;
        } else if rest.take_word("GT") {
            when.towards = Some(true);
        } else if rest.take_word("LT") {
            when.towards = Some(false);
        } else if rest.take_word("INCR") {
            sums = true;
        } else if !rest.take_word("CH") {
            break;
        }
    }
    for (number, member) in rest.pairs()? {
        let number = score(number)?;
        let now = zset.0.get(member).copied();
        let then = if sums { number + now.unwrap_or(0.0) } else { number };
        let turns = match (when.towards, now) {
            (Some(greater), Some(now)) => {
                if greater {
                    then > now
                } else {
                    then < now
                }
            }
            _ => true,
        };
        let refused = (when.only_new && now.is_some()) || (when.only_there && now.is_none());
        if turns && !refused {
            put(zset, member, number, sums)?;
        }
    }
    Ok(())
}

fn put(zset: &mut Zset, member: &[u8], number: f64, sums: bool) -> Done {
    let now = zset.0.get(member).copied().unwrap_or(0.0);
    let then = if sums && zset.0.contains_key(member) { now + number } else { number };
    if then.is_nan() {
        return Err(Stop::Reread("a score"));
    }
    // 0 and -0 are equal: what is there stays.
    if zset.0.get(member) != Some(&then) {
        zset.0.insert(member.to_vec(), then);
    }
    Ok(())
}
