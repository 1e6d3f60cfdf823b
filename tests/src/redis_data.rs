//! Writes of every type to a Redis, and what it holds by its own account.

use std::collections::BTreeMap;

use rand::Rng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::redis_server::{Answer, RedisClient};

/// Values there are: so many members have the largest sets.
const VALUES: u32 = 50;
/// Seconds that keys have which end: none ends while it is looked at.
const ENDS_IN: u32 = 10_000;

/// A command, one of `keys` keys of each type. Collections stay small.
#[must_use]
pub fn command(random: &mut StdRng, keys: u32) -> Vec<Vec<u8>> {
    let (key, other) = (random.random_range(0..keys), random.random_range(0..keys));
    let value = random.random_range(0..VALUES);
    let line = match random.random_range(0..15) {
        0 => format!("SET s:{key} {value}"),
        1 => format!("INCR s:{key}"),
        2 => format!("SET s:{key} {value} EX {}", ENDS_IN + value),
        3 => format!("RPUSH l:{key} {value} é"),
        4 => format!("LPOP l:{key}"),
        5 => format!("LTRIM l:{key} -20 -1"),
        6 => format!("SADD t:{key} {value}"),
        7 => format!("SREM t:{key} {value}"),
        // Halves, so that every reader of JSON writes them alike.
        8 => format!("ZADD z:{key} {value}.5 member:{value}"),
        9 => format!("ZREMRANGEBYRANK z:{key} 5 -1"),
        10 => format!("HSET h:{key} field:{value} {value} other {value}"),
        11 => format!("HDEL h:{key} field:{value}"),
        12 => format!("XADD x:{key} MAXLEN 5 * name {value}"),
        13 => format!("SUNIONSTORE t:{key} t:{other} t:{key}"),
        _ => format!("DEL s:{key} l:{other} h:{value}"),
    };
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// What a server holds, by key as JSON, as the documented mapping to JSON has it; `ends` is
/// when in milliseconds, -1 for never.
///
/// # Panics
///
/// If the connection breaks.
pub async fn held(client: &mut RedisClient) -> BTreeMap<String, Value> {
    let mut held = BTreeMap::new();
    for key in client.say("KEYS *").await.parts() {
        let key = key.text();
        let name = json!(String::from_utf8_lossy(&key)).to_string();
        held.insert(name, document(client, &key).await);
    }
    held
}

async fn document(client: &mut RedisClient, key: &[u8]) -> Value {
    let kind = text(client.call(&[b"TYPE", key]).await);
    let mut document = json!({"type": kind});
    let Answer::Whole(end) = client.call(&[b"PEXPIRETIME", key]).await else { panic!("a time") };
    document["ends"] = json!(end);
    document["value"] = match kind.as_str() {
        "string" => json!(text(client.call(&[b"GET", key]).await)),
        "list" => json!(texts(client.call(&[b"LRANGE", key, b"0", b"-1"]).await)),
        "set" => {
            let mut members = texts(client.call(&[b"SMEMBERS", key]).await);
            members.sort();
            json!({"$set:string": members})
        }
        "hash" => {
            let all = texts(client.call(&[b"HGETALL", key]).await);
            all.chunks(2).map(|pair| (pair[0].clone(), json!(pair[1]))).collect()
        }
        "zset" => {
            let all = texts(client.call(&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"]).await);
            all.chunks(2).map(|pair| json!({"member": pair[0], "score": score(&pair[1])})).collect()
        }
        _ => {
            let all = client.call(&[b"XRANGE", key, b"-", b"+"]).await.parts();
            all.into_iter().map(entry).collect()
        }
    };
    document
}

fn entry(entry: Answer) -> Value {
    let mut parts = entry.parts().into_iter();
    let (id, fields) = (parts.next(), parts.next());
    json!({"id": id.map(text), "fields": fields.map(texts)})
}

fn score(text: &str) -> f64 {
    text.parse().expect("scores are numbers")
}

fn text(answer: Answer) -> String {
    String::from_utf8_lossy(&answer.text()).into_owned()
}

fn texts(answer: Answer) -> Vec<String> {
    answer.parts().into_iter().map(text).collect()
}

/// Whether a lake has the keys that [`held`] gave and no others, each with its type, its
/// value and its end.
///
/// # Panics
///
/// If not; names some of them.
pub fn compare(expected: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>) {
    let missing: Vec<_> = expected.keys().filter(|key| !found.contains_key(*key)).take(3).collect();
    let extra: Vec<_> = found.keys().filter(|key| !expected.contains_key(*key)).take(3).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:?}, extra {extra:?}");
    for (key, wanted) in expected {
        let found = &found[key];
        assert_eq!((&wanted["type"], &wanted["value"]), (&found["type"], &found["value"]), "{key}");
        let end = wanted["ends"].as_i64().filter(|ms| *ms >= 0).map(moment);
        assert_eq!(
            end.map(|end| json!({"$timestamp": end})).as_ref(),
            found.get("expire_at"),
            "{key}"
        );
    }
}

/// Milliseconds since 1970 as a lake's reader writes them.
fn moment(ms: i64) -> String {
    let (days, ms) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (mut year, mut day) = (1970, days);
    let length =
        |year: i64| if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) { 366 } else { 365 };
    while day >= length(year) {
        day -= length(year);
        year += 1;
    }
    let leap = length(year) == 366;
    let mut month = 1;
    for days in [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    let micros = ms % 1000 * 1000;
    format!("{year}-{month:02}-{:02}T{hours:02}:{minutes:02}:{seconds:02}.{micros:06}Z", day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_out() {
        assert_eq!(moment(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(moment(951_782_400_123), "2000-02-29T00:00:00.123000Z");
        assert_eq!(moment(1_798_761_599_999), "2026-12-31T23:59:59.999000Z");
        assert_eq!(moment(1_798_761_600_000), "2027-01-01T00:00:00.000000Z");
    }
}
