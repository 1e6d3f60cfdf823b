//! Slots that stay on the move.

use super::super::redis_server::Answer;
use super::*;

/// A cluster one of whose slots is on the move, and a reader that knows.
struct Moving {
    cluster: Cluster,
    reader: ClusterReader,
    slot: u16,
    owner: usize,
}

impl Moving {
    /// Of the slot of `tag`, in which these keys are: once it moves, new ones are refused.
    async fn start(tag: &str, keys: &[(String, Vec<u8>)]) -> Self {
        let cluster = Cluster::start(3, false).await;
        let slot = slot_of(tag.as_bytes());
        let owner = cluster.owner(slot).await;
        let mut client = cluster.client(owner).await;
        for (key, value) in keys {
            client.call(&[b"SET", key.as_bytes(), value]).await;
        }
        let mut reader = ClusterReader::start(&cluster).await;
        reader.matches(&cluster).await;
        let other = cluster.id((owner + 1) % 3).await;
        client.say(&format!("CLUSTER SETSLOT {slot} MIGRATING {other}")).await;
        let patience = Instant::now() + PATIENCE;
        while reader.stable_slots() == 16_384 {
            assert!(Instant::now() < patience, "it is seen");
            reader.read().await;
        }
        Self { cluster, reader, slot, owner }
    }

    async fn ends(mut self) {
        let mut client = self.cluster.client(self.owner).await;
        client.say(&format!("CLUSTER SETSLOT {} STABLE", self.slot)).await;
        self.reader.matches(&self.cluster).await;
        assert_eq!(self.reader.losses, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_noted_is_read_back_before_a_failure_can_forget_it() {
    let mut moving = Moving::start("0", &[("{0}k".to_owned(), b"old".to_vec())]).await;
    let mut client = moving.cluster.client(moving.owner).await;
    let mut stays = None;
    for tag in 1..100 {
        if moving.cluster.owner(slot_of(format!("{tag}").as_bytes())).await == moving.owner {
            stays = Some(format!("{{{tag}}}"));
        }
    }
    let stays = stays.expect("a slot of the same primary");
    client.say("SET {0}k new").await;
    // Of many keys, so that a batch may end in its middle.
    client.say(&format!("MSET {stays}a 1 {stays}b 2 {stays}c 3")).await;
    moving.reader.batch = 1;
    let end = offset(&mut client).await.bytes;
    let id = moving.cluster.id(moving.owner).await;
    let is_read = |reader: &ClusterReader| matches!(reader.places().get(&id), Some((Position::At(at), _)) if at.bytes >= end);
    for batches in (1..6).cycle().take(60) {
        for _ in 0..batches {
            moving.reader.read().await;
        }
        if is_read(&moving.reader) {
            break;
        }
        moving.reader.reopen().await;
    }
    assert!(is_read(&moving.reader), "it gets on");
    moving.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_values_are_read_back_in_several_batches() {
    // More than a frame takes, and more keys than are asked for in one go.
    let large = |number| (format!("{{0}}large:{number}"), vec![b'a' + number; 5 << 20]);
    let large: Vec<_> = (0..20).map(large).collect();
    let mut moving = Moving::start("0", &large).await;
    let mut client = moving.cluster.client(moving.owner).await;
    let touch = |(key, _): &(String, _)| ["APPEND", key, "x"].map(|it| it.as_bytes().to_vec());
    let touched: Vec<_> = large.iter().map(|it| touch(it).to_vec()).collect();
    client.send(&touched).await.unwrap();
    for _ in &touched {
        assert_eq!(client.answer().await.unwrap(), Answer::Whole((5 << 20) + 1));
    }
    // Which of them wait for the next batch is not known to who goes on.
    for _ in 0..20 {
        moving.reader.read().await;
        moving.reader.reopen().await;
    }
    moving.ends().await;
}
