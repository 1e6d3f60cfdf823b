//! Three regions, far from each other.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tidegate_tests::cluster::{Cluster, binaries};
use tidegate_tests::world::{Extras, Link, Rule, World, node};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::faults::ran_apart;
use crate::followed::sequences;

/// Its own name, to run it again.
const NAME: &str = "regions::a_change_crosses_once_and_a_lost_regions_shards_come_home";
const EXPORT: &str = "far";
const SHARDS: u64 = 3;
/// For round trips of 80 ms and packets that are lost.
const SETTINGS: &str = "[cluster]\nheartbeat-ms = 250\nlease-ms = 2000\ndown-ms = 3000\n\
                        election-ms = 1500\n";
/// Bytes on the wire to the bytes of what crosses, uncompressed. See adr/0008.
const SHARE_MAX: f64 = 0.35;

/// METHOD: one node in each of three regions, 40 ms each way and 1 % of packets
/// lost between them. The source is in the first, the sink in the second. Bytes
/// are counted on the wire between the two, with all of TCP's and Raft's, and
/// compared with the changes' own. Then the first region dies and comes back. A
/// subscriber gets every change once and in order throughout.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_crosses_once_and_a_lost_regions_shards_come_home() {
    if ran_apart(NAME).await {
        return;
    }
    let regions = ["here", "there", "beyond"];
    let extras = Extras { settings: SETTINGS.to_owned(), ..Extras::default() };
    let started = World::start_in_regions(&binaries(), &regions, 7, &extras).await;
    let mut world = started.unwrap();
    let far = Rule { delay: Duration::from_millis(40), loss_percent: 1.0, ..Rule::default() };
    world.wires.set(&world.between_nodes(), far);
    let folder = world.cluster.folder().to_owned();
    world.cluster.apply(&format!(
        "name = \"{EXPORT}\"\n[source]\nkind = \"datagen\"\nshards = {SHARDS}\nkeys = 1000\n\
         document-bytes = 1000\nrate-per-second = 500\n\
         [[sink]]\nkind = \"jsonl\"\npath = \"{}\"\n\
         [regions]\nsource = \"here\"\nsinks = {{ jsonl = \"there\" }}\n",
        folder.join("out").display()
    ));
    let followed = folder.join("feed.jsonl");
    let follower = world.cluster.follow(EXPORT, &followed);
    let at_home = |it: &Cluster| {
        let shards = it.shards(EXPORT);
        let well = |shard: &Value| {
            let writer = &shard["sinks"][0]["writer"];
            let copies = shard["in_sync"].as_array().map_or(0, Vec::len);
            shard["reader"] == "node0" && *writer == "node1" && copies == 2
        };
        shards.len() as u64 == SHARDS && shards.iter().all(well)
    };
    world.cluster.until("it is read here and written there", at_home).await;

    measure(&world).await;

    let epochs = |it: &Cluster| -> u64 {
        it.shards(EXPORT).iter().map(|shard| shard["epoch"].as_u64().unwrap_or(0)).sum()
    };
    let before = epochs(&world.cluster);
    world.cluster.kill(0).await;
    let elsewhere = |it: &Cluster| it.shards(EXPORT).iter().all(|it| it["reader"] != "node0");
    world.cluster.until("the others go on", elsewhere).await;
    let now = captured(&world.cluster);
    world.cluster.until("changes come", |it| captured(it) > now + 2000).await;
    world.cluster.start_node(0);
    world.cluster.until("the shards are home again", at_home).await;
    let now = captured(&world.cluster);
    world.cluster.until("changes come from home", |it| captured(it) > now + 2000).await;
    let changed = epochs(&world.cluster) - before;
    assert!(changed <= 4 * SHARDS, "there and back, and no more: {changed} epochs");
    let wanted = captured(&world.cluster);
    world.cluster.until("the subscriber has it all", |_| received(&followed) >= wanted).await;
    drop(follower);
}

/// What crosses from the first region to the second, for a while.
async fn measure(world: &World) {
    let wire = Link { from: node(0), to: node(1) };
    let (bytes, before) = (world.wires.counts(wire).bytes, crossed(&world.cluster).await);
    tokio::time::sleep(Duration::from_secs(8)).await;
    let bytes = world.wires.counts(wire).bytes - bytes;
    let (packed, raw) = crossed(&world.cluster).await;
    let (packed, raw) = (packed - before.0, raw - before.1);
    let share = bytes as f64 / raw;
    let said = format!(
        "{bytes} bytes on the wire for {raw} of changes: {:.1} %, of which {:.1} are changes\n",
        100.0 * share,
        100.0 * packed / raw
    );
    std::io::stderr().write_all(said.as_bytes()).unwrap();
    assert!(raw > 4e6, "changes crossed: {raw}");
    assert!(share < SHARE_MAX, "{bytes} bytes on the wire for {raw} of changes");
    assert!(world.wires.counts(wire).lost > 0, "the link loses packets");
}

/// What node1 has got from other regions, as sent and uncompressed.
async fn crossed(cluster: &Cluster) -> (f64, f64) {
    let metrics = cluster.addresses()[1].replace(":7400", ":7500");
    let mut connection = TcpStream::connect(metrics).await.unwrap();
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).await.unwrap();
    let sum = |name: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    };
    (sum("tidegate_region_bytes_total{"), sum("tidegate_region_raw_bytes_total{"))
}

fn captured(cluster: &Cluster) -> u64 {
    cluster.captured(EXPORT)
}

/// How many changes the subscriber got; each shard's once and in order.
fn received(followed: &Path) -> u64 {
    let seen = sequences(followed);
    for (shard, seen) in &seen {
        let every: Vec<u64> = (1..=seen.len() as u64).collect();
        assert!(*seen == every, "shard {shard}: every change once and in order");
    }
    seen.values().map(|seen| seen.len() as u64).sum()
}
