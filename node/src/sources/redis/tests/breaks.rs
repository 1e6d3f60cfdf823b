//! Links that break, backlogs that end, servers that die and are replaced.

use tidegate_proto::v1::GapKind;

use super::*;
use crate::sources::Known;

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_breaks_goes_on_where_it_was() {
    let server = RedisServer::start(&["--repl-backlog-size", "64mb"]).await;
    let mut client = server.client().await;
    let mut writer = Writer::new(11);
    writer.write(&mut client, 500).await;
    let mut reader = Reader::start(&server).await;
    reader.batch = 1_000;
    reader.matches(&mut client).await;
    for _ in 0..6 {
        writer.write(&mut client, 300).await;
        for _ in 0..5 {
            reader.read().await.unwrap();
        }
        client.say("CLIENT KILL TYPE replica").await;
        writer.write(&mut client, 100).await;
        reader.matches(&mut client).await;
    }
    assert_eq!(reader.losses, []);
    assert_one_dump(&mut client).await;
}

/// Batches as small as they can be, and the stream opened anew behind any: what a command
/// does to two keys is done once, wherever it breaks.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_may_break_behind_any_batch() {
    // A command on many keys is done anew until all of it is read.
    const BATCHES_MAX: usize = 4;
    let server = RedisServer::start(&["--repl-backlog-size", "64mb"]).await;
    let mut client = server.client().await;
    let mut reader = Reader::start(&server).await;
    reader.batch = 1;
    reader.matches(&mut client).await;
    Writer::new(14).write(&mut client, 600).await;
    client.say("RPUSH from 1 2 3 4").await;
    client.say("SADD some 1 2 3 4").await;
    for command in ["LMOVE from to LEFT RIGHT", "RPOPLPUSH from to", "SMOVE some others 2"] {
        client.say(command).await;
    }
    client.say("RENAME to there").await;
    client.say("MOVE there 1").await;
    let (wanted, end) = (held_by(&mut client).await, offset(&mut client).await);
    for batches in (1..=BATCHES_MAX).cycle().take(3_000) {
        for _ in 0..batches {
            reader.read().await.unwrap();
        }
        if reader.offset().is_some_and(|at| at.bytes >= end.bytes) {
            break;
        }
        reader.reopen().await;
    }
    assert!(reader.offset().is_some_and(|at| at.bytes >= end.bytes), "it gets on");
    same(wanted, &reader.memory);
    assert_eq!(reader.losses, []);
    assert_one_dump(&mut client).await;
}

async fn assert_one_dump(client: &mut RedisClient) {
    let info = String::from_utf8(client.say("INFO stats").await.text()).unwrap();
    assert!(info.contains("sync_full:1\r"), "there was one dump: {info}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_breaks_begins_again() {
    let server = RedisServer::start(&["--rdb-key-save-delay", "300"]).await;
    let mut client = server.client().await;
    let mut writer = Writer::new(12);
    for number in 0..3_000 {
        client.say(&format!("SET before:{number} {number}")).await;
    }
    let mut reader = Reader::start(&server).await;
    reader.batch = 1_000;
    for _ in 0..3 {
        while reader.memory.documents().is_empty() {
            reader.read().await.unwrap();
        }
        reader.read().await.unwrap();
        assert!(reader.offset().is_none(), "the dump is not read to its end");
        client.say("CLIENT KILL TYPE replica").await;
        client.say("DEL before:0 before:1 before:2 before:3").await;
        writer.write(&mut client, 200).await;
        reader.reopen().await;
    }
    client.say("CONFIG SET rdb-key-save-delay 0").await;
    reader.matches(&mut client).await;
    assert_eq!(reader.losses, [], "nothing that was ever promised is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_backlog_lost_is_said_and_found_again_deletes_included() {
    let server = RedisServer::start(&["--repl-backlog-size", "16kb"]).await;
    let mut client = server.client().await;
    let mut writer = Writer::new(13);
    writer.write(&mut client, 1_500).await;
    client.say("SET goes 1").await;
    let mut reader = Reader::start(&server).await;
    reader.matches(&mut client).await;
    let kept = reader.memory.documents().len();

    // Cut off for longer than the backlog holds.
    client.say("CLIENT KILL TYPE replica").await;
    client.say("DEL goes").await;
    writer.write(&mut client, 3_000).await;
    reader.matches(&mut client).await;
    let [loss] = &reader.losses[..] else { panic!("{:?}", reader.losses) };
    assert_eq!(loss.kind, GapKind::Trimmed);
    assert!(loss.detail.contains("repl-backlog-size"), "{}", loss.detail);
    assert!(kept > 20, "there was something to compare with");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_died_is_compared_with_what_it_had() {
    let mut server = RedisServer::start(&[]).await;
    let mut client = server.client().await;
    let mut writer = Writer::new(14);
    writer.write(&mut client, 800).await;
    client.say("SAVE").await;
    let mut reader = Reader::start(&server).await;
    // Captured, and lost by the server.
    writer.write(&mut client, 500).await;
    client.say("SET lost 1").await;
    reader.matches(&mut client).await;
    server.kill().await;
    while reader.read().await.is_ok() {}
    server.start_again().await;
    let mut client = server.client().await;
    writer.write(&mut client, 100).await;
    reader.matches(&mut client).await;
    let [loss] = &reader.losses[..] else { panic!("{:?}", reader.losses) };
    assert!(matches!(loss.kind, GapKind::Recreated | GapKind::Trimmed), "{loss:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_over_goes_on_with_the_stream() {
    let mut server = RedisServer::start(&[]).await;
    let mut client = server.client().await;
    let mut writer = Writer::new(15);
    writer.write(&mut client, 500).await;
    let replica = RedisServer::start(&[]).await;
    let mut other = replica.client().await;
    other.say(&format!("REPLICAOF 127.0.0.1 {}", server.port())).await;
    let mut reader = Reader::start(&server).await;
    writer.write(&mut client, 500).await;
    reader.matches(&mut client).await;
    follows(&mut client, &mut other).await;
    let id = reader.offset().unwrap().id;
    server.kill().await;
    other.say("REPLICAOF NO ONE").await;
    writer.write(&mut other, 300).await;
    // As behind an address that follows the primary.
    reader.source = open(&replica);
    reader.reopen().await;
    reader.matches(&mut other).await;
    assert_eq!(reader.losses, []);
    assert_ne!(reader.offset().unwrap().id, id, "it has a history of its own now");
}

async fn follows(client: &mut RedisClient, replica: &mut RedisClient) {
    let until = Instant::now() + PATIENCE;
    while offset(replica).await != offset(client).await {
        assert!(Instant::now() < until, "the replica follows");
        tokio::time::sleep(WAIT).await;
    }
}

/// A replica hands on its primary's stream, which need not say again in which database it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_read_as_its_primary_is() {
    let replicas = every_server(&[]).await;
    for (server, replica) in every_server(&[]).await.into_iter().zip(replicas) {
        let mut client = server.client().await;
        let mut other = replica.client().await;
        other.say(&format!("REPLICAOF 127.0.0.1 {}", server.port())).await;
        follows(&mut client, &mut other).await;
        client.say("SELECT 2").await;
        client.say("SET before 1").await;
        follows(&mut client, &mut other).await;
        let mut reader = Reader::start(&replica).await;
        reader.matches(&mut other).await;
        client.say("SET behind 1").await;
        follows(&mut client, &mut other).await;
        reader.matches(&mut other).await;
        // It holds beyond a break.
        reader.reopen().await;
        client.say("INCR before").await;
        follows(&mut client, &mut other).await;
        reader.matches(&mut other).await;
        assert_eq!(reader.memory.documents().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_know_all_reads_everything_anew() {
    let server = RedisServer::start(&[]).await;
    let mut client = server.client().await;
    let mut writer = Writer::new(16);
    writer.write(&mut client, 500).await;
    let mut reader = Reader::start(&server).await;
    reader.matches(&mut client).await;

    // It knows all keys, but not what all of them hold.
    reader.memory.claim(Known { whole: true, exact: false });
    writer.write(&mut client, 100).await;
    reader.reopen().await;
    client.say("SET more 1").await;
    reader.matches(&mut client).await;
    let [loss] = &reader.losses[..] else { panic!("{:?}", reader.losses) };
    assert_eq!((loss.kind, loss.mended.is_empty()), (GapKind::Reread, false), "{loss:?}");
    reader.losses.clear();

    // It knows only the newest keys.
    reader.memory = Arc::new(Memory::default());
    reader.memory.claim(Known { whole: false, exact: true });
    reader.reopen().await;
    client.say("SET more 2").await;
    reader.matches(&mut client).await;
    let [loss] = &reader.losses[..] else { panic!("{:?}", reader.losses) };
    assert!(loss.detail.contains("lacks older keys"), "{}", loss.detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_of_what_is_known_gives_others_their_turn() {
    let server = RedisServer::start(&[]).await;
    let mut client = server.client().await;
    for part in 0..10 {
        let set = |number| format!("k{number} {number}");
        let pairs: Vec<String> = (part * 1_000..(part + 1) * 1_000).map(set).collect();
        client.say(&format!("MSET {}", pairs.join(" "))).await;
    }
    let mut reader = Reader::start(&server).await;
    reader.matches(&mut client).await;
    reader.memory.claim(Known { whole: true, exact: false });
    reader.reopen().await;
    // All of it is there by now.
    tokio::time::sleep(10 * WAIT).await;
    let mut reads = 0;
    while reader.offset().is_none() || reads == 0 {
        reader.read().await.unwrap();
        reads += 1;
    }
    assert!(reads > 5, "the loss, three times for the rows, the sweep: {reads}");
    assert_eq!(reader.memory.documents().len(), 10_000);
}
