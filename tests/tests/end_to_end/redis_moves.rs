//! A Redis whose reader moves to a node that never had its spool.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tidegate_tests::cluster::{Cluster, alone};
use tidegate_tests::lake;
use tidegate_tests::redis_data::{compare, held};
use tidegate_tests::redis_server::{RedisClient, RedisServer};

use crate::redis::{EXPORT, spec, write};
use crate::stage::does;

/// Keys that nobody touches: several pages of the key index.
const RESTING: u32 = 20_000;
/// Of each of them.
const BYTES: usize = 200;
/// Retention looks every five seconds, and cuts what was delivered two looks ago.
const FORGETS_IN: Duration = Duration::from_secs(16);

/// METHOD: what is delivered is not retained, so the spool does not tell of keys that rest.
/// Under load of all types the reader moves to the one of three nodes that keeps no copy,
/// twice; keys that rested are deleted after each move. The lake equals Redis, Redis made
/// one dump in all, and no gap is on record.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_moves_to_a_node_without_its_spool_and_is_not_read_again() {
    let _alone = alone().await;
    let server = RedisServer::start(&[]).await;
    let mut client = server.client().await;
    rest(&mut client).await;
    let cluster = Cluster::start(3).await;
    cluster.apply(&format!("{}[retention]\nbytes = 1\n", spec(&cluster, &server)));
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(write(server.client().await, Arc::clone(&stop)));
    let delivered = |it: &Cluster| it.delivered(EXPORT, "lake");
    cluster.until("all rows are delivered", |it| delivered(it) > u64::from(RESTING)).await;

    for moved in 0..2 {
        tokio::time::sleep(FORGETS_IN).await;
        let other = without_copy(&cluster);
        hand_over(&cluster, other);
        let filled = cluster.log(other).matches("the owner's key index is here").count();
        assert!(filled > 0, "move {moved}: its copy folded all there ever was");
        for number in 0..50 {
            client.say(&format!("DEL rests:{}", moved * 100 + number)).await;
        }
        client.say(&format!("SET moved:{moved} 1")).await;
        let in_lake = |it: &Cluster| lake::latest(&it.folder().join("lake"), EXPORT);
        let last = format!("\"moved:{moved}\"");
        cluster
            .until("what came after the move is in the lake", |it| in_lake(it).contains_key(&last))
            .await;
    }
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    client.say("SET last 1").await;
    let in_lake = |it: &Cluster| lake::latest(&it.folder().join("lake"), EXPORT);
    cluster.until("a last key is in the lake", |it| in_lake(it).contains_key("\"last\"")).await;
    compare(&held(&mut client).await, &in_lake(&cluster));
    assert_eq!(cluster.gaps(EXPORT), [] as [Value; 0]);
    assert_eq!(dumps(&mut client).await, 1);
}

async fn rest(client: &mut RedisClient) {
    let key = |number: u32| {
        let value = format!("{number:0>BYTES$}");
        vec![b"SET".to_vec(), format!("rests:{number}").into_bytes(), value.into_bytes()]
    };
    let commands: Vec<_> = (0..RESTING).map(key).collect();
    for some in commands.chunks(500) {
        client.send(some).await.unwrap();
        for _ in some {
            client.answer().await.unwrap();
        }
    }
}

/// Has this node read.
pub(crate) fn hand_over(cluster: &Cluster, to: usize) {
    let shard = format!("{EXPORT}/{}", cluster.shards(EXPORT)[0]["id"].as_str().unwrap());
    does(cluster, &["shard", "move", &shard, "--reader", cluster.name(to)]);
    assert_eq!(cluster.shards(EXPORT)[0]["reader"], cluster.name(to));
}

/// The node that keeps none of the spool.
fn without_copy(cluster: &Cluster) -> usize {
    let shard = &cluster.shards(EXPORT)[0];
    let keeps = |name: &str| {
        ["copies", "in_sync"]
            .iter()
            .any(|of| shard[of].as_array().unwrap().iter().any(|it| it == name))
    };
    (0..3).find(|number| !keeps(cluster.name(*number))).expect("two of three nodes keep it")
}

/// How often Redis told a replica everything.
pub(crate) async fn dumps(client: &mut RedisClient) -> u64 {
    let stats = String::from_utf8(client.say("INFO stats").await.text()).unwrap();
    let full = stats.lines().find_map(|line| line.strip_prefix("sync_full:"));
    full.unwrap().trim().parse().unwrap()
}
