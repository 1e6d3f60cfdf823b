//! A snapshot that takes longer than its source keeps changes.

use std::time::Duration;

use tidegate_tests::cluster::{Cluster, alone};
use tidegate_tests::dynamodb_local::DynamoDbLocal;
use tidegate_tests::lake;

use crate::dynamodb::{self, TABLE};
use crate::stage::refused;

/// So many that they take over a day at one row a second.
const ITEMS: u32 = 86_500;
/// How fast the server's clock runs: its day is over in 24 s.
const SPEED: u32 = 3600;
/// Longer than that.
const SLOW_FOR: Duration = Duration::from_secs(40);
const USAGE: i32 = 2;

/// METHOD: an export with a snapshot of one row a second is refused with the speed it
/// would need, and applied by force. For over a day of the store's time its rows creep
/// while items are written and deleted; what the stream had then the store has long
/// forgotten. Let go, the snapshot ends, and the lake is the table: no gap, no item lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_slower_than_retention_is_refused_and_by_force_survives_in_the_spool() {
    let _alone = alone().await;
    let server = DynamoDbLocal::start_fast(SPEED).await;
    let client = dynamodb::client(server.endpoint());
    dynamodb::make_table(&client).await;
    dynamodb::load(&client, ITEMS).await;
    let cluster = Cluster::start(2).await;
    let spec = dynamodb::spec(&cluster, server.endpoint()).replace("2500", "1");
    let words = ["about 86500 rows", "24.0 h", "rows-per-second = 2 or more", "--force"];
    refused(&cluster.try_apply(&spec, &["--yes"]), USAGE, &words);
    assert!(cluster.shards(TABLE).is_empty(), "nothing was made");

    cluster.apply(&spec);
    let delivered = |it: &Cluster| it.delivered(TABLE, "lake");
    cluster.until("rows creep in", |it| delivered(it) > 0).await;
    let begun = tokio::time::Instant::now();
    let mut number = 0;
    while begun.elapsed() < SLOW_FOR {
        number += 1;
        dynamodb::put(&client, dynamodb::item(number * 7, 1)).await;
        if number % 5 == 0 {
            dynamodb::delete(&client, dynamodb::key(number * 7 + 1)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let snapshot = || cluster.json(&["snapshot", "show", TABLE])["state"].clone();
    assert_eq!(snapshot(), "running", "it is far from done");
    let let_go = cluster.cli(&["export", "rate", TABLE, "--rows", "50000"]);
    assert!(let_go.status.success(), "{}", String::from_utf8_lossy(&let_go.stderr));
    cluster.until("the snapshot ends", |_| snapshot() == "complete").await;

    let expected = dynamodb::table(&client).await;
    let lake = |it: &Cluster| lake::latest(&it.folder().join("lake"), TABLE);
    cluster.until("the lake equals the table", |it| lake(it) == expected).await;
    assert!(cluster.gaps(TABLE).is_empty(), "{:?}", cluster.gaps(TABLE));
}
