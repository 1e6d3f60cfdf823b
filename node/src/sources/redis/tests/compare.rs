//! What a server has, read with plain commands, against what was captured.

use std::collections::BTreeMap;
use std::time::Duration;

use super::redis_server::{Answer, RedisClient};
use crate::clock;
use crate::sources::contract::Memory;
use crate::sources::redis::document;
use crate::sources::redis::object::{Entry, Object, Stream, StreamId, Zset};

/// Databases that tests write to.
pub(super) const DATABASES: u32 = 3;

/// How far off it may be when a key ends, before version 7: servers tell what is left, to
/// who asks and to who reads from them. No key here ends by chance so late.
const ABOUT_MS: i64 = 60_000;

/// Longer than a key is read for.
const SOON_MS: i64 = 5_000;

/// By collection and key; with how many milliseconds the end may be off.
pub(super) type Held = BTreeMap<(String, Vec<u8>), (Entry, i64)>;

/// What a server has in all its databases.
pub(super) async fn held_by(client: &mut RedisClient) -> Held {
    let mut wanted = Held::new();
    for db in 0..DATABASES {
        client.say(&format!("SELECT {db}")).await;
        wanted.extend(held(client, db).await);
    }
    client.say("SELECT 0").await;
    wanted
}

/// What a server has in the database that is selected.
pub(super) async fn held(client: &mut RedisClient, db: u32) -> Held {
    let mut held = Held::new();
    for key in client.say("KEYS *").await.parts() {
        let key = key.text();
        let named = (document::collection(db), document::key(&key).unwrap().as_bytes().to_vec());
        // It may have ended since.
        if let Some(entry) = read(client, &key).await {
            held.insert(named, entry);
        }
    }
    held
}

/// Fails unless `wanted` is what was captured: each key with its value and expiry.
pub(super) fn same(mut wanted: Held, captured: &Memory) {
    let mut found = BTreeMap::new();
    for (named, (dictionary, value)) in captured.documents() {
        found.insert(named, document::decode(&dictionary, &value).unwrap());
    }
    // What has ended by now, Redis shows no more, and may yet have to delete. Before version
    // 7, it ends a little later for who reads the stream.
    let until = clock::now_ms() + SOON_MS;
    let ended = |entry: &Entry| entry.expire_ms.is_some_and(|ms| ms <= until);
    found.retain(|named, entry| wanted.contains_key(named) || !ended(entry));
    wanted.retain(|named, (entry, _)| found.contains_key(named) || !ended(entry));
    for (named, (entry, about_ms)) in &mut wanted {
        let found = found.get(named);
        let ends = entry.expire_ms.zip(found.and_then(|it| it.expire_ms));
        if let Some((wanted, told)) = ends
            && wanted.abs_diff(told) <= about_ms.unsigned_abs()
        {
            entry.expire_ms = Some(told);
        }
        assert_eq!(found, Some(&*entry), "{named:?}");
    }
    found.retain(|named, _| !wanted.contains_key(named));
    assert!(found.is_empty(), "captured, and not there at {}: {found:?}", clock::now_ms());
}

/// When a key ends, less than 0 as a server says it, and how much it may be off.
async fn end_of(client: &mut RedisClient, key: &[u8]) -> (i64, i64) {
    if let Answer::Whole(ms) = client.call(&[b"PEXPIRETIME", key]).await {
        return (ms, 0);
    }
    let Answer::Whole(left_ms) = client.call(&[b"PTTL", key]).await else { panic!("a time") };
    (if left_ms < 0 { left_ms } else { clock::now_ms() + left_ms }, ABOUT_MS)
}

async fn read(client: &mut RedisClient, key: &[u8]) -> Option<(Entry, i64)> {
    let (ms, about_ms) = end_of(client, key).await;
    if ms == -2 {
        return None;
    }
    let expire_ms = (ms >= 0).then_some(ms);
    let left_ms = expire_ms.map_or(i64::MAX, |ms| ms - clock::now_ms());
    if left_ms < SOON_MS {
        // It is there for one question and not for the next.
        let over = left_ms.max(0).unsigned_abs() + 1;
        tokio::time::sleep(Duration::from_millis(over)).await;
        // It deletes it by that, and tells who reads from it.
        client.call(&[b"EXISTS", key]).await;
        return None;
    }
    let kind = client.call(&[b"TYPE", key]).await.text();
    let object = match &kind[..] {
        b"string" => Object::string(client.call(&[b"GET", key]).await.text()),
        b"list" => Object::List(texts(client.call(&[b"LRANGE", key, b"0", b"-1"]).await).into()),
        b"set" => Object::Set(texts(client.call(&[b"SMEMBERS", key]).await).into_iter().collect()),
        b"hash" => {
            let fields = pairs(&texts(client.call(&[b"HGETALL", key]).await));
            Object::Hash(fields.into_iter().collect())
        }
        b"zset" => {
            let members = client.call(&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"]).await;
            let score = |text: Vec<u8>| String::from_utf8(text).unwrap().parse().unwrap();
            let scored = pairs(&texts(members)).into_iter();
            Object::Zset(Zset(scored.map(|(member, text)| (member, score(text))).collect()))
        }
        b"stream" => Object::Stream(stream(client, key).await),
        b"none" => return None,
        other => panic!("type {}", String::from_utf8_lossy(other)),
    };
    Some((Entry { object, expire_ms }, about_ms))
}

async fn stream(client: &mut RedisClient, key: &[u8]) -> Stream {
    let info = client.call(&[b"XINFO", b"STREAM", key]).await.parts();
    let at = info.iter().position(|part| *part == Answer::Text(b"last-generated-id".to_vec()));
    let last = StreamId::parse(&info[at.unwrap() + 1].clone().text(), 0).unwrap();
    let entries = client.call(&[b"XRANGE", key, b"-", b"+"]).await.parts();
    let entry = |entry: Answer| {
        let [id, fields] = <[Answer; 2]>::try_from(entry.parts()).unwrap();
        (StreamId::parse(&id.text(), 0).unwrap(), texts(fields))
    };
    Stream { entries: entries.into_iter().map(entry).collect(), last }
}

fn texts(answer: Answer) -> Vec<Vec<u8>> {
    answer.parts().into_iter().map(Answer::text).collect()
}

fn pairs(texts: &[Vec<u8>]) -> Vec<(Vec<u8>, Vec<u8>)> {
    texts.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}
