//! A Redis under write load, exported by three nodes; the owner is killed, the
//! link is cut, Redis is killed and starts with less than it had.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::Value;
use tidegate_tests::cluster::{Cluster, alone};
use tidegate_tests::lake;
use tidegate_tests::redis_data::{command, compare, held};
use tidegate_tests::redis_server::{Answer, RedisClient, RedisServer};

use crate::redis_moves::{dumps, hand_over};
use crate::stage::{does, refused};

pub(crate) const EXPORT: &str = "cache";
/// Of each type.
const KEYS: u32 = 300;
/// Commands sent in one go.
const BURST: usize = 100;
/// The speed is known after some seconds, and told every twenty.
const WARNED_MAX: usize = 45;

pub(crate) fn spec(cluster: &Cluster, server: &RedisServer) -> String {
    format!(
        "name = \"{EXPORT}\"\n\
         [source]\nkind = \"redis\"\nendpoint = \"{}\"\n\
         [[sink]]\nkind = \"lake\"\npath = \"{}\"\ndelay-ms = 500\n",
        server.endpoint(),
        cluster.folder().join("lake").display()
    )
}

/// METHOD: commands of all six types go in without a pause. The reader's node is
/// killed, comes back and gets its shard back, for which nothing is read again; the link
/// is cut; Redis is killed and starts again with what it had saved long before, so that
/// keys are gone. In the end the lake equals Redis, key by key, with one gap on record: the
/// one Redis made.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_arrives_whole_although_its_owner_and_itself_are_killed() {
    let _alone = alone().await;
    let mut server = RedisServer::start(&["--repl-backlog-size", "8mb"]).await;
    let mut client = server.client().await;
    let mut random = StdRng::seed_from_u64(5);
    for _ in 0..50 {
        burst(&mut client, &mut random).await.unwrap();
    }
    client.say("SAVE").await;
    let mut cluster = Cluster::start(3).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(write(server.client().await, Arc::clone(&stop)));
    cluster.apply(&spec(&cluster, &server));
    let in_sync = |it: &Cluster| {
        let shards = it.shards(EXPORT);
        shards.first().is_some_and(|it| it["in_sync"].as_array().map_or(0, Vec::len) >= 2)
    };
    cluster.until("the spool has two copies in sync", in_sync).await;
    let captured = |it: &Cluster| it.captured(EXPORT);
    cluster.until("all rows and some changes are captured", |it| captured(it) > 10_000).await;

    let owner = cluster.busiest(EXPORT);
    is_warned_of(&cluster, owner).await;
    cluster.kill(owner).await;
    let before = captured(&cluster);
    cluster.until("another node goes on", |it| captured(it) > before + 1_000).await;
    cluster.start_node(owner);
    cluster.until("the spool has two copies in sync again", in_sync).await;
    // Of what it had captured when it was killed, the other may have had less.
    hand_over(&cluster, owner);
    let before = captured(&cluster);
    cluster.until("the one that was killed goes on", |it| captured(it) > before + 1_000).await;
    assert_eq!(dumps(&mut client).await, 1, "nothing was read again");
    client.say("CLIENT KILL TYPE replica").await;
    let before = captured(&cluster);
    cluster.until("it goes on where it was cut", |it| captured(it) > before + 1_000).await;
    assert_eq!(cluster.gaps(EXPORT), [] as [Value; 0], "so far nothing was lost");

    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    client.say("SET only-now 1").await;
    let in_lake = |it: &Cluster| lake::latest(&it.folder().join("lake"), EXPORT);
    cluster.until("a last key is in the lake", |it| in_lake(it).contains_key("\"only-now\"")).await;
    compare(&held(&mut client).await, &in_lake(&cluster));
    server.kill().await;
    server.start_again().await;
    let mut client = server.client().await;
    burst(&mut client, &mut random).await.unwrap();
    client.say("SET after 1").await;
    let swept = |it: &Cluster| {
        let lake = in_lake(it);
        lake.contains_key("\"after\"") && !lake.contains_key("\"only-now\"")
    };
    cluster.until("what Redis lost is deleted", swept).await;
    compare(&held(&mut client).await, &in_lake(&cluster));
    let gaps = cluster.gaps(EXPORT);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0]["kind"], "recreated", "{gaps:?}");
    cluster.until("the gap is mended", |it| is_mended(it, 0)).await;
    let select = "SELECT document FROM lake WHERE operation = 'gap'";
    let marks = lake::select(&cluster.folder().join("lake"), EXPORT, select).unwrap();
    assert!(marks.len() == 1 && marks[0][0]["kind"] == "recreated", "{marks:?}");
    is_compared_when_asked(&cluster, &mut client).await;
}

/// A position cannot be set, but all of it compared once more.
async fn is_compared_when_asked(cluster: &Cluster, client: &mut RedisClient) {
    let shard = format!("{EXPORT}/{}", cluster.shards(EXPORT)[0]["id"].as_str().unwrap());
    let set = |to| ["--yes", "position", "set", &shard, to, "--reason", "to be sure"];
    refused(&cluster.cli(&set("?")), 3, &["say `now`"]);
    does(cluster, &set("now"));
    client.say("SET last 1").await;
    let in_lake = |it: &Cluster| lake::latest(&it.folder().join("lake"), EXPORT);
    let last = |it: &Cluster| in_lake(it).contains_key("\"last\"");
    cluster.until("it goes on after all was compared", last).await;
    compare(&held(client).await, &in_lake(cluster));
    cluster.until("that gap is mended too", |it| is_mended(it, 1)).await;
    assert_eq!(cluster.gaps(EXPORT).len(), 2);
}

fn is_mended(cluster: &Cluster, gap: usize) -> bool {
    cluster.gaps(EXPORT).get(gap).is_some_and(|gap| gap["repair"].to_string().contains("compared"))
}

/// Eight MiB do not last for a minute of these writes: the page that says whether a node
/// is ready says so.
async fn is_warned_of(cluster: &Cluster, owner: usize) {
    let mut page = String::new();
    for _ in 0..WARNED_MAX {
        page = cluster.page(owner, "/readyz").await.unwrap();
        if page.contains("ready\nwarning: export cache: ") {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{page}");
}

pub(crate) async fn write(mut client: RedisClient, stop: Arc<AtomicBool>) {
    let mut random = StdRng::seed_from_u64(6);
    while !stop.load(Ordering::Relaxed) {
        burst(&mut client, &mut random).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Some commands of every type.
async fn burst(client: &mut RedisClient, random: &mut StdRng) -> std::io::Result<()> {
    let commands: Vec<_> = (0..BURST).map(|_| command(random, KEYS)).collect();
    client.send(&commands).await?;
    for _ in &commands {
        let answer = client.answer().await?;
        assert!(!matches!(answer, Answer::Error(_)), "{answer:?}");
    }
    Ok(())
}
