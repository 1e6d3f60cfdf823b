//! The document store's database: rows, and a log of their changes.

use std::path::PathBuf;
use std::sync::Arc;

use prost::Message as _;
use rocksdb::{DB, IteratorMode, Options};
use tidegate_proto::v1::{DescribeResponse, DocumentWrite, StoredDocument};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

use crate::error::{Error, ErrorKind, Result};
use crate::sources::embedded::keys::{Key, SLOTS, slot_of};
use crate::sources::embedded::writes::{Request, Writer};

const FORMAT: u8 = 1;
/// Requests waiting for the writer; more make their callers wait.
const REQUESTS_MAX: usize = 1024;

/// How a store is kept.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Its folder.
    pub dir: PathBuf,
    /// Changes kept at least; older ones go. Default 20 million.
    pub changes_max: u64,
    /// Milliseconds since 1970.
    pub now_ms: fn() -> i64,
}

impl StoreOptions {
    /// Defaults for a store in `dir`.
    #[must_use]
    pub fn new(dir: PathBuf, now_ms: fn() -> i64) -> Self {
        Self { dir, changes_max: 20_000_000, now_ms }
    }
}

/// A small document store. Every committed write has a revision, dense and in
/// commit order, and is in the log of its slot.
#[derive(Debug)]
pub struct Store {
    pub(super) db: Arc<DB>,
    requests: mpsc::Sender<Request>,
    committed: watch::Receiver<u64>,
    store_id: String,
}

impl Store {
    /// Opens the store in `options.dir`, making it if there is none. Refuses a
    /// folder that another process has open.
    pub fn open(options: StoreOptions) -> Result<Self> {
        let place = options.dir.display().to_string();
        let fail = |what: &str| format!("{what} the document store in {place}");
        std::fs::create_dir_all(&options.dir)
            .map_err(|error| Error::new(ErrorKind::Config, fail("make")).because(error))?;
        let db = DB::open(&settings(), &options.dir)
            .map_err(|error| Error::new(ErrorKind::Config, fail("open")).because(error))?;
        let store_id = identify(&db)
            .map_err(|error| Error::new(ErrorKind::Corrupt, fail("read")).because(error))?;
        let revision = number(&db, Key::Revision);
        let db = Arc::new(db);
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        let (publish, committed) = watch::channel(revision);
        let writer = Writer::new(Arc::clone(&db), publish, revision, &options);
        // Commits wait for the disk: a thread of their own, ended by the drop
        // of the last sender.
        std::thread::Builder::new()
            .name("documents".to_owned())
            .spawn(move || writer.run(inbox))
            .map_err(|error| Error::new(ErrorKind::Config, fail("start")).because(error))?;
        Ok(Self { db, requests, committed, store_id })
    }

    /// Commits all of `writes` or none; answers with the last revision, once
    /// it is on disk.
    pub async fn write(&self, writes: Vec<DocumentWrite>) -> std::result::Result<u64, Status> {
        let (answer, committed) = oneshot::channel();
        let closed = || Status::unavailable("the document store is closing");
        self.requests.send(Request { writes, answer }).await.map_err(|_| closed())?;
        committed.await.map_err(|_| closed())?
    }

    /// One document, if it is there.
    pub fn get(
        &self,
        collection: &str,
        key: &str,
    ) -> std::result::Result<Option<StoredDocument>, Status> {
        let row = Key::Row(slot_of(collection, key), collection, key).encode();
        let found = self.db.get(row).map_err(|error| damaged(&error))?;
        found.map(|value| read_row(&value)).transpose()
    }

    /// Documents in `collection`, or in all if it is empty.
    #[must_use]
    pub fn count(&self, collection: &str) -> u64 {
        if !collection.is_empty() {
            return number(&self.db, Key::Count(collection));
        }
        let prefix = Key::counts();
        let rows = self.db.iterator(IteratorMode::From(&prefix, rocksdb::Direction::Forward));
        let rows = rows.map_while(|row| row.ok().filter(|(key, _)| key.starts_with(&prefix)));
        rows.filter_map(|(_, value)| Some(u64::from_be_bytes(value[..].try_into().ok()?))).sum()
    }

    /// Moves with every commit to the last revision.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.committed.clone()
    }

    /// The oldest revision whose change is still there.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        number(&self.db, Key::Oldest).max(1)
    }

    /// What the store is and how full.
    #[must_use]
    pub fn describe(&self) -> DescribeResponse {
        DescribeResponse {
            store_id: self.store_id.clone(),
            slots: SLOTS,
            revision: *self.committed.borrow(),
            documents: self.count(""),
            oldest_revision: self.oldest(),
        }
    }
}

/// A number kept under `key`; 0 if there is none yet.
pub(super) fn number(db: &DB, key: Key<'_>) -> u64 {
    let value = db.get(key.encode()).ok().flatten();
    value.and_then(|value| value.try_into().ok()).map_or(0, u64::from_be_bytes)
}

pub(super) fn read_row(value: &[u8]) -> std::result::Result<StoredDocument, Status> {
    StoredDocument::decode(value).map_err(|error| damaged(&error))
}

pub(super) fn damaged(error: &dyn std::error::Error) -> Status {
    Status::data_loss(format!("the document store is damaged: {error}"))
}

fn settings() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(32 << 20);
    options.set_max_background_jobs(2);
    options.set_max_open_files(512);
    options.set_keep_log_file_num(2);
    options.set_max_total_wal_size(128 << 20);
    options
}

fn identify(db: &DB) -> std::result::Result<String, Box<dyn std::error::Error + Send + Sync>> {
    if let Some(id) = db.get(Key::StoreId.encode())? {
        if db.get(Key::Format.encode())?.as_deref() != Some(&[FORMAT]) {
            return Err("written by another version; start that version".into());
        }
        return Ok(String::from_utf8(id)?);
    }
    let id = format!("{:016x}", rand::random::<u64>());
    db.put(Key::Format.encode(), [FORMAT])?;
    db.put(Key::StoreId.encode(), &id)?;
    Ok(id)
}
