//! The keys that a command of the stream names.

use super::slots::slot_of;
use crate::sources::redis::resp::{Command, is_any};

/// All keys a command reads or changes; none if it is not about keys. Arguments that
/// are in the slot of its key may be among them, and do no harm there.
pub(super) fn keys<'a>(command: &Command<'a>) -> Vec<&'a [u8]> {
    let Some((name, rest)) = command.split_first() else { return Vec::new() };
    let name = name.to_ascii_uppercase();
    match &name[..] {
        b"PING" | b"MULTI" | b"EXEC" | b"PUBLISH" | b"SPUBLISH" | b"SCRIPT" | b"FUNCTION"
        | b"REPLCONF" | b"SELECT" | b"SWAPDB" | b"FLUSHALL" | b"FLUSHDB" => Vec::new(),
        b"DEL" | b"UNLINK" => rest.to_vec(),
        // A payload may be in any slot.
        b"RESTORE" => rest.iter().copied().take(1).collect(),
        b"MSET" | b"MSETNX" => rest.iter().copied().step_by(2).collect(),
        b"XGROUP" => rest.iter().copied().skip(1).take(1).collect(),
        b"BITOP" => with_its_kin(rest.get(1..).unwrap_or_default()),
        b"RENAME" | b"RENAMENX" | b"COPY" | b"MOVE" | b"SMOVE" | b"LMOVE" | b"BLMOVE"
        | b"RPOPLPUSH" | b"BRPOPLPUSH" | b"PFMERGE" | b"SORT" => with_its_kin(rest),
        name if name.ends_with(b"STORE") || name.starts_with(b"GEORADIUS") => with_its_kin(rest),
        _ => rest.iter().copied().take(1).collect(),
    }
}

/// The first argument, and those in the slot it is in: the keys of a command share one.
fn with_its_kin<'a>(arguments: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let slot = arguments.first().map(|key| slot_of(key));
    arguments.iter().copied().filter(|argument| Some(slot_of(argument)) == slot).collect()
}

/// After it a key may be gone that was moved to another primary.
pub(super) fn removes(command: &Command<'_>) -> bool {
    is_any(command, &[b"DEL", b"UNLINK", b"FLUSHALL", b"FLUSHDB"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<String> {
        let command: Vec<_> = text.split(' ').map(str::as_bytes).collect();
        keys(&command).into_iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
    }

    #[test]
    fn a_commands_keys_are_found() {
        assert_eq!(named("set a b"), ["a"]);
        assert_eq!(named("RESTORE {x}a 0 {x}b"), ["{x}a"]);
        assert_eq!(named("DEL a b c"), ["a", "b", "c"]);
        assert_eq!(named("MSET a 1 b 2"), ["a", "b"]);
        assert_eq!(named("XGROUP CREATE s g $"), ["s"]);
        assert_eq!(named("BITOP AND {x}d {x}a {x}b"), ["{x}d", "{x}a", "{x}b"]);
        assert_eq!(named("ZUNIONSTORE {x}d 2 {x}a {x}b WEIGHTS 1 2"), ["{x}d", "{x}a", "{x}b"]);
        assert_eq!(named("SORT {x}l BY nosort STORE {x}d"), ["{x}l", "{x}d"]);
        for none in ["PING", "SELECT 0", "MULTI", "FLUSHALL ASYNC"] {
            assert_eq!(named(none), Vec::<String>::new(), "{none}");
        }
        assert_eq!(keys(&[]), Vec::<&[u8]>::new());
    }
}
