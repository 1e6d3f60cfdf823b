//! Where a shard is: a place in one primary's stream of commands.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};

/// Characters of a replication id.
const ID_LENGTH: usize = 40;

/// A place in a stream, or none yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// Everything is to be read anew: nothing was captured yet, or its place is lost.
    Anew,
    /// Behind so many bytes of the stream.
    At(Offset),
}

/// A place in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offset {
    /// Which stream: the primary's replication id.
    pub(super) id: Arc<str>,
    /// How many bytes of it lie before.
    pub(super) bytes: u64,
    /// The database selected there.
    pub(super) db: u32,
}

/// `ID:BYTES:DB`, or `?`.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anew => f.write_str("?"),
            Self::At(at) => write!(f, "{}:{}:{}", at.id, at.bytes, at.db),
        }
    }
}

impl Position {
    pub(super) fn encode(&self) -> Bytes {
        self.to_string().into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes == b"?" {
            return Ok(Self::Anew);
        }
        let why = "the position of a redis source does not read ID:BYTES:DB";
        parse(bytes).map(Self::At).ok_or_else(|| Error::new(ErrorKind::Corrupt, why))
    }
}

fn parse(bytes: &[u8]) -> Option<Offset> {
    let mut parts = std::str::from_utf8(bytes).ok()?.split(':');
    let id = parts.next().filter(|id| is_id(id))?.into();
    let (bytes, db) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(Offset { id, bytes, db })
}

/// It reads as a replication id.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_position_reads_back(id in "[0-9a-f]{40}", bytes: u64, db: u32) {
            let position = Position::At(Offset { id: id.into(), bytes, db });
            prop_assert_eq!(Position::decode(&position.encode()).unwrap(), position);
        }

        #[test]
        fn other_bytes_are_refused(text in "[0-9a-f:?]{0,50}") {
            if let Ok(position) = Position::decode(text.as_bytes()) {
                prop_assert_eq!(Position::decode(&position.encode()).unwrap(), position);
            }
        }
    }

    #[test]
    fn the_beginning_is_a_position() {
        assert_eq!(Position::decode(&Position::Anew.encode()).unwrap(), Position::Anew);
        assert!(Position::decode(b"").is_err());
    }
}
