//! What real servers wrote, with mistakes in it.
//!
//! `FUZZ_SECONDS` says for how long each kind is tried. What fails is printed in full.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;
use crate::asked;
use crate::sources::redis::apply::{Place, apply};
use crate::sources::redis::keyspace::Keyspace;
use crate::sources::redis::object::{Entry, Object};
use crate::sources::redis::rdb::tests::read_pieces;
use crate::sources::redis::rdb::{Found, restored};
use crate::sources::redis::resp;
use crate::sources::redis::resp::tests::take_pieces;
use redis_server::Answer;

const SECONDS: u64 = 30;
/// With what the keys begin that [`Writer`] writes to.
const KINDS: [&str; 8] = ["s", "l", "t", "z", "h", "x", "e", "p"];
/// Larger values are left to the tests that read them as they are.
const PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// What is read may be so many times as large as its bytes: LZF makes 264 of three, and
/// of two bytes of those a number of six digits. A sketch is made dense.
const GROWTH: usize = 300;
const SKETCH_BYTES: usize = 16 << 10;

/// Lengths and marks that mean something special.
const ODD: [u8; 16] =
    [0, 1, 0x0f, 0x1f, 0x3f, 0x40, 0x7f, 0x80, 0x81, 0xc0, 0xc3, 0xe0, 0xf0, 0xfe, 0xff, b'\r'];

/// Payloads of `DUMP`, and whole dumps, of all servers there are.
async fn corpus() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut payloads, mut dumps) = (Vec::new(), Vec::new());
    for (seed, server) in (61..).zip(&every_server(&[]).await) {
        let mut client = server.client().await;
        Writer::new(seed).write(&mut client, 1_500).await;
        client.say("SAVE").await;
        let folder = client.say("CONFIG GET dir").await.parts().pop().unwrap().text();
        let file = std::path::Path::new(std::str::from_utf8(&folder).unwrap()).join("dump.rdb");
        dumps.push(std::fs::read(file).unwrap());
        for db in 0..compare::DATABASES {
            client.say(&format!("SELECT {db}")).await;
            payloads.extend(payloads_of(&mut client).await);
        }
    }
    (payloads, dumps)
}

/// Of the database that is selected.
async fn payloads_of(client: &mut RedisClient) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    for key in KINDS.iter().flat_map(|kind| (0..5).map(move |at| format!("{kind}:{at}"))) {
        let Answer::Text(payload) = client.call(&[b"DUMP", key.as_bytes()]).await else { continue };
        payloads.extend((payload.len() <= PAYLOAD_BYTES_MAX).then_some(payload));
    }
    payloads
}

/// Commands without mistakes. The seeds are the same each time, until `FUZZ_SECONDS` asks for
/// more of them, and for every server there is.
#[tokio::test(flavor = "multi_thread")]
async fn what_random_commands_leave_is_what_was_captured() {
    let seconds = asked::number("FUZZ_SECONDS");
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(0));
    let first = asked::number("SEED").unwrap_or(1);
    for seed in first.. {
        let settings = ["--repl-diskless-sync", if seed % 2 == 1 { "yes" } else { "no" }];
        let servers = match seconds {
            Some(_) => every_server(&settings).await,
            None => vec![RedisServer::start(&settings).await],
        };
        for server in &servers {
            asked::tell(&format!("random commands of seed {seed}"));
            let (reader, client) = random_commands(server, seed).await;
            closely(reader, client, seed, seconds.map_or(5, |_| 100)).await;
        }
        // Two in any case: one of each setting.
        if seed > first && Instant::now() >= until {
            return;
        }
    }
}

/// Compares after every few commands: what differs is not overwritten by then.
async fn closely(mut reader: Reader, mut client: RedisClient, seed: u64, rounds: u32) {
    let mut writer = Writer::new(!seed);
    for _ in 0..rounds {
        writer.write(&mut client, 50).await;
        reader.matches(&mut client).await;
    }
}

/// Tries case after case until the time is over.
fn fuzz(name: &str, mut case: impl FnMut(&mut StdRng, &mut Vec<u8>)) {
    let seconds = asked::number("FUZZ_SECONDS").unwrap_or(SECONDS);
    let until = Instant::now() + Duration::from_secs(seconds);
    let first = asked::number("SEED").unwrap_or_else(|| clock::now_ms().unsigned_abs());
    let mut cases = 0;
    while Instant::now() < until {
        let mut random = StdRng::seed_from_u64(first.wrapping_add(cases));
        let mut input = Vec::new();
        let outcome = catch_unwind(AssertUnwindSafe(|| case(&mut random, &mut input)));
        if let Err(panic) = outcome {
            asked::tell(&format!("{name}, case {cases} of seed {first}: {}", input.escape_ascii()));
            resume_unwind(panic);
        }
        cases += 1;
    }
    asked::tell(&format!("{name}: {cases} cases from seed {first} on"));
    assert!(cases > 0);
}

/// Makes one to three mistakes.
fn spoil(random: &mut StdRng, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..random.random_range(1..4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.random_range(0..bytes.len());
        let end = (at + random.random_range(1..20)).min(bytes.len());
        match random.random_range(0..8) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = ODD[random.random_range(0..ODD.len())],
            2 => drop(bytes.drain(at..end)),
            3 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            4 => bytes.insert(at, random.random()),
            5 => bytes[at..end].fill(0xff),
            6 => {
                let from = random.random_range(0..other.len());
                let upto = (from + random.random_range(1..40)).min(other.len());
                drop(bytes.splice(at..end, other[from..upto].to_vec()));
            }
            _ => bytes.truncate(at),
        }
    }
}

/// Bytes of what a key holds.
fn weight(entry: &Entry) -> usize {
    let sum = |parts: &mut dyn Iterator<Item = &Vec<u8>>| parts.map(Vec::len).sum();
    match &entry.object {
        Object::String(text) => text.len(),
        Object::List(list) => sum(&mut list.iter()),
        Object::Set(set) => sum(&mut set.iter()),
        Object::Zset(zset) => sum(&mut zset.0.keys()),
        Object::Hash(hash) => sum(&mut hash.iter().flat_map(|(field, value)| [field, value])),
        Object::Stream(stream) => sum(&mut stream.entries.values().flatten()),
        Object::Opaque(_) => 0,
    }
}

fn is_bounded(entry: &Entry, bytes: usize) -> bool {
    weight(entry) <= GROWTH * bytes + SKETCH_BYTES
}

#[tokio::test(flavor = "multi_thread")]
async fn dumps_with_mistakes_are_read_or_refused() {
    let (payloads, dumps) = corpus().await;
    assert!(payloads.len() > 100 && dumps.len() == 3, "{}", payloads.len());
    fuzz("dumps", |random, input| {
        let other = &payloads[random.random_range(0..payloads.len())];
        if random.random_ratio(1, 100) {
            input.clone_from(&dumps[random.random_range(0..dumps.len())]);
            whole_dump(random, input, other);
        } else {
            input.clone_from(&payloads[random.random_range(0..payloads.len())]);
            payload(random, input, other);
        }
    });
}

fn whole_dump(random: &mut StdRng, input: &mut Vec<u8>, other: &[u8]) {
    spoil(random, input, other);
    // No checksum: what is behind a mistake is read as far as it can be.
    let end = input.len().saturating_sub(8);
    input[end..].fill(0);
    let whole = read_pieces(input, input.len().max(1));
    assert_eq!(whole, read_pieces(input, random.random_range(500..40_000)));
    for (found, taken) in whole.0 {
        let Found::Key { key, entry, .. } = found else { continue };
        assert!(is_bounded(&entry, taken) && key.len() <= GROWTH * taken);
    }
}

fn payload(random: &mut StdRng, input: &mut Vec<u8>, other: &[u8]) {
    // Without version and checksum.
    input.truncate(input.len() - 10);
    if random.random_ratio(1, 20) {
        input[0] = random.random_range(0..26);
    }
    spoil(random, input, other);
    input.extend([9, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    if let Ok(object) = restored(input) {
        assert!(is_bounded(&Entry::of(object), input.len()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_with_mistakes_are_applied_or_refused() {
    let (payloads, _) = corpus().await;
    let mut writer = Writer::with_dumps(71, payloads.clone());
    fuzz("commands", |random, input| {
        for _ in 0..random.random_range(1..30) {
            let mut command = writer.command();
            let at = random.random_range(0..command.len());
            let other = &payloads[random.random_range(0..payloads.len())];
            // A mistake in an argument leaves the stream whole.
            let argument = random.random_bool(0.3).then(|| &mut command[at]);
            argument.into_iter().for_each(|argument| spoil(random, argument, other));
            let parts: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
            resp::write(&parts, input);
        }
        if random.random_bool(0.2) {
            spoil(random, input, b"*3\r\n$3\r\nSET\r\n$99999999999\r\n\n*0\r\n$0\r\n");
        }
        let whole = take_pieces(input, input.len().max(1));
        assert_eq!(whole, take_pieces(input, random.random_range(1..300)));
        let mut keys = Keyspace::new(Arc::<Memory>::default(), false);
        let mut db = 0;
        for (command, _) in whole.0 {
            let mut place = Place { keys: &mut keys, db: &mut db, now_ms: 1_000_000 };
            // A stream goes no further than what is refused; here, all the rest is tried.
            let command: Vec<_> = command.iter().map(Vec::as_slice).collect();
            drop(apply(&mut place, &command));
        }
        keys.give(&mut BatchBuilder::default(), usize::MAX);
    });
}
