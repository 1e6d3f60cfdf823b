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
        wanted.extend(held(client, db).await.unwrap());
    }
    client.say("SELECT 0").await;
    wanted
}

/// What a server has in the database that is selected. A node of a cluster refuses to say
/// while the cluster does not agree on who has what.
pub(super) async fn held(client: &mut RedisClient, db: u32) -> Result<Held, String> {
    let mut held = Held::new();
    for key in ask(client, &[b"KEYS", b"*"]).await?.parts() {
        let key = key.text();
        let named = (document::collection(db), document::key(&key).unwrap().as_bytes().to_vec());
        // It may have ended since.
        if let Some(entry) = read(client, &key).await? {
            held.insert(named, entry);
        }
    }
    Ok(held)
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

/// The answer to a question, or why there is none.
async fn ask(client: &mut RedisClient, words: &[&[u8]]) -> Result<Answer, String> {
    let answer = client.call(words).await;
    if let Answer::Error(why) = answer { Err(why) } else { Ok(answer) }
}

/// When a key ends, less than 0 as a server says it, and how much it may be off.
async fn end_of(client: &mut RedisClient, key: &[u8]) -> Result<(i64, i64), String> {
    if let Answer::Whole(ms) = client.call(&[b"PEXPIRETIME", key]).await {
        return Ok((ms, 0));
    }
    let Answer::Whole(left_ms) = ask(client, &[b"PTTL", key]).await? else { panic!("a time") };
    let ms = if left_ms < 0 { left_ms } else { clock::now_ms() + left_ms };
    Ok((ms, ABOUT_MS))
}

async fn read(client: &mut RedisClient, key: &[u8]) -> Result<Option<(Entry, i64)>, String> {
    let (ms, about_ms) = end_of(client, key).await?;
    if ms == -2 {
        return Ok(None);
    }
    let expire_ms = (ms >= 0).then_some(ms);
    let left_ms = expire_ms.map_or(i64::MAX, |ms| ms - clock::now_ms());
    if left_ms < SOON_MS {
        // It is there for one question and not for the next.
        let over = left_ms.max(0).unsigned_abs() + 1;
        tokio::time::sleep(Duration::from_millis(over)).await;
        // It deletes it by that, and tells who reads from it.
        ask(client, &[b"EXISTS", key]).await?;
        return Ok(None);
    }
    let object = object(client, key).await?;
    Ok(object.map(|object| (Entry { object, expire_ms }, about_ms)))
}

/// The value of a key, if it has one.
async fn object(client: &mut RedisClient, key: &[u8]) -> Result<Option<Object>, String> {
    let kind = ask(client, &[b"TYPE", key]).await?.text();
    Ok(Some(match &kind[..] {
        b"string" => Object::string(ask(client, &[b"GET", key]).await?.text()),
        b"list" => Object::List(texts(ask(client, &[b"LRANGE", key, b"0", b"-1"]).await?).into()),
        b"set" => Object::Set(texts(ask(client, &[b"SMEMBERS", key]).await?).into_iter().collect()),
        b"hash" => {
            let fields = pairs(&texts(ask(client, &[b"HGETALL", key]).await?));
            Object::Hash(fields.into_iter().collect())
        }
        b"zset" => {
            let members = ask(client, &[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"]).await?;
            let score = |text: Vec<u8>| String::from_utf8(text).unwrap().parse().unwrap();
            let scored = pairs(&texts(members)).into_iter();
            Object::Zset(Zset(scored.map(|(member, text)| (member, score(text))).collect()))
        }
        b"stream" => Object::Stream(stream(client, key).await?),
        b"none" => return Ok(None),
        other => panic!("type {}", String::from_utf8_lossy(other)),
    }))
}

async fn stream(client: &mut RedisClient, key: &[u8]) -> Result<Stream, String> {
    let info = ask(client, &[b"XINFO", b"STREAM", key]).await?.parts();
    let at = info.iter().position(|part| *part == Answer::Text(b"last-generated-id".to_vec()));
    let last = StreamId::parse(&info[at.unwrap() + 1].clone().text(), 0).unwrap();
    let entries = ask(client, &[b"XRANGE", key, b"-", b"+"]).await?.parts();
    let entry = |entry: Answer| {
        let [id, fields] = <[Answer; 2]>::try_from(entry.parts()).unwrap();
        (StreamId::parse(&id.text(), 0).unwrap(), texts(fields))
    };
    Ok(Stream { entries: entries.into_iter().map(entry).collect(), last })
}

fn texts(answer: Answer) -> Vec<Vec<u8>> {
    answer.parts().into_iter().map(Answer::text).collect()
}

fn pairs(texts: &[Vec<u8>]) -> Vec<(Vec<u8>, Vec<u8>)> {
    texts.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}
