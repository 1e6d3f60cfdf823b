//! What an operator does to a running export: splits, evens out, slows down.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_node::sources::datagen::DatagenConfig;
use tidegate_tests::cluster::{Cluster, alone, binary};
use tidegate_tests::feed::Subscriber;
use tidegate_tests::oracle::Generated;
use tokio::runtime::Handle;

use crate::followed::changes;
use crate::stage::{COLLECTION, Stage, refused};

const EXPORT: &str = "operated";
const KEYS: u64 = 40;
/// Of a shard that is moved, on a machine that does other things too.
const STALL_MAX: Duration = Duration::from_secs(2);

/// One round of writes: every key gets this version.
async fn write(stage: &Stage, version: u64) {
    let written = (0..KEYS).map(|key| (format!("key-{key}"), json!({"version": version})));
    let written = written.map(|(key, document)| (key, document.to_string()));
    stage.documents.write(COLLECTION, written).await.unwrap();
}

/// METHOD: keys are written again and again, each time with a higher version,
/// while their only shard is split, and one half again. A feed that follows must
/// get every version of every key in order, the lake must end with the last.
#[tokio::test(flavor = "multi_thread")]
async fn a_split_shards_children_go_on_and_no_key_goes_back() {
    let _alone = alone().await;
    let stage = Stage::new(Cluster::start(2).await).await;
    let cluster = &stage.cluster;
    write(&stage, 0).await;
    cluster.apply(&stage.spec(EXPORT, 300));
    let followed = cluster.folder().join("feed.jsonl");
    let follower = cluster.follow(EXPORT, &followed);
    cluster.until("the snapshot is there", |_| stage.lake(EXPORT).len() as u64 == KEYS).await;
    let mut version = 0;
    // Another number of shards would make ranges that overlap: it has no effect.
    cluster.apply(&stage.spec(EXPORT, 300).replace("shards = 1", "shards = 3"));
    for number in 0..2 {
        let shards = cluster.shards(EXPORT);
        let live = shards.last().unwrap()["name"].as_str().unwrap().to_owned();
        let place = format!("{EXPORT}/{live}");
        let written = version + 1..=version + 50;
        version += 50;
        let output = tokio::task::block_in_place(|| split(&stage, &place, written));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let receipt: Value = serde_json::from_slice(&output.stdout).unwrap();
        let steps = receipt["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 5, "{receipt}");
        let again = cluster.cli(&["shard", "split", &place]);
        assert!(again.status.success(), "a repeat says what has happened");
        assert_eq!(cluster.shards(EXPORT).len(), shards.len() + 2, "split {number}");
    }
    let last = |seen: &BTreeMap<String, Vec<u64>>| {
        seen.len() as u64 == KEYS && seen.values().all(|all| all.last() == Some(&version))
    };
    cluster.until("the feed has the last versions", |_| last(&versions(&followed))).await;
    drop(follower);
    for (key, seen) in versions(&followed) {
        let every: Vec<u64> = (0..=version).collect();
        assert_eq!(seen, every, "{key}: every version once and in order");
    }
    let done = |lake: &crate::stage::Held| lake.values().all(|it| it["version"] == version);
    cluster.until("the lake has the last versions", |_| done(&stage.lake(EXPORT))).await;
    assert_eq!(stage.lake(EXPORT).len() as u64, KEYS);
}

/// Splits a shard while these versions are written: the command blocks its thread.
fn split(stage: &Stage, place: &str, versions: RangeInclusive<u64>) -> Output {
    std::thread::scope(|scope| {
        let split = scope.spawn(|| stage.cluster.cli(&["shard", "split", place]));
        for version in versions {
            Handle::current().block_on(write(stage, version));
        }
        split.join().unwrap()
    })
}

fn versions(followed: &Path) -> BTreeMap<String, Vec<u64>> {
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for change in changes(followed) {
        let version = change["document"]["version"].as_u64().unwrap();
        seen.entry(change["key"].to_string()).or_default().push(version);
    }
    seen
}

fn readers(cluster: &Cluster) -> Vec<String> {
    let shards = cluster.shards(EXPORT);
    shards.iter().map(|shard| shard["reader"].as_str().unwrap_or("").to_owned()).collect()
}

fn captured(cluster: &Cluster) -> u64 {
    cluster.captured(EXPORT)
}

fn delivered(cluster: &Cluster) -> u64 {
    cluster.delivered(EXPORT, "lake")
}

/// METHOD: a drained node gets nothing back by itself; a rebalance gives it its
/// share, and says the same beforehand. Then the export is limited: it slows down,
/// stays slow when the node that took the command is killed, and is let go again.
/// Paused, it delivers nothing, whoever is lost, and then all of it.
#[tokio::test(flavor = "multi_thread")]
async fn work_is_evened_out_and_slowed_down_when_asked() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(3).await;
    let lake = cluster.folder().join("lake");
    cluster.apply(&generated(&lake, 1000));
    let spread = |it: &Cluster| readers(it).iter().collect::<BTreeSet<_>>().len();
    cluster.until("all nodes read", |it| spread(it) == 3).await;
    assert!(cluster.cli(&["node", "drain", "node1"]).status.success());
    assert!(cluster.cli(&["node", "uncordon", "node1"]).status.success());
    assert!(!readers(&cluster).contains(&"node1".to_owned()));
    let dry = cluster.json(&["shard", "rebalance", "--dry-run"]);
    assert_eq!(dry["moves"].as_array().unwrap().len(), 2, "{dry}");
    assert!(!readers(&cluster).contains(&"node1".to_owned()), "a dry run moves nothing");
    let done = cluster.json(&["shard", "rebalance"]);
    assert_eq!(done["receipts"].as_array().unwrap().len(), 2, "{done}");
    let of = |name: &str| readers(&cluster).iter().filter(|reader| *reader == name).count();
    assert_eq!(["node0", "node1", "node2"].map(of), [2, 2, 2]);

    let limited = cluster.cli(&["export", "rate", EXPORT, "--changes", "50"]);
    assert!(limited.status.success(), "{}", String::from_utf8_lossy(&limited.stderr));
    cluster.kill(0).await;
    cluster
        .until("all shards have a reader", |it| !readers(it).contains(&"node0".to_owned()))
        .await;
    // What was read at once when the owners changed is no rate.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = captured(&cluster);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let slow = captured(&cluster) - before;
    assert!(slow <= 6 * 50 * 8, "6 shards of 50 a second, for about 4 s: {slow}");
    assert!(slow > 0, "it goes on");
    assert!(cluster.cli(&["export", "rate", EXPORT, "--reset"]).status.success());
    let before = captured(&cluster);
    let caught_up = |it: &Cluster| captured(it) > before + 6 * 1000 * 4;
    cluster.until("it catches up", caught_up).await;

    cluster.start_node(0);
    cluster.until("all nodes are up", |it| it.up() == 3).await;
    assert!(cluster.cli(&["export", "pause", EXPORT]).status.success());
    // What is under way when the command returns may still be recorded.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (at_rest, before) = (delivered(&cluster), captured(&cluster));
    cluster.kill(1).await;
    cluster.until("one node is down", |it| it.up() == 2).await;
    refused(&cluster.cli(&["doctor"]), 1, &["nodes: node1 down", "node remove"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(delivered(&cluster), at_rest, "it is paused still");
    assert!(captured(&cluster) > before, "the source is read on: it would forget");
    assert!(cluster.cli(&["export", "resume", EXPORT]).status.success());
    let wanted = captured(&cluster);
    cluster.until("all of it is delivered", |it| delivered(it) >= wanted).await;
}

/// Ends a process and starts it again as it was started; what `rolling-restart.sh`
/// is given. Ids are kept in files NAME.pid.
const RESTART: &str = r#"#!/usr/bin/env bash
set -euo pipefail
cd "$(dirname "$0")"
pid="$(<"$1.pid")"
mapfile -d '' words <"/proc/$pid/cmdline"
kill -TERM "$pid"
while readlink "/proc/$pid/exe" >/dev/null; do sleep 0.05; done
setsid "${words[@]}" >>"$1-again.log" 2>&1 </dev/null &
echo "$!" >"$1.pid"
"#;

/// METHOD: the script drains and restarts one node after the other while changes
/// come in. A subscriber gets every one of them once and in order, as the generator
/// makes them; each shard changes hands when a node is drained that works on it, and
/// stalls for no longer than a move takes.
#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_are_restarted_without_losing_a_change() {
    let _alone = alone().await;
    let cluster = Cluster::start(3).await;
    let lake = cluster.folder().join("lake");
    cluster.apply(&generated(&lake, 300));
    let judge = Generated::new(&generator(300)).unwrap();
    let subscriber = Subscriber::start(EXPORT, cluster.addresses(), judge);
    let received = |it: &Subscriber<Generated>| it.sequences().values().sum::<u64>();
    cluster.until("changes come", |_| received(&subscriber) > 3000).await;
    let epochs = |it: &Cluster| {
        let shards = it.shards(EXPORT);
        shards.iter().map(|shard| shard["epoch"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let before = epochs(&cluster);
    subscriber.begin_round();
    let script = cluster.folder().join("restart.sh");
    std::fs::write(&script, RESTART).unwrap();
    let restarted = Restarted::of(&cluster);
    let output = Command::new("bash")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/rolling-restart.sh"))
        .args(["bash".as_ref(), script.as_os_str()])
        .env("TIDEGATE", binary("tidegate"))
        .env("TIDEGATE_ENDPOINT", cluster.endpoints())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stdout));
    let now = received(&subscriber);
    cluster.until("changes come again", |_| received(&subscriber) > now + 3000).await;
    let stalls = subscriber.gaps();
    let moved: Vec<u64> = epochs(&cluster).iter().zip(&before).map(|(a, b)| a - b).collect();
    std::io::stderr()
        .write_all(format!("moved {moved:?}, stalled {stalls:?}\n").as_bytes())
        .unwrap();
    assert!(stalls.values().all(|stall| *stall < STALL_MAX), "{stalls:?}");
    // Its reader and its writer: each was on one node or, if on the first, on two of them.
    assert!(moved.iter().all(|moved| (1..=4).contains(moved)), "drains, and no more: {moved:?}");
    let wanted = captured(&cluster);
    cluster.until("the subscriber has it all", |_| received(&subscriber) >= wanted).await;
    subscriber.finish().unwrap();
    drop(restarted);
}

/// Processes that the script has started; dropping it ends them.
struct Restarted(Vec<PathBuf>);

impl Restarted {
    /// Writes down which processes there are now.
    fn of(cluster: &Cluster) -> Self {
        let files = (0..3).map(|number| {
            let file = cluster.folder().join(format!("node{number}.pid"));
            std::fs::write(&file, cluster.process(number).unwrap().to_string()).unwrap();
            file
        });
        Self(files.collect())
    }
}

impl Drop for Restarted {
    fn drop(&mut self) {
        for file in &self.0 {
            let id = std::fs::read_to_string(file).unwrap_or_default();
            drop(Command::new("kill").args(["-KILL", id.trim()]).status());
        }
    }
}

/// Of six shards, each of so many changes a second.
fn generator(rate: u32) -> DatagenConfig {
    DatagenConfig {
        shards: 6,
        keys: 1000,
        document_bytes: 400,
        rate_per_second: rate,
        ..DatagenConfig::default()
    }
}

/// An export of what [`generator`] makes.
fn generated(lake: &Path, rate: u32) -> String {
    let DatagenConfig { shards, keys, document_bytes, rate_per_second, .. } = generator(rate);
    format!(
        "name = \"{EXPORT}\"\n[source]\nkind = \"datagen\"\nshards = {shards}\nkeys = {keys}\n\
         document-bytes = {document_bytes}\nrate-per-second = {rate_per_second}\n\
         [[sink]]\nkind = \"lake\"\npath = \"{}\"\ndelay-ms = 500\n",
        lake.display()
    )
}
