use std::path::PathBuf;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{
    CommittedLeaderId, Entry, EntryPayload, LogId, Membership, RaftLogReader, RaftSnapshotBuilder,
    StorageError,
};
use tempfile::TempDir;
use tidegate_proto::v1::{
    Captured, Checkpoint, Checkpoints, ClusterCreate, Command, ExportDelete, ExportPut, ShardId,
    ShardSpec, ShardsDiscovered, command, outcome,
};

use super::*;
use crate::error::StoreErrorKind;
use crate::state::State;
use crate::types::{COMMAND_VERSION, Proposal, TypeConfig};

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<u64>> {
        let dir = TempDir::new().unwrap();
        let (log, machine, _) = RaftStore::open(dir.path(), Stop::Process).unwrap();
        Ok((dir, log, machine))
    }
}

#[test]
fn the_consensus_library_finds_no_fault() {
    Suite::test_all(Builder).unwrap();
}

fn id(index: u64) -> LogId<u64> {
    LogId::new(CommittedLeaderId::new(1, 1), index)
}

fn entry(index: u64, kind: command::Kind) -> Entry<TypeConfig> {
    let command = Command { version: COMMAND_VERSION, proposed_ms: 1, kind: Some(kind) };
    Entry { log_id: id(index), payload: EntryPayload::Normal(Proposal::new(&command)) }
}

/// Entries 1 to 4: members, a cluster, an export with one shard.
fn history() -> Vec<Entry<TypeConfig>> {
    let members = EntryPayload::Membership(Membership::new(vec![[1].into()], ()));
    let put = ExportPut { name: "orders".to_owned(), ..Default::default() };
    let shards = vec![ShardSpec { name: "s".to_owned(), ..Default::default() }];
    vec![
        Entry { log_id: id(1), payload: members },
        entry(2, command::Kind::ClusterCreate(ClusterCreate { cluster_id: "c".to_owned() })),
        entry(3, command::Kind::ExportPut(put)),
        entry(4, command::Kind::ShardsDiscovered(ShardsDiscovered { export_id: 3, shards })),
    ]
}

fn checkpoint(index: u64) -> Entry<TypeConfig> {
    let shard = Some(ShardId { export_id: 3, index: 0 });
    let checkpoint = Some(Checkpoint { sequence: index, ..Default::default() });
    let captured = vec![Captured { shard, epoch: 1, checkpoint }];
    entry(index, command::Kind::Checkpoints(Checkpoints { captured, ..Default::default() }))
}

/// A store that has applied the history, and its directory.
async fn applied() -> (TempDir, LogStore, StateMachine, StateHandle) {
    let dir = TempDir::new().unwrap();
    let (mut log, mut machine, handle) = RaftStore::open(dir.path(), Stop::Process).unwrap();
    log.blocking_append(history()).await.unwrap();
    machine.apply(history()).await.unwrap();
    (dir, log, machine, handle)
}

#[tokio::test]
async fn log_and_state_outlive_the_process() {
    let (dir, log, machine, handle) = applied().await;
    let before = handle.read(State::clone);
    drop((log, machine, handle));

    let (mut log, mut machine, handle) = RaftStore::open(dir.path(), Stop::Process).unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), history());
    assert_eq!(handle.read(State::clone), before);
    assert_eq!(handle.applied(), 4);
    let (last, membership) = machine.applied_state().await.unwrap();
    assert_eq!((last, *membership.log_id()), (Some(id(4)), Some(id(1))));
}

#[tokio::test]
async fn what_was_deleted_stays_deleted() {
    let (dir, log, mut machine, handle) = applied().await;
    let delete = ExportDelete { name: "orders".to_owned() };
    machine.apply([entry(5, command::Kind::ExportDelete(delete))]).await.unwrap();
    drop((log, machine, handle));
    let (_, _, handle) = RaftStore::open(dir.path(), Stop::Process).unwrap();
    assert_eq!(handle.read(|state| (state.exports().count(), state.shards().count())), (0, 0));
}

#[tokio::test]
async fn each_entry_has_its_answer() {
    let dir = TempDir::new().unwrap();
    let (_, mut machine, _) = RaftStore::open(dir.path(), Stop::Process).unwrap();
    let answers = machine.apply(history()).await.unwrap();
    assert_eq!(answers.len(), 4);
    let Some(outcome::Kind::Created(created)) = answers[2].0.kind else { panic!("{answers:?}") };
    assert_eq!(created.id, 3);
}

#[tokio::test]
async fn watchers_hear_what_concerns_them() {
    let (_dir, _log, mut machine, handle) = applied().await;
    let (changed, topology) = (handle.changed(), handle.topology());
    machine.apply([checkpoint(5)]).await.unwrap();
    assert_eq!((*changed.borrow(), *topology.borrow()), (5, 4));
    let put = ExportPut { name: "more".to_owned(), ..Default::default() };
    machine.apply([entry(6, command::Kind::ExportPut(put))]).await.unwrap();
    assert_eq!((*changed.borrow(), *topology.borrow()), (6, 6));
}

#[tokio::test]
async fn an_entry_of_another_version_stops_the_node_and_is_named() {
    let (_dir, _log, mut machine, _) = applied().await;
    let newer = Command { version: COMMAND_VERSION + 1, ..Default::default() };
    let payload = EntryPayload::Normal(Proposal::new(&newer));
    let error = machine.apply([Entry { log_id: id(5), payload }]).await.unwrap_err();
    assert!(error.to_string().contains("cannot apply log entry 5"), "{error}");
}

#[tokio::test]
async fn a_snapshot_carries_everything_to_another_node() {
    let (_dir, _log, mut machine, handle) = applied().await;
    let snapshot = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();

    let other = TempDir::new().unwrap();
    let (log, mut follower, reader) = RaftStore::open(other.path(), Stop::Process).unwrap();
    let own = ExportPut { name: "not in the snapshot".to_owned(), ..Default::default() };
    follower.apply([entry(1, command::Kind::ExportPut(own))]).await.unwrap();
    let topology = reader.topology();
    let mut received = follower.begin_receiving_snapshot().await.unwrap();
    let mut sent = snapshot.snapshot;
    tokio::io::copy(&mut sent, &mut received).await.unwrap();
    follower.install_snapshot(&snapshot.meta, received).await.unwrap();
    assert_eq!(reader.read(State::clone), handle.read(State::clone));
    assert_eq!(*topology.borrow(), 4);

    drop((log, follower, reader));
    let (_, _, reader) = RaftStore::open(other.path(), Stop::Process).unwrap();
    assert_eq!(reader.read(State::clone), handle.read(State::clone));
}

#[tokio::test]
async fn a_damaged_snapshot_changes_nothing() {
    let (_dir, _log, mut machine, handle) = applied().await;
    let before = handle.read(State::clone);
    let meta = machine.get_snapshot_builder().await.build_snapshot().await.unwrap().meta;
    let received = machine.begin_receiving_snapshot().await.unwrap();
    let error = machine.install_snapshot(&meta, received).await.unwrap_err();
    assert!(error.to_string().contains("is damaged: it is cut short"), "{error}");
    assert_eq!(handle.read(State::clone), before);
}

#[tokio::test]
async fn a_snapshot_ahead_of_the_rows_is_installed_at_the_start() {
    let (from, _log, mut machine, handle) = applied().await;
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap();

    let to = TempDir::new().unwrap();
    fs::create_dir_all(to.path().join("snapshots")).unwrap();
    let current = |dir: &TempDir| -> PathBuf { dir.path().join("snapshots/current") };
    fs::copy(current(&from), current(&to)).unwrap();
    for _ in 0..2 {
        let (_, mut machine, reader) = RaftStore::open(to.path(), Stop::Process).unwrap();
        assert_eq!(reader.read(State::clone), handle.read(State::clone));
        assert_eq!(machine.applied_state().await.unwrap().0, Some(id(4)));
        fs::remove_file(current(&to)).ok();
    }
}

#[tokio::test]
async fn a_power_cut_costs_nothing_that_was_synced() {
    let (dir, mut log, mut machine, handle) = applied().await;
    let entries: Vec<_> = (5..9).map(checkpoint).collect();
    log.blocking_append(entries.clone()).await.unwrap();
    let wal = newest_wal(&dir);
    let synced = fs::metadata(&wal).unwrap().len();
    machine.apply(entries.clone()).await.unwrap();
    log.save_committed(Some(id(8))).await.unwrap();
    assert!(fs::metadata(&wal).unwrap().len() > synced);
    let before = handle.read(State::clone);
    drop((log, machine, handle));

    let file = fs::OpenOptions::new().write(true).open(&wal).unwrap();
    file.set_len(synced).unwrap();
    let (mut log, mut machine, handle) = RaftStore::open(dir.path(), Stop::Process).unwrap();
    assert_eq!(handle.applied(), 4, "what was applied unsynced is gone");
    let kept = log.try_get_log_entries(5..).await.unwrap();
    assert_eq!(kept, entries, "the log has it all");
    machine.apply(kept).await.unwrap();
    assert_eq!(handle.read(State::clone), before);
}

fn newest_wal(dir: &TempDir) -> PathBuf {
    let files = fs::read_dir(dir.path().join("db")).unwrap().map(|file| file.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.max().unwrap()
}

#[test]
fn a_store_in_use_and_a_file_in_its_place_are_told_apart() {
    let dir = TempDir::new().unwrap();
    let open = RaftStore::open(dir.path(), Stop::Process).unwrap();
    let error = RaftStore::open(dir.path(), Stop::Process).err().unwrap();
    assert_eq!(error.kind(), StoreErrorKind::Locked);
    drop(open);
    assert!(RaftStore::open(dir.path(), Stop::Process).is_ok());

    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    assert_eq!(RaftStore::open(&file, Stop::Process).err().unwrap().kind(), StoreErrorKind::Io);
}
