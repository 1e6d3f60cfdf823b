use std::fs;
use std::path::PathBuf;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId, Vote};
use rocksdb::statistics::Ticker;
use tempfile::TempDir;

use super::*;
use crate::error::StoreErrorKind;
use crate::log::LogStore;

fn put(db: &Db, index: u64) {
    let mut batch = Batch::default();
    batch.put(Key::Log(index), &[7; 100]);
    db.write_through(batch).unwrap();
}

fn stored(db: &Db) -> Vec<u64> {
    (0..10).filter(|&index| db.get(Key::Log(index)).unwrap().is_some()).collect()
}

/// The write-ahead log with something in it.
fn wal(dir: &TempDir) -> PathBuf {
    let files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .filter(|path| fs::metadata(path).unwrap().len() > 0)
        .collect();
    assert_eq!(logs.len(), 1, "{logs:?}");
    logs.remove(0)
}

/// A directory with entries 0 to 4, as a process that was killed leaves it.
fn killed() -> TempDir {
    let dir = TempDir::new().unwrap();
    let db = Db::open(dir.path(), Stop::Process).unwrap();
    (0..5).for_each(|index| put(&db, index));
    drop(db);
    dir
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let dir = killed();
    assert_eq!(stored(&Db::open(dir.path(), Stop::Process).unwrap()), [0, 1, 2, 3, 4]);
}

/// A directory with the same files.
fn copy(dir: &TempDir) -> TempDir {
    let other = TempDir::new().unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), other.path().join(entry.file_name())).unwrap();
    }
    other
}

#[test]
fn a_torn_tail_costs_only_what_was_torn_wherever_it_tore() {
    let dir = TempDir::new().unwrap();
    let db = Db::open(dir.path(), Stop::Process).unwrap();
    (0..4).for_each(|index| put(&db, index));
    let synced = fs::metadata(wal(&dir)).unwrap().len();
    put(&db, 4);
    let whole = fs::metadata(wal(&dir)).unwrap().len();
    drop(db);
    for end in synced..=whole {
        let torn = copy(&dir);
        fs::OpenOptions::new().write(true).open(wal(&torn)).unwrap().set_len(end).unwrap();
        let wanted = if end == whole { &[0, 1, 2, 3, 4][..] } else { &[0, 1, 2, 3] };
        assert_eq!(
            stored(&Db::open(torn.path(), Stop::Process).unwrap()),
            wanted,
            "torn after {end} bytes"
        );
        if end == synced + 1 {
            // What follows it now lies behind no damage.
            put(&Db::open(torn.path(), Stop::Process).unwrap(), 5);
            assert_eq!(stored(&Db::open(torn.path(), Stop::Process).unwrap()), [0, 1, 2, 3, 5]);
        }
    }
}

#[test]
fn damage_before_the_tail_refuses_the_start() {
    let dir = killed();
    let path = wal(&dir);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(Db::open(dir.path(), Stop::Process).err().unwrap().kind(), StoreErrorKind::Corrupt);
}

/// A machine that stops writes back what it will of the pages that were not synced.
#[test]
fn after_a_machine_stopped_the_log_ends_at_its_first_hole_or_wrong_byte() {
    let dir = TempDir::new().unwrap();
    let db = Db::open(dir.path(), Stop::Process).unwrap();
    (0..3).for_each(|index| put(&db, index));
    let synced = usize::try_from(fs::metadata(wal(&dir)).unwrap().len()).unwrap();
    (3..5).for_each(|index| put(&db, index));
    drop(db);
    for (from, upto, byte) in [(synced, synced + 100, 0), (synced + 50, synced + 51, 1)] {
        let torn = copy(&dir);
        let mut bytes = fs::read(wal(&torn)).unwrap();
        bytes[from..upto].fill(byte);
        fs::write(wal(&torn), bytes).unwrap();
        let db = Db::open(torn.path(), Stop::Machine).unwrap();
        assert_eq!(stored(&db), [0, 1, 2], "{from}..{upto}");
        put(&db, 5);
        drop(db);
        assert_eq!(stored(&Db::open(torn.path(), Stop::Process).unwrap()), [0, 1, 2, 5]);
    }
}

#[test]
fn a_directory_in_use_says_so() {
    let dir = TempDir::new().unwrap();
    let _open = Db::open(dir.path(), Stop::Process).unwrap();
    let error = Db::open(dir.path(), Stop::Process).err().unwrap();
    assert_eq!(error.kind(), StoreErrorKind::Locked);
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

#[test]
fn a_directory_of_an_unknown_format_is_refused() {
    let dir = TempDir::new().unwrap();
    let db = Db::open(dir.path(), Stop::Process).unwrap();
    let mut batch = Batch::default();
    batch.put(Key::Format, &(FORMAT + 1).to_be_bytes());
    db.write_through(batch).unwrap();
    drop(db);
    let error = Db::open(dir.path(), Stop::Process).err().unwrap();
    assert_eq!(error.kind(), StoreErrorKind::UnknownFormat);
    assert!(error.to_string().contains("has format 2, this build knows 1"), "{error}");
}

#[test]
fn rows_without_a_format_are_refused() {
    let dir = killed();
    let db = Db::open(dir.path(), Stop::Process).unwrap();
    let mut batch = Batch::default();
    batch.delete(Key::Format);
    db.write_through(batch).unwrap();
    drop(db);
    assert_eq!(Db::open(dir.path(), Stop::Process).err().unwrap().kind(), StoreErrorKind::Corrupt);
}

#[test]
fn a_flipped_byte_is_found_by_whoever_reads_it() {
    let dir = killed();
    let db = Db::open(dir.path(), Stop::Process).unwrap();
    let key = Key::Log(3).encode();
    let mut value = db.inner.get(&key).unwrap().unwrap();
    value[50] ^= 1;
    db.inner.put(&key, value).unwrap();

    let error = db.get(Key::Log(3)).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(error.to_string().contains("log entry 3"), "{error}");
    let scanned: Result<Vec<_>, _> =
        db.scan(&Key::Log(0).encode(), &crate::keys::LOG_END).collect();
    assert_eq!(scanned.unwrap_err().to_string(), error.to_string());
}

#[test]
fn scans_keep_to_their_bounds() {
    let dir = killed();
    let db = Db::open(dir.path(), Stop::Process).unwrap();
    let scan = |from, upto| {
        let items = db.scan(&Key::Log(from).encode(), &Key::Log(upto).encode());
        items.map(|item| item.unwrap().0).collect::<Vec<_>>()
    };
    assert_eq!(scan(1, 3), [Key::Log(1), Key::Log(2)]);
    assert_eq!(scan(3, 3), []);
    let last = db.last(Key::Log(0), &Key::Log(4).encode()).unwrap();
    assert_eq!(last.unwrap().0, Key::Log(3));
    assert!(db.last(Key::Log(9), &crate::keys::LOG_END).unwrap().is_none());
}

#[tokio::test]
async fn what_raft_relies_on_is_synced_and_the_rest_is_not() {
    let dir = TempDir::new().unwrap();
    let mut options = options(Stop::Process);
    options.enable_statistics();
    let db = Db::open_with(&options, dir.path()).unwrap();
    let mut log = LogStore::new(db.clone());
    let id = |index| LogId::new(CommittedLeaderId::new(1, 1), index);
    let entries = (0..9).map(|index| Entry { log_id: id(index), payload: EntryPayload::Blank });
    let syncs = || options.get_ticker_count(Ticker::WalFileSynced);

    let before = syncs();
    log.blocking_append(entries).await.unwrap();
    assert_eq!(syncs() - before, 1, "one for all entries");
    log.save_vote(&Vote::new(1, 1)).await.unwrap();
    assert_eq!(syncs() - before, 2);
    log.truncate(id(8)).await.unwrap();
    assert_eq!(syncs() - before, 3);
    log.save_committed(Some(id(7))).await.unwrap();
    log.purge(id(1)).await.unwrap();
    db.write(Batch::default()).unwrap();
    assert_eq!(syncs() - before, 3);
}
