//! A majority whose logs are damaged: nobody decides anything until an operator does
//! what the documentation says.

use std::path::Path;
use std::process::Command;

use tidegate_tests::cluster::{Cluster, alone};

use crate::damage::spoil;
use crate::stage::{Stage, documents, refused};

const EXPORT: &str = "orders";
/// Milliseconds a lake waits for more.
const SOON: u32 = 500;
/// Whose logs are damaged.
const DAMAGED: [usize; 2] = [1, 2];

/// METHOD: the write-ahead logs of two of three nodes are damaged while they are
/// down. They refuse to start; the third decides nothing, and says so. Then the step
/// in "When a majority is lost" of node/ARCHITECTURE.md: what the whole node knows is
/// given to the others. All that was written before and after comes to the lake.
#[tokio::test]
async fn a_majority_with_damaged_logs_refuses_and_is_given_back_what_the_third_knows() {
    let _alone = alone().await;
    let mut stage = Stage::new(Cluster::start(3).await).await;
    stage.write(0..300).await;
    stage.cluster.apply(&stage.spec(EXPORT, SOON));
    stage.delivered(EXPORT, 0..300).await;

    for node in DAMAGED {
        stage.cluster.kill(node).await;
        let spoiled = spoil(&stage.cluster.data(node).join("raft/db"), "log");
        assert!(spoiled > 0, "there is a write-ahead log");
    }
    for node in DAMAGED {
        stage.cluster.start_node(node);
        assert!(!stage.cluster.ended(node).await.success(), "it must not vote");
        let log = stage.cluster.log(node);
        let place = format!("node{node}/raft/db is damaged");
        for word in [&place, "Corruption", "a majority"] {
            assert!(log.contains(word), "{word} is missing in: {log}");
        }
    }
    stage.write(300..600).await;
    let doctor = |it: &Cluster| it.cli(&["doctor"]);
    stage.cluster.until("the third is alone", |it| !doctor(it).status.success()).await;
    refused(&doctor(&stage.cluster), 1, &["lease"]);
    assert!(stage.lake(EXPORT) == documents(0..300), "what was delivered is there still");

    stage.cluster.kill(0).await;
    let whole = stage.cluster.data(0).join("raft");
    for node in DAMAGED {
        let data = stage.cluster.data(node);
        for folder in ["raft", "spool"] {
            std::fs::remove_dir_all(data.join(folder)).unwrap();
        }
        copy(&whole, &data);
    }
    for node in 0..3 {
        stage.cluster.start_node(node);
    }
    stage.cluster.until("three nodes are up", |it| it.up() == 3).await;
    stage.delivered(EXPORT, 0..600).await;
    stage.write(600..900).await;
    stage.delivered(EXPORT, 0..900).await;
}

fn copy(from: &Path, into: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, into]).status().unwrap();
    assert!(copied.success());
}
