//! The store: opening it, writing, looking things up.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use rocksdb::{DB, DBRecoveryMode, Options, Snapshot, WriteBatch, WriteOptions};
use tidegate_proto::document::Encoded;
use tidegate_proto::v1::{ChangesResponse, CountResponse, DescribeResponse, ScanResponse};
use tidegate_proto::v1::{EncodedDocument, StoredDocument};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::changes;
use super::error::StoreError;
use super::keys::{self, Revision, RowKey, SLOTS, Slots};
use super::rows::{self, DocumentRow, Head};
use super::scan::{self, ScanQuery};
use super::writer::{Request, Staged, Writer};

/// The layout of the database; another one is refused.
const FORMAT: u8 = 1;
/// Write requests that may wait for the writer.
const QUEUE: usize = 1024;
/// Bytes of documents in write requests that may wait; more requests wait in
/// their callers.
const QUEUE_BYTES: u32 = 64 << 20;

/// How a store is kept.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Its folder; made if there is none.
    pub dir: PathBuf,
    /// Bytes of changes above which the oldest are dropped, some 1/64 of it at
    /// a time. Default 4 GiB.
    pub log_bytes_max: u64,
    /// Changes above which the oldest are dropped. Default: no limit.
    pub log_changes_max: u64,
    /// Milliseconds since 1970, UTC; stamped on every write.
    pub now_ms: fn() -> i64,
}

impl StoreOptions {
    /// The defaults for a store in `dir`.
    pub fn new(dir: impl Into<PathBuf>, now_ms: fn() -> i64) -> Self {
        Self { dir: dir.into(), log_bytes_max: 4 << 30, log_changes_max: u64::MAX, now_ms }
    }
}

/// One write of a request.
#[derive(Clone, Debug)]
pub struct Write {
    /// Not empty.
    pub collection: String,
    /// Not empty; with the collection's name at most about 8 KiB.
    pub key: String,
    /// The document, in canonical form; `None` deletes.
    pub document: Option<Encoded>,
    /// Only if the document is at this revision; 0: only if there is none.
    pub if_revision: Option<Revision>,
}

/// Documents and their changes, in one folder that one process has open.
///
/// Dropping it waits for the writes under way and closes it.
#[derive(Debug)]
pub struct Store {
    core: Arc<Core>,
    /// `None` only while it is being dropped.
    inbox: Option<mpsc::Sender<Request>>,
    room: Arc<Semaphore>,
    head: watch::Receiver<Head>,
    writer: Option<JoinHandle<()>>,
}

/// What the writer and all readers share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) db: DB,
    pub(super) options: StoreOptions,
    id: String,
}

impl Store {
    /// Opens the store in `options.dir`. Blocks while the database recovers.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let core = Arc::new(Core::open(options)?);
        let head = core.head(&core.db.snapshot())?;
        let (told, head) = watch::channel(head);
        let (inbox, requests) = mpsc::channel(QUEUE);
        let writer = Writer::new(Arc::clone(&core), told);
        let thread = std::thread::Builder::new().name("documents-writer".to_owned());
        let writer = thread.spawn(move || writer.run(requests)).map_err(|error| {
            StoreError::Open(format!("start the document store's writer: {error}"))
        })?;
        let room = Arc::new(Semaphore::new(QUEUE_BYTES as usize));
        Ok(Self { core, inbox: Some(inbox), room, head, writer: Some(writer) })
    }

    /// Writes all or none, in order; returns when they are durable, with the
    /// last one's revision, or the store's last revision if nothing changed:
    /// deleting what is not there is no change. Waits while others fill the
    /// queue. Dropping the call leaves the outcome unknown.
    pub async fn write(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        let staged: Vec<_> =
            writes.into_iter().enumerate().map(Staged::new).collect::<Result<_, _>>()?;
        if staged.is_empty() {
            return Ok(self.last_revision());
        }
        let bytes = staged.iter().map(Staged::bytes).sum::<usize>();
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(QUEUE_BYTES);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        let room = room.map_err(|_| StoreError::Stopped)?;
        let inbox = self.inbox.as_ref().ok_or(StoreError::Stopped)?;
        let (reply, answer) = oneshot::channel();
        let request = Request { writes: staged, reply, room };
        inbox.send(request).await.map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// The document as it is now.
    pub async fn get(
        &self,
        collection: String,
        key: String,
    ) -> Result<Option<StoredDocument>, StoreError> {
        self.blocking(move |core| core.get(collection, key)).await
    }

    /// How many documents a collection has; all if it is empty.
    pub async fn count(&self, collection: String) -> Result<CountResponse, StoreError> {
        self.blocking(move |core| core.count(&collection)).await
    }

    /// A page of documents: those behind the query's cursor, as they are at the
    /// page's own revision.
    pub async fn scan(&self, query: ScanQuery) -> Result<ScanResponse, StoreError> {
        self.blocking(move |core| scan::page(core, &query)).await
    }

    /// A page of the changes of `slots` after revision `after`, in order; empty
    /// if there are none, with the revision up to which that is so.
    pub async fn changes(
        &self,
        slots: Slots,
        after: Revision,
    ) -> Result<ChangesResponse, StoreError> {
        self.blocking(move |core| changes::page(core, slots, after)).await
    }

    /// What is known of the store as a whole.
    #[must_use]
    pub fn describe(&self) -> DescribeResponse {
        let head = *self.head.borrow();
        DescribeResponse {
            store_id: self.core.id.clone(),
            slots: u32::from(SLOTS),
            revision: head.last.0,
            documents: head.documents,
            oldest_revision: head.oldest.0,
        }
    }

    /// The newest revision that is durable.
    #[must_use]
    pub fn last_revision(&self) -> Revision {
        self.head.borrow().last
    }

    /// Told of every commit.
    pub(super) fn watch(&self) -> watch::Receiver<Head> {
        self.head.clone()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Core) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let core = Arc::clone(&self.core);
        let done = tokio::task::spawn_blocking(move || work(&core)).await;
        done.map_err(|_| StoreError::Stopped)?
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.inbox = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the document store's writer ended in a panic");
        }
    }
}

impl Core {
    fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let dir = options.dir.display();
        fs::create_dir_all(&options.dir).map_err(|error| {
            StoreError::Open(format!("make the document store's folder {dir}: {error}"))
        })?;
        let db = DB::open(&settings(), &options.dir).map_err(|e| explain(&options.dir, &e))?;
        let id = begin(&db)?;
        Ok(Self { db, options, id })
    }

    /// Where the store is, or was when the snapshot was taken.
    pub(super) fn head(&self, snapshot: &Snapshot<'_>) -> Result<Head, StoreError> {
        match snapshot.get_pinned(RowKey::Head.encode())? {
            Some(bytes) => Head::decode(&bytes),
            None => Ok(Head::default()),
        }
    }

    fn get(&self, collection: String, key: String) -> Result<Option<StoredDocument>, StoreError> {
        let Ok(document) = keys::document_key(&collection, &key) else { return Ok(None) };
        let row = RowKey::Document(keys::slot(&document), document.as_bytes()).encode();
        let Some(bytes) = self.db.get_pinned(row)? else { return Ok(None) };
        let row = DocumentRow::decode(&bytes)?;
        Ok(Some(StoredDocument {
            collection,
            key,
            revision: row.revision.0,
            document: Some(encoded(row.dictionary, row.value)),
            written_ms: row.written_ms,
            ..StoredDocument::default()
        }))
    }

    fn count(&self, collection: &str) -> Result<CountResponse, StoreError> {
        let snapshot = self.db.snapshot();
        let head = self.head(&snapshot)?;
        let documents = if collection.is_empty() {
            head.documents
        } else {
            let count = snapshot.get_pinned(RowKey::Collection(collection).encode())?;
            count.map_or(Ok(0), |bytes| rows::decode_count(&bytes))?
        };
        Ok(CountResponse { documents, revision: head.last.0 })
    }
}

/// A document's bytes for the wire.
pub(super) fn encoded(dictionary: &[u8], value: &[u8]) -> EncodedDocument {
    EncodedDocument { dictionary: dictionary.to_vec().into(), value: value.to_vec().into() }
}

fn settings() -> Options {
    let mut settings = Options::default();
    settings.create_if_missing(true);
    // A torn tail was never acknowledged; damage before it is no reason to guess.
    settings.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    settings.set_write_buffer_size(32 << 20);
    settings.set_max_total_wal_size(256 << 20);
    settings.set_max_background_jobs(2);
    settings.set_keep_log_file_num(4);
    settings
}

/// Checks the format and returns the store's id; a new store gets both.
fn begin(db: &DB) -> Result<String, StoreError> {
    if let Some(format) = db.get(RowKey::Format.encode())? {
        if format != [FORMAT] {
            return Err(StoreError::Open(format!(
                "the document store is of format {format:?} and this version knows [{FORMAT}]; \
                 use the version that wrote it"
            )));
        }
        let id = db.get(RowKey::StoreId.encode())?.and_then(|id| String::from_utf8(id).ok());
        return id.ok_or(StoreError::Corrupt("the store has no id"));
    }
    let id = format!("{:032x}", rand::random::<u128>());
    let mut batch = WriteBatch::default();
    batch.put(RowKey::Format.encode(), [FORMAT]);
    batch.put(RowKey::StoreId.encode(), &id);
    db.write_opt(batch, &synced())?;
    Ok(id)
}

/// For writes that are acknowledged.
pub(super) fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

/// RocksDB has no kind of its own for a folder that is in use.
fn explain(dir: &Path, error: &rocksdb::Error) -> StoreError {
    let dir = dir.display();
    let words = error.to_string().to_lowercase();
    if words.contains("lock hold by current process") || words.contains("while lock file") {
        return StoreError::Open(format!(
            "the document store in {dir} is open already, here or in another process; close it \
             there or use another folder"
        ));
    }
    StoreError::Open(format!("open the document store in {dir}: {error}"))
}
