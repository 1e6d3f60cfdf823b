//! The directory of snapshots: the last one made or received, and at most one
//! of each in the making.
//!
//! ```text
//!   building.tmp  --synced, renamed--+
//!                                    +--> current
//!   received.tmp -> accepted.tmp ----+
//!                   checked, synced, renamed
//! ```
//!
//! A file that still has a temporary name at the start was cut off and is
//! removed. A snapshot that is opened stays readable when another replaces it.

mod file;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use openraft::storage::{Snapshot, SnapshotMeta};
use openraft::{LogId, StoredMembership};

use crate::error::StoreError;
use crate::handle::Applied;
use crate::keys::Row;
use crate::types::{Peer, TypeConfig};

use file::{Contents, Header};

const CURRENT: &str = "current";
const BUILDING: &str = "building.tmp";
const RECEIVED: &str = "received.tmp";
const ACCEPTED: &str = "accepted.tmp";

/// Keeps the current snapshot; clones share it. All calls block.
#[derive(Clone)]
pub(crate) struct Snapshots {
    dir: PathBuf,
    /// Held while the current file is replaced.
    current: Arc<Mutex<Option<SnapshotMeta<u64, Peer>>>>,
}

impl Snapshots {
    /// Opens the directory, and reads the snapshot in it whole.
    pub(crate) fn open(dir: &Path) -> Result<(Self, Option<Applied>), StoreError> {
        let opening =
            |error: &io::Error| StoreError::io(format!("opening {}", dir.display()), error);
        fs::create_dir_all(dir).map_err(|error| opening(&error))?;
        for name in [BUILDING, RECEIVED, ACCEPTED] {
            remove(&dir.join(name))?;
        }
        let path = dir.join(CURRENT);
        let contents = match File::open(&path) {
            Ok(file) => Some(file::read(BufReader::new(file), &path)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(opening(&error)),
        };
        let current = Arc::new(Mutex::new(contents.as_ref().map(meta)));
        let applied = contents.map(|contents| contents.applied);
        Ok((Self { dir: dir.to_owned(), current }, applied))
    }

    /// The snapshot there is, opened at its start.
    pub(crate) fn current(&self) -> Result<Option<Snapshot<TypeConfig>>, StoreError> {
        let current = self.lock();
        let Some(meta) = current.clone() else { return Ok(None) };
        let path = self.dir.join(CURRENT);
        let file = File::open(&path).map_err(|error| failed("opening", &path, &error))?;
        Ok(Some(Snapshot { meta, snapshot: Box::new(tokio::fs::File::from_std(file)) }))
    }

    /// Makes these rows the current snapshot, unless a newer one came meanwhile.
    pub(crate) fn build(
        &self,
        last: Option<LogId<u64>>,
        membership: StoredMembership<u64, Peer>,
        rows: &[(Row, Vec<u8>)],
    ) -> Result<(), StoreError> {
        let mut current = self.lock();
        if current.as_ref().is_some_and(|newer| newer.last_log_id > last) {
            return Ok(());
        }
        let path = self.dir.join(BUILDING);
        let writing = |error: io::Error| failed("writing", &path, &error);
        let mut out = BufWriter::new(File::create(&path).map_err(writing)?);
        let header = Header { last, membership };
        let checksum = file::write(&mut out, &header, rows).map_err(writing)?;
        out.flush().map_err(writing)?;
        out.get_ref().sync_all().map_err(writing)?;
        self.publish(BUILDING)?;
        *current = Some(header.meta(checksum));
        Ok(())
    }

    /// An empty file for a snapshot to be received into.
    pub(crate) fn receive(&self) -> Result<File, StoreError> {
        let path = self.dir.join(RECEIVED);
        remove(&path)?;
        let mut how = OpenOptions::new();
        how.read(true).write(true).create_new(true);
        how.open(&path).map_err(|error| failed("creating", &path, &error))
    }

    /// Checks a received snapshot, makes it the current one and says what is in
    /// it. Nothing has changed when it is refused.
    pub(crate) fn accept(
        &self,
        announced: &SnapshotMeta<u64, Peer>,
        mut received: File,
    ) -> Result<Applied, StoreError> {
        let mut current = self.lock();
        let path = self.dir.join(ACCEPTED);
        let writing = |error: io::Error| failed("writing", &path, &error);
        let mut copy = File::create(&path).map_err(writing)?;
        received.rewind().map_err(writing)?;
        io::copy(&mut received, &mut copy).map_err(writing)?;
        copy.sync_all().map_err(writing)?;

        let file = File::open(&path).map_err(|error| failed("opening", &path, &error))?;
        let contents = file::read(BufReader::new(file), &path)?;
        if meta(&contents) != *announced {
            return Err(file::damaged(&path, "it is not the snapshot that the leader announced"));
        }
        self.publish(ACCEPTED)?;
        remove(&self.dir.join(RECEIVED))?;
        *current = Some(announced.clone());
        Ok(contents.applied)
    }

    fn publish(&self, name: &str) -> Result<(), StoreError> {
        let path = self.dir.join(CURRENT);
        fs::rename(self.dir.join(name), &path)
            .map_err(|error| failed("renaming", &path, &error))?;
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| failed("syncing", &self.dir, &error))
    }

    fn lock(&self) -> MutexGuard<'_, Option<SnapshotMeta<u64, Peer>>> {
        self.current.lock().expect("nothing panics while it replaces a snapshot")
    }
}

fn meta(contents: &Contents) -> SnapshotMeta<u64, Peer> {
    let Applied { last, membership, .. } = &contents.applied;
    Header { last: *last, membership: membership.clone() }.meta(contents.checksum)
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("removing", path, &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn failed(what: &str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::io(format!("{what} {}", path.display()), error)
}

#[cfg(test)]
mod tests;
