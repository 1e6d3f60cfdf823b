//! What was there before a change.

use std::collections::BTreeSet;

use tidegate_proto::v1::Operation;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn inserts_are_told_from_updates_where_that_is_asked_for() {
    let server = RedisServer::start(&["--repl-backlog-size", "64mb"]).await;
    let mut client = server.client().await;
    let mut writer = Writer::new(7);
    writer.write(&mut client, 500).await;
    let config = RedisConfig { tell_inserts: true, ..plain(&server) };
    let mut reader = Reader::start_with(Redis::open(&config).unwrap()).await;
    reader.matches(&mut client).await;
    let mut there: BTreeSet<_> = reader.memory.documents().into_keys().collect();
    reader.batch = 2_000;
    let mut told = [0, 0];
    for _ in 0..4 {
        writer.write(&mut client, 1_000).await;
        client.say("SELECT 1").await;
        client.say("FLUSHDB").await;
        client.say("SELECT 0").await;
        let end = offset(&mut client).await;
        while reader.offset().unwrap().bytes < end.bytes {
            let mut out = BatchBuilder::default();
            reader.read_into(&mut out).await.unwrap();
            for change in out.pending() {
                let named = (change.collection.to_owned(), change.key.to_vec());
                let was_there = there.contains(&named);
                match change.operation {
                    Operation::Delete => drop(there.remove(&named)),
                    Operation::Insert | Operation::Update => {
                        assert_eq!(was_there, change.operation == Operation::Update, "{named:?}");
                        told[usize::from(was_there)] += 1;
                        there.insert(named);
                    }
                    other => panic!("{other:?} of {named:?}"),
                }
            }
        }
        // What is known is from the index only.
        reader.reopen().await;
    }
    assert!(told.iter().all(|count| *count > 200), "{told:?} inserts and updates");
}
