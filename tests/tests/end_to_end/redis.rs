//! A Redis under write load, exported by three nodes; the owner is killed, the
//! link is cut, Redis is killed and starts with less than it had.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tidegate_tests::cluster::{Cluster, alone};
use tidegate_tests::lake;
use tidegate_tests::redis_server::{Answer, RedisClient, RedisServer};

use crate::stage::{does, refused};

pub(crate) const EXPORT: &str = "cache";
/// Of each type.
const KEYS: u32 = 300;
/// Commands sent in one go.
const BURST: usize = 100;
/// The speed is known after some seconds, and told every twenty.
const WARNED_MAX: usize = 45;

pub(crate) fn spec(cluster: &Cluster, server: &RedisServer) -> String {
    format!(
        "name = \"{EXPORT}\"\n\
         [source]\nkind = \"redis\"\nendpoint = \"{}\"\n\
         [[sink]]\nkind = \"lake\"\npath = \"{}\"\ndelay-ms = 500\n",
        server.endpoint(),
        cluster.folder().join("lake").display()
    )
}

/// METHOD: commands of all six types go in without a pause. The reader's node is
/// killed and comes back; the link is cut; Redis is killed and starts again with
/// what it had saved long before, so that keys are gone. In the end the lake
/// equals Redis, key by key, with one gap on record: the one Redis made.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_arrives_whole_although_its_owner_and_itself_are_killed() {
    let _alone = alone().await;
    let mut server = RedisServer::start(&["--repl-backlog-size", "8mb"]).await;
    let mut client = server.client().await;
    let mut random = StdRng::seed_from_u64(5);
    for _ in 0..50 {
        burst(&mut client, &mut random).await.unwrap();
    }
    client.say("SAVE").await;
    let mut cluster = Cluster::start(3).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(write(server.client().await, Arc::clone(&stop)));
    cluster.apply(&spec(&cluster, &server));
    let in_sync = |it: &Cluster| {
        let shards = it.shards(EXPORT);
        shards.first().is_some_and(|it| it["in_sync"].as_array().map_or(0, Vec::len) >= 2)
    };
    cluster.until("the spool has two copies in sync", in_sync).await;
    let captured = |it: &Cluster| it.captured(EXPORT);
    cluster.until("all rows and some changes are captured", |it| captured(it) > 10_000).await;

    let owner = cluster.busiest(EXPORT);
    is_warned_of(&cluster, owner).await;
    cluster.kill(owner).await;
    let before = captured(&cluster);
    cluster.until("another node goes on", |it| captured(it) > before + 1_000).await;
    cluster.start_node(owner);
    cluster.until("the spool has two copies in sync again", in_sync).await;
    client.say("CLIENT KILL TYPE replica").await;
    let before = captured(&cluster);
    cluster.until("it goes on where it was cut", |it| captured(it) > before + 1_000).await;
    assert_eq!(cluster.gaps(EXPORT), [] as [Value; 0], "so far nothing was lost");

    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    client.say("SET only-now 1").await;
    let in_lake = |it: &Cluster| lake::latest(&it.folder().join("lake"), EXPORT);
    cluster.until("a last key is in the lake", |it| in_lake(it).contains_key("\"only-now\"")).await;
    compare(&held(&mut client).await, &in_lake(&cluster));
    server.kill().await;
    server.start_again().await;
    let mut client = server.client().await;
    burst(&mut client, &mut random).await.unwrap();
    client.say("SET after 1").await;
    let swept = |it: &Cluster| {
        let lake = in_lake(it);
        lake.contains_key("\"after\"") && !lake.contains_key("\"only-now\"")
    };
    cluster.until("what Redis lost is deleted", swept).await;
    compare(&held(&mut client).await, &in_lake(&cluster));
    let gaps = cluster.gaps(EXPORT);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0]["kind"], "recreated", "{gaps:?}");
    let select = "SELECT document FROM lake WHERE operation = 'gap'";
    let marks = lake::select(&cluster.folder().join("lake"), EXPORT, select).unwrap();
    assert!(marks.len() == 1 && marks[0][0]["kind"] == "recreated", "{marks:?}");
    is_compared_when_asked(&cluster, &mut client).await;
}

/// A position cannot be set, but all of it compared once more.
async fn is_compared_when_asked(cluster: &Cluster, client: &mut RedisClient) {
    let shard = format!("{EXPORT}/{}", cluster.shards(EXPORT)[0]["id"].as_str().unwrap());
    let set = |to| ["--yes", "position", "set", &shard, to, "--reason", "to be sure"];
    refused(&cluster.cli(&set("?")), 3, &["say `now`"]);
    does(cluster, &set("now"));
    client.say("SET last 1").await;
    let in_lake = |it: &Cluster| lake::latest(&it.folder().join("lake"), EXPORT);
    let last = |it: &Cluster| in_lake(it).contains_key("\"last\"");
    cluster.until("it goes on after all was compared", last).await;
    compare(&held(client).await, &in_lake(cluster));
    let gaps = cluster.gaps(EXPORT);
    assert!(gaps.len() == 2 && gaps[1]["repair"] != "", "{gaps:?}");
}

/// Eight MiB do not last for a minute of these writes: the page that says whether a node
/// is ready says so.
async fn is_warned_of(cluster: &Cluster, owner: usize) {
    let mut page = String::new();
    for _ in 0..WARNED_MAX {
        page = cluster.page(owner, "/readyz").await.unwrap();
        if page.contains("ready\nwarning: export cache: ") {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{page}");
}

pub(crate) async fn write(mut client: RedisClient, stop: Arc<AtomicBool>) {
    let mut random = StdRng::seed_from_u64(6);
    while !stop.load(Ordering::Relaxed) {
        burst(&mut client, &mut random).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Some commands of every type.
async fn burst(client: &mut RedisClient, random: &mut StdRng) -> std::io::Result<()> {
    let commands: Vec<_> = (0..BURST).map(|_| command(random)).collect();
    client.send(&commands).await?;
    for _ in &commands {
        let answer = client.answer().await?;
        assert!(!matches!(answer, Answer::Error(_)), "{answer:?}");
    }
    Ok(())
}

fn command(random: &mut StdRng) -> Vec<Vec<u8>> {
    let key = random.random_range(0..KEYS);
    let value = random.random_range(0..50);
    let line = match random.random_range(0..14) {
        0 => format!("SET s:{key} {value}"),
        1 => format!("INCR s:{key}"),
        2 => format!("SET s:{key} {value} EX {}", 10_000 + value),
        3 => format!("RPUSH l:{key} {value} é"),
        4 => format!("LPOP l:{key}"),
        5 => format!("SADD t:{key} {value}"),
        6 => format!("SREM t:{key} {value}"),
        // Halves, so that every reader of JSON writes them alike.
        7 => format!("ZADD z:{key} {value}.5 member:{value}"),
        8 => format!("ZREMRANGEBYRANK z:{key} 5 -1"),
        9 => format!("HSET h:{key} field:{value} {value} other {value}"),
        10 => format!("HDEL h:{key} field:{value}"),
        11 => format!("XADD x:{key} MAXLEN 5 * name {value}"),
        12 => format!("SUNIONSTORE t:{key} t:{value} t:{key}"),
        _ => format!("DEL s:{key} l:{value} h:{value}"),
    };
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// What a server holds, by key, as the documented mapping to JSON has it.
pub(crate) async fn held(client: &mut RedisClient) -> BTreeMap<String, Value> {
    let mut held = BTreeMap::new();
    for key in client.say("KEYS *").await.parts() {
        let key = key.text();
        let name = json!(String::from_utf8(key.clone()).unwrap()).to_string();
        held.insert(name, document(client, &key).await);
    }
    held
}

async fn document(client: &mut RedisClient, key: &[u8]) -> Value {
    let kind = String::from_utf8(client.call(&[b"TYPE", key]).await.text()).unwrap();
    let mut document = json!({"type": kind});
    let Answer::Whole(end) = client.call(&[b"EXPIRETIME", key]).await else { panic!("a time") };
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
            let scored = |pair: &[String]| json!({"member": pair[0], "score": pair[1].parse::<f64>().unwrap()});
            all.chunks(2).map(scored).collect()
        }
        _ => {
            let entry = |entry: Answer| {
                let [id, fields] = <[Answer; 2]>::try_from(entry.parts()).unwrap();
                json!({"id": text(id), "fields": texts(fields)})
            };
            let all = client.call(&[b"XRANGE", key, b"-", b"+"]).await.parts();
            all.into_iter().map(entry).collect()
        }
    };
    document
}

fn text(answer: Answer) -> String {
    String::from_utf8(answer.text()).unwrap()
}

fn texts(answer: Answer) -> Vec<String> {
    answer.parts().into_iter().map(text).collect()
}

/// Values, types, and whether a key ends; when, to the second, is compared where
/// the source is tested by itself.
pub(crate) fn compare(expected: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>) {
    let missing: Vec<_> = expected.keys().filter(|key| !found.contains_key(*key)).take(3).collect();
    let extra: Vec<_> = found.keys().filter(|key| !expected.contains_key(*key)).take(3).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:?}, extra {extra:?}");
    for (key, wanted) in expected {
        let found = &found[key];
        assert_eq!((&wanted["type"], &wanted["value"]), (&found["type"], &found["value"]), "{key}");
        assert_eq!(wanted["ends"] != json!(-1), found.get("expire_at").is_some(), "{key}");
    }
}
