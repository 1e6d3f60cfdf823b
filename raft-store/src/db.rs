//! The one RocksDB instance behind log and state.
//!
//! Everything shares one write-ahead log, so what a write left unsynced is
//! durable as soon as any later write is synced, and a power cut can only take
//! a tail away. That is what lets `apply` go unsynced: the entries it folded
//! were synced before, and are folded again.
//!
//! **Recovery** after the death of a process tolerates a torn tail of the
//! write-ahead log: a record that was cut off in the middle was never
//! acknowledged. A record that is whole but wrong refuses the start, since what
//! is behind it may have been acknowledged. (`AbsoluteConsistency` would refuse
//! the torn tail too. The mode excludes recycling of old log files, hence none
//! here.) See [`Stop`] for the death of a machine.

use std::path::Path;
use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBRecoveryMode, Direction, IteratorMode, LogLevel, Options,
    ReadOptions, WriteBatch, WriteOptions,
};
use tokio::task;

use crate::codec::{damaged, seal, unseal};
use crate::error::{REJOIN, StoreError};
use crate::keys::Key;

/// The format of the directory; another build may know a later one.
const FORMAT: u32 = 1;

const MIB: usize = 1024 * 1024;
/// State and recent log are small; two of these are in memory at most.
const WRITE_BUFFER_BYTES: usize = 4 * MIB;
const BLOCK_CACHE_BYTES: usize = 4 * MIB;
const INFO_LOG_BYTES: usize = MIB;

/// What ended the run that wrote a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The process, at most: the system kept all it wrote, in order. A record that is
    /// wrong is damage.
    Process,
    /// The machine: behind what was synced, pages may be there or not, in any order. The
    /// first record that is wrong ends the log. Damage before it, in what was synced, is
    /// not told from that: what it takes away is noticed only where others have it.
    Machine,
}

impl From<Stop> for DBRecoveryMode {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Process => Self::TolerateCorruptedTailRecords,
            Stop::Machine => Self::PointInTime,
        }
    }
}

/// A handle to the database; clones share it.
#[derive(Clone)]
pub(crate) struct Db {
    inner: Arc<DB>,
}

/// Writes that happen together or not at all, in the order they were added.
#[derive(Default)]
pub(crate) struct Batch {
    inner: WriteBatch,
}

impl Db {
    /// Opens the database in `dir` after `stop`, or makes one there if there is nothing.
    ///
    /// Locked while another process has it; `UnknownFormat` if another version
    /// of Tidegate made it.
    pub(crate) fn open(dir: &Path, stop: Stop) -> Result<Self, StoreError> {
        Self::open_with(&options(stop), dir)
    }

    fn open_with(options: &Options, dir: &Path) -> Result<Self, StoreError> {
        let inner = DB::open(options, dir).map_err(|error| cannot_open(dir, &error))?;
        let db = Self { inner: Arc::new(inner) };
        match db.get(Key::Format)? {
            Some(body) if body == FORMAT.to_be_bytes() => Ok(db),
            Some(body) => Err(unknown_format(dir, &body)),
            None if db.is_empty()? => {
                let mut batch = Batch::default();
                batch.put(Key::Format, &FORMAT.to_be_bytes());
                db.write_through(batch)?;
                Ok(db)
            }
            None => Err(damaged(Key::Format, "it is missing")),
        }
    }

    /// The body stored under `key`. A direct call: reads are served from memory
    /// or one block of a small file.
    pub(crate) fn get(&self, key: Key) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.inner.get_pinned(key.encode()).map_err(|error| reading(key, &error))?;
        found.map(|value| unseal(key, &value).map(<[u8]>::to_vec)).transpose()
    }

    /// Bodies from `from` on, before `upto`, in the order of their keys.
    pub(crate) fn scan(
        &self,
        from: &[u8],
        upto: &[u8],
    ) -> impl Iterator<Item = Result<(Key, Vec<u8>), StoreError>> + '_ {
        let mut bounds = ReadOptions::default();
        bounds.set_iterate_upper_bound(upto);
        let mode = IteratorMode::From(from, Direction::Forward);
        self.inner.iterator_opt(mode, bounds).map(|item| {
            let (key, value) =
                item.map_err(|error| StoreError::database("reading the database", &error))?;
            let key = Key::decode(&key).ok_or_else(|| {
                StoreError::corrupt("the database holds a key that this build does not know")
            })?;
            Ok((key, unseal(key, &value)?.to_vec()))
        })
    }

    /// The last key before `end` that is not before `start`, and its body.
    pub(crate) fn last(
        &self,
        start: Key,
        end: &[u8],
    ) -> Result<Option<(Key, Vec<u8>)>, StoreError> {
        let mut bounds = ReadOptions::default();
        bounds.set_iterate_lower_bound(start.encode());
        bounds.set_iterate_upper_bound(end);
        let Some(item) = self.inner.iterator_opt(IteratorMode::End, bounds).next() else {
            return Ok(None);
        };
        let (key, value) = item.map_err(|error| reading(start, &error))?;
        let key = Key::decode(&key).ok_or_else(|| damaged(start, "its key is"))?;
        Ok(Some((key, unseal(key, &value)?.to_vec())))
    }

    /// Writes without waiting for the disk: a power cut may take it back, with
    /// everything after it. A direct call: it copies into memory and a file.
    pub(crate) fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.commit(batch, false)
    }

    /// Writes and waits for the disk, which may take milliseconds; for callers
    /// outside the runtime.
    pub(crate) fn write_through(&self, batch: Batch) -> Result<(), StoreError> {
        self.commit(batch, true)
    }

    /// Writes and waits for the disk on a thread that may block.
    ///
    /// Dropping the pending call leaves the write to happen all the same.
    pub(crate) async fn write_synced(&self, batch: Batch) -> Result<(), StoreError> {
        let db = self.clone();
        blocking(move || db.write_through(batch)).await
    }

    fn commit(&self, batch: Batch, sync: bool) -> Result<(), StoreError> {
        let mut how = WriteOptions::default();
        how.set_sync(sync);
        self.inner
            .write_opt(batch.inner, &how)
            .map_err(|error| StoreError::database("writing to the database", &error))
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        let first = self.inner.iterator(IteratorMode::Start).next().transpose();
        first.map(|item| item.is_none()).map_err(|error| reading(Key::Format, &error))
    }
}

impl Batch {
    pub(crate) fn put(&mut self, key: Key, body: &[u8]) {
        let key = key.encode();
        self.inner.put(&key, seal(&key, body));
    }

    pub(crate) fn delete(&mut self, key: Key) {
        self.inner.delete(key.encode());
    }

    /// Deletes every key from `from` on that is before `upto`.
    pub(crate) fn delete_range(&mut self, from: &[u8], upto: &[u8]) {
        self.inner.delete_range(from, upto);
    }
}

/// Runs `work` on a thread that may block, and waits for it.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, StoreError> + Send + 'static,
{
    match task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::corrupt(format!("the store stopped in mid-work: {error}"))),
    }
}

fn options(stop: Stop) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(stop.into());
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_max_background_jobs(2);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    options.set_keep_log_file_num(2);
    options.set_stats_dump_period_sec(0);
    options
}

fn cannot_open(dir: &Path, error: &rocksdb::Error) -> StoreError {
    let dir = dir.display();
    let said = error.to_string();
    if said.contains("lock") && said.contains("LOCK") {
        return StoreError::locked(format!(
            "{dir} is in use by another process; stop the other tidegated, or give this one \
             a directory of its own ({said})"
        ));
    }
    if error.kind() == rocksdb::ErrorKind::Corruption {
        return StoreError::corrupt(format!("{dir} is damaged: {said}; {REJOIN}"));
    }
    StoreError::database(format!("opening {dir}"), error)
}

fn unknown_format(dir: &Path, body: &[u8]) -> StoreError {
    let found = body
        .try_into()
        .map_or_else(|_| "unknown".to_owned(), |bytes| u32::from_be_bytes(bytes).to_string());
    StoreError::unknown_format(format!(
        "{} has format {found}, this build knows {FORMAT}; start the version of tidegated that \
         wrote it, or give this one an empty directory",
        dir.display()
    ))
}

fn reading(key: Key, error: &rocksdb::Error) -> StoreError {
    StoreError::database(format!("reading {key}"), error)
}

#[cfg(test)]
mod tests;
