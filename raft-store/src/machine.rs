//! Applies what the group committed.
//!
//! The rows a batch of entries changed are written together with the id of the
//! last entry. That write is not synced: the entries were, in the same
//! write-ahead log, and are folded again should a power cut take it back.

use std::io;
use std::sync::Arc;

use openraft::storage::{RaftStateMachine, Snapshot, SnapshotMeta};
use openraft::{
    AnyError, Entry, EntryPayload, ErrorSubject, ErrorVerb, LogId, OptionalSend,
    RaftSnapshotBuilder, StorageError, StorageIOError, StoredMembership,
};
use tidegate_proto::v1::outcome::Kind;
use tidegate_proto::v1::{Done, Outcome};
use tokio::fs::File;

use crate::codec::{encode_log_id, encode_membership};
use crate::db::{Batch, Db, blocking};
use crate::error::StoreError;
use crate::handle::{Applied, Shared};
use crate::keys::{Key, ROWS_END, ROWS_START};
use crate::snapshot::Snapshots;
use crate::types::{Answer, Peer, TypeConfig};

/// Folds committed entries into the state; made by [`crate::RaftStore::open`].
pub struct StateMachine {
    db: Db,
    shared: Arc<Shared>,
    snapshots: Snapshots,
}

/// Writes a snapshot of the state as it is when it is built.
pub struct SnapshotBuilder {
    shared: Arc<Shared>,
    snapshots: Snapshots,
}

impl StateMachine {
    pub(crate) fn new(db: Db, shared: Arc<Shared>, snapshots: Snapshots) -> Self {
        Self { db, shared, snapshots }
    }

    fn save(&self, last: &LogId<u64>, folded: &Folded) -> Result<bool, StoreError> {
        let mut batch = Batch::default();
        batch.put(Key::Applied, &encode_log_id(last));
        if let Some(membership) = &folded.membership {
            batch.put(Key::Membership, &encode_membership(membership)?);
        }
        let changes = self.shared.write().state.take_changes();
        for (row, body) in changes.rows {
            match body {
                Some(body) => batch.put(Key::Row(row), &body),
                None => batch.delete(Key::Row(row)),
            }
        }
        self.db.write(batch)?;
        Ok(changes.moved || folded.membership.is_some())
    }
}

/// What folding a batch of entries gave besides the state.
#[derive(Default)]
struct Folded {
    answers: Vec<Answer>,
    membership: Option<StoredMembership<u64, Peer>>,
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, Peer>), StorageError<u64>> {
        let applied = self.shared.read();
        Ok((applied.last, applied.membership.clone()))
    }

    /// A direct call: it folds in memory and writes without a sync. An entry
    /// this build cannot read is an error, and the node stops at it.
    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answer>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut folded = Folded::default();
        let mut last = None;
        for entry in entries {
            let id = entry.log_id;
            let done = fold(&mut self.shared.write(), entry, &mut folded);
            done.map_err(|why| cannot_apply(id, &why))?;
            last = Some(id);
        }
        let Some(last) = last else { return Ok(Vec::new()) };
        let answers = std::mem::take(&mut folded.answers);
        let moved = self.save(&last, &folded);
        let moved =
            moved.map_err(|error| error.during(ErrorVerb::Write, ErrorSubject::Apply(last)))?;
        self.shared.announce(moved);
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { shared: Arc::clone(&self.shared), snapshots: self.snapshots.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<File>, StorageError<u64>> {
        let snapshots = self.snapshots.clone();
        let file = blocking(move || snapshots.receive()).await;
        let file = file.map_err(|error| error.during(ErrorVerb::Write, no_snapshot()))?;
        Ok(Box::new(File::from_std(file)))
    }

    /// Checks the whole file first; then the file is kept, and then the rows
    /// are replaced. What is cut short in between is finished at the next start.
    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, Peer>,
        snapshot: Box<File>,
    ) -> Result<(), StorageError<u64>> {
        let (meta, file) = (meta.clone(), snapshot.into_std().await);
        let (snapshots, db) = (self.snapshots.clone(), self.db.clone());
        let installed = blocking(move || {
            let applied = snapshots.accept(&meta, file)?;
            replace(&db, &applied)?;
            Ok(applied)
        });
        let applied = installed.await;
        let applied = applied.map_err(|error| error.during(ErrorVerb::Write, no_snapshot()))?;
        *self.shared.write() = applied;
        self.shared.announce(true);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<TypeConfig>>, StorageError<u64>> {
        let current = self.snapshots.current();
        current.map_err(|error| error.during(ErrorVerb::Read, no_snapshot()))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    /// Nothing is applied while the rows are copied; they are written after.
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError<u64>> {
        let (shared, snapshots) = (Arc::clone(&self.shared), self.snapshots.clone());
        let built = blocking(move || {
            let (last, membership, rows) = {
                let applied = shared.read();
                let rows: Vec<_> = applied.state.rows().collect();
                (applied.last, applied.membership.clone(), rows)
            };
            snapshots.build(last, membership, &rows)?;
            let gone = || io::Error::from(io::ErrorKind::NotFound);
            snapshots.current()?.ok_or_else(|| StoreError::io("opening the new snapshot", &gone()))
        });
        built.await.map_err(|error| error.during(ErrorVerb::Write, no_snapshot()))
    }
}

/// Puts `applied` on disk in place of everything that was applied before.
pub(crate) fn replace(db: &Db, applied: &Applied) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    batch.delete_range(&ROWS_START, &ROWS_END);
    for (row, body) in applied.state.rows() {
        batch.put(Key::Row(row), &body);
    }
    match &applied.last {
        Some(last) => batch.put(Key::Applied, &encode_log_id(last)),
        None => batch.delete(Key::Applied),
    }
    batch.put(Key::Membership, &encode_membership(&applied.membership)?);
    db.write_through(batch)
}

fn fold(
    applied: &mut Applied,
    entry: Entry<TypeConfig>,
    folded: &mut Folded,
) -> Result<(), String> {
    let id = entry.log_id;
    assert!(applied.last.is_none_or(|last| last.index < id.index), "entries come in order");
    let outcome = match entry.payload {
        EntryPayload::Blank => done(),
        EntryPayload::Normal(proposal) => applied.state.apply(id.index, proposal.command()?),
        EntryPayload::Membership(members) => {
            applied.membership = StoredMembership::new(Some(id), members);
            folded.membership = Some(applied.membership.clone());
            done()
        }
    };
    applied.last = Some(id);
    folded.answers.push(Answer(outcome));
    Ok(())
}

fn done() -> Outcome {
    Outcome { kind: Some(Kind::Done(Done {})) }
}

fn cannot_apply(id: LogId<u64>, why: &str) -> StorageError<u64> {
    let message = format!("cannot apply log entry {}: {why}", id.index);
    StorageIOError::apply(id, AnyError::error(message)).into()
}

fn no_snapshot() -> ErrorSubject<u64> {
    ErrorSubject::Snapshot(None)
}
