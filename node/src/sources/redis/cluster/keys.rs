//! The keys that a command of the stream names.

use super::slots::slot_of;
use crate::sources::redis::apply::is_about_slots;
use crate::sources::redis::resp::{Command, is_any};

/// All keys a command reads or changes: none if it is not about keys, `None` if that is not
/// known. Arguments that are in the slot of its key may be among them, and do no harm there.
pub(in crate::sources::redis) fn keys<'a>(command: &Command<'a>) -> Option<Vec<&'a [u8]>> {
    let Some((name, rest)) = command.split_first() else { return Some(Vec::new()) };
    let name = name.to_ascii_uppercase();
    Some(match &name[..] {
        b"PING" | b"MULTI" | b"EXEC" | b"PUBLISH" | b"SPUBLISH" | b"SCRIPT" | b"FUNCTION"
        | b"REPLCONF" | b"SELECT" | b"SWAPDB" | b"FLUSHALL" | b"FLUSHDB" => Vec::new(),
        b"CLUSTER" if is_about_slots(command) => Vec::new(),
        b"DEL" | b"UNLINK" => rest.to_vec(),
        b"MSET" | b"MSETNX" => rest.iter().copied().step_by(2).collect(),
        b"MSETEX" => {
            let pairs: usize = std::str::from_utf8(rest.first()?).ok()?.parse().ok()?;
            rest[1..].iter().copied().step_by(2).take(pairs).collect()
        }
        b"XGROUP" => rest.iter().copied().skip(1).take(1).collect(),
        b"BITOP" => with_its_kin(rest.get(1..).unwrap_or_default()),
        b"RENAME" | b"RENAMENX" | b"COPY" | b"MOVE" | b"SMOVE" | b"LMOVE" | b"BLMOVE"
        | b"RPOPLPUSH" | b"BRPOPLPUSH" | b"PFMERGE" | b"SORT" | b"SUNIONSTORE" | b"SINTERSTORE"
        | b"SDIFFSTORE" | b"ZUNIONSTORE" | b"ZINTERSTORE" | b"ZDIFFSTORE" | b"ZRANGESTORE"
        | b"GEOSEARCHSTORE" | b"GEORADIUS" | b"GEORADIUSBYMEMBER" => with_its_kin(rest),
        name if names_one(name) => rest.iter().copied().take(1).collect(),
        _ => return None,
    })
}

/// Its first argument is its only key.
fn names_one(name: &[u8]) -> bool {
    const STRINGS: &str = "APPEND BITFIELD DECR DECRBY GETDEL GETEX GETSET INCR INCRBY PFADD \
                           PFCOUNT PFDEBUG PSETEX SET SETBIT SETEX SETNX SETRANGE";
    const KEYS: &str = "EXPIRE EXPIREAT PERSIST PEXPIRE PEXPIREAT RESTORE RESTORE-ASKING";
    const LISTS: &str = "LINSERT LPOP LPUSH LPUSHX LREM LSET LTRIM RPOP RPUSH RPUSHX";
    const SETS: &str = "SADD SPOP SREM";
    const ZSETS: &str = "ZADD ZINCRBY ZPOPMAX ZPOPMIN ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK \
                         ZREMRANGEBYSCORE";
    const HASHES: &str = "HDEL HINCRBY HMSET HSET HSETNX";
    const STREAMS: &str = "XACK XADD XAUTOCLAIM XCLAIM XDEL XSETID XTRIM";
    [STRINGS, KEYS, LISTS, SETS, ZSETS, HASHES, STREAMS]
        .iter()
        .any(|names| names.split_whitespace().any(|known| known.as_bytes() == name))
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
        let keys = keys(&command).expect("it is known").into_iter();
        keys.map(|key| String::from_utf8_lossy(key).into_owned()).collect()
    }

    #[test]
    fn a_commands_keys_are_found() {
        assert_eq!(named("set a b"), ["a"]);
        assert_eq!(named("RESTORE {x}a 0 {x}b"), ["{x}a"]);
        assert_eq!(named("DEL a b c"), ["a", "b", "c"]);
        assert_eq!(named("MSET a 1 b 2"), ["a", "b"]);
        assert_eq!(named("MSETEX 2 a 1 b 2 PXAT 5"), ["a", "b"]);
        assert_eq!(named("XGROUP CREATE s g $"), ["s"]);
        assert_eq!(named("BITOP AND {x}d {x}a {x}b"), ["{x}d", "{x}a", "{x}b"]);
        assert_eq!(named("ZUNIONSTORE {x}d 2 {x}a {x}b WEIGHTS 1 2"), ["{x}d", "{x}a", "{x}b"]);
        assert_eq!(named("SORT {x}l BY nosort STORE {x}d"), ["{x}l", "{x}d"]);
        let slots = "CLUSTER SETSLOT 1 NODE n";
        for none in ["PING", "SELECT 0", "MULTI", "FLUSHALL ASYNC", slots] {
            assert_eq!(named(none), Vec::<String>::new(), "{none}");
        }
        assert_eq!(keys(&[]), Some(Vec::new()));
    }

    #[test]
    fn the_keys_of_an_unknown_command_are_not_guessed() {
        for text in ["JSON.MSET a $ 1 b $ 2", "CLUSTER SYNCSLOTS a", "MSETEX a 1 b 2", "MSETEX"] {
            let command: Vec<_> = text.split(' ').map(str::as_bytes).collect();
            assert_eq!(keys(&command), None, "{text}");
        }
    }
}
