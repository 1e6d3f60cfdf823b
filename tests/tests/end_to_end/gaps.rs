//! What a source lost is read again, and so is what an operator asks for.

use std::path::Path;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{StreamSpecification, StreamViewType};
use tidegate_tests::cluster::{Cluster, alone, binaries};
use tidegate_tests::documents::Documents;
use tidegate_tests::dynamodb_local::DynamoDbLocal;
use tidegate_tests::lake;
use tidegate_tests::place::Place;

use crate::dynamodb::{self, TABLE};
use crate::followed::{changes, mark, marks};
use crate::stage::{Stage, does, refused};

const ITEMS: u32 = 200;
const EXPORT: &str = "again";
const DOCUMENTS: u64 = 300;

/// METHOD: a table's stream is turned off and on, and what is written in between no
/// stream ever had. The export first waits for its operator, who has the table read
/// again; then, told to, it does so by itself. The lake ends as the table each time.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_stream_had_is_found_by_reading_the_table_again() {
    let _alone = alone().await;
    let server = DynamoDbLocal::start().await;
    let client = dynamodb::client(server.endpoint());
    dynamodb::make_table(&client).await;
    put(&client, 0..ITEMS, 1).await;
    let cluster = Cluster::start(2).await;
    let spec = dynamodb::spec(&cluster, server.endpoint());
    cluster.apply(&format!("{spec}on-gap = \"pause\"\n"));
    in_lake(&cluster, &client).await;
    let followed = cluster.folder().join("feed.jsonl");
    let follower = cluster.follow(TABLE, &followed);

    lose(&client, 0..20, false).await;
    resumed(&cluster, |it| failure(it).contains("gap 1")).await;
    assert!(failure(&cluster).contains("--resnapshot"), "{}", failure(&cluster));
    assert_eq!(cluster.gaps(TABLE)[0]["repair"], "");
    let place = format!("{TABLE}/{}", cluster.shards(TABLE)[0]["id"].as_str().unwrap());
    let wrong = cluster.cli(&["gap", "repair", &place, "2", "--resnapshot"]);
    refused(&wrong, 3, &["no gap 2"]);
    does(&cluster, &["gap", "repair", &place, "1", "--resnapshot"]);
    mended(&cluster, 1).await;
    in_lake(&cluster, &client).await;
    let again = cluster.cli(&["gap", "repair", &place, "1", "--accept", "never mind"]);
    refused(&again, 3, &["is mended"]);

    // From now on it knows the keys, so it finds out what is gone, too.
    cluster.apply(&format!("{spec}sweep = true\n"));
    lose(&client, 50..90, true).await;
    resumed(&cluster, |it| it.gaps(TABLE).len() > 1).await;
    mended(&cluster, 2).await;
    in_lake(&cluster, &client).await;
    assert!(repair_of(&cluster, 1).contains("may still be at sinks"), "{:?}", cluster.gaps(TABLE));
    assert!(repair_of(&cluster, 2).contains("was deleted"), "{:?}", cluster.gaps(TABLE));
    assert_eq!(cluster.gaps(TABLE).len(), 2, "{:?}", cluster.gaps(TABLE));

    let set = |to| ["--yes", "position", "set", &place, to, "--reason", "why", "--resnapshot"];
    refused(&cluster.cli(&set("hex:00")), 3, &["no position of this source"]);
    does(&cluster, &set("now"));
    mended(&cluster, 3).await;
    in_lake(&cluster, &client).await;
    let fed = |_: &Cluster| marks(&followed) == [1, 2, 3];
    cluster.until("a feed has marks of all", fed).await;
    drop(follower);
    let select = "SELECT sequence FROM lake WHERE operation = 'gap' ORDER BY sequence";
    let in_feed: Vec<_> = changes(&followed)
        .iter()
        .filter(|it| mark(it).is_some())
        .map(|it| it["sequence"].clone())
        .collect();
    let marked = |it: &Cluster| {
        let rows = lake::select(&it.folder().join("lake"), TABLE, select).unwrap_or_default();
        rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>() == in_feed
    };
    cluster.until("the lake has the marks where the feed had them", marked).await;
}

async fn put(client: &Client, numbers: std::ops::Range<u32>, version: u32) {
    for number in numbers {
        dynamodb::put(client, dynamodb::item(number, version)).await;
    }
}

/// Writes while the table has no stream; the last of these items is deleted if the
/// export is to find that out.
async fn lose(client: &Client, numbers: std::ops::Range<u32>, delete: bool) {
    let off = StreamSpecification::builder().stream_enabled(false).build().unwrap();
    client.update_table().table_name(TABLE).stream_specification(off).send().await.unwrap();
    if delete {
        dynamodb::delete(client, dynamodb::key(numbers.end)).await;
    }
    put(client, numbers, 2).await;
    let on = StreamSpecification::builder().stream_enabled(true);
    let on = on.stream_view_type(StreamViewType::NewAndOldImages).build().unwrap();
    client.update_table().table_name(TABLE).stream_specification(on).send().await.unwrap();
}

/// A shard that met its table without a stream failed, and is let go on.
async fn resumed(cluster: &Cluster, done: impl Fn(&Cluster) -> bool) {
    let look = |it: &Cluster| {
        if failure(it).contains("is off") {
            does(it, &["export", "resume", TABLE]);
        }
        done(it)
    };
    cluster.until("the shard meets the loss", look).await;
}

fn failure(cluster: &Cluster) -> String {
    cluster.shards(TABLE)[0]["failure"].as_str().unwrap_or_default().to_owned()
}

async fn in_lake(cluster: &Cluster, client: &Client) {
    let expected = dynamodb::table(client).await;
    let lake = |it: &Cluster| lake::latest(&it.folder().join("lake"), TABLE);
    cluster.until("the lake equals the table", |it| lake(it) == expected).await;
}

fn repair_of(cluster: &Cluster, number: usize) -> String {
    cluster.gaps(TABLE)[number - 1]["repair"].as_str().unwrap_or_default().to_owned()
}

async fn mended(cluster: &Cluster, number: usize) {
    let text = format!("by snapshot {number}");
    let done =
        |it: &Cluster| it.gaps(TABLE).len() >= number && repair_of(it, number).contains(&text);
    cluster.until("the gap is mended", done).await;
}

/// METHOD: a document store is lost with its disk and made anew, with other documents:
/// nothing of its log goes on. The lake ends as the new store.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_made_anew_is_read_anew_and_what_it_lacks_is_deleted() {
    let _alone = alone().await;
    let (place, cluster) = (Place::on_loopback(), Cluster::start(2).await);
    let documents = Documents::start_at(&binaries(), &place).await;
    let stage = Stage { cluster, documents };
    stage.write(0..200).await;
    let spec = stage.spec(EXPORT, 300);
    stage.cluster.apply(&format!("{spec}[snapshot]\nsweep = true\n"));
    stage.delivered(EXPORT, 0..200).await;
    stage.write(200..210).await;
    stage.delivered(EXPORT, 0..210).await;

    let Stage { cluster, documents } = stage;
    documents.end().await;
    let documents = Documents::start_at(&binaries(), &place).await;
    let stage = Stage { cluster, documents };
    stage.write(150..300).await;
    let held = crate::stage::documents(150..300);
    stage.cluster.until("the lake is the new store", |_| stage.lake(EXPORT) == held).await;
    let gaps = stage.cluster.gaps(EXPORT);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert!(gaps[0]["repair"].to_string().contains("was deleted"), "{gaps:?}");
    stage.write(300..310).await;
    stage.delivered(EXPORT, 150..310).await;
}

/// METHOD: all rows are read again, then those of some keys; then slowly, held, gone on
/// with, and canceled. A feed counts the rows.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_read_again_when_an_operator_asks() {
    let _alone = alone().await;
    let stage = Stage::new(Cluster::start(2).await).await;
    let cluster = &stage.cluster;
    stage.write(0..DOCUMENTS).await;
    cluster.apply(&stage.spec(EXPORT, 300));
    let followed = cluster.folder().join("feed.jsonl");
    let _follower = cluster.follow(EXPORT, &followed);
    let all = usize::try_from(DOCUMENTS).unwrap();
    cluster.until("the first snapshot is there", |_| rows(&followed) == all).await;

    does(cluster, &["snapshot", "start", EXPORT]);
    cluster.until("all rows came again", |_| rows(&followed) == 2 * all).await;
    cluster.until("it is complete", |it| state(it) == "complete").await;
    does(cluster, &["snapshot", "start", EXPORT, "--keys", "item-00001"]);
    cluster.until("those of ten keys came again", |_| rows(&followed) == 2 * all + 10).await;
    cluster.until("it is complete", |it| state(it) == "complete").await;

    does(cluster, &["export", "rate", EXPORT, "--rows", "20"]);
    does(cluster, &["snapshot", "start", EXPORT, "--collection", "items"]);
    refused(&cluster.cli(&["snapshot", "start", EXPORT]), 3, &["rows to come"]);
    cluster.until("it is under way", |_| rows(&followed) > 2 * all + 20).await;
    does(cluster, &["snapshot", "pause", EXPORT]);
    stage.write(DOCUMENTS..DOCUMENTS + 1).await;
    let last = |_: &Cluster| stage.lake(EXPORT).len() > all;
    cluster.until("the stream goes on", last).await;
    let held = rows(&followed);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(rows(&followed), held, "the snapshot stands still");
    does(cluster, &["snapshot", "resume", EXPORT]);
    cluster.until("it goes on", |_| rows(&followed) > held + 10).await;
    does(cluster, &["--yes", "snapshot", "cancel", EXPORT]);
    cluster.until("it is canceled", |it| state(it) == "canceled").await;
    assert!(rows(&followed) < 3 * all, "not all rows came");
    refused(&cluster.cli(&["--yes", "snapshot", "cancel", EXPORT]), 3, &["no snapshot"]);
    does(cluster, &["export", "rate", EXPORT, "--reset"]);
    let before = rows(&followed);
    does(cluster, &["snapshot", "start", EXPORT]);
    cluster.until("another can be taken", |_| rows(&followed) > before + all).await;
}

/// Snapshot rows that a feed has brought.
fn rows(followed: &Path) -> usize {
    changes(followed).iter().filter(|change| change["operation"] == "snapshot").count()
}

fn state(cluster: &Cluster) -> String {
    cluster.json(&["snapshot", "show", EXPORT])["state"].as_str().unwrap_or_default().to_owned()
}
