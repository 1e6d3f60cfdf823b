//! Subscribers that read nothing, beside one that does.

use std::time::Duration;

use tidegate_proto::Frame;
use tidegate_proto::v1::subscribe_start::From;
use tidegate_tests::cluster::{Cluster, alone};
use tidegate_tests::feed::open;
use tokio::time::timeout;

const EXPORT: &str = "followed";
const CHANGES: u64 = 40_000;
/// How many read nothing, and what each of them may have in flight: together more than
/// any fixed bound of a connection would be.
const LAZY: usize = 12;
const CREDIT: u64 = 32 << 20;
const SOON: Duration = Duration::from_secs(20);

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
