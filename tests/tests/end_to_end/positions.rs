//! An operator has a stream go on elsewhere.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use tidegate_tests::cluster::{Cluster, alone};

use crate::followed::{changes, mark, marks};
use crate::stage::{Stage, does, refused};

const EXPORT: &str = "elsewhere";
/// Changes per second while many are waiting to be captured.
const SLOW: &str = "20";
const AT_ONCE: u64 = 10;

struct Positions {
    stage: Stage,
    followed: PathBuf,
    /// EXPORT/SHARD.
    shard: String,
}

impl Positions {
    fn cluster(&self) -> &Cluster {
        &self.stage.cluster
    }

    fn set(&self, arguments: &[&str]) -> Output {
        let begin = ["--yes", "position", "set", &self.shard];
        self.cluster().cli(&[&begin, arguments].concat())
    }

    fn position(&self) -> String {
        let shown = self.cluster().json(&["position", "show", EXPORT]);
        shown["positions"][0]["position"].as_str().unwrap().to_owned()
    }

    /// Writes more than is captured while anybody waits.
    async fn fall_behind(&self, numbers: std::ops::Range<u64>) {
        does(self.cluster(), &["export", "rate", EXPORT, "--changes", SLOW]);
        // What is written at once is read at once.
        let mut from = numbers.start;
        while from < numbers.end {
            self.stage.write(from..from + AT_ONCE).await;
            from += AT_ONCE;
        }
    }
}

/// METHOD: a stream is set back, and its owner killed at once; then set ahead of changes
/// that are never captured, until rows are read again; and ahead again, together with
/// that. A feed has each mark once, in front of what follows; the lake ends as the store.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_where_an_operator_wants_it() {
    let _alone = alone().await;
    let stage = Stage::new(Cluster::start(3).await).await;
    stage.write(0..200).await;
    stage.cluster.apply(&stage.spec(EXPORT, 300));
    stage.delivered(EXPORT, 0..200).await;
    let followed = stage.cluster.folder().join("feed.jsonl");
    let follower = stage.cluster.follow(EXPORT, &followed);
    let shard = stage.cluster.shards(EXPORT)[0]["id"].as_str().unwrap().to_owned();
    let mut positions = Positions { stage, followed, shard: format!("{EXPORT}/{shard}") };
    let begin = positions.position();
    positions.stage.write(200..230).await;
    positions.stage.delivered(EXPORT, 0..230).await;
    is_checked(&positions, &begin);

    goes_back(&mut positions, &begin).await;
    let missing = goes_ahead(&positions).await;
    let marked = marks(&positions.followed);
    assert_eq!(marked, [1, 2], "each once");
    does(positions.cluster(), &["snapshot", "start", EXPORT]);
    positions.stage.delivered(EXPORT, 0..700).await;
    assert!(missing > 0);

    positions.fall_behind(700..1100).await;
    let output = positions.set(&["now", "--reason", "skip the import", "--resnapshot"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    does(positions.cluster(), &["export", "rate", EXPORT, "--reset"]);
    positions.stage.delivered(EXPORT, 0..1100).await;
    let mended =
        |it: &Cluster| it.gaps(EXPORT)[2]["repair"].to_string().contains("were read again");
    positions.cluster().until("the gap is mended", mended).await;
    positions
        .cluster()
        .until("a feed has its mark", |_| marks(&positions.followed) == [1, 2, 3])
        .await;
    drop(follower);
}

/// What no stream can go on from is refused before anything changes.
fn is_checked(positions: &Positions, begin: &str) {
    let (store, _) = begin.rsplit_once(':').unwrap();
    let reason = ["--reason", "why"];
    let wrong = |position: &str| positions.set(&[&[position], &reason[..]].concat());
    refused(&wrong("nonsense"), 3, &["no position of this source"]);
    refused(&wrong("another:5"), 3, &["not the one this export began with"]);
    refused(&wrong(&format!("{store}:99999999")), 3, &["the last revision is"]);
    refused(&wrong("hex:0"), 2, &["hexadecimal digits"]);
    refused(&positions.set(&[begin]), 2, &["--reason"]);
    let empty = positions.set(&[begin, "--reason", ""]);
    refused(&empty, 3, &["a reason is missing"]);
    assert_eq!(positions.cluster().gaps(EXPORT), [] as [Value; 0]);
}

/// What came since `begin` comes again, under sequences of its own, whoever goes on.
async fn goes_back(positions: &mut Positions, begin: &str) {
    let before = positions.position();
    let output = positions.set(&[begin, "--reason", "sinks were restored"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let owner = positions.cluster().busiest(EXPORT);
    positions.stage.cluster.kill(owner).await;
    let again = |_: &Cluster| behind(&positions.followed, 1) >= 30;
    positions.cluster().until("the changes came again", again).await;
    positions.stage.cluster.start_node(owner);
    let gap = positions.cluster().gaps(EXPORT).remove(0);
    assert_eq!(gap["kind"], "position-set", "{gap:?}");
    assert_eq!((&gap["from"], &gap["to"]), (&before.into(), &begin.into()), "{gap:?}");
    assert_eq!(gap["detail"], "sinks were restored", "{gap:?}");
    positions.stage.delivered(EXPORT, 0..230).await;
}

/// Changes that wait to be captured never are; gives how many the lake lacks.
async fn goes_ahead(positions: &Positions) -> usize {
    positions.fall_behind(230..690).await;
    let output = positions.set(&["now", "--reason", "not wanted"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    does(positions.cluster(), &["export", "rate", EXPORT, "--reset"]);
    positions.stage.write(690..700).await;
    let last = |_: &Cluster| behind(&positions.followed, 2) >= 10;
    positions.cluster().until("what follows is there", last).await;
    let written = 700;
    let has = positions.stage.lake(EXPORT).len();
    assert!(has < written, "the lake has {has} of {written}");
    written - has
}

/// How many changes followed a gap's mark; 0 before it is there.
fn behind(followed: &Path, gap: u64) -> usize {
    let changes = changes(followed);
    let at = changes.iter().position(|change| mark(change) == Some(gap));
    at.map_or(0, |at| changes.len() - at - 1)
}
