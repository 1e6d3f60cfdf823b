//! Three regions, far from each other.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tidegate_tests::cluster::{Cluster, binaries};
use tidegate_tests::world::{Extras, HARNESS, Link, Rule, World, node};

use crate::faults::ran_apart;
use crate::followed::sequences;

/// Its own name, to run it again.
const NAME: &str = "regions::a_change_crosses_once_and_a_lost_regions_shards_come_home";
const EXPORT: &str = "far";
const SHARDS: u64 = 3;
/// For round trips of 80 ms and packets that are lost.
const SETTINGS: &str = "[cluster]\nheartbeat-ms = 250\nlease-ms = 2000\ndown-ms = 3000\n\
                        election-ms = 1500\n";
/// Between regions.
const FAR: Rule = Rule {
    cut: false,
    loss_percent: 1.0,
    duplicate_percent: 0.0,
    delay: Duration::from_millis(40),
    jitter: Duration::ZERO,
    bytes_per_second: 0,
};
/// Bytes on the wire to the bytes of what crosses, uncompressed. See adr/0008.
const SHARE_MAX: f64 = 0.35;

/// METHOD: one node in each of three regions, 40 ms each way and 1 % of packets
/// lost between them. The source is in the first, the sink in the second. Bytes
/// are counted on the wire between the two, with all of TCP's and Raft's, and
/// compared with the changes' own. Then the first region dies and comes back, and once
/// more it is parted from all others while its node runs on. A subscriber gets every change once and in order throughout.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_crosses_once_and_a_lost_regions_shards_come_home() {
    if ran_apart(NAME).await {
        return;
    }
    let regions = ["here", "there", "beyond"];
    let extras = Extras { settings: SETTINGS.to_owned(), ..Extras::default() };
    let started = World::start_in_regions(&binaries(), &regions, 7, &extras).await;
    let mut world = started.unwrap();
    world.wires.set(&world.between_nodes(), FAR);
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
    for lost in [Lost::Dead, Lost::Parted] {
        let before = epochs(&world.cluster);
        lose(&mut world, lost).await;
        let elsewhere = |it: &Cluster| it.shards(EXPORT).iter().all(|it| it["reader"] != "node0");
        world.cluster.until("the others go on", elsewhere).await;
        let now = captured(&world.cluster);
        world.cluster.until("changes come", |it| captured(it) > now + 2000).await;
        bring_back(&mut world, lost);
        world.cluster.until("the shards are home again", at_home).await;
        let now = captured(&world.cluster);
        world.cluster.until("changes come from home", |it| captured(it) > now + 2000).await;
        let changed = epochs(&world.cluster) - before;
        assert!(changed <= 4 * SHARDS, "{lost:?}, and back, and no more: {changed} epochs");
    }
    let wanted = captured(&world.cluster);
    world.cluster.until("the subscriber has it all", |_| received(&followed) >= wanted).await;
    drop(follower);
}

/// How a region is lost.
#[derive(Clone, Copy, Debug)]
enum Lost {
    /// Its node is killed.
    Dead,
    /// Its node runs on, and nothing passes between it and any other region.
    Parted,
}

async fn lose(world: &mut World, lost: Lost) {
    match lost {
        Lost::Dead => world.cluster.kill(0).await,
        Lost::Parted => {
            let cut = Rule { cut: true, ..Rule::default() };
            world.wires.set(&world.peers_of(0), cut);
            world.wires.set(&Link::both(node(0), HARNESS), cut);
        }
    }
}

fn bring_back(world: &mut World, lost: Lost) {
    match lost {
        Lost::Dead => world.cluster.start_node(0),
        Lost::Parted => {
            world.wires.set(&world.peers_of(0), FAR);
            world.wires.set(&Link::both(node(0), HARNESS), Rule::default());
        }
    }
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
    let text = cluster.page(1, "/metrics").await.unwrap();
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
