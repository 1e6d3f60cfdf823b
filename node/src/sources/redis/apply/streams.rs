//! Streams. Consumer groups are not carried.

use super::arguments::Arguments;
use super::{Done, Place, Stop};
use crate::sources::redis::object::{Entry, Object, Stream, StreamId};

pub(super) fn apply(place: &mut Place<'_>, name: &[u8], rest: &mut Arguments<'_>) -> Done {
    match name {
        b"XADD" => edit(place, rest, add),
        b"XTRIM" => edit(place, rest, trim),
        b"XDEL" => edit(place, rest, |stream, rest| {
            for id in rest.rest() {
                stream.entries.remove(&id_of(id)?);
            }
            Ok(())
        }),
        b"XSETID" => edit(place, rest, |stream, rest| {
            stream.last = id_of(rest.next()?)?;
            Ok(())
        }),
        b"XGROUP" => group(place, rest),
        _ => Err(Stop::Unknown),
    }
}

fn edit(
    place: &mut Place<'_>,
    rest: &mut Arguments<'_>,
    change: impl FnOnce(&mut Stream, &mut Arguments<'_>) -> Done,
) -> Done {
    let key = rest.next()?;
    place.keys.edit(*place.db, key, |stream| change(stream, rest))
}

fn id_of(text: &[u8]) -> Result<StreamId, Stop> {
    StreamId::parse(text, 0).ok_or(Stop::Reread("an id in a stream"))
}

fn add(stream: &mut Stream, rest: &mut Arguments<'_>) -> Done {
    // It trims behind what it adds.
    let mut later = None;
    let mut by_acknowledged = false;
    loop {
        let mut ahead = rest.clone();
        if ahead.take_word("MAXLEN") || ahead.take_word("MINID") {
            later = Some(Trim::parse(rest)?);
        } else if rest.take_word("ACKED") {
            by_acknowledged = true;
        } else if !REFERENCES.iter().chain(&["NOMKSTREAM"]).any(|word| rest.take_word(word)) {
            break;
        }
    }
    // Written out by the primary, which alone can give one.
    let id = id_of(rest.next()?)?;
    let fields = rest.rest().iter().map(|field| field.to_vec()).collect();
    stream.entries.insert(id, fields);
    stream.last = id;
    match later {
        Some(_) if by_acknowledged => Err(ACKNOWLEDGED),
        Some(later) => later.apply(stream),
        None => Ok(()),
    }
}

/// What becomes of an entry in its groups, which are not carried.
const REFERENCES: [&str; 2] = ["KEEPREF", "DELREF"];
/// From Redis 8.2 on.
const ACKNOWLEDGED: Stop = Stop::Reread("a stream is trimmed by what its groups have acknowledged");

fn trim(stream: &mut Stream, rest: &mut Arguments<'_>) -> Done {
    let trim = Trim::parse(rest)?;
    if !rest.is_empty() && !REFERENCES.iter().any(|word| rest.take_word(word)) {
        return Err(ACKNOWLEDGED);
    }
    trim.apply(stream)
}

/// What of a stream stays. A primary writes out how far an approximate one went.
enum Trim {
    Newest(usize),
    From(StreamId),
    /// Approximate, and not written out: it cannot be told.
    About,
}

impl Trim {
    fn parse(rest: &mut Arguments<'_>) -> Result<Self, Stop> {
        let by_count = rest.take_word("MAXLEN");
        if !by_count && !rest.take_word("MINID") {
            return Err(Stop::Unknown);
        }
        let about = rest.take_word("~");
        rest.take_word("=");
        let parsed = if by_count {
            Self::Newest(rest.parse("a count")?)
        } else {
            Self::From(id_of(rest.next()?)?)
        };
        if rest.take_word("LIMIT") {
            rest.next()?;
        }
        Ok(if about { Self::About } else { parsed })
    }

    fn apply(self, stream: &mut Stream) -> Done {
        match self {
            Self::Newest(count) => {
                while stream.entries.len() > count {
                    stream.entries.pop_first();
                }
            }
            Self::From(id) => stream.entries = stream.entries.split_off(&id),
            Self::About => return Err(Stop::Reread("a stream is trimmed to about a length")),
        }
        Ok(())
    }
}

/// Groups are not carried, but a stream may be made for one.
fn group(place: &mut Place<'_>, rest: &mut Arguments<'_>) -> Done {
    let creates = rest.next()?.eq_ignore_ascii_case(b"CREATE");
    let key = rest.next()?;
    let makes = rest.rest().iter().any(|word| word.eq_ignore_ascii_case(b"MKSTREAM"));
    if creates && makes && !place.keys.exists(*place.db, key)? {
        place.keys.put(*place.db, key, Entry::of(Object::Stream(Stream::default())))?;
    }
    Ok(())
}
