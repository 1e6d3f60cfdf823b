//! A node that sees the cluster and no longer a source, or a sink.

use tidegate_tests::faults::Kind;

use crate::faults::{held, ran_apart};

/// Its own names, to run them again.
const NAME: &str = "reach::a_shard_goes_to_a_node_that_sees_its_source";

/// METHOD: the links between the node that reads a bank and the bank's store let nothing
/// pass for some seconds, while all nodes see each other. Another must read it then: the
/// fault's proof asks for that. All oracles hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_goes_to_a_node_that_sees_its_source() {
    if ran_apart(NAME).await {
        return;
    }
    let done = held(20_261_123, 100, vec![Kind::F10]).await;
    assert_eq!(done.rounds.len(), 1);
}
