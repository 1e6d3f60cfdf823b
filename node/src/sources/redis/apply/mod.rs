//! What a command does to keys.
//!
//! Commands come as a primary sends them to its replicas: only those that
//! succeeded, what is random or depends on time in them made plain. Each is
//! computed from what its keys held before. One that is not known here is never
//! passed over: it says so, by name.

mod arguments;
mod bits;
mod hashes;
mod keys;
mod lists;
mod ranges;
mod sets;
mod streams;
mod strings;
#[cfg(test)]
mod tests;
mod zsets;
mod zstore;

use super::keyspace::Keyspace;
use super::resp::{Command, is_any};
use crate::error::Error;

pub(super) use arguments::Arguments;

/// Bytes the name of a command has at most.
pub(super) const NAME_BYTES_MAX: usize = 32;

/// Why a command could not be applied.
#[derive(Debug)]
pub(super) enum Stop {
    /// It is not known here.
    Unknown,
    /// What it does is not computed, or does not go with what its keys held as
    /// far as is known here; says why. Everything must be read anew.
    Reread(&'static str),
    /// The content it changes is not carried.
    Opaque,
    /// What was captured could not be read.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

type Done = Result<(), Stop>;

/// What the stream itself has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing more.
    None,
    /// Delete all keys of this database, or of all.
    Flush(Option<u32>),
    /// The primary asks how far we are.
    Acknowledge,
}

/// Where a command is applied.
pub(super) struct Place<'a> {
    pub(super) keys: &'a mut Keyspace,
    /// The database selected.
    pub(super) db: &'a mut u32,
    pub(super) now_ms: i64,
}

/// Applies one command.
pub(super) fn apply(place: &mut Place<'_>, command: &Command<'_>) -> Result<Effect, Stop> {
    let Some((name, arguments)) = command.split_first() else { return Ok(Effect::None) };
    let mut room = [0; NAME_BYTES_MAX];
    let Some(room) = room.get_mut(..name.len()) else { return Err(Stop::Unknown) };
    room.copy_from_slice(name);
    room.make_ascii_uppercase();
    let name = &*room;
    let mut arguments = Arguments::new(arguments);
    let done = match name {
        // Says nothing about keys.
        b"PING" | b"MULTI" | b"EXEC" | b"PUBLISH" | b"SPUBLISH" | b"SCRIPT" | b"FUNCTION"
        | b"XACK" | b"XCLAIM" | b"XAUTOCLAIM" | b"PFCOUNT" | b"PFDEBUG" => return Ok(Effect::None),
        b"REPLCONF" => {
            let asked = arguments.next()?.eq_ignore_ascii_case(b"GETACK");
            return Ok(if asked { Effect::Acknowledge } else { Effect::None });
        }
        b"CLUSTER" if is_about_slots(command) => return Ok(Effect::None),
        b"SELECT" => {
            *place.db = arguments.parse("a database")?;
            return Ok(Effect::None);
        }
        b"FLUSHALL" => return Ok(Effect::Flush(None)),
        b"FLUSHDB" => return Ok(Effect::Flush(Some(*place.db))),
        _ => {
            let queued = place.keys.queued();
            let done = dispatch(place, name, &mut arguments);
            // Most change one key.
            if place.keys.queued() > queued + 1 && !may_be_parted(command) {
                place.keys.tie(queued);
            }
            done
        }
    };
    match done {
        Ok(()) => Ok(Effect::None),
        // It stays so.
        Err(Stop::Opaque) if !reads_others(name) => Ok(Effect::None),
        Err(Stop::Opaque) => Err(Stop::Reread("it depends on a value that is not carried")),
        Err(stop) => Err(stop),
    }
}

/// A cluster says which primary has a slot, which is asked for elsewhere.
pub(super) fn is_about_slots(command: &Command<'_>) -> bool {
    is_any(command, &[b"CLUSTER"])
        && command.get(1).is_some_and(|word| word.eq_ignore_ascii_case(b"SETSLOT"))
}

/// It does to each of many keys what it does again with the same result, so that batches
/// may part it. No other command changes more than two keys.
pub(super) fn may_be_parted(command: &Command<'_>) -> bool {
    is_any(command, &[b"DEL", b"UNLINK", b"MSET", b"MSETNX", b"MSETEX"])
}

/// What it does to one key depends on another.
fn reads_others(name: &[u8]) -> bool {
    name.ends_with(b"STORE")
        || matches!(name, b"LMOVE" | b"RPOPLPUSH" | b"SMOVE" | b"BITOP" | b"PFMERGE" | b"SORT")
}

fn dispatch(place: &mut Place<'_>, name: &[u8], rest: &mut Arguments<'_>) -> Done {
    let families = [
        strings::apply,
        strings::apply_sketch,
        bits::apply,
        keys::apply,
        hashes::apply,
        lists::apply,
        sets::apply,
        zsets::apply,
        zstore::apply,
        streams::apply,
    ];
    for family in families {
        let done = family(place, name, rest);
        if !matches!(done, Err(Stop::Unknown)) {
            return done;
        }
    }
    Err(Stop::Unknown)
}
