//! The main job on real parts: real nodes, real sources, an independent reader.
//!
//! METHOD Processes are started from the binaries beside this test; what sinks
//! and feeds hold is compared with what the source holds, document by document.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod damage;
mod dynamodb;
mod failover;
mod faults;
mod followed;
mod gaps;
mod leaders;
mod majority;
mod members;
mod novelty;
mod operate;
mod outage;
mod positions;
mod postgres;
mod reach;
mod redis;
mod redis_moves;
mod refusals;
mod regions;
mod retention;
mod stage;
mod subscribers;
mod zombies;

use std::process::Command;

use tidegate_tests::cluster::{alone, binary};
use tidegate_tests::ports::free_ports;

/// The store, three nodes, and their metrics.
const DEMO_PORTS: u16 = 7;

/// The demo, smaller: a snapshot under write load, the busiest node killed half
/// way, store, lake and feed compared.
#[tokio::test]
async fn the_demo_verifies_every_document() {
    let _alone = alone().await;
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("bash")
        .arg(format!("{root}/deploy/demo.sh"))
        .env("BIN", binary("x").parent().unwrap())
        .env("DEMO_DIR", folder.path().join("demo"))
        .env("DOCUMENTS", "20000")
        .env("PORT", free_ports(DEMO_PORTS).to_string())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let all = format!("{out}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{all}");
    let last = out.lines().last().unwrap_or_default();
    assert!(last.starts_with("verified: "), "{all}");
    assert!(last.ends_with(" 0 missing, 0 extra, 0 different"), "{all}");
    assert!(out.contains("its shards run elsewhere"), "a node was killed: {all}");
}
