//! An owner that stands still with half-written batches, and goes on.

use tidegate_tests::faults::Kind;

use crate::faults::{held, ran_apart};

/// Its own name, to run it again.
const NAME: &str = "zombies::an_owner_thawed_between_data_and_commit_adds_nothing_to_any_sink";

/// METHOD: a commit to PostgreSQL, a manifest on its way to the bucket, and the sync
/// of a jsonl position are held; then their node is frozen for 10 s. Others must take
/// over at every sink meanwhile. When it is thawed and what was held goes on, every
/// commit must be refused, and no file of an older owner may grow. The node must come
/// back, and all sinks hold every change once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_thawed_between_data_and_commit_adds_nothing_to_any_sink() {
    if ran_apart(NAME).await {
        return;
    }
    let done = held(20_261_122, 100, vec![Kind::F34]).await;
    assert!(done.verdict.generated > 1_000, "{:?}", done.verdict);
}
