//! A value in a dump, in every encoding that dump versions 9 to 12 have.

use super::cursor::{Cursor, RdbError};
use super::packed::{intset, listpack, ziplist};
use super::streams;
use crate::sources::redis::object::{Hash, List, Object, Opaque, Zset};

const QUICKLIST_PLAIN: u64 = 1;
const QUICKLIST_PACKED: u64 = 2;

/// The value of type `kind` that follows.
pub(super) fn read(kind: u8, rest: &mut Cursor<'_>) -> Result<Object, RdbError> {
    Ok(match kind {
        0 => Object::string(rest.string()?),
        1 => Object::List(strings(rest)?.into()),
        2 => Object::Set(strings(rest)?.into_iter().collect()),
        3 => Object::Zset(scored(rest, text_score)?),
        4 => Object::Hash(hash(rest)?),
        5 => Object::Zset(scored(rest, |rest| Ok(f64::from_le_bytes(rest.array()?)))?),
        7 => {
            module(rest)?;
            Object::Opaque(Opaque::Module)
        }
        10 => Object::List(ziplist(&rest.string()?)?.into()),
        11 => Object::Set(intset(&rest.string()?)?.into_iter().collect()),
        12 => Object::Zset(packed_scores(ziplist(&rest.string()?)?)?),
        13 => Object::Hash(pairs(ziplist(&rest.string()?)?)?.into_iter().collect()),
        14 => Object::List(quicklist(rest)?),
        15 => streams::read(1, rest)?,
        16 => Object::Hash(pairs(listpack(&rest.string()?)?)?.into_iter().collect()),
        17 => Object::Zset(packed_scores(listpack(&rest.string()?)?)?),
        18 => Object::List(quicklist2(rest)?),
        19 => streams::read(2, rest)?,
        20 => Object::Set(listpack(&rest.string()?)?.into_iter().collect()),
        21 => streams::read(3, rest)?,
        _ => return Err(unsupported(kind)),
    })
}

fn unsupported(kind: u8) -> RdbError {
    RdbError::Unsupported(match kind {
        6 => "a module's value of an old format; resave it with a newer module".to_owned(),
        22..=25 => "a hash whose fields expire one by one (HEXPIRE); this is not read yet: take \
                    the expiry off with HPERSIST, or export another deployment"
            .to_owned(),
        _ => format!("a value of type {kind}, which this version does not know"),
    })
}

fn strings(rest: &mut Cursor<'_>) -> Result<Vec<Vec<u8>>, RdbError> {
    // No room is reserved: a count says nothing until its elements have been read.
    let mut strings = Vec::new();
    for _ in 0..rest.count()? {
        strings.push(rest.string()?);
    }
    Ok(strings)
}

fn hash(rest: &mut Cursor<'_>) -> Result<Hash, RdbError> {
    let mut hash = Hash::default();
    for _ in 0..rest.count()? {
        let field = rest.string()?;
        hash.insert(field, rest.string()?);
    }
    Ok(hash)
}

fn scored(
    rest: &mut Cursor<'_>,
    score: impl Fn(&mut Cursor<'_>) -> Result<f64, RdbError>,
) -> Result<Zset, RdbError> {
    let mut zset = Zset::default();
    for _ in 0..rest.count()? {
        let member = rest.string()?;
        zset.0.insert(member, number(score(rest)?)?);
    }
    Ok(zset)
}

/// A score as versions before 8 wrote it.
fn text_score(rest: &mut Cursor<'_>) -> Result<f64, RdbError> {
    match rest.byte()? {
        255 => Ok(f64::NEG_INFINITY),
        254 => Ok(f64::INFINITY),
        253 => Err(RdbError::Corrupt("a score that is no number")),
        size => parse_score(rest.take(usize::from(size))?),
    }
}

fn packed_scores(elements: Vec<Vec<u8>>) -> Result<Zset, RdbError> {
    let scored = pairs(elements)?.into_iter();
    Ok(Zset(
        scored
            .map(|(member, score)| Ok((member, parse_score(&score)?)))
            .collect::<Result<_, _>>()?,
    ))
}

fn parse_score(text: &[u8]) -> Result<f64, RdbError> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number(parsed.unwrap_or(f64::NAN))
}

fn number(score: f64) -> Result<f64, RdbError> {
    if score.is_nan() { Err(RdbError::Corrupt("a score that is no number")) } else { Ok(score) }
}

type Pair = (Vec<u8>, Vec<u8>);

fn pairs(elements: Vec<Vec<u8>>) -> Result<Vec<Pair>, RdbError> {
    let mut pairs = Vec::with_capacity(elements.len() / 2);
    let mut elements = elements.into_iter();
    while let Some(one) = elements.next() {
        let two = elements.next().ok_or(RdbError::Corrupt("half a pair"))?;
        pairs.push((one, two));
    }
    Ok(pairs)
}

fn quicklist(rest: &mut Cursor<'_>) -> Result<List, RdbError> {
    let mut list = List::default();
    for _ in 0..rest.count()? {
        list.extend(ziplist(&rest.string()?)?);
    }
    Ok(list)
}

fn quicklist2(rest: &mut Cursor<'_>) -> Result<List, RdbError> {
    let mut list = List::default();
    for _ in 0..rest.count()? {
        match rest.number()? {
            QUICKLIST_PLAIN => list.push_back(rest.string()?),
            QUICKLIST_PACKED => list.extend(listpack(&rest.string()?)?),
            _ => return Err(RdbError::Corrupt("the kind of a list's node")),
        }
    }
    Ok(list)
}

/// Passes over what a module wrote: the id of its type, then parts.
fn module(rest: &mut Cursor<'_>) -> Result<(), RdbError> {
    rest.number()?;
    module_parts(rest)
}

/// Passes over the parts of a module's value, up to their end.
pub(super) fn module_parts(rest: &mut Cursor<'_>) -> Result<(), RdbError> {
    loop {
        match rest.number()? {
            0 => return Ok(()),
            1 | 2 => drop(rest.number()?),
            3 => drop(rest.take(4)?),
            4 => drop(rest.take(8)?),
            5 => drop(rest.string()?),
            _ => return Err(RdbError::Corrupt("a part of a module's value")),
        }
    }
}
