//! A short run of the fault harness.

use std::time::Duration;

use tidegate_tests::cluster::{alone, binaries};
use tidegate_tests::faults::{Kind, Plan, Scene, run};
use tidegate_tests::world::{Extras, is_alone, run_alone};

/// Its own name, to run it again.
const NAME: &str = "faults::owners_and_leaders_die_freeze_and_part_and_every_change_comes_once";

/// METHOD: in a network of its own, three nodes under load meet the five faults
/// that every commit must survive, drawn from a fixed seed; the oracles of
/// `tidegate_tests::oracle` judge subscribers, sinks and checkpoints. Where no
/// network can be made, it fails and says what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn owners_and_leaders_die_freeze_and_part_and_every_change_comes_once() {
    if !is_alone().unwrap() {
        let _alone = alone().await;
        let ended = run_alone([NAME, "--exact", "--nocapture"]).unwrap();
        assert!(ended.success(), "see above");
        return;
    }
    let plan = Plan {
        scene: Scene {
            seed: 20_261_121,
            nodes: 3,
            rate: 300,
            extras: Extras::default(),
            binaries: binaries(),
        },
        length: Duration::from_secs(1),
        kinds: vec![Kind::F1, Kind::F2, Kind::F5, Kind::F7, Kind::F9],
        say: |_| {},
    };
    match run(&plan).await {
        Ok(done) => {
            assert_eq!(done.rounds.len(), plan.kinds.len());
            assert!(done.verdict.generated > 10_000, "{:?}", done.verdict);
        }
        Err(violation) => panic!("{violation:#?}"),
    }
}
