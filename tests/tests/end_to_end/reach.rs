//! A node that sees the cluster and no longer a source, or a sink.

use tidegate_tests::faults::Kind;

use crate::faults::{held, ran_apart};

/// Their own names, to run them again.
const SOURCE: &str = "reach::a_shard_goes_to_a_node_that_sees_its_source";
const SINK: &str = "reach::a_writer_goes_to_a_node_that_sees_its_sink";
/// What draws a cut from the source, and one from the bucket.
const NO_SOURCE: u64 = 31;
const NO_BUCKET: u64 = 33;

/// METHOD: the links between the node that reads a bank and the bank's store let nothing
/// pass for some seconds, while all nodes see each other. Another must read it then: the
/// fault's proof asks for that. All oracles hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_goes_to_a_node_that_sees_its_source() {
    if !ran_apart(SOURCE).await {
        cut(NO_SOURCE, "sees no source").await;
    }
}

/// METHOD: the same between a node that writes to a lake and its bucket.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_goes_to_a_node_that_sees_its_sink() {
    if !ran_apart(SINK).await {
        cut(NO_BUCKET, "sees no sink").await;
    }
}

async fn cut(seed: u64, what: &str) {
    let done = held(seed, 100, vec![Kind::F10]).await;
    let told = &done.history[0];
    assert!(done.history.len() == 1 && told.contains(what), "{told}");
}
