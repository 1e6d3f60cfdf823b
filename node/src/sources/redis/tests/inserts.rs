//! What was there before a change.

use std::collections::BTreeSet;

use tidegate_proto::Pending;
use tidegate_proto::v1::Operation;

use super::*;

/// Collections and keys.
type There = BTreeSet<(String, Vec<u8>)>;

/// Fails unless a change says rightly whether its key was there; counts inserts and updates.
fn compare(change: &Pending<'_>, there: &mut There, told: &mut [u32; 2]) {
    let named = (change.collection.to_owned(), change.key.to_vec());
    let was_there = there.contains(&named);
    if change.operation == Operation::Delete {
        there.remove(&named);
        return;
    }
    let wanted = if was_there { Operation::Update } else { Operation::Insert };
    assert_eq!(change.operation, wanted, "{named:?}");
    told[usize::from(was_there)] += 1;
    there.insert(named);
}

#[tokio::test(flavor = "multi_thread")]
async fn inserts_are_told_from_updates_where_that_is_asked_for() {
    let server = RedisServer::start(&["--repl-backlog-size", "64mb"]).await;
    let mut client = server.client().await;
    let mut writer = Writer::new(7);
    writer.write(&mut client, 500).await;
    let config = RedisConfig { tell_inserts: true, ..plain(&server) };
    let mut reader = Reader::start_with(Redis::open(&config).unwrap()).await;
    reader.matches(&mut client).await;
    let mut there: There = reader.memory.documents().into_keys().collect();
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
            out.pending().for_each(|change| compare(&change, &mut there, &mut told));
        }
        // What is known is from the index only.
        reader.reopen().await;
    }
    assert!(told.iter().all(|count| *count > 200), "{told:?} inserts and updates");
}
