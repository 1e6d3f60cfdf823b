//! The log, the vote and how far it is committed.
//!
//! What Raft must be able to rely on is synced before it is acknowledged, on a
//! thread that may block. Reads are direct calls: recent entries are in memory.
//! A failed write is reported once and never tried again; the process ends.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{
    Entry, ErrorSubject, ErrorVerb, LogId, LogState, OptionalSend, RaftLogReader, StorageError,
    Vote,
};

use crate::codec::{
    damaged, decode_entry, decode_log_id, decode_vote, encode_entry, encode_log_id, encode_vote,
};
use crate::db::{Batch, Db};
use crate::error::StoreError;
use crate::keys::{Key, LOG_END};
use crate::types::TypeConfig;

/// How much is read for one message to a follower; one entry may be more.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// Stores the log; made by [`crate::RaftStore::open`]. Clones share the database.
///
/// Dropping a pending call leaves its write to happen or not: after a restart,
/// the disk says which.
#[derive(Clone)]
pub struct LogStore {
    db: Db,
}

impl LogStore {
    pub(crate) fn new(db: Db) -> Self {
        Self { db }
    }

    /// Entries from `start` on, before `end`, until they have `bytes_max` bytes.
    fn read(
        &self,
        start: u64,
        end: Option<u64>,
        bytes_max: usize,
    ) -> Result<Vec<Entry<TypeConfig>>, StoreError> {
        let upto = end.map_or_else(|| LOG_END.to_vec(), |end| Key::Log(end).encode());
        let mut entries: Vec<Entry<TypeConfig>> = Vec::new();
        let mut bytes = 0;
        if end.is_some_and(|end| end <= start) {
            return Ok(entries);
        }
        for item in self.db.scan(&Key::Log(start).encode(), &upto) {
            let (key, body) = item?;
            let Key::Log(index) = key else {
                return Err(damaged(key, "it lies among the log"));
            };
            let expected = entries.last().map(|entry| entry.log_id.index + 1);
            if let Some(expected) = expected.filter(|expected| *expected != index) {
                return Err(damaged(Key::Log(expected), "it is missing"));
            }
            entries.push(decode_entry(index, &body)?);
            bytes += body.len();
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(entries)
    }

    fn log_id(&self, key: Key) -> Result<Option<LogId<u64>>, StoreError> {
        self.db.get(key)?.map(|body| decode_log_id(key, &body)).transpose()
    }

    fn state(&self) -> Result<LogState<TypeConfig>, StoreError> {
        let last_purged_log_id = self.log_id(Key::Purged)?;
        let last_log_id = match self.db.last(Key::Log(0), &LOG_END)? {
            Some((Key::Log(index), body)) => Some(decode_entry(index, &body)?.log_id),
            Some((key, _)) => return Err(damaged(key, "it lies among the log")),
            None => last_purged_log_id,
        };
        Ok(LogState { last_purged_log_id, last_log_id })
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<TypeConfig>>, StorageError<u64>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.checked_add(1),
            Bound::Excluded(end) => Some(*end),
            Bound::Unbounded => None,
        };
        self.read(start, end, usize::MAX).map_err(reading_logs)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry<TypeConfig>>, StorageError<u64>> {
        self.read(start, Some(end), READ_BYTES_MAX).map_err(reading_logs)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError<u64>> {
        self.state().map_err(reading_logs)
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError<u64>> {
        let mut batch = Batch::default();
        batch.put(Key::Vote, &encode_vote(vote));
        let written = self.db.write_synced(batch).await;
        written.map_err(|error| error.during(ErrorVerb::Write, ErrorSubject::Vote))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError<u64>> {
        let found = self.db.get(Key::Vote);
        let vote = found.and_then(|body| body.map(|body| decode_vote(&body)).transpose());
        vote.map_err(|error| error.during(ErrorVerb::Read, ErrorSubject::Vote))
    }

    /// Not synced: it only spares the leader's telling again after a restart.
    async fn save_committed(
        &mut self,
        committed: Option<LogId<u64>>,
    ) -> Result<(), StorageError<u64>> {
        let mut batch = Batch::default();
        match committed {
            Some(id) => batch.put(Key::Committed, &encode_log_id(&id)),
            None => batch.delete(Key::Committed),
        }
        self.db.write(batch).map_err(writing_logs)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<u64>>, StorageError<u64>> {
        self.log_id(Key::Committed).map_err(reading_logs)
    }

    /// One synced write for all entries; then, and only then, the callback.
    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = Batch::default();
        for entry in entries {
            let body = encode_entry(&entry).map_err(writing_logs)?;
            batch.put(Key::Log(entry.log_id.index), &body);
        }
        self.db.write_synced(batch).await.map_err(writing_logs)?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, since: LogId<u64>) -> Result<(), StorageError<u64>> {
        let mut batch = Batch::default();
        batch.delete_range(&Key::Log(since.index).encode(), &LOG_END);
        self.db.write_synced(batch).await.map_err(writing_logs)
    }

    /// Not synced: a purge that a power cut takes back is done again.
    async fn purge(&mut self, upto: LogId<u64>) -> Result<(), StorageError<u64>> {
        let end = Key::Log(upto.index.saturating_add(1)).encode();
        let mut batch = Batch::default();
        batch.put(Key::Purged, &encode_log_id(&upto));
        batch.delete_range(&Key::Log(0).encode(), &end);
        self.db.write(batch).map_err(writing_logs)
    }
}

fn reading_logs(error: StoreError) -> StorageError<u64> {
    error.during(ErrorVerb::Read, ErrorSubject::Logs)
}

fn writing_logs(error: StoreError) -> StorageError<u64> {
    error.during(ErrorVerb::Write, ErrorSubject::Logs)
}

#[cfg(test)]
mod tests {
    use openraft::storage::RaftLogStorageExt;
    use openraft::{CommittedLeaderId, EntryPayload};
    use tempfile::TempDir;

    use super::*;
    use crate::db::Stop;
    use crate::types::Proposal;

    fn entry(index: u64, bytes: usize) -> Entry<TypeConfig> {
        let payload = EntryPayload::Normal(Proposal::from_bytes(vec![7; bytes]));
        Entry { log_id: id(index), payload }
    }

    fn id(index: u64) -> LogId<u64> {
        LogId::new(CommittedLeaderId::new(1, 1), index)
    }

    fn open(dir: &TempDir) -> LogStore {
        LogStore::new(Db::open(dir.path(), Stop::Process).unwrap())
    }

    #[tokio::test]
    async fn log_and_vote_outlive_the_process() {
        let dir = TempDir::new().unwrap();
        let mut log = open(&dir);
        let entries: Vec<_> = (0..5).map(|index| entry(index, 10)).collect();
        log.blocking_append(entries.clone()).await.unwrap();
        log.save_vote(&Vote::new_committed(4, 2)).await.unwrap();
        log.save_committed(Some(id(3))).await.unwrap();
        log.truncate(id(4)).await.unwrap();
        log.purge(id(0)).await.unwrap();
        drop(log);

        let mut log = open(&dir);
        assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries[1..4]);
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(4, 2)));
        assert_eq!(log.read_committed().await.unwrap(), Some(id(3)));
        let state = log.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(0)), Some(id(3))));
    }

    #[tokio::test]
    async fn one_read_for_a_follower_is_bounded_but_never_empty() {
        let dir = TempDir::new().unwrap();
        let mut log = open(&dir);
        let entries: Vec<_> = (0..4).map(|index| entry(index, READ_BYTES_MAX * 2 / 3)).collect();
        log.blocking_append(entries).await.unwrap();
        log.blocking_append([entry(4, READ_BYTES_MAX * 2)]).await.unwrap();
        assert_eq!(log.limited_get_log_entries(0, 5).await.unwrap().len(), 2);
        assert_eq!(log.limited_get_log_entries(4, 5).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_hole_in_the_log_is_damage() {
        let dir = TempDir::new().unwrap();
        let mut log = open(&dir);
        log.blocking_append((0..5).map(|index| entry(index, 1))).await.unwrap();
        let mut batch = Batch::default();
        batch.delete(Key::Log(2));
        log.db.write(batch).unwrap();
        let error = log.try_get_log_entries(0..5).await.unwrap_err();
        assert!(error.to_string().contains("log entry 2"), "{error}");
    }
}
