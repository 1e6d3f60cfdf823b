//! Nodes killed under load: what a subscriber sees of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tidegate_tests::cluster::{Cluster, alone, binary};

use crate::followed::sequences;

const EXPORT: &str = "generated";
const SHARDS: u64 = 6;
/// Of each shard and second.
const RATE: u64 = 500;
const KILLS: usize = 6;

fn spec(lake: &Path) -> String {
    format!(
        "name = \"{EXPORT}\"\n\
         [source]\nkind = \"datagen\"\nshards = {SHARDS}\nkeys = 1000\n\
         document-bytes = 400\nrate-per-second = {RATE}\n\
         [[sink]]\nkind = \"lake\"\npath = \"{}\"\ndelay-ms = 500\n",
        lake.display()
    )
}

/// METHOD: every shard makes a change each 2 ms. One node after the other, the
/// leader among them, is killed with SIGKILL and started again. A subscriber
/// must get every sequence of every shard once and in order: with two copies in
/// sync nothing that was seen is lost, and nothing is read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_costs_a_subscriber_a_moment_and_no_change() {
    let _alone = alone().await;
    let mut cluster = Cluster::start(3).await;
    cluster.apply(&spec(&cluster.folder().join("lake")));
    let followed = cluster.folder().join("feed.jsonl");
    let follower = cluster.follow(EXPORT, &followed);
    cluster.until("all spools have two copies in sync", in_sync).await;
    for kill in 0..KILLS {
        let before = captured(&cluster);
        cluster.until("every shard moves on", |it| moved(&before, &captured(it))).await;
        cluster.kill(kill % 3).await;
        let before = captured(&cluster);
        cluster.until("every shard moves on without it", |it| moved(&before, &captured(it))).await;
        cluster.start_node(kill % 3);
        cluster.until("all spools have two copies in sync again", in_sync).await;
    }
    let last = captured(&cluster);
    cluster.until("the subscriber has it all", |_| reached(&sequences(&followed), &last)).await;
    drop(follower);
    assert_eq!(cluster.json(&["gap", "list"])["gaps"].as_array().map(Vec::len), Some(0));
    tiles(&followed);
}

/// METHOD: under the same load, every shard's reader moves to a node that does not
/// read it, then one node is drained of everything and used again. Each move
/// prints its steps; the subscriber gets every change once.
#[tokio::test(flavor = "multi_thread")]
async fn shards_move_and_a_node_is_drained_without_losing_a_change() {
    let _alone = alone().await;
    let cluster = Cluster::start(3).await;
    cluster.apply(&spec(&cluster.folder().join("lake")));
    let followed = cluster.folder().join("feed.jsonl");
    let follower = cluster.follow(EXPORT, &followed);
    cluster.until("all spools have two copies in sync", in_sync).await;
    for (at, shard) in cluster.shards(EXPORT).iter().enumerate() {
        let nodes = ["node0", "node1", "node2"];
        let others: Vec<_> = nodes.iter().filter(|node| shard["reader"] != **node).collect();
        let (name, to) = (shard["name"].as_str().unwrap(), others[at % 2]);
        let place = format!("{EXPORT}/{name}");
        let receipt = cluster.json(&["shard", "move", &place, "--reader", to]);
        let steps = receipt["steps"].as_array().unwrap();
        assert!(steps.iter().any(|step| step["step"] == "assigned to the new reader"), "{receipt}");
        assert!(steps.last().unwrap()["epoch"].as_u64() > shard["epoch"].as_u64(), "{receipt}");
        let now = cluster.json(&["shard", "show", EXPORT, name]);
        assert_eq!(now["reader"], **to, "{receipt}");
    }
    let place = format!("{EXPORT}/{}", cluster.shards(EXPORT)[0]["name"].as_str().unwrap());
    let nowhere = cluster.cli(&["shard", "move", &place, "--reader", "elsewhere"]);
    let refusal = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(refusal.contains("there is no node \"elsewhere\""), "{refusal}");

    let drained = cluster.cli(&["node", "drain", "node1"]);
    assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
    let text = Value::from(cluster.shards(EXPORT)).to_string();
    assert!(!text.contains("node1"), "nothing is left on it: {text}");
    assert!(cluster.cli(&["node", "uncordon", "node1"]).status.success());
    let before = captured(&cluster);
    cluster.until("every shard moves on", |it| moved(&before, &captured(it))).await;
    let last = captured(&cluster);
    cluster.until("the subscriber has it all", |_| reached(&sequences(&followed), &last)).await;
    drop(follower);
    tiles(&followed);
}

/// METHOD: a node hangs, a shard is to move to it, and while its copy is waited for it is
/// killed. The move ends and says why; the shard goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_whose_target_is_killed_half_way_says_so_and_the_shard_stays() {
    let _alone = alone().await;
    // Long enough for the move to be asked for while the node hangs.
    let slow = "[cluster]\nlease-ms = 9000\ndown-ms = 10000\n";
    let cluster = Cluster::start_in(&std::env::temp_dir(), 3, slow).await;
    cluster.apply(&spec(&cluster.folder().join("lake")));
    cluster.until("all spools have two copies in sync", in_sync).await;
    let shards = cluster.shards(EXPORT);
    let apart = shards.iter().find(|shard| !shard.to_string().contains("node2"));
    let before = apart.expect("copies are spread");
    let name = before["name"].as_str().unwrap();
    let place = format!("{EXPORT}/{name}");
    cluster.signal(2, "STOP");
    let endpoints = cluster.endpoints();
    let moved = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(binary("tidegate"));
        command.args(["--endpoint", &endpoints, "shard", "move", &place, "--reader", "node2"]);
        command.output().unwrap()
    });
    let show = || cluster.json(&["shard", "show", EXPORT, name]);
    let asked = |_: &Cluster| moved.is_finished() || show()["moving_to"] == "node2";
    cluster.until("the move is under way", asked).await;
    cluster.signal(2, "KILL");
    let moved = moved.await.unwrap();
    assert!(!moved.status.success());
    let steps = String::from_utf8_lossy(&moved.stdout).into_owned();
    assert!(steps.contains("the move is recorded") && !steps.contains("in sync"), "{steps}");
    let why = String::from_utf8_lossy(&moved.stderr).into_owned();
    let reader = before["reader"].as_str().unwrap();
    let told =
        format!("the move was given up, the shard is read by {reader}: node2 is down; start");
    assert!(why.contains(&told), "{why}");
    let now = show();
    assert_eq!((&now["reader"], &now["epoch"]), (&before["reader"], &before["epoch"]));
    assert!(now["move_given_up"].as_str().unwrap().contains("node2 is down"), "{now}");
    let before = captured(&cluster);
    cluster.until("every shard moves on", |it| self::moved(&before, &captured(it))).await;
}

fn in_sync(cluster: &Cluster) -> bool {
    let shards = cluster.shards(EXPORT);
    let both = |shard: &Value| shard["in_sync"].as_array().is_some_and(|nodes| nodes.len() == 2);
    shards.len() as u64 == SHARDS && shards.iter().all(both)
}

fn captured(cluster: &Cluster) -> BTreeMap<String, u64> {
    let shards = cluster.shards(EXPORT);
    let at = |shard: &Value| shard["captured"]["sequence"].as_u64().unwrap_or(0);
    shards.iter().map(|shard| (shard["name"].to_string(), at(shard))).collect()
}

fn moved(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> bool {
    let enough = |name: &String, at: u64| now.get(name).is_some_and(|now| *now > at + RATE / 2);
    now.len() as u64 == SHARDS && before.iter().all(|(name, at)| enough(name, *at))
}

fn reached(seen: &BTreeMap<String, Vec<u64>>, last: &BTreeMap<String, u64>) -> bool {
    last.iter().all(|(name, at)| seen.get(name).and_then(|all| all.last()) >= Some(at))
}

fn tiles(followed: &Path) {
    for (shard, sequences) in sequences(followed) {
        let expected: Vec<u64> = (1..=sequences.len() as u64).collect();
        let off = sequences.iter().zip(&expected).find(|(found, wanted)| found != wanted);
        assert_eq!(off, None, "shard {shard}: every change once and in order");
    }
}
