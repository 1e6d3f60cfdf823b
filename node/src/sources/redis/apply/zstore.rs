//! Sorted sets made out of others.

use super::arguments::{Arguments, score};
use super::ranges::{Members, Scores, slice};
use super::zsets::equal_scores;
use super::{Done, Place, Stop};
use crate::sources::redis::object::{Entry, Object, Zset};

/// How the score so far and one more meet. The second may be NaN.
type Meet = fn(f64, f64) -> f64;

pub(super) fn apply(place: &mut Place<'_>, name: &[u8], rest: &mut Arguments<'_>) -> Done {
    match name {
        b"ZUNIONSTORE" => combine(place, rest, union),
        b"ZINTERSTORE" => combine(place, rest, intersection),
        b"ZDIFFSTORE" => difference(place, rest),
        b"ZRANGESTORE" => range(place, rest),
        b"GEOSEARCHSTORE" | b"GEORADIUS" | b"GEORADIUSBYMEMBER" => {
            Err(Stop::Reread("distances on the globe are not computed here"))
        }
        _ => Err(Stop::Unknown),
    }
}

/// A set that goes in: sorted or not.
fn input(place: &mut Place<'_>, key: &[u8]) -> Result<Zset, Stop> {
    let Some(entry) = place.keys.get(*place.db, key)? else { return Ok(Zset::default()) };
    match &entry.object {
        Object::Zset(zset) => Ok(zset.clone()),
        Object::Set(set) => Ok(Zset(set.iter().map(|member| (member.clone(), 1.0)).collect())),
        Object::Opaque(_) => Err(Stop::Opaque),
        Object::String(_) | Object::List(_) | Object::Hash(_) | Object::Stream(_) => {
            Err(Stop::Reread("a key is of another type than its command needs"))
        }
    }
}

/// The sets that go in, behind how many they are.
fn inputs(place: &mut Place<'_>, rest: &mut Arguments<'_>) -> Result<Vec<Zset>, Stop> {
    let count: usize = rest.parse("a count")?;
    rest.take(count)?.iter().map(|key| input(place, key)).collect()
}

fn combine(
    place: &mut Place<'_>,
    rest: &mut Arguments<'_>,
    how: fn(Vec<(Zset, f64)>, Meet) -> Zset,
) -> Done {
    let target = rest.next()?;
    let mut inputs: Vec<_> = inputs(place, rest)?.into_iter().map(|zset| (zset, 1.0)).collect();
    let mut meet: Meet = sum;
    while !rest.is_empty() {
        if rest.take_word("WEIGHTS") {
            let weights = rest.take(inputs.len())?;
            for (input, weight) in inputs.iter_mut().zip(weights) {
                input.1 = score(weight)?;
            }
        } else if rest.take_word("AGGREGATE") {
            meet = aggregate(rest.next()?)?;
        } else {
            return Err(Stop::Unknown);
        }
    }
    by_size(&mut inputs);
    let object = Object::Zset(how(inputs, meet));
    Ok(place.keys.put(*place.db, target, Entry::of(object))?)
}

fn aggregate(name: &[u8]) -> Result<Meet, Stop> {
    Ok(match &name.to_ascii_uppercase()[..] {
        b"SUM" => sum,
        b"MIN" => |one, two| if two < one { two } else { one },
        b"MAX" => |one, two| if two > one { two } else { one },
        _ => return Err(Stop::Unknown),
    })
}

/// Infinities that cancel out are 0.
fn sum(one: f64, two: f64) -> f64 {
    number(one + two)
}

fn number(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// Scores meet from the smallest set to the largest, as Redis has it: in another order they
/// would round otherwise. Sets of one size keep their order, as they do with glibc's `qsort`.
fn by_size(inputs: &mut [(Zset, f64)]) {
    inputs.sort_by_key(|(zset, _)| zset.0.len());
}

fn union(inputs: Vec<(Zset, f64)>, meet: Meet) -> Zset {
    let mut out = Zset::default();
    for (zset, weight) in inputs {
        for (member, score) in zset.0 {
            let score = number(weight * score);
            out.0.entry(member).and_modify(|sum| *sum = meet(*sum, score)).or_insert(score);
        }
    }
    out
}

/// An infinity that is taken no times is 0 in the smallest set only. In the others it makes
/// a sum 0, and is neither least nor most.
fn intersection(inputs: Vec<(Zset, f64)>, meet: Meet) -> Zset {
    let mut inputs = inputs.into_iter();
    let Some((first, weight)) = inputs.next() else { return Zset::default() };
    let others: Vec<_> = inputs.collect();
    let mut out = Zset::default();
    for (member, score) in first.0 {
        let start = Some(number(weight * score));
        let met = others.iter().fold(start, |so_far, (other, weight)| {
            let score = other.0.get(&member)?;
            Some(meet(so_far?, weight * score))
        });
        if let Some(score) = met {
            out.0.insert(member, score);
        }
    }
    out
}

fn difference(place: &mut Place<'_>, rest: &mut Arguments<'_>) -> Done {
    let target = rest.next()?;
    let mut inputs = inputs(place, rest)?.into_iter();
    if !rest.is_empty() {
        return Err(Stop::Unknown);
    }
    let mut out = inputs.next().unwrap_or_default();
    for other in inputs {
        out.0.retain(|member, _| !other.0.contains_key(member));
    }
    Ok(place.keys.put(*place.db, target, Entry::of(Object::Zset(out)))?)
}

fn range(place: &mut Place<'_>, rest: &mut Arguments<'_>) -> Done {
    let (target, source) = (rest.next()?, rest.next()?);
    let (start, stop) = (rest.next()?, rest.next()?);
    let (mut by_score, mut by_member, mut reversed) = (false, false, false);
    let mut limit: (usize, i64) = (0, -1);
    while !rest.is_empty() {
        match &rest.next()?.to_ascii_uppercase()[..] {
            b"BYSCORE" => by_score = true,
            b"BYLEX" => by_member = true,
            b"REV" => reversed = true,
            b"LIMIT" => limit = (rest.parse("an offset")?, rest.parse("a count")?),
            _ => return Err(Stop::Unknown),
        }
    }
    let zset = input(place, source)?;
    let mut sorted = zset.sorted();
    if reversed {
        sorted.reverse();
    }
    // The greater end comes first then.
    let (least, most) = if reversed { (stop, start) } else { (start, stop) };
    if by_score {
        let scores = Scores::parse(least, most)?;
        sorted.retain(|(_, score)| scores.holds(*score));
    } else if by_member {
        let members = Members::parse(least, most)?;
        equal_scores(&zset)?;
        sorted.retain(|(member, _)| members.holds(member));
    } else {
        let ends = [start, stop].map(|end| super::arguments::parse(end, "a rank"));
        let [start, stop] = ends;
        let range = slice(start?, stop?, sorted.len());
        sorted = sorted[range].to_vec();
    }
    let count = usize::try_from(limit.1).unwrap_or(usize::MAX);
    let taken = sorted.into_iter().skip(limit.0).take(count);
    let out = Zset(taken.map(|(member, score)| (member.to_vec(), score)).collect());
    Ok(place.keys.put(*place.db, target, Entry::of(Object::Zset(out)))?)
}
