//! Opens everything in one directory.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::codec::{damaged, decode_log_id, decode_membership};
use crate::db::{Db, Stop};
use crate::error::StoreError;
use crate::handle::{Applied, Shared, StateHandle};
use crate::keys::{Key, ROWS_END, ROWS_START};
use crate::log::LogStore;
use crate::machine::{StateMachine, replace};
use crate::snapshot::Snapshots;

/// Log and state of one node in one directory.
pub struct RaftStore;

impl RaftStore {
    /// Opens `dir` after `stop`, or makes it if there is nothing. Blocks until the
    /// state is in memory. The parts go to `openraft::Raft::new`; the handle reads.
    ///
    /// # Errors
    ///
    /// The kind says what the operator must do; no kind is worth a retry.
    pub fn open(
        dir: &Path,
        stop: Stop,
    ) -> Result<(LogStore, StateMachine, StateHandle), StoreError> {
        let making = |error| StoreError::io(format!("creating {}", dir.display()), &error);
        fs::create_dir_all(dir).map_err(making)?;
        let db = Db::open(&dir.join("db"), stop)?;
        let (snapshots, snapshot) = Snapshots::open(&dir.join("snapshots"))?;
        let mut applied = load(&db)?;
        // The process ended between the two halves of an installation, or a
        // power cut took back rows that the snapshot already has.
        if let Some(newer) = snapshot.filter(|snapshot| snapshot.last > applied.last) {
            replace(&db, &newer)?;
            applied = newer;
        }
        let shared = Arc::new(Shared::new(applied));
        let handle = StateHandle::new(Arc::clone(&shared));
        let machine = StateMachine::new(db.clone(), shared, snapshots);
        Ok((LogStore::new(db), machine, handle))
    }
}

fn load(db: &Db) -> Result<Applied, StoreError> {
    let mut applied = Applied::default();
    if let Some(body) = db.get(Key::Applied)? {
        applied.last = Some(decode_log_id(Key::Applied, &body)?);
    }
    if let Some(body) = db.get(Key::Membership)? {
        applied.membership = decode_membership(&body)?;
    }
    for item in db.scan(&ROWS_START, &ROWS_END) {
        let (key, body) = item?;
        let Key::Row(row) = key else {
            return Err(damaged(key, "it lies among the rows"));
        };
        applied.state.load(row, &body)?;
    }
    Ok(applied)
}

#[cfg(test)]
mod tests;
