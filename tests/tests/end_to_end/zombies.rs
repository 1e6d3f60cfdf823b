//! An owner that stands still with half-written batches, and goes on.

use std::time::Duration;

use tidegate_tests::cluster::{alone, binaries};
use tidegate_tests::faults::{Kind, Plan, Scene, run};
use tidegate_tests::world::{is_alone, run_alone};

/// Its own name, to run it again.
const NAME: &str = "zombies::an_owner_thawed_between_data_and_commit_adds_nothing_to_any_sink";

/// METHOD: a commit to PostgreSQL, a manifest on its way to the bucket, and the sync
/// of a jsonl position are held; then their node is frozen for 10 s. Others must take
/// over at every sink meanwhile. When it is thawed and what was held goes on, every
/// commit must be refused, and no file of an older owner may grow. The node must come
/// back, and all sinks hold every change once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_thawed_between_data_and_commit_adds_nothing_to_any_sink() {
    if !is_alone().unwrap() {
        let _alone = alone().await;
        let ended = run_alone([NAME, "--exact", "--nocapture"]).unwrap();
        assert!(ended.success(), "see above");
        return;
    }
    let kinds = vec![Kind::F34];
    let plan = Plan {
        scene: Scene {
            seed: 20_261_122,
            nodes: 3,
            rate: 100,
            extras: Kind::need(&kinds),
            binaries: binaries(),
        },
        length: Duration::from_secs(1),
        kinds,
        say: |_| {},
    };
    match run(&plan).await {
        Ok(done) => assert!(done.verdict.generated > 1_000, "{:?}", done.verdict),
        Err(violation) => panic!("{violation:#?}"),
    }
}
