//! The spool on a real disk.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use tidegate_proto::v1::{ChunkProgress, Operation, Progress, ShardId};
use tidegate_proto::{BatchBuilder, Codec, Draft, Epoch, Frame, NodeId, Sequence, Stamp};
use tidegate_raft_store::Stop;

use super::begins::Begins;
use super::log::{AHEAD_MAX, Gathered, Head, ShardLog};
use super::store::{Spool, SpoolOptions};
use crate::error::{ErrorKind, Result};

const SHARD: ShardId = ShardId { export_id: 7, index: 3 };
const OTHER: ShardId = ShardId { export_id: 7, index: 4 };

fn open(dir: &Path, recent_bytes: usize) -> Arc<Spool> {
    let options = SpoolOptions { dir: dir.to_owned(), recent_bytes, disk_free_bytes: 0 };
    Spool::open(options, Stop::Process).unwrap()
}

/// A log that this node owns, alone in sync.
fn own(
    spool: &Arc<Spool>,
    shard: ShardId,
    epoch: Epoch,
    first: Sequence,
    progress: Progress,
) -> Result<Arc<ShardLog>> {
    let log = spool.begin(shard, epoch, first, progress.clone())?;
    log.take_over(epoch, (log.next(), progress), BTreeSet::new())?;
    Ok(log)
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
        let log = own(&spool, SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
        own(&spool, OTHER, Epoch(1), Sequence(1), at("0")).unwrap();
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
        assert_eq!(log.stable().now(), Sequence(15), "stable never goes back");
    }
}

#[test]
fn a_log_goes_on_where_it_was_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 1 << 20);
    let log = own(&spool, SHARD, Epoch(4), Sequence(101), at("a")).unwrap();
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
fn a_torn_tail_costs_only_the_batch_that_was_torn_wherever_it_tore() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 0);
    let log = own(&spool, SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
    log.append(&frame(1, 1, 3), &at("1"), None).unwrap();
    let synced = wal(dir.path()).1;
    log.append(&frame(1, 4, 1), &at("2"), None).unwrap();
    let whole = wal(dir.path()).1;
    drop((log, spool));
    for end in synced..=whole {
        let torn = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), torn.path().join(entry.file_name())).unwrap();
        }
        let file = std::fs::OpenOptions::new().write(true).open(wal(torn.path()).0).unwrap();
        file.set_len(end).unwrap();
        let spool = open(torn.path(), 0);
        let log = spool.log(SHARD).unwrap();
        let (next, position) = if end == whole { (5, &b"2"[..]) } else { (4, &b"1"[..]) };
        let tail = log.tail();
        assert_eq!((tail.next, &tail.progress.stream[..]), (Sequence(next), position), "{end}");
        log.set_stable(Sequence(next - 1));
        let wanted = [(1, 3), (4, 4)];
        let read = spans(&log.read(Sequence(0), 1 << 20).unwrap());
        assert_eq!(read, wanted[..read.len()], "torn after {end} bytes");
        assert_eq!(read.last().unwrap().1, next - 1, "torn after {end} bytes");
    }
}

/// The write-ahead log with something in it, and how long it is.
fn wal(dir: &Path) -> (std::path::PathBuf, u64) {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let logs = files.filter(|it| it.path().extension().is_some_and(|end| end == "log"));
    logs.map(|it| (it.path(), it.metadata().unwrap().len())).max_by_key(|it| it.1).unwrap()
}

#[test]
fn an_owner_of_an_older_epoch_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 1 << 20);
    let log = own(&spool, SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
    log.take_over(Epoch(2), (log.next(), at("1")), BTreeSet::new()).unwrap();
    let error = log.append(&frame(1, 1, 1), &at("1"), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert_eq!(
        log.take_over(Epoch(1), (log.next(), at("1")), BTreeSet::new()).unwrap_err().kind(),
        ErrorKind::Fenced
    );
    log.append(&frame(2, 1, 1), &at("1"), None).unwrap();
}

#[test]
fn a_removed_log_is_gone_and_its_holders_know() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 0);
    let log = own(&spool, SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
    let other = own(&spool, OTHER, Epoch(1), Sequence(1), at("0")).unwrap();
    log.append(&frame(1, 1, 2), &at("1"), None).unwrap();
    other.append(&frame(1, 1, 2), &at("1"), None).unwrap();
    spool.remove(SHARD).unwrap();
    assert!(log.closed() && spool.log(SHARD).is_none());
    let late = log.append(&frame(1, 3, 1), &at("2"), None).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Fenced);
    let again = own(&spool, SHARD, Epoch(2), Sequence(3), at("9")).unwrap();
    again.set_stable(Sequence(99));
    assert!(again.read(Sequence(2), 1 << 20).unwrap().is_empty(), "nothing of the old is left");
    other.set_stable(Sequence(2));
    assert_eq!(spans(&other.read(Sequence(0), 1).unwrap()), [(1, 2)], "its neighbour is whole");
}

#[test]
fn retention_cuts_whole_batches_and_says_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 0);
    let log = own(&spool, SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
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
    let log = own(&spool, SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
    let gathered = Gathered { out: &builder(2), progress: &at("1"), touch: true };
    log.append(&frame(1, 1, 2), &at("1"), Some(gathered)).unwrap();
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
    let log = own(&spool, SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
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
    let spool = Spool::open(options, Stop::Process).unwrap();
    let log = own(&spool, SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
    let error = log.append(&frame(1, 1, 1), &at("1"), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "tried again when there is room");
    assert!(error.to_string().contains("free some"), "{error}");
    assert_eq!(log.tail().next, Sequence(1));
}

proptest! {
    #[test]
    fn any_head_comes_back(
        numbers: [u64; 3],
        stream: Vec<u8>,
        chunks in proptest::collection::btree_map(any::<u32>(), any::<(Vec<u8>, bool)>(), 0..5),
        ended: bool,
        steps in proptest::collection::vec((1..9u64, 1..9u64), 0..4),
    ) {
        let begins = steps.iter().scan((0, 0), |at, step| {
            *at = (at.0 + step.0, at.1 + step.1);
            Some((Epoch(at.0), Sequence(at.1)))
        });
        let chunks = chunks.into_iter().map(|(chunk, (cursor, done))| {
            (chunk, ChunkProgress { cursor: cursor.into(), done, ..ChunkProgress::default() })
        });
        let [epoch, first, next] = numbers;
        let progress = Progress {
            stream: stream.into(),
            chunks: chunks.collect(),
            ended,
            ..Progress::default()
        };
        let head = Head {
            epoch: Epoch(epoch),
            made: Epoch(epoch / 2),
            first: Sequence(first),
            next: Sequence(next),
            progress,
            begins: Begins::new(begins.collect()).unwrap(),
        };
        prop_assert_eq!(Head::decode(&head.encode()), Some(head));
    }

    #[test]
    fn bytes_that_are_no_head_are_refused(body in proptest::collection::vec(any::<u8>(), 0..60)) {
        prop_assert_eq!(Head::decode(&body), None);
        // With a checksum that fits, so that what is behind it is reached.
        let sealed = [&[1][..], &crc32c::crc32c(&body).to_be_bytes(), &body].concat();
        // The outcome does not matter; coming back does.
        drop(Head::decode(&sealed));
    }
}

#[tokio::test]
async fn one_sync_covers_all_logs() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 0);
    let syncing = tokio::spawn(Arc::clone(&spool).keep_synced());
    for shard in [SHARD, OTHER] {
        let log = own(&spool, shard, Epoch(1), Sequence(1), at("0")).unwrap();
        let mut synced = log.synced();
        log.append(&frame(1, 1, 5), &at("1"), None).unwrap();
        synced.reached(Sequence(5)).await.unwrap();
    }
    syncing.abort();
}

#[test]
fn with_others_in_sync_what_all_of_them_have_is_seen_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 0);
    let log = own(&spool, SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
    let (b, c) = (NodeId(2), NodeId(3));
    let to_b = log.copy_opened((b, 1), Sequence(0), Epoch(1)).unwrap();
    log.join_copy(b);
    log.set_in_sync([b].into());
    log.append(&frame(1, 1, 5), &at("1"), None).unwrap();
    assert_eq!(log.stable().now(), Sequence(0), "b has not got it");
    log.copy_acked(b, to_b, Sequence(5));
    assert_eq!((log.safe().now(), log.stable().now()), (Sequence(5), Sequence(5)));
    // c joins: nothing more becomes stable without it, recorded or not.
    let to_c = log.copy_opened((c, 1), Sequence(2), Epoch(1)).unwrap();
    log.join_copy(c);
    log.append(&frame(1, 6, 1), &at("2"), None).unwrap();
    log.copy_acked(b, to_b, Sequence(6));
    assert_eq!(log.stable().now(), Sequence(5));
    log.copy_acked(c, to_c, Sequence(6));
    assert_eq!(log.stable().now(), Sequence(6));
}

#[test]
fn a_reader_that_starts_while_the_one_before_appends_is_refused_and_so_is_that_one() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 0);
    let log = own(&spool, SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
    let (next, progress) = (log.next(), log.tail().progress);
    log.append(&frame(1, 1, 5), &at("5"), None).unwrap();
    let early = log.take_over(Epoch(1), (next, progress), BTreeSet::new());
    assert_eq!(early.unwrap_err().kind(), ErrorKind::Unavailable, "5 would be read again");
    assert_eq!(log.tail().progress, at("5"));
    log.take_over(Epoch(1), (log.next(), at("5")), BTreeSet::new()).unwrap();
    log.append(&frame(1, 6, 1), &at("6"), None).unwrap();
    let late = log.append(&frame(1, 6, 1), &at("6"), None);
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Unavailable, "6 is there");
}

#[test]
fn a_copy_that_joins_needs_what_the_owner_before_may_have_shown() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 0);
    let log = own(&spool, SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
    log.append(&frame(1, 1, 10), &at("1"), None).unwrap();
    // Taken over beside a copy that is not heard: nothing moves, and all of it counts.
    log.take_over(Epoch(2), (log.next(), at("1")), [NodeId(2)].into()).unwrap();
    assert_eq!((log.safe().now(), log.needed()), (Sequence(0), Sequence(10)));
    log.append(&frame(2, 11, 5), &at("2"), None).unwrap();
    assert_eq!(log.needed(), Sequence(10), "nobody has seen the rest");
    let heard = log.copy_opened((NodeId(2), 1), Sequence(12), Epoch(2)).unwrap();
    assert_eq!(log.needed(), Sequence(12));
    log.copy_acked(NodeId(2), heard, Sequence(15));
    assert_eq!(log.needed(), Sequence(15));
}

#[test]
fn an_owner_that_starts_again_under_its_epoch_still_hears_its_copies() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 0);
    let log = own(&spool, SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
    let b = NodeId(2);
    let connection = log.copy_opened((b, 1), Sequence(0), Epoch(1)).unwrap();
    log.take_over(Epoch(1), (log.next(), at("0")), [b].into()).unwrap();
    log.append(&frame(1, 1, 5), &at("1"), None).unwrap();
    log.copy_acked(b, connection, Sequence(5));
    assert_eq!(log.stable().now(), Sequence(5));
    log.take_over(Epoch(2), (log.next(), at("1")), [b].into()).unwrap();
    assert!(log.copies().is_empty(), "to another owner they come anew");
}

#[test]
fn what_is_seen_is_never_far_ahead_of_what_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 0);
    let log = own(&spool, SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
    let b = NodeId(2);
    log.set_in_sync([b].into());
    let to_b = log.copy_opened((b, 1), Sequence(0), Epoch(1)).unwrap();
    let step = 1 << 17;
    let mut last = 0;
    while last <= AHEAD_MAX {
        log.append(&frame(1, last + 1, step), &at("1"), None).unwrap();
        last += step;
        log.copy_acked(b, to_b, Sequence(last));
    }
    assert_eq!((log.safe().now(), log.stable().now()), (Sequence(last), Sequence(AHEAD_MAX)));
    log.set_stable(Sequence(step));
    assert_eq!(log.stable().now(), Sequence(last), "the record has moved");
}

#[test]
fn a_copy_drops_what_its_new_owner_has_not_and_goes_on() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (open(here.path(), 1 << 20), open(there.path(), 1 << 20));
    let owner = own(&ours, SHARD, Epoch(2), Sequence(1), at("0")).unwrap();
    let copy = own(&theirs, SHARD, Epoch(2), Sequence(1), at("0")).unwrap();
    for (first, changes) in [(1, 10), (11, 5)] {
        copy.append(&frame(2, first, changes), &at("1"), None).unwrap();
    }
    // Its owner of epoch 3 has only the first of these, and one of its own.
    owner.append(&frame(2, 1, 10), &at("1"), None).unwrap();
    owner.take_over(Epoch(3), (owner.next(), at("1")), BTreeSet::new()).unwrap();
    owner.append(&frame(3, 11, 2), &at("2"), None).unwrap();
    let keep = owner.head().begins.common(&copy.head().begins, Sequence(1), Sequence(12));
    assert_eq!(keep, Sequence(10));
    copy.follow(Epoch(3), (copy.last(), keep)).unwrap();
    assert!(!copy.owned_under(Epoch(3)));
    let late = copy.append(&frame(2, 11, 5), &at("1"), None).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Fenced, "it owns nothing any more");
    let hole = copy.append_copy(&frame(3, 12, 1), Epoch(3)).unwrap_err();
    assert_eq!(hole.kind(), ErrorKind::Unavailable);
    copy.append_copy(&frame(3, 11, 2), Epoch(3)).unwrap();
    assert_eq!(copy.append_copy(&frame(3, 13, 1), Epoch(2)).unwrap_err().kind(), ErrorKind::Fenced);
    copy.set_stable(Sequence(12));
    for recent in [copy, {
        drop(theirs);
        open(there.path(), 0).log(SHARD).unwrap()
    }] {
        assert_eq!(recent.head().begins, owner.head().begins);
        recent.set_stable(Sequence(12));
    }
}

#[test]
fn a_copy_never_drops_what_was_seen() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), 0);
    let copy = spool.begin(SHARD, Epoch(1), Sequence(1), at("0")).unwrap();
    copy.follow(Epoch(1), (copy.last(), Sequence(0))).unwrap();
    copy.append_copy(&frame(1, 1, 5), Epoch(1)).unwrap();
    copy.set_stable(Sequence(5));
    assert_eq!(
        copy.follow(Epoch(2), (copy.last(), Sequence(3))).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    let stale = copy.follow(Epoch(2), (Sequence(4), Sequence(4)));
    assert_eq!(stale.unwrap_err().kind(), ErrorKind::Unavailable, "more came since it asked");
    copy.follow(Epoch(2), (copy.last(), Sequence(5))).unwrap();
}
