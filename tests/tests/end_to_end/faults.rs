//! A short run of the fault harness.

use std::time::Duration;

use tidegate_tests::cluster::{alone, binaries};
use tidegate_tests::faults::{Done, Kind, Plan, Scene, run};
use tidegate_tests::world::{is_alone, run_alone};

/// Its own name, to run it again.
const NAME: &str = "faults::owners_and_leaders_die_freeze_and_part_and_every_change_comes_once";

/// METHOD: in a network of its own, three nodes under load meet the five faults
/// that every commit must survive, drawn from a fixed seed; the oracles of
/// `tidegate_tests::oracle` judge subscribers, sinks and checkpoints. Where no
/// network can be made, it fails and says what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn owners_and_leaders_die_freeze_and_part_and_every_change_comes_once() {
    if ran_apart(NAME).await {
        return;
    }
    let kinds = vec![Kind::F1, Kind::F2, Kind::F5, Kind::F7, Kind::F9];
    let count = kinds.len();
    let done = held(20_261_121, 300, kinds).await;
    assert_eq!(done.rounds.len(), count);
    assert!(done.verdict.generated > 10_000, "{:?}", done.verdict);
}

/// Runs the test of this name again in a network of its own, while no other runs a
/// cluster; false in that run.
pub(crate) async fn ran_apart(name: &str) -> bool {
    if is_alone().unwrap() {
        return false;
    }
    let _alone = alone().await;
    let ended = run_alone([name, "--exact", "--nocapture"]).unwrap();
    assert!(ended.success(), "see above");
    true
}

/// A run of three nodes with one fault of each kind, in which all oracles hold.
pub(crate) async fn held(seed: u64, rate: u32, kinds: Vec<Kind>) -> Done {
    let extras = Kind::need(&kinds);
    let scene = Scene { seed, nodes: 3, rate, extras, binaries: binaries(), next: None };
    let plan = Plan { scene, length: Duration::from_secs(1), kinds, say: |_| {} };
    run(&plan).await.unwrap_or_else(|violation| panic!("{violation:#?}"))
}
