//! Disks that lie and disks that are full: nothing delivered is lost, and the
//! node says what to do.
//!
//! METHOD Processes are killed, bytes of their files are turned over, and what
//! the error says to do is done.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tidegate_tests::cluster::{Cluster, alone};

use crate::stage::{Stage, documents, refused};

const EXPORT: &str = "orders";
/// Milliseconds a lake waits for more.
const SOON: u32 = 500;
const NEVER: u32 = 3_600_000;
const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_corrupt_spool_record_stops_its_shard_until_the_spool_is_emptied() {
    let _alone = alone().await;
    let mut stage = Stage::new(Cluster::start(1).await).await;
    stage.write(0..300).await;
    stage.cluster.apply(&stage.spec(EXPORT, SOON));
    stage.delivered(EXPORT, 0..300).await;
    stage.cluster.apply(&stage.spec(EXPORT, NEVER));
    stage.write(300..3_000).await;
    stage.cluster.until("all is captured", |it| captured(it) >= 3_000).await;
    // The start after a kill moves the batches from the write-ahead log to
    // files of their own.
    restart(&mut stage, |_| {}).await;
    restart(&mut stage, |node| {
        let spoiled = spoil(&node.join("spool"), "blob");
        assert!(spoiled > 0, "large batches lie in files of their own");
    })
    .await;

    stage.cluster.until("the shard stands still", |it| !failure(it).is_empty()).await;
    let why = failure(&stage.cluster);
    let remedy =
        "stop this node, delete that folder, start it again and say `tidegate export resume`";
    for word in ["the batch of shard ", "with sequence 301", "node0/spool", "is damaged", remedy] {
        assert!(why.contains(word), "{word} is missing in: {why}");
    }
    assert!(stage.lake(EXPORT) == documents(0..300), "what was delivered is there still");

    restart(&mut stage, |node| std::fs::remove_dir_all(node.join("spool")).unwrap()).await;
    assert!(!failure(&stage.cluster).is_empty(), "it waits for an operator");
    assert!(stage.cluster.cli(&["export", "resume", EXPORT]).status.success());
    stage.cluster.until("the loss is recorded", |it| !it.gaps(EXPORT).is_empty()).await;
    assert_eq!(stage.cluster.gaps(EXPORT)[0]["kind"], "spool-lost");
    stage.cluster.apply(&stage.spec(EXPORT, SOON));
    stage.delivered(EXPORT, 0..3_000).await;
    assert_eq!(failure(&stage.cluster), "");
}

/// Kills the only node, does something to its folder, and starts it.
async fn restart(stage: &mut Stage, meanwhile: impl FnOnce(&Path)) {
    stage.cluster.kill(0).await;
    meanwhile(&stage.cluster.data(0));
    stage.cluster.start_node(0);
    stage.cluster.until("it is back", |it| it.up() == 1 && !it.shards(EXPORT).is_empty()).await;
}

#[tokio::test]
async fn a_corrupt_raft_log_keeps_its_node_from_starting_and_an_empty_one_takes_its_place() {
    let _alone = alone().await;
    let mut stage = Stage::new(Cluster::start(3).await).await;
    stage.write(0..300).await;
    stage.cluster.apply(&stage.spec(EXPORT, SOON));
    stage.delivered(EXPORT, 0..300).await;

    stage.cluster.kill(2).await;
    let data = stage.cluster.data(2);
    assert!(spoil(&data.join("raft/db"), "log") > 0, "there is a write-ahead log");
    stage.cluster.start_node(2);
    assert!(!stage.cluster.ended(2).await.success(), "it must not vote");
    let log = stage.cluster.log(2);
    let remedy = "empty this node's data directory and let it join anew, under another name";
    for word in ["node2/raft/db is damaged", "Corruption", remedy] {
        assert!(log.contains(word), "{word} is missing in: {log}");
    }

    stage.write(300..600).await;
    stage.delivered(EXPORT, 0..600).await;
    std::fs::remove_dir_all(&data).unwrap();
    stage.cluster.start_as(2, "fresh");
    stage.cluster.until("three nodes are up", |it| it.up() == 3).await;
    // The lost node's address is the new one's, which must not vote for both.
    stage.cluster.until("it votes", |it| voters(it) == 4).await;
    stage.write(600..900).await;
    stage.delivered(EXPORT, 0..900).await;
}

#[tokio::test]
async fn a_full_disk_stops_capture_and_nothing_else_until_there_is_room() {
    let _alone = alone().await;
    // A file system whose room does not depend on who else works on this machine.
    let shared_memory = Path::new("/dev/shm");
    let parent = match shared_memory.is_dir() {
        true => shared_memory.to_owned(),
        false => std::env::temp_dir(),
    };
    let limit = free_bytes(&parent) - 200 * MIB;
    let settings = format!("[limits]\ndisk-free-bytes = {limit}\n");
    let stage = Stage::new(Cluster::start_in(&parent, 1, &settings).await).await;
    stage.write(0..300).await;
    stage.cluster.apply(&stage.spec(EXPORT, SOON));
    stage.delivered(EXPORT, 0..300).await;
    assert!(stage.cluster.cli(&["doctor"]).status.success());

    let ballast = stage.cluster.folder().join("ballast");
    std::fs::write(&ballast, vec![0; usize::try_from(300 * MIB).unwrap()]).unwrap();
    stage.write(300..600).await;
    let says = |it: &Cluster| it.log(0).contains("MiB left and the spool stops at");
    stage.cluster.until("the node says so", says).await;
    let words = ["disk room: ", "the spool stops at", "free some, or mend the sinks"];
    refused(&stage.cluster.cli(&["doctor"]), 1, &words);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(captured(&stage.cluster), 300);
    assert!(stage.lake(EXPORT) == documents(0..300), "what was delivered is there still");

    std::fs::remove_file(&ballast).unwrap();
    stage.delivered(EXPORT, 0..600).await;
    assert!(stage.cluster.cli(&["doctor"]).status.success());
    assert!(stage.cluster.gaps(EXPORT).is_empty(), "nothing was lost");
}

fn free_bytes(folder: &Path) -> u64 {
    let output = Command::new("df").args(["--output=avail", "-B1"]).arg(folder).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().last().unwrap().trim().parse().unwrap()
}

fn captured(cluster: &Cluster) -> u64 {
    let shards = cluster.shards(EXPORT);
    shards.iter().filter_map(|shard| shard["captured"]["records"].as_u64()).sum()
}

fn failure(cluster: &Cluster) -> String {
    let shards = cluster.shards(EXPORT);
    shards.first().and_then(|shard| shard["failure"].as_str()).unwrap_or_default().to_owned()
}

fn voters(cluster: &Cluster) -> usize {
    let nodes = cluster.json(&["node", "list"]);
    let nodes = nodes["nodes"].as_array().cloned().unwrap_or_default();
    nodes.iter().filter(|node| node["role"] != "learner").count()
}

/// Turns over bytes all through the files of `folder` with this extension, but
/// for the first and last 4 KiB; says how many files that were.
pub(crate) fn spoil(folder: &Path, extension: &str) -> usize {
    const MARGIN: usize = 4096;
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut spoiled = 0;
    for path in files.filter(|path: &PathBuf| path.extension().is_some_and(|it| it == extension)) {
        let mut bytes = std::fs::read(&path).unwrap();
        let Some(end) = bytes.len().checked_sub(MARGIN).filter(|end| *end > MARGIN) else {
            continue;
        };
        bytes[MARGIN..end].iter_mut().step_by(512).for_each(|byte| *byte ^= 0xff);
        std::fs::write(&path, bytes).unwrap();
        spoiled += 1;
    }
    spoiled
}
