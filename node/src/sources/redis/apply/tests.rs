//! Commands that a real server rarely sends, or never.

use std::sync::Arc;

use proptest::prelude::*;
use tidegate_proto::BatchBuilder;

use super::*;
use crate::sources::contract::Memory;
use crate::sources::redis::object::{Entry, Object, Opaque};

const NOW: i64 = 1_000_000;

struct Server {
    keys: Keyspace,
    db: u32,
}

impl Server {
    fn new() -> Self {
        Self { keys: Keyspace::new(Arc::<Memory>::default(), false), db: 0 }
    }

    fn parts(&mut self, command: &[&[u8]]) -> Result<Effect, Stop> {
        apply(&mut Place { keys: &mut self.keys, db: &mut self.db, now_ms: NOW }, command)
    }

    fn say(&mut self, command: &str) -> Result<Effect, Stop> {
        let parts: Vec<_> = command.split(' ').map(str::as_bytes).collect();
        self.parts(&parts)
    }

    fn get(&mut self, key: &str) -> Option<Entry> {
        self.keys.get(self.db, key.as_bytes()).unwrap().cloned()
    }
}

#[test]
fn a_range_of_members_is_computed_only_where_it_is_one() {
    let mut server = Server::new();
    server.say("ZADD same 0 a -0 b 0 c").unwrap();
    server.say("ZREMRANGEBYLEX same [b +").unwrap();
    let Some(Entry { object: Object::Zset(zset), .. }) = server.get("same") else { panic!() };
    assert_eq!(zset.0.len(), 1);
    for command in ["ZREMRANGEBYLEX mixed [b +", "ZRANGESTORE d mixed [b + BYLEX"] {
        // What a command did that is not computed does not count.
        server.say("ZADD mixed 0 a 1 b").unwrap();
        assert!(matches!(server.say(command), Err(Stop::Reread(_))), "{command}");
    }
}

/// As Redis 7.0.15 says it, which has no rule for an infinity taken no times.
#[test]
fn an_infinity_taken_no_times_counts_as_it_does_in_redis() {
    let mut server = Server::new();
    server.say("ZADD a -inf m").unwrap();
    server.say("ZADD b inf m 1 n").unwrap();
    server.say("ZADD c 5 m").unwrap();
    for (command, score) in [
        ("ZINTERSTORE d 2 a b WEIGHTS 1 0", 0.0),
        ("ZINTERSTORE d 2 c b WEIGHTS 1 0", 0.0),
        ("ZINTERSTORE d 2 c b WEIGHTS 1 0 AGGREGATE MIN", 5.0),
        ("ZINTERSTORE d 2 a b WEIGHTS 1 0 AGGREGATE MAX", f64::NEG_INFINITY),
        ("ZINTERSTORE d 2 a b WEIGHTS 0 1 AGGREGATE MIN", 0.0),
        ("ZUNIONSTORE d 2 a b WEIGHTS 1 0", f64::NEG_INFINITY),
        ("ZUNIONSTORE d 2 a b WEIGHTS 1 0 AGGREGATE MAX", 0.0),
        ("ZUNIONSTORE d 2 a b AGGREGATE MAX WEIGHTS 1 0", 0.0),
    ] {
        server.say(command).unwrap();
        let Some(Entry { object: Object::Zset(zset), .. }) = server.get("d") else {
            panic!("{command}")
        };
        assert_eq!(zset.0.get(&b"m"[..]), Some(&score), "{command}");
    }
}

#[test]
fn what_is_not_known_is_never_passed_over() {
    let mut server = Server::new();
    for command in [
        "JSON.SET k $ 1",
        "SET k v WHAT",
        "HPEXPIRE h 1 FIELDS 1 f",
        "XFUTURE a",
        "ZUNIONSTORE a 0 MORE",
    ] {
        assert!(matches!(server.say(command), Err(Stop::Unknown)), "{command}");
    }
    for command in
        ["SWAPDB 0 1", "SORT l STORE m", "LSET l 0 x", "RENAME a b", "SET", "GEOSEARCHSTORE a b"]
    {
        assert!(matches!(server.say(command), Err(Stop::Reread(_))), "{command}");
    }
    assert_eq!(server.say("REPLCONF GETACK *").unwrap(), Effect::Acknowledge);
    assert_eq!(server.say("FLUSHALL ASYNC").unwrap(), Effect::Flush(None));
    server.say("SELECT 7").unwrap();
    assert_eq!(server.say("flushdb").unwrap(), Effect::Flush(Some(7)));
}

#[test]
fn times_to_live_of_older_servers_count_from_now() {
    let mut server = Server::new();
    let cases = [
        ("SET k v EX 5", NOW + 5_000),
        ("SETEX k 6 v", NOW + 6_000),
        ("PSETEX k 7 v", NOW + 7),
        ("EXPIRE k 8", NOW + 8_000),
        ("PEXPIRE k 9", NOW + 9),
        ("EXPIREAT k 2", 2_000),
        ("GETEX k EX 3", NOW + 3_000),
        ("GETEX k PXAT 5", 5),
        ("SET k w KEEPTTL", 5),
    ];
    for (command, at) in cases {
        server.say(command).unwrap();
        assert_eq!(server.get("k").unwrap().expire_ms, Some(at), "{command}");
    }
    server.say("SET k v").unwrap();
    assert_eq!(server.get("k").unwrap().expire_ms, None);
}

#[test]
fn a_value_that_is_not_carried_stays_so_until_it_is_replaced() {
    let mut server = Server::new();
    server.keys.put(0, b"big", Entry::of(Object::Opaque(Opaque::TooLarge))).unwrap();
    for command in ["RPUSH big x", "INCR big", "HSET big a b"] {
        server.say(command).unwrap();
        assert_eq!(
            server.get("big").unwrap().object,
            Object::Opaque(Opaque::TooLarge),
            "{command}"
        );
    }
    assert!(matches!(server.say("LMOVE big other LEFT LEFT"), Err(Stop::Reread(_))));
    assert!(matches!(server.say("SUNIONSTORE other big"), Err(Stop::Reread(_))));
    server.say("EXPIREAT big 99").unwrap();
    server.say("RENAME big great").unwrap();
    let moved = Entry { object: Object::Opaque(Opaque::TooLarge), expire_ms: Some(99_000) };
    assert_eq!((server.get("big"), server.get("great")), (None, Some(moved)));
    server.say("SET great small").unwrap();
    assert_eq!(server.get("great").unwrap().object, Object::string(b"small".to_vec()));
}

#[test]
fn a_string_that_outgrows_a_document_is_left_out() {
    let mut server = Server::new();
    server.say("SETRANGE s 9000000 x").unwrap();
    assert_eq!(server.get("s").unwrap().object, Object::Opaque(Opaque::TooLarge));
    assert!(matches!(server.say("SETRANGE t 99999999999 x"), Err(Stop::Reread(_))));
    assert!(matches!(server.say("SETBIT t 99999999999999 1"), Err(Stop::Reread(_))));
}

#[test]
fn changes_are_given_in_order_in_batches_of_about_a_size() {
    let mut server = Server::new();
    for at in 0..100 {
        server.say(&format!("SET key:{at} {}", "x".repeat(100))).unwrap();
    }
    let (mut out, mut keys) = (BatchBuilder::default(), Vec::new());
    loop {
        out.clear();
        let all = server.keys.give(&mut out, 1_000);
        assert!(out.bytes() < 2_000);
        keys.extend(out.pending().map(|change| change.key.to_vec()));
        if all {
            break;
        }
    }
    let wanted = (0..100).map(|at| format!("\x50key:{at}\0").into_bytes());
    assert_eq!(keys, wanted.collect::<Vec<_>>());
}

/// From Redis 8.2 and Valkey 8.1 on.
#[test]
fn newer_options_are_computed_or_refused_for_what_they_are() {
    let mut server = Server::new();
    server.say("SET k a PXAT 99000").unwrap();
    for option in ["IFEQ a", "ifne x", "IFDEQ 0123456789abcdef", "GET IFDNE 0"] {
        server.say(&format!("SET k b {option}")).unwrap();
        assert_eq!(server.get("k"), Some(Entry::of(Object::string(b"b".to_vec()))), "{option}");
    }
    for id in 1..5 {
        server.say(&format!("XADD x {id}-0 f v")).unwrap();
    }
    server.say("XTRIM x MAXLEN = 3 KEEPREF").unwrap();
    server.say("XTRIM x MAXLEN 2 DELREF").unwrap();
    let Some(Entry { object: Object::Stream(stream), .. }) = server.get("x") else { panic!("x") };
    assert_eq!(stream.entries.len(), 2);
    assert!(matches!(server.say("XTRIM x MAXLEN 1 ACKED"), Err(Stop::Reread(_))));
}

#[test]
fn what_a_command_did_is_in_one_batch_unless_each_part_may_be_done_again() {
    let mut server = Server::new();
    for command in ["RPUSH l 1 2", "SADD s 1 2", "SET a 1", "SET m 1"] {
        server.say(command).unwrap();
    }
    server.keys.give(&mut BatchBuilder::default(), usize::MAX);
    for (command, batches) in [
        ("LMOVE l k LEFT LEFT", [2].as_slice()),
        ("RPOPLPUSH l k", &[2]),
        ("SMOVE s t 1", &[2]),
        ("RENAME a b", &[2]),
        ("MOVE m 1", &[2]),
        ("MSET x 1 y 2 z 3", &[1, 1, 1]),
        ("DEL x y z", &[1, 1, 1]),
    ] {
        server.say(command).unwrap();
        let mut given = Vec::new();
        for _ in 0..batches.len() {
            let mut out = BatchBuilder::default();
            server.keys.give(&mut out, 1);
            given.push(out.len());
        }
        assert_eq!((&given[..], server.keys.queued()), (batches, 0), "{command}");
    }
}

/// Every name there is, and words that mean something to one of them.
const NAMES: [&str; 70] = [
    "SET",
    "GETSET",
    "SETNX",
    "SETEX",
    "MSET",
    "APPEND",
    "SETRANGE",
    "INCR",
    "INCRBY",
    "DECRBY",
    "PFADD",
    "PFMERGE",
    "SETBIT",
    "BITOP",
    "BITFIELD",
    "HSET",
    "HDEL",
    "HINCRBY",
    "LPUSH",
    "RPUSHX",
    "LPOP",
    "RPOP",
    "LSET",
    "LTRIM",
    "LREM",
    "LINSERT",
    "RPOPLPUSH",
    "LMOVE",
    "SADD",
    "SREM",
    "SMOVE",
    "SUNIONSTORE",
    "SINTERSTORE",
    "SDIFFSTORE",
    "SPOP",
    "ZADD",
    "ZINCRBY",
    "ZREM",
    "ZREMRANGEBYSCORE",
    "ZREMRANGEBYLEX",
    "ZREMRANGEBYRANK",
    "ZPOPMIN",
    "ZPOPMAX",
    "ZUNIONSTORE",
    "ZINTERSTORE",
    "ZDIFFSTORE",
    "ZRANGESTORE",
    "XADD",
    "XTRIM",
    "XDEL",
    "XSETID",
    "XGROUP",
    "DEL",
    "PEXPIREAT",
    "EXPIRE",
    "PERSIST",
    "GETEX",
    "RENAME",
    "COPY",
    "MOVE",
    "RESTORE",
    "SWAPDB",
    "SELECT",
    "FLUSHDB",
    "REPLCONF",
    "PING",
    "MULTI",
    "PUBLISH",
    "EVAL",
    "XACK",
];
const WORDS: [&str; 36] = [
    "a",
    "b",
    "c",
    "0",
    "1",
    "-1",
    "2",
    "999999999999",
    "-9223372036854775808",
    "18446744073709551615",
    "1.5",
    "nan",
    "inf",
    "-inf",
    "(1",
    "[a",
    "+",
    "-",
    "MAXLEN",
    "~",
    "=",
    "5-1",
    "*",
    "INCR",
    "SET",
    "u8",
    "i64",
    "#9999999999",
    "u0",
    "LIMIT",
    "BYSCORE",
    "REV",
    "WEIGHTS",
    "AND",
    "NOT",
    "LEFT",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_words_are_a_command_or_refused(
        commands in prop::collection::vec(
            (prop::sample::select(&NAMES[..]), prop::collection::vec(prop::sample::select(&WORDS[..]), 0..6)),
            1..30,
        ),
    ) {
        let mut server = Server::new();
        for (name, words) in commands {
            let parts = std::iter::once(name).chain(words).map(str::as_bytes);
            drop(server.parts(&parts.collect::<Vec<_>>()));
        }
    }
}
