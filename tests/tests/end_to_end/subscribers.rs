//! Subscribers that read nothing, beside one that does, and such as come early.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tidegate_proto::Frame;
use tidegate_proto::v1::subscribe_start::From;
use tidegate_tests::cluster::{Cluster, alone};
use tidegate_tests::feed::{Open, open};
use tokio::time::timeout;

const EXPORT: &str = "followed";
const CHANGES: u64 = 40_000;
/// How many read nothing, and what each of them may have in flight: together more than
/// any fixed bound of a connection would be.
const LAZY: usize = 12;
const CREDIT: u64 = 32 << 20;
const SOON: Duration = Duration::from_secs(20);
/// Exports that are followed from their first moment on, and how often each.
const EXPORTS: usize = 30;
const SIDES: usize = 16;
const EARLY: usize = 30;

/// METHOD: the only copy of a shard is at one of two nodes. At the other, twelve subscribers
/// ask for all of it and read none. Another one there gets everything all the same: what
/// lies unread for the twelve does not stop the connection that all share.
#[tokio::test(flavor = "multi_thread")]
async fn subscribers_that_read_nothing_stop_nobody_at_their_node() {
    let _alone = alone().await;
    let cluster = Cluster::start(2).await;
    cluster.apply(&format!(
        "name = \"{EXPORT}\"\n[source]\nkind = \"datagen\"\nshards = 1\nkeys = 10000\n\
         document-bytes = 1500\nrate-per-second = 10000\nchanges = {CHANGES}\n\
         [spool]\ncopies = 1\n[[sink]]\nkind = \"jsonl\"\npath = \"{}\"\n",
        cluster.folder().join("jsonl").display()
    ));
    cluster.until("all is captured", |it| it.captured(EXPORT) >= CHANGES).await;
    let other = 1 - cluster.busiest(EXPORT);
    let address = cluster.addresses().swap_remove(other);
    let earliest = || From::Earliest(true);
    let mut lazy = Vec::new();
    for _ in 0..LAZY {
        lazy.push(open(&address, EXPORT, earliest(), CREDIT).await.unwrap());
    }
    // They have what they may have.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (_requests, mut responses) = open(&address, EXPORT, earliest(), 1 << 30).await.unwrap();
    let mut last = 0;
    while last < CHANGES {
        let response = timeout(SOON, responses.message()).await;
        let response = response.unwrap_or_else(|_| panic!("nothing came behind {last}"));
        for frame in response.unwrap().unwrap().frames {
            last = Frame::parse(frame).unwrap().last().0;
        }
    }
    drop(lazy);
}

/// METHOD: exports are applied one after the other, and each is subscribed to again and
/// again from the moment it is there: before, while and after its shard is discovered.
/// Every subscriber gets its first changes.
#[tokio::test(flavor = "multi_thread")]
async fn subscribers_that_come_before_a_shard_get_its_changes() {
    let _alone = alone().await;
    let cluster = Arc::new(Cluster::start(1).await);
    let address = cluster.addresses().swap_remove(0);
    for number in 0..EXPORTS {
        let export = format!("early{number}");
        let spec = format!(
            "name = \"{export}\"\n[source]\nkind = \"datagen\"\nshards = 1\nkeys = 10\n\
             document-bytes = 400\nrate-per-second = 100\nchanges = 10\n"
        );
        let at = Arc::clone(&cluster);
        let applied = tokio::task::spawn_blocking(move || at.apply(&spec));
        let early = early(&address, &export).await;
        let served = join_all(early.into_iter().map(is_served)).await;
        let waiting = served.iter().filter(|served| !**served).count();
        assert_eq!(waiting, 0, "of {} of {export}\n{}", served.len(), cluster.logs());
        applied.await.unwrap();
    }
}

/// Subscribers of an export that is about to be there, opened side by side.
async fn early(address: &str, export: &str) -> Vec<Open> {
    let side = || async {
        let mut opened = Vec::new();
        while opened.len() < EARLY {
            opened.extend(open(address, export, From::Earliest(true), 1 << 20).await.ok());
        }
        opened
    };
    join_all((0..SIDES).map(|_| side())).await.into_iter().flatten().collect()
}

/// Whether the subscriber gets something soon.
async fn is_served((_requests, mut responses): Open) -> bool {
    match timeout(SOON, responses.message()).await {
        Ok(first) => !first.unwrap().unwrap().frames.is_empty(),
        Err(_) => false,
    }
}
