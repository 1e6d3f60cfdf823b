//! A cluster that stands, fails over and is resharded.

mod open_slots;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tidegate_proto::v1::Operation;
use tidegate_proto::{Codec, Stamp};

use super::cluster_server::{Cluster, Routed, info, text, until};
use super::compare::{Held, held, same};
use super::*;
use crate::sources::redis::cluster::slot_of;

/// Hash tags that keys have: as many slots.
const TAGS: u32 = 24;

/// Captures a cluster, and watches the counters, which are never deleted and only grow.
struct ClusterReader {
    source: Redis,
    stream: Box<dyn ChangeStream>,
    memory: Arc<Memory>,
    position: Bytes,
    losses: Vec<Loss>,
    counters: BTreeMap<Vec<u8>, i64>,
    watches: bool,
    batch: usize,
}

fn shard() -> ShardSpec {
    ShardSpec { name: CLUSTER.to_owned(), ..ShardSpec::default() }
}

/// A source of which the first server that is named is not there.
fn source(cluster: &Cluster) -> Redis {
    let (gone, there) = (free_port(), cluster.nodes[0].port());
    let endpoint = format!("redis://127.0.0.1:{gone},127.0.0.1:{there}");
    Redis::open(&RedisConfig { endpoint, ..plain(&cluster.nodes[0]) }).unwrap()
}

/// Tries again while the cluster is not as it is to be, as who runs a reader does.
async fn opened(source: &Redis, position: &Bytes, memory: &Arc<Memory>) -> Box<dyn ChangeStream> {
    let until = Instant::now() + PATIENCE;
    loop {
        match source.stream_from(&shard(), position, Arc::clone(memory) as _).await {
            Ok(stream) => return stream,
            Err(error) => {
                let passes = error.kind() == ErrorKind::Unavailable;
                assert!(passes && Instant::now() < until, "{error}");
                tokio::time::sleep(10 * WAIT).await;
            }
        }
    }
}

impl ClusterReader {
    async fn start(cluster: &Cluster) -> Self {
        let source = source(cluster);
        assert_eq!(source.discover().await.unwrap(), [shard()]);
        let position = source.anchor(&shard()).await.unwrap().position;
        let memory = Arc::new(Memory::default());
        let stream = opened(&source, &position, &memory).await;
        let (losses, counters) = (Vec::new(), BTreeMap::new());
        Self { source, stream, memory, position, losses, counters, watches: true, batch: BATCH }
    }

    async fn reopen(&mut self) {
        self.stream = opened(&self.source, &self.position, &self.memory).await;
    }

    /// Reads once; opens the stream anew if it has broken.
    async fn read(&mut self) {
        let mut out = BatchBuilder::default();
        match self.stream.read(&mut out, self.batch, WAIT).await {
            Ok(read) => {
                assert!(out.is_empty() || !read.position.is_empty(), "changes move the position");
                self.watch(&out);
                self.memory.take(&out);
                if !read.position.is_empty() {
                    self.position = read.position;
                }
                self.losses.extend(read.losses);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                self.reopen().await;
            }
        }
    }

    fn watch(&mut self, out: &BatchBuilder) {
        let batch = out.encode(Stamp::default(), Codec::None).decode().unwrap();
        for change in &batch.changes {
            let key = document::redis_key(&change.key).unwrap();
            if !self.watches || !key.ends_with(b":counter") {
                continue;
            }
            let name = String::from_utf8_lossy(&key).into_owned();
            assert_ne!(change.operation(), Operation::Delete, "{name} is deleted");
            let dictionary = &batch.dictionaries[change.dictionary as usize];
            let entry = document::decode(dictionary, &change.document).unwrap();
            let object::Object::String(digits) = entry.object else { panic!("{name}") };
            let now = std::str::from_utf8(&digits).unwrap().parse().unwrap();
            let before = self.counters.insert(key, now).unwrap_or(0);
            assert!(now >= before, "{name} goes from {before} to {now}");
        }
    }

    /// The place of each primary: position and slots.
    fn places(&self) -> BTreeMap<String, (Position, String)> {
        let text = String::from_utf8(self.position.to_vec()).unwrap();
        let place = |text: &str| {
            let (id, rest) = text.split_once('=').unwrap();
            let (at, slots) = rest.split_once('@').unwrap();
            (id.to_owned(), (Position::decode(at.as_bytes()).unwrap(), slots.to_owned()))
        };
        text.split(';').filter(|text| *text != "?").map(place).collect()
    }

    /// Slots that are computed from a stream.
    fn stable_slots(&self) -> usize {
        let count = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            1 + last.parse::<usize>().unwrap() - first.parse::<usize>().unwrap()
        };
        let slots = self.places().into_values().map(|(_, slots)| slots);
        slots
            .flat_map(|it| it.split(',').filter(|it| !it.is_empty()).map(count).collect::<Vec<_>>())
            .sum()
    }

    /// Reads all there is, until no slot is open, and compares it with what the cluster
    /// has.
    async fn matches(&mut self, cluster: &Cluster) {
        let patience = Instant::now() + PATIENCE;
        let (wanted, ends) = loop {
            match held_by_all(cluster).await {
                Ok(all) => break all,
                Err(why) => assert!(Instant::now() < patience, "a primary refuses: {why}"),
            }
            tokio::time::sleep(WAIT).await;
        };
        loop {
            let places = self.places();
            let reached = |(id, end): &(String, u64)| matches!(places.get(id), Some((Position::At(at), _)) if at.bytes >= *end);
            if ends.iter().all(reached) && self.stable_slots() == 16_384 {
                break;
            }
            assert!(Instant::now() < patience, "{:?} is behind {ends:?}", self.position);
            self.read().await;
        }
        same(wanted, &self.memory);
    }
}

/// What all primaries have, and up to where each has told it.
async fn held_by_all(cluster: &Cluster) -> Result<(Held, Vec<(String, u64)>), String> {
    let (mut wanted, mut ends) = (Held::new(), Vec::new());
    for number in cluster.primaries().await {
        let mut client = cluster.client(number).await;
        wanted.extend(held(&mut client, 0).await?);
        ends.push((cluster.id(number).await, offset(&mut client).await.bytes));
    }
    Ok((wanted, ends))
}

/// Random commands over keys that come and go, and counters.
struct Load {
    random: StdRng,
    routed: Routed,
}

impl Load {
    fn new(cluster: &Cluster, seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), routed: cluster.routed() }
    }

    fn any(&mut self, upto: u32) -> u32 {
        self.random.random_range(0..upto)
    }

    async fn write(&mut self, count: usize) {
        for _ in 0..count {
            let tag = format!("{{{}}}", self.any(TAGS));
            let (key, value) = (self.any(3), self.any(1000));
            let command = match self.any(23) {
                0..6 => format!("INCR {tag}:counter"),
                6 => format!("SET {tag}:s{key} {value}"),
                7 => format!("APPEND {tag}:s{key} {value}"),
                8 => format!("DEL {tag}:s{key} {tag}:l{key}"),
                9 => format!("PEXPIRE {tag}:s{key} {}", 1 + value),
                10 => format!("SET {tag}:s{key} {value} PX 600000"),
                11 => format!("RPUSH {tag}:l{key} {value} {value}"),
                12 => format!("LPOP {tag}:l{key}"),
                13 => format!("SADD {tag}:t{key} {value}"),
                14 => format!("SPOP {tag}:t{key}"),
                15 => format!("SUNIONSTORE {tag}:t0 {tag}:t1 {tag}:t2"),
                16 => format!("HSET {tag}:h{key} f{value} {value}"),
                17 => format!("ZINCRBY {tag}:z{key} 1 m{}", value % 9),
                18 => format!("XADD {tag}:x{key} MAXLEN 50 * f {value}"),
                19 => format!("RENAME {tag}:s{key} {tag}:s0"),
                20 => format!("MSETEX 2 {tag}:s0 {value} {tag}:s1 {value} PX 600000"),
                21 => format!("LMOVE {tag}:l{key} {tag}:l0 LEFT RIGHT"),
                _ => format!("UNLINK {tag}:h{key}"),
            };
            // Some find no key to rename.
            self.routed.say(&command).await;
        }
    }
}

/// Writes until told to stop.
fn write_on(mut load: Load, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<Load> {
    let stop = Arc::clone(stop);
    tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            load.write(20).await;
        }
        load
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_primaries_of_a_cluster_have_is_what_was_captured() {
    let cluster = Cluster::start(3, false).await;
    let checks = source(&cluster).check().await;
    assert!(checks.len() == 6 && checks.iter().all(|check| check.passed), "{checks:?}");
    let mut load = Load::new(&cluster, 21);
    load.write(2_000).await;
    let stop = Arc::default();
    let writing = write_on(load, &stop);
    let mut reader = ClusterReader::start(&cluster).await;
    reader.batch = 2_000;
    for _ in 0..300 {
        reader.read().await;
    }
    // A link breaks; then all of them are opened anew.
    cluster.client(1).await.say("CLIENT KILL TYPE replica").await;
    for _ in 0..100 {
        reader.read().await;
    }
    reader.reopen().await;
    for _ in 0..100 {
        reader.read().await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut load = writing.await.unwrap();
    reader.matches(&cluster).await;
    assert!(reader.memory.documents().len() > 100);
    // From an earlier place, over what was captured up to there, the same comes again.
    let (position, memory) = (reader.position.clone(), reader.memory.copy());
    load.write(1_000).await;
    reader.matches(&cluster).await;
    (reader.position, reader.memory) = (position, memory);
    reader.counters.clear();
    reader.reopen().await;
    reader.matches(&cluster).await;
    // One primary loses all its keys, and only those are gone.
    let all = reader.memory.documents().len();
    reader.watches = false;
    cluster.client(2).await.say("FLUSHALL").await;
    reader.matches(&cluster).await;
    let left = reader.memory.documents().len();
    assert!(0 < left && left < all, "{left} of {all}");
    assert_eq!(reader.losses, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primarys_replica_goes_on_for_it_without_a_dump() {
    let mut cluster = Cluster::start(3, true).await;
    let mut load = Load::new(&cluster, 22);
    load.write(1_500).await;
    let mut reader = ClusterReader::start(&cluster).await;
    reader.matches(&cluster).await;
    let before = reader.places();
    // The rest of what the primary sent is with its replica, and not with us.
    load.write(500).await;
    let end = offset(&mut cluster.client(0).await).await;
    let mut replica = cluster.client(3).await;
    until("the replica has all", async || offset(&mut replica).await.bytes >= end.bytes).await;
    cluster.nodes[0].kill().await;
    until("the replica took over", async || cluster.primaries().await == [1, 2, 3]).await;
    load.write(1_500).await;
    reader.matches(&cluster).await;
    assert_eq!(reader.losses, []);
    assert!(info(&mut replica, "stats").await.contains("sync_full:0\r"), "there was no dump");
    let after = reader.places();
    assert!(!after.contains_key(&before_id(&before, &after)), "another node has its place");

    // What it was comes back as a replica, and takes over in its turn.
    cluster.nodes[0].start_again().await;
    let mut first = cluster.client(0).await;
    let up = "master_link_status:up";
    until("it follows", async || info(&mut first, "replication").await.contains(up)).await;
    let stop = Arc::default();
    let writing = write_on(load, &stop);
    for _ in 0..50 {
        reader.read().await;
    }
    let mut again = Instant::now();
    until("it took over", async || {
        if Instant::now() >= again {
            // Given up after 5 s, on a machine that is busy.
            drop(first.say("CLUSTER FAILOVER").await);
            again += Duration::from_secs(7);
        }
        reader.read().await;
        cluster.primaries().await == [0, 1, 2]
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    reader.matches(&cluster).await;
    assert_eq!(reader.losses, []);
}

/// The node that has a place no more.
fn before_id<T>(before: &BTreeMap<String, T>, after: &BTreeMap<String, T>) -> String {
    before.keys().find(|id| !after.contains_key(*id)).cloned().expect("one has changed")
}

/// Moves each slot to another primary, some of them back at once.
async fn go_round(cluster: Arc<Cluster>, slots: Vec<u16>, fourth: usize) {
    for (number, slot) in slots.into_iter().enumerate() {
        let from = cluster.owner(slot).await;
        let to = if number % 3 == 0 { fourth } else { (from + 1) % 3 };
        cluster.migrate(slot, from, to).await;
        if number % 4 == 1 {
            cluster.migrate(slot, to, from).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_move_under_load_lose_nothing_and_bring_nothing_back() {
    let mut cluster = Cluster::start(3, false).await;
    let mut load = Load::new(&cluster, 23);
    load.write(1_500).await;
    let mut reader = ClusterReader::start(&cluster).await;
    reader.batch = 4_000;
    reader.matches(&cluster).await;
    let fourth = cluster.grow().await;
    let stop = Arc::default();
    let writing = write_on(load, &stop);
    // All slots with keys go round, some to a primary that is new.
    let slots: Vec<u16> = (0..TAGS).map(|tag| slot_of(tag.to_string().as_bytes())).collect();
    let cluster = Arc::new(cluster);
    let moving = tokio::spawn(go_round(Arc::clone(&cluster), slots, fourth));
    let mut reads = 0;
    while !moving.is_finished() {
        reader.read().await;
        reads += 1;
        // Another node goes on, now and then.
        if reads % 150 == 0 {
            reader.reopen().await;
        }
    }
    moving.await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let mut load = writing.await.unwrap();
    reader.matches(&cluster).await;
    // All are computed again.
    load.write(1_000).await;
    reader.matches(&cluster).await;
    assert_eq!(reader.losses, []);
    assert_eq!(reader.counters.len(), TAGS as usize);
    assert_eq!(reader.places().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_leaves_takes_nothing_with_it_that_was_not_read() {
    let mut cluster = Cluster::start(3, false).await;
    let mut load = Load::new(&cluster, 24);
    load.write(1_500).await;
    let mut reader = ClusterReader::start(&cluster).await;
    reader.matches(&cluster).await;
    // Not read any more: deletes, then the slots' way to another, then it leaves.
    reader.watches = false;
    let mut last = cluster.client(2).await;
    for key in last.say("KEYS *").await.parts().into_iter().take(40) {
        last.call(&[b"DEL", &key.text()]).await;
    }
    cluster.migrate_all(2, 1).await;
    let id = cluster.id(2).await;
    for number in [0, 1] {
        cluster.client(number).await.say(&format!("CLUSTER FORGET {id}")).await;
    }
    cluster.nodes[2].kill().await;
    for number in [0, 1] {
        let mut client = cluster.client(number).await;
        let up = "cluster_state:ok";
        let mut info = async || text(client.say("CLUSTER INFO").await);
        until("the others have all slots", async || info().await.contains(up)).await;
    }
    reader.reopen().await;
    reader.matches(&cluster).await;
    until("its place is gone", async || {
        reader.read().await;
        !reader.places().contains_key(&id)
    })
    .await;
    assert_eq!(reader.losses, []);
}
