//! The main job on real parts: real nodes, real sources, an independent reader.
//!
//! METHOD Processes are started from the binaries beside this test; what sinks
//! and feeds hold is compared with what the source holds, document by document.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod dynamodb;
mod failover;

use std::process::Command;

use tidegate_tests::cluster::{Cluster, alone, binary, free_address};

/// The demo, smaller: a snapshot under write load, the busiest node killed half
/// way, store, lake and feed compared.
#[tokio::test]
async fn the_demo_verifies_every_document() {
    let _alone = alone().await;
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let folder = tempfile::tempdir().unwrap();
    let port: u16 = free_address().rsplit(':').next().unwrap().parse().unwrap();
    let output = Command::new("bash")
        .arg(format!("{root}/deploy/demo.sh"))
        .env("BIN", binary("x").parent().unwrap())
        .env("DEMO_DIR", folder.path().join("demo"))
        .env("DOCUMENTS", "20000")
        // Other ports are this one and up; leave room below the limit.
        .env("PORT", port.clamp(1024, 60_000).to_string())
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

/// Every mistake is refused with its name and its remedy, and changes nothing.
#[tokio::test]
async fn a_wrong_export_file_is_refused_with_the_remedy() {
    let _alone = alone().await;
    let cluster = Cluster::start(1).await;
    let refused = |spec: &str, wanted: &[&str]| {
        let output = cluster.try_apply(spec, &[]);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(!output.status.success(), "{spec}");
        for word in wanted {
            assert!(text.contains(word), "{word} is missing in: {text}");
        }
    };
    refused("name = \"a\"\n[sauce]\n", &["sauce", "source"]);
    refused("name = \"A b\"\n[source]\nkind = \"embedded\"\n", &["name", "lower-case"]);
    let nowhere = format!("http://{}", free_address());
    let unreachable =
        format!("name = \"a\"\n[source]\nkind = \"embedded\"\nendpoint = \"{nowhere}\"\n");
    refused(&unreachable, &["did not pass"]);
    let sink = "[[sink]]\nkind = \"lake\"\npath = \"/tmp/x\"\ntarget-file-byte = 1\n";
    refused(&format!("{unreachable}{sink}"), &["target-file-byte", "target-file-bytes"]);
    assert_eq!(cluster.json(&["export", "list"])["exports"].as_array().unwrap().len(), 0);
    let missing = cluster.cli(&["feed", "tail", "nothing", "--until-now"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("nothing"));
    assert_eq!(missing.status.code(), Some(3));
}
