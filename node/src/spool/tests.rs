//! The spool on a real disk.

use std::path::Path;
use std::sync::Arc;

use tidegate_proto::v1::{Operation, Progress, ShardId};
use tidegate_proto::{BatchBuilder, Codec, Draft, Epoch, Frame, Sequence, Stamp};

use super::store::{Spool, SpoolOptions};
use crate::error::ErrorKind;

const SHARD: ShardId = ShardId { export_id: 7, index: 3 };
const OTHER: ShardId = ShardId { export_id: 7, index: 4 };

fn open(dir: &Path, recent_bytes: usize) -> Arc<Spool> {
    let options = SpoolOptions { dir: dir.to_owned(), recent_bytes, disk_free_bytes: 0 };
    Spool::open(options).unwrap()
}

fn builder(changes: u64) -> BatchBuilder {
    let mut builder = BatchBuilder::default();
    for number in 0..changes {
        builder.push(&Draft {
            operation: Operation::Delete,
            collection: "c",
            key: &number.to_be_bytes(),
            document: None,
            before: None,
            committed_ms: 0,
        });
    }
    builder
}

fn frame(epoch: u64, first: u64, changes: u64) -> Frame {
    let stamp = Stamp { epoch: Epoch(epoch), first: Sequence(first), ..Stamp::default() };
    builder(changes).encode(stamp, Codec::None)
}

fn at(position: &'static str) -> Progress {
    Progress { stream: position.into(), ..Progress::default() }
}

fn spans(frames: &[Frame]) -> Vec<(u64, u64)> {
    frames.iter().map(|frame| (frame.first().0, frame.last().0)).collect()
}

#[test]
fn only_what_is_stable_is_seen_and_from_memory_it_is_the_same() {
    for recent_bytes in [0, 1 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path(), recent_bytes);
        let log = spool.begin(SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
        spool.begin(OTHER, Epoch(1), Sequence(1), at("0")).unwrap();
        for (first, changes) in [(1, 10), (11, 5), (16, 1)] {
            log.append(&frame(1, first, changes), &at("1"), None).unwrap();
        }
        assert!(log.read(Sequence(0), 1 << 20).unwrap().is_empty(), "nothing is stable yet");
        log.set_stable(Sequence(15));
        assert_eq!(spans(&log.read(Sequence(0), 1 << 20).unwrap()), [(1, 10), (11, 15)]);
        assert_eq!(spans(&log.read(Sequence(3), 1).unwrap()), [(1, 10)], "the batch that holds 4");
        assert_eq!(spans(&log.read(Sequence(10), 1 << 20).unwrap()), [(11, 15)]);
        assert!(log.read(Sequence(15), 1 << 20).unwrap().is_empty());
        log.set_stable(Sequence(4));
        assert_eq!(*log.stable().borrow(), Sequence(15), "stable never goes back");
    }
}

#[test]
fn a_log_goes_on_where_it_was_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 1 << 20);
    let log = spool.begin(SHARD, Epoch(4), Sequence(101), at("a")).unwrap();
    log.append(&frame(4, 101, 3), &at("b"), None).unwrap();
    log.advance(&at("c")).unwrap();
    drop((log, spool));
    let spool = open(dir.path(), 1 << 20);
    let log = spool.log(SHARD).unwrap();
    let tail = log.tail();
    assert_eq!((tail.epoch, tail.next), (Epoch(4), Sequence(104)));
    assert_eq!(&tail.progress.stream[..], b"c", "an idle step counts");
    log.set_stable(Sequence(103));
    assert_eq!(spans(&log.read(Sequence(100), 1).unwrap()), [(101, 103)]);
}

#[test]
fn an_owner_of_an_older_epoch_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 1 << 20);
    let log = spool.begin(SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
    log.take_over(Epoch(2)).unwrap();
    let error = log.append(&frame(1, 1, 1), &at("1"), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert_eq!(log.take_over(Epoch(1)).unwrap_err().kind(), ErrorKind::Fenced);
    log.append(&frame(2, 1, 1), &at("1"), None).unwrap();
}

#[test]
fn a_removed_log_is_gone_and_its_holders_know() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 0);
    let log = spool.begin(SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
    let other = spool.begin(OTHER, Epoch(1), Sequence(1), at("0")).unwrap();
    log.append(&frame(1, 1, 2), &at("1"), None).unwrap();
    other.append(&frame(1, 1, 2), &at("1"), None).unwrap();
    spool.remove(SHARD).unwrap();
    assert!(log.closed() && spool.log(SHARD).is_none());
    let late = log.append(&frame(1, 3, 1), &at("2"), None).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Fenced);
    let again = spool.begin(SHARD, Epoch(2), Sequence(3), at("9")).unwrap();
    again.set_stable(Sequence(99));
    assert!(again.read(Sequence(2), 1 << 20).unwrap().is_empty(), "nothing of the old is left");
    other.set_stable(Sequence(2));
    assert_eq!(spans(&other.read(Sequence(0), 1).unwrap()), [(1, 2)], "its neighbour is whole");
}

#[test]
fn retention_cuts_whole_batches_and_says_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 0);
    let log = spool.begin(SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
    for first in [1, 11, 21] {
        log.append(&frame(1, first, 10), &at("1"), None).unwrap();
    }
    log.truncate_front(Sequence(15)).unwrap();
    assert_eq!(log.first(), Sequence(1), "what is not stable stays");
    log.set_stable(Sequence(30));
    log.truncate_front(Sequence(15)).unwrap();
    assert_eq!(log.first(), Sequence(11), "15 is within the second batch");
    let error = log.read(Sequence(3), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gone);
    assert!(error.to_string().contains("the oldest is 11"), "{error}");
    log.truncate_front(Sequence(30)).unwrap();
    assert_eq!(log.first(), Sequence(31));
}

#[test]
fn touched_keys_are_known_until_they_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 0);
    let log = spool.begin(SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
    log.append(&frame(1, 1, 2), &at("1"), Some(&builder(2))).unwrap();
    assert!(log.is_touched("c", &1u64.to_be_bytes()).unwrap());
    assert!(!log.is_touched("c", &2u64.to_be_bytes()).unwrap());
    assert!(!log.is_touched("d", &1u64.to_be_bytes()).unwrap());
    log.forget_touched().unwrap();
    assert!(!log.is_touched("c", &1u64.to_be_bytes()).unwrap());
}

#[test]
fn a_damaged_batch_is_named_and_never_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 0);
    let log = spool.begin(SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
    // Two batches, so that the damaged one is not the newest kept in memory.
    log.append(&frame(1, 1, 2), &at("1"), None).unwrap();
    log.append(&frame(1, 3, 2), &at("2"), None).unwrap();
    log.set_stable(Sequence(4));
    let key = super::keys::Key::Frame(SHARD, Sequence(1)).encode();
    let mut bytes = spool.db.get(&key).unwrap().unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    spool.db.put(&key, bytes).unwrap();
    let error = log.read(Sequence(0), 1 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("shard 7/3 with sequence 1"), "{error}");
}

#[test]
fn a_full_disk_stops_appends_with_the_remedy_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk_free_bytes = u64::MAX;
    let options = SpoolOptions { dir: dir.path().to_owned(), recent_bytes: 0, disk_free_bytes };
    let spool = Spool::open(options).unwrap();
    let log = spool.begin(SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
    let error = log.append(&frame(1, 1, 1), &at("1"), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "tried again when there is room");
    assert!(error.to_string().contains("free some"), "{error}");
    assert_eq!(log.tail().next, Sequence(1));
}

#[tokio::test]
async fn one_sync_covers_all_logs() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 0);
    let syncing = tokio::spawn(Arc::clone(&spool).keep_synced());
    for shard in [SHARD, OTHER] {
        let log = spool.begin(shard, Epoch(1), Sequence(1), at("0")).unwrap();
        let mut synced = log.synced();
        log.append(&frame(1, 1, 5), &at("1"), None).unwrap();
        synced.wait_for(|upto| *upto == Sequence(5)).await.unwrap();
    }
    syncing.abort();
}
