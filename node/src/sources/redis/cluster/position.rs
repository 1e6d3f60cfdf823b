//! Where the shard of a whole cluster is: the places of its primaries, and which
//! slots are read where.

use std::fmt;

use super::slots::SlotSet;
use crate::error::{Error, ErrorKind, Result};
use crate::sources::redis::position::Position;

/// Where one primary's stream is, and the slots whose keys it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The node's id.
    pub(super) id: String,
    pub(super) at: Position,
    /// What was captured of these slots is what the primary had there.
    pub(super) slots: SlotSet,
}

/// All of them; none at the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::sources::redis) struct Places(pub(super) Vec<Place>);

/// `NODE=POSITION@SLOTS`, with semicolons between; `?` at the beginning.
impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("?");
        }
        let texts: Vec<String> = self.0.iter().map(|it| it.slots.to_string()).collect();
        f.write_str(&text(self.0.iter().zip(&texts).map(|(it, slots)| (&*it.id, &it.at, &**slots))))
    }
}

/// The same, of slots that are text already.
pub(super) fn text<'a>(places: impl Iterator<Item = (&'a str, &'a Position, &'a str)>) -> String {
    let texts: Vec<String> = places.map(|(id, at, slots)| format!("{id}={at}@{slots}")).collect();
    texts.join(";")
}

impl Places {
    pub(in crate::sources::redis) fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes == b"?" {
            return Ok(Self::default());
        }
        let why = "the position of a redis cluster does not read NODE=POSITION@SLOTS;…";
        let wrong = || Error::new(ErrorKind::Corrupt, why);
        let text = std::str::from_utf8(bytes).map_err(|_| wrong())?;
        let places: Option<Vec<Place>> = text.split(';').map(place).collect();
        places.map(Self).ok_or_else(wrong)
    }
}

fn place(text: &str) -> Option<Place> {
    let (id, rest) = text.split_once('=')?;
    let (at, slots) = rest.split_once('@')?;
    let plain = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let at = Position::decode(at.as_bytes()).ok().filter(|_| plain)?;
    Some(Place { id: id.to_owned(), at, slots: SlotSet::parse(slots)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::redis::position::Offset;

    #[test]
    fn places_read_back() {
        let at = Position::At(Offset { id: "a".repeat(40).into(), bytes: 7, db: 0 });
        let slots = SlotSet::parse("0-3,9").unwrap();
        let one = Place { id: "1b".to_owned(), at, slots };
        let two = Place { id: "2c".to_owned(), at: Position::Anew, slots: SlotSet::default() };
        let places = Places(vec![one, two]);
        assert_eq!(Places::decode(places.to_string().as_bytes()).unwrap(), places);
        assert_eq!(Places::decode(b"?").unwrap(), Places::default());
        assert_eq!(Places::default().to_string(), "?");
    }

    #[test]
    fn other_bytes_are_refused() {
        for wrong in ["", ";", "a=?", "a@0-1", "=?@", "a=x@0", "a=?@99999", "a=?@;"] {
            assert!(Places::decode(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
