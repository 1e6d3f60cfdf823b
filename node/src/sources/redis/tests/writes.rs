//! Random commands of every kind, and one value of every encoding.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::compare::DATABASES;
use super::redis_server::{Answer, RedisClient};
use crate::asked;
use crate::clock;

/// Bytes of a word that are told when a test fails.
const WORD_SHOWN: usize = 64;

pub(super) type Words = Vec<Vec<u8>>;

/// Writes what its seed says. Many commands are refused, as keys are few and of
/// six types.
pub(super) struct Writer {
    random: StdRng,
    /// Payloads of DUMP, for RESTORE.
    dumps: Vec<Vec<u8>>,
    done: usize,
    /// What was sent last, in one go.
    last: Vec<Words>,
}

/// What a test that fails had sent last.
impl Drop for Writer {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for command in &self.last {
            let words =
                command.iter().map(|word| word[..word.len().min(WORD_SHOWN)].escape_ascii());
            let words: Vec<String> = words.map(|word| word.to_string()).collect();
            asked::tell(&words.join(" "));
        }
    }
}

impl Writer {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), dumps: Vec::new(), done: 0, last: Vec::new() }
    }

    /// One that has payloads already.
    pub(super) fn with_dumps(seed: u64, dumps: Vec<Vec<u8>>) -> Self {
        let mut writer = Self::new(seed);
        writer.dumps = dumps;
        writer
    }

    /// Sends so many commands; some of them in transactions and scripts.
    pub(super) async fn write(&mut self, client: &mut RedisClient, count: usize) {
        let before = self.done;
        for _ in 0..count.div_ceil(50) {
            let db = self.random.random_range(0..DATABASES);
            let mut commands = vec![words(&format!("SELECT {db}"))];
            let transaction = self.random.random_bool(0.2);
            if transaction {
                commands.push(words("MULTI"));
            }
            commands.extend((0..50).map(|_| self.command()));
            if transaction {
                commands.push(words("EXEC"));
            }
            client.send(&commands).await.unwrap();
            for _ in &commands {
                let answer = client.answer().await.unwrap();
                self.note(answer);
            }
            self.last = commands;
        }
        client.say("SELECT 0").await;
        assert!(self.done - before > count / 3, "most commands do something");
    }

    fn note(&mut self, answer: Answer) {
        if let Answer::Several(answers) = answer {
            return answers.into_iter().for_each(|answer| self.note(answer));
        }
        self.done += usize::from(!matches!(answer, Answer::Error(_) | Answer::Nil));
        if let Answer::Text(text) = answer
            && text.len() > 10
            && self.random.random_bool(0.1)
            && self.dumps.len() < 100
        {
            self.dumps.push(text);
        }
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.random.random_range(0..of.len())]
    }

    /// One of the names in a list.
    fn verb<'a>(&mut self, of: &'a str) -> &'a str {
        let names: Vec<_> = of.split(',').map(str::trim).collect();
        self.one(&names)
    }

    fn number(&mut self, upto: i64) -> String {
        self.random.random_range(-upto..=upto).to_string()
    }

    /// A key of this type, mostly.
    fn key(&mut self, kind: &str) -> Vec<u8> {
        // Not a sketch, whose bytes are not to be changed, nor where all scores are to be equal.
        let kind = if !["p", "e"].contains(&kind) && self.random.random_bool(0.02) {
            self.one(&["s", "l", "z"])
        } else {
            kind
        };
        let number = self.random.random_range(0..6);
        let mut key = format!("{kind}:{number}").into_bytes();
        if number == 5 {
            key.push(0xff);
        }
        key
    }

    fn value(&mut self) -> Vec<u8> {
        match self.random.random_range(0..12) {
            0 => Vec::new(),
            1 => vec![0xff, 0, self.random.random()],
            2 => "é".repeat(self.random.random_range(1..60)).into_bytes(),
            3 => vec![b'x'; self.random.random_range(60..3000)],
            4..8 => self.number(99_999).into_bytes(),
            _ => format!("v{}", self.random.random_range(0..20)).into_bytes(),
        }
    }

    fn score(&mut self) -> String {
        match self.random.random_range(0..8) {
            0 => "+inf".to_owned(),
            1 => "-inf".to_owned(),
            2 => "-0".to_owned(),
            3 => format!("{}", self.random.random_range(-1e10..1e10)),
            _ => self.number(9),
        }
    }

    pub(super) fn command(&mut self) -> Words {
        match self.random.random_range(0..17) {
            0..3 => self.strings(),
            16 => self.sketches(),
            3..5 => self.lists(),
            5..7 => self.sets(),
            7..10 => self.zsets(),
            10..12 => self.hashes(),
            12..14 => self.streams(),
            _ => self.keys(),
        }
    }

    fn strings(&mut self) -> Words {
        let (key, other, value) = (self.key("s"), self.key("s"), self.value());
        let number = self.number(50);
        let at = self.random.random_range(0..300).to_string();
        let verb = self.verb(
            "SET,SET EX,SET KEEPTTL,SETNX,GETSET,APPEND,SETRANGE,INCRBY,DECR,INCRBYFLOAT,SETBIT, \
             BITOP,BITFIELD,MSET,MSETEX,GETEX,GETDEL,PSETEX,EVAL",
        );
        match verb {
            "SET EX" => line("SET", [key, value, "PX".into(), self.lifetime()]),
            "SET KEEPTTL" => line("SET", [key, value, "KEEPTTL".into()]),
            "PSETEX" => line("PSETEX", [key, self.lifetime(), value]),
            "SETRANGE" => line("SETRANGE", [key, at.into(), value]),
            "INCRBY" => line("INCRBY", [key, number.into()]),
            "DECR" | "GETDEL" => line(verb, [key]),
            "INCRBYFLOAT" => line(verb, [key, "0.1".into()]),
            "SETBIT" => line(verb, [key, at.into(), self.one(&["0", "1"]).into()]),
            "BITOP" => {
                let how = self.one(&["AND", "OR", "XOR", "NOT"]);
                let third = self.key("s");
                let mut out = line("BITOP", [how.into(), key, other]);
                out.extend((how != "NOT").then_some(third));
                out
            }
            "BITFIELD" => {
                let field = self.one(&["u8", "i5", "i64", "u63", "u1"]);
                // With FAIL, a primary makes room and does not tell its replicas.
                let overflow = self.one(&["WRAP", "SAT"]);
                let place = self.one(&["0", "3", "#2"]);
                let how = self.one(&["SET", "INCRBY"]);
                let parts = ["OVERFLOW", overflow, how, field, place, &number];
                let mut out = line("BITFIELD", [key]);
                out.extend(parts.map(|part| part.as_bytes().to_vec()));
                out
            }
            "MSET" => line(verb, [key, value, other, self.value()]),
            // Some servers have it.
            "MSETEX" => {
                let mut out = line(verb, ["2".into(), key, value, other, self.value()]);
                let keeps = self.random.random_bool(0.3);
                out.extend(match keeps {
                    true => vec!["KEEPTTL".into()],
                    false => vec!["PX".into(), self.lifetime()],
                });
                out
            }
            "GETEX" => line(verb, [key, "PX".into(), self.lifetime()]),
            "EVAL" => {
                let script =
                    "redis.call('SET', KEYS[1], ARGV[1]) redis.call('APPEND', KEYS[1], 'x')";
                line(verb, [script.into(), "1".into(), key, value])
            }
            _ => line(verb, [key, value]),
        }
    }

    fn sketches(&mut self) -> Words {
        let (key, other, value) = (self.key("p"), self.key("p"), self.value());
        let verb = self.verb("PFADD,PFADD,PFMERGE,PFCOUNT");
        match verb {
            "PFADD" => line(verb, [key, value, self.value()]),
            "PFMERGE" => line(verb, [key, other, self.key("p")]),
            _ => line(verb, [key]),
        }
    }

    /// Milliseconds: at once over, or not while the test runs.
    fn lifetime(&mut self) -> Vec<u8> {
        let short = self.random.random_bool(0.3);
        let ms = if short { self.random.random_range(1..50) } else { 3_600_000 };
        ms.to_string().into_bytes()
    }

    fn lists(&mut self) -> Words {
        let (key, other, value) = (self.key("l"), self.key("l"), self.value());
        let verb = self.verb(
            "LPUSH,RPUSH,RPUSH,LPUSHX,LPOP,RPOP,LSET,LTRIM,LREM,LINSERT,LMOVE,RPOPLPUSH,LMPOP, \
             BLPOP",
        );
        let (number, more) = (self.number(6), self.number(9));
        match verb {
            "LPUSH" | "RPUSH" => line(verb, [key, value, self.value(), self.value()]),
            "LPOP" => line(verb, [key, "2".into()]),
            "RPOP" => line(verb, [key]),
            "LSET" | "LREM" => line(verb, [key, number.into(), value]),
            "LTRIM" => line(verb, [key, number.into(), more.into()]),
            "LINSERT" => {
                line(verb, [key, self.one(&["BEFORE", "AFTER"]).into(), value, self.value()])
            }
            "LMOVE" => {
                let ends = [self.one(&["LEFT", "RIGHT"]), self.one(&["LEFT", "RIGHT"])];
                line(verb, [key, other, ends[0].into(), ends[1].into()])
            }
            "RPOPLPUSH" => line(verb, [key, other]),
            "LMPOP" => {
                line(verb, ["2".into(), key, other, "RIGHT".into(), "COUNT".into(), "2".into()])
            }
            "BLPOP" => line(verb, [key, other, "0.01".into()]),
            _ => line(verb, [key, value]),
        }
    }

    fn sets(&mut self) -> Words {
        let (key, other, value) = (self.key("t"), self.key("t"), self.value());
        let verb = self.verb("SADD,SADD,SREM,SPOP,SPOP 3,SMOVE,SUNIONSTORE,SINTERSTORE,SDIFFSTORE");
        match verb {
            "SPOP" => line(verb, [key]),
            "SPOP 3" => line("SPOP", [key, "3".into()]),
            "SMOVE" => line(verb, [key, other, value]),
            "SADD" => line(verb, [key, value, self.value(), self.value()]),
            "SREM" => line(verb, [key, value]),
            _ => line(verb, [key, other, self.key("t")]),
        }
    }

    fn zsets(&mut self) -> Words {
        let (key, other, value) = (self.key("z"), self.key("z"), self.value());
        let verb = self.verb(
            "ZADD,ZADD,ZADD,ZADD NX,ZADD XX,ZADD GT,ZADD LT,ZINCRBY,ZINCRBY,ZREM,ZPOPMIN,ZPOPMAX, \
             ZREMRANGEBYSCORE,ZREMRANGEBYRANK,ZREMRANGEBYLEX,ZADD 0,ZUNIONSTORE,ZINTERSTORE, \
             ZDIFFSTORE,ZRANGESTORE,ZRANGESTORE BYSCORE,ZMPOP,GEOADD",
        );
        let (number, more) = (self.number(6), self.number(9));
        match verb {
            "ZADD" => {
                line(verb, [key, self.score().into(), value, self.score().into(), self.value()])
            }
            "ZADD NX" | "ZADD XX" | "ZADD GT" | "ZADD LT" => {
                line("ZADD", [key, verb[5..].into(), self.score().into(), value])
            }
            "ZINCRBY" => line(verb, [key, self.score().into(), value]),
            "ZREM" => line(verb, [key, value]),
            "ZPOPMIN" | "ZPOPMAX" => line(verb, [key, "2".into()]),
            "ZREMRANGEBYSCORE" => line(verb, [key, format!("({number}").into(), more.into()]),
            "ZREMRANGEBYRANK" => line(verb, [key, number.into(), more.into()]),
            "ZADD 0" => line("ZADD", [self.key("e"), "0".into(), value, "0".into(), self.value()]),
            // Of members with different scores, it takes what chance has it.
            "ZREMRANGEBYLEX" => line(verb, [self.key("e"), "[v1".into(), "(v2".into()]),
            "ZUNIONSTORE" | "ZINTERSTORE" => {
                let third =
                    if self.random.random_bool(0.3) { self.key("t") } else { self.key("z") };
                let how = self.one(&["SUM", "MIN", "MAX"]);
                let mut out = line(verb, [key, "3".into(), other, third, self.key("z")]);
                out.extend(words(&format!("WEIGHTS 2 0.5 {number} AGGREGATE {how}")));
                out
            }
            "ZDIFFSTORE" => line(verb, [key, "2".into(), other, self.key("z")]),
            "ZRANGESTORE" => line(verb, [key, other, number.into(), more.into(), "REV".into()]),
            "ZRANGESTORE BYSCORE" => {
                let mut out = line("ZRANGESTORE", [key, other, more.into(), "-inf".into()]);
                out.extend(words("BYSCORE REV LIMIT 1 3"));
                out
            }
            "ZMPOP" => line(verb, ["2".into(), key, other, "MAX".into()]),
            _ => line(verb, [key, "13.361389".into(), "38.115556".into(), value]),
        }
    }

    fn hashes(&mut self) -> Words {
        let (key, field, value) = (self.key("h"), self.value(), self.value());
        let verb = self.verb("HSET,HSET,HMSET,HSETNX,HDEL,HINCRBY,HINCRBYFLOAT");
        match verb {
            "HDEL" => line(verb, [key, field, self.value()]),
            "HINCRBY" => line(verb, [key, field, self.number(99).into()]),
            "HINCRBYFLOAT" => line(verb, [key, field, "0.25".into()]),
            "HSETNX" => line(verb, [key, field, value]),
            _ => line(verb, [key, field, value, self.value(), self.value()]),
        }
    }

    fn streams(&mut self) -> Words {
        let (key, value) = (self.key("x"), self.value());
        let verb =
            self.verb("XADD,XADD,XADD MAXLEN,XADD NOMKSTREAM,XADD ~,XTRIM,XTRIM ~,XDEL,XSETID,XGROUP,XREADGROUP");
        let count = self.random.random_range(0..20).to_string();
        match verb {
            "XADD" => line(verb, [key, "*".into(), "name".into(), value]),
            "XADD MAXLEN" => {
                line("XADD", [key, "MAXLEN".into(), count.into(), "*".into(), self.value(), value])
            }
            "XADD NOMKSTREAM" => {
                let mut out = line("XADD", [key, "MAXLEN".into(), count.into()]);
                out.extend(["NOMKSTREAM".into(), "*".into(), self.value(), value]);
                out
            }
            "XADD ~" => {
                let name = self.value();
                line(
                    "XADD",
                    [key, "MAXLEN".into(), "~".into(), count.into(), "*".into(), name, value],
                )
            }
            "XTRIM" => line(verb, [key, "MAXLEN".into(), count.into()]),
            "XTRIM ~" => {
                let id = (clock::now_ms() - 20).to_string();
                line("XTRIM", [key, "MINID".into(), "~".into(), id.into()])
            }
            "XDEL" => line(verb, [key, (clock::now_ms() - 1).to_string().into()]),
            "XSETID" => line(verb, [key, format!("{}-7", clock::now_ms()).into()]),
            "XGROUP" => {
                line(verb, ["CREATE".into(), key, "g".into(), "0".into(), "MKSTREAM".into()])
            }
            _ => {
                let mut out = words("XREADGROUP GROUP g me COUNT 2 STREAMS");
                out.extend([key, b">".to_vec()]);
                out
            }
        }
    }

    fn keys(&mut self) -> Words {
        let kind = self.one(&["s", "l", "t", "z", "h", "x"]);
        let (key, other) = (self.key(kind), self.key(kind));
        let soon = clock::now_ms() + if self.random.random_bool(0.3) { 30 } else { 3_600_000 };
        let verb = self.verb(
            "DEL,UNLINK,RENAME,RENAMENX,COPY,COPY DB,MOVE,EXPIRE,PEXPIREAT,PERSIST,DUMP,DUMP, \
             RESTORE,RESTORE TTL,PUBLISH,EXPIRE",
        );
        match verb {
            "DEL" | "UNLINK" => line(verb, [key, other]),
            "PERSIST" | "DUMP" => line(verb, [key]),
            "RENAME" | "RENAMENX" => line(verb, [key, other]),
            "COPY" => line(verb, [key, other, "REPLACE".into()]),
            "COPY DB" => line("COPY", [key, other, "DB".into(), "1".into(), "REPLACE".into()]),
            "MOVE" => line(verb, [key, "2".into()]),
            "EXPIRE" => line(verb, [key, "3600".into()]),
            "PEXPIREAT" => line(verb, [key, soon.to_string().into()]),
            "RESTORE" | "RESTORE TTL" => {
                let count = self.dumps.len().max(1);
                let dump = self.dumps.get(self.random.random_range(0..count)).cloned();
                let ttl = if verb == "RESTORE" { "0" } else { "3600000" };
                line("RESTORE", [key, ttl.into(), dump.unwrap_or_default(), "REPLACE".into()])
            }
            _ => line(verb, [key, "hello".into()]),
        }
    }
}

fn words(line: &str) -> Words {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn line<const N: usize>(verb: &str, rest: [Vec<u8>; N]) -> Words {
    std::iter::once(verb.as_bytes().to_vec()).chain(rest).collect()
}

/// Values so small and so large that each encoding of this version occurs.
pub(super) async fn one_of_each(client: &mut RedisClient) {
    client.say("FLUSHALL").await;
    let number = |at: usize| at.to_string().into_bytes();
    let wide = |at: usize| format!("{at}{}", "x".repeat(100)).into_bytes();
    for (name, count) in [("small", 3), ("large", 1000)] {
        for (kind, element) in [("n", &number as &dyn Fn(usize) -> Vec<u8>), ("w", &wide)] {
            let mut commands = [Words::new(), Words::new(), Words::new(), Words::new()];
            for (command, verb) in commands.iter_mut().zip(["RPUSH", "SADD", "ZADD", "HSET"]) {
                *command = words(&format!("{verb} {verb}:{name}:{kind}"));
            }
            for at in 0..count {
                let element = element(at);
                commands[0].push(element.clone());
                commands[1].push(element.clone());
                commands[2].extend([format!("{at}.5").into_bytes(), element.clone()]);
                commands[3].extend([element.clone(), element]);
            }
            client.send(&commands).await.unwrap();
            for _ in 0..4 {
                assert!(matches!(client.answer().await.unwrap(), Answer::Whole(_)));
            }
        }
    }
    // One node of a list that is an element alone; text that repeats; numbers.
    for (key, value) in [
        ("huge", vec![b'y'; 3 << 20]),
        (
            "noise",
            (0..1 << 20).map(|at: u32| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect(),
        ),
        ("byte", b"-7".to_vec()),
        ("word", b"30000".to_vec()),
        ("long", b"2000000000".to_vec()),
        ("longest", b"9223372036854775807".to_vec()),
        ("not a number", b"007".to_vec()),
    ] {
        client.call(&[b"SET", key.as_bytes(), &value]).await;
        client
            .call(&[b"RPUSH", format!("list:{key}").as_bytes(), &value, b"1", b"-129", b"70000"])
            .await;
    }
    for at in 1..500 {
        client.say(&format!("XADD stream {at}-1 a {at} b {at}")).await;
        client.say(&format!("XADD stream {at}-2 c {at}")).await;
    }
    for at in (1..500).step_by(3) {
        client.say(&format!("XDEL stream {at}-1")).await;
    }
    client.say("XGROUP CREATE stream g 0").await;
    client.say("XREADGROUP GROUP g me COUNT 5 STREAMS stream >").await;
    client.say("XGROUP CREATE empty g 0 MKSTREAM").await;
    client.say("PFADD sketch a b c").await;
    // A payload with more behind the value: no text, then zeros, whose sum is zero.
    // Valkey 9 refuses it.
    client.call(&[b"RESTORE", b"zeros", b"0", &[0; 16]]).await;
    // From version 7 on.
    client.call(&[b"FUNCTION", b"FLUSH"]).await;
    let library: &[u8] = b"#!lua name=l\nredis.register_function('f', function() return 1 end)";
    client.call(&[b"FUNCTION", b"LOAD", library]).await;
    client.say("PEXPIREAT sketch 99999999999999").await;
    client.say("CONFIG SET maxmemory-policy allkeys-lru").await;
}
