//! Streams in a dump. Consumer groups are passed over.

use super::cursor::{Cursor, RdbError};
use super::packed::listpack;
use crate::sources::redis::object::{Object, Stream, StreamId};

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;
/// Bytes of an id as a node of the stream's tree has it.
const ID_BYTES: usize = 16;

/// A stream in the `version`th layout: 2 added numbers, 3 a time per consumer.
pub(super) fn read(version: u8, rest: &mut Cursor<'_>) -> Result<Object, RdbError> {
    let mut stream = Stream::default();
    for _ in 0..rest.count()? {
        let first = node_id(&rest.string()?)?;
        node(first, listpack(&rest.string()?)?, &mut stream)?;
    }
    // How many entries there are; they have been read.
    rest.number()?;
    stream.last = StreamId(rest.number()?, rest.number()?);
    if version >= 2 {
        // First id, greatest deleted id, how many were ever added.
        for _ in 0..5 {
            rest.number()?;
        }
    }
    for _ in 0..rest.count()? {
        group(version, rest)?;
    }
    Ok(Object::Stream(stream))
}

fn node_id(bytes: &[u8]) -> Result<StreamId, RdbError> {
    let corrupt = || RdbError::Corrupt("the id of a stream's node");
    let bytes: [u8; ID_BYTES] = bytes.try_into().map_err(|_| corrupt())?;
    let number = u128::from_be_bytes(bytes);
    let half = |number: u128| u64::try_from(number & u128::from(u64::MAX)).map_err(|_| corrupt());
    Ok(StreamId(half(number >> 64)?, half(number)?))
}

/// ```text
///   count  deleted  fields  field...  0          the master entry
///   flags  ms  seq  value...             count   with the master's fields
///   flags  ms  seq  fields  (field value)...  count
/// ```
fn node(first: StreamId, elements: Vec<Vec<u8>>, stream: &mut Stream) -> Result<(), RdbError> {
    let mut rest = elements.into_iter();
    let rest = &mut rest;
    let (_count, _deleted) = (whole(rest)?, whole(rest)?);
    let fields = take(rest, 1)?;
    whole(rest)?;
    while let Some(flags) = rest.next() {
        let flags = parse(&flags)?;
        let ms = first.0.wrapping_add_signed(whole(rest)?);
        let id = StreamId(ms, first.1.wrapping_add_signed(whole(rest)?));
        let content = if flags & SAME_FIELDS == 0 {
            take(rest, 2)?
        } else {
            let mut content = Vec::with_capacity(fields.len() * 2);
            for field in &fields {
                content.extend([field.clone(), next(rest)?]);
            }
            content
        };
        whole(rest)?;
        if flags & DELETED == 0 {
            stream.entries.insert(id, content);
        }
    }
    Ok(())
}

/// A count, then so many times `each` elements.
fn take(rest: &mut impl Iterator<Item = Vec<u8>>, each: usize) -> Result<Vec<Vec<u8>>, RdbError> {
    let count = usize::try_from(whole(rest)?).ok().and_then(|count| count.checked_mul(each));
    let count = count.ok_or(RdbError::Corrupt("how many fields an entry has"))?;
    let taken: Vec<_> = rest.take(count).collect();
    if taken.len() == count { Ok(taken) } else { Err(cut()) }
}

fn next(rest: &mut impl Iterator<Item = Vec<u8>>) -> Result<Vec<u8>, RdbError> {
    rest.next().ok_or_else(cut)
}

fn whole(rest: &mut impl Iterator<Item = Vec<u8>>) -> Result<i64, RdbError> {
    parse(&next(rest)?)
}

fn parse(text: &[u8]) -> Result<i64, RdbError> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or(RdbError::Corrupt("a number in a stream"))
}

fn cut() -> RdbError {
    RdbError::Corrupt("a stream's node ends early")
}

/// Passes over a consumer group.
fn group(version: u8, rest: &mut Cursor<'_>) -> Result<(), RdbError> {
    rest.string()?;
    for _ in 0..if version >= 2 { 3 } else { 2 } {
        rest.number()?;
    }
    for _ in 0..rest.count()? {
        // Id, when it was delivered, how often.
        rest.take(ID_BYTES + 8)?;
        rest.number()?;
    }
    for _ in 0..rest.count()? {
        rest.string()?;
        rest.take(if version >= 3 { 16 } else { 8 })?;
        for _ in 0..rest.count()? {
            rest.take(ID_BYTES)?;
        }
    }
    Ok(())
}
