//! A majority whose logs are damaged: nobody decides anything until an operator does
//! what the documentation says.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use tidegate_tests::cluster::{Cluster, alone};

use crate::damage::spoil;
use crate::stage::{Stage, documents};

const EXPORT: &str = "orders";
/// Milliseconds a lake waits for more.
const SOON: u32 = 500;
/// Whose logs are damaged.
const DAMAGED: [usize; 2] = [1, 2];

#[tokio::test]
async fn a_majority_with_damaged_logs_refuses_and_is_given_back_what_the_third_knows() {
    let _alone = alone().await;
    let mut stage = delivering().await;
    damage(&mut stage).await;
    restore(&mut stage, 0..300).await;
}

#[tokio::test]
async fn what_the_third_knows_is_enough_even_if_it_was_behind() {
    let _alone = alone().await;
    let mut stage = delivering().await;
    stage.cluster.kill(0).await;
    stage.write(300..600).await;
    stage.delivered(EXPORT, 0..600).await;
    damage(&mut stage).await;
    stage.cluster.start_node(0);
    restore(&mut stage, 0..600).await;
}

async fn delivering() -> Stage {
    let stage = Stage::new(Cluster::start(3).await).await;
    stage.write(0..300).await;
    stage.cluster.apply(&stage.spec(EXPORT, SOON));
    stage.delivered(EXPORT, 0..300).await;
    stage
}

/// Kills two nodes and damages their write-ahead logs; they refuse to start.
async fn damage(stage: &mut Stage) {
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
}

/// The third decides nothing, and says so. Then the step in "When a majority is lost"
/// of node/ARCHITECTURE.md: what it knows is given to the others. The documents of
/// these numbers are in the lake; with what is written now all of them come there.
async fn restore(stage: &mut Stage, delivered: Range<u64>) {
    let has_no_lease = |it: &Cluster| {
        let said = it.cli(&["doctor"]);
        !said.status.success() && String::from_utf8_lossy(&said.stderr).contains("lease")
    };
    stage.cluster.until("the third may run no shard, and says so", has_no_lease).await;
    stage.write(600..900).await;
    assert!(stage.lake(EXPORT) == documents(delivered.clone()), "the lake is as it was");

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
    stage.write(delivered.end..600).await;
    stage.delivered(EXPORT, 0..900).await;
    stage.write(900..1_200).await;
    stage.delivered(EXPORT, 0..1_200).await;
}

fn copy(from: &Path, into: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, into]).status().unwrap();
    assert!(copied.success());
}
