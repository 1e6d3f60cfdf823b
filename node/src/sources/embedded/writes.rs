//! The document store's one writer: commits what is queued, together.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message as _;
use rocksdb::{DB, WriteBatch, WriteOptions};
use tidegate_proto::document;
use tidegate_proto::v1::document_write::Kind;
use tidegate_proto::v1::{DocumentChange, DocumentWrite, EncodedDocument, StoredDocument};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

use crate::sources::embedded::keys::{Key, SLOTS, slot_of};
use crate::sources::embedded::store::{StoreOptions, damaged, number, read_row};

/// Requests committed together.
const GROUP_MAX: usize = 256;
/// Names of collections and keys.
const NAME_BYTES_MAX: usize = 1024;

/// Writes of one call, and where the outcome goes.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) writes: Vec<DocumentWrite>,
    pub(super) answer: oneshot::Sender<Result<u64, Status>>,
}

/// Owns the revision counter.
pub(super) struct Writer {
    db: Arc<DB>,
    publish: watch::Sender<u64>,
    revision: u64,
    oldest: u64,
    changes_max: u64,
    now_ms: fn() -> i64,
}

/// What is about to be written: of one request, then of all that are committed
/// together.
#[derive(Default)]
struct Group {
    rows: HashMap<Vec<u8>, Option<StoredDocument>>,
    counts: HashMap<String, i64>,
    changes: Vec<DocumentChange>,
}

impl Writer {
    pub(super) fn new(
        db: Arc<DB>,
        publish: watch::Sender<u64>,
        revision: u64,
        options: &StoreOptions,
    ) -> Self {
        let oldest = number(&db, Key::Oldest).max(1);
        let (changes_max, now_ms) = (options.changes_max, options.now_ms);
        Self { db, publish, revision, oldest, changes_max, now_ms }
    }

    /// Commits until nobody can send any more.
    pub(super) fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        let mut requests = Vec::with_capacity(GROUP_MAX);
        while inbox.blocking_recv_many(&mut requests, GROUP_MAX) > 0 {
            let mut group = Group::default();
            let mut answers = Vec::with_capacity(requests.len());
            for request in requests.drain(..) {
                let before = self.revision;
                let outcome = match self.stage(&group, request.writes) {
                    Ok(staged) => {
                        group.absorb(staged);
                        Ok(self.revision)
                    }
                    Err(refused) => {
                        self.revision = before;
                        Err(refused)
                    }
                };
                answers.push((request.answer, outcome));
            }
            let committed = self.commit(&group);
            for (answer, outcome) in answers {
                let outcome = committed.clone().and(outcome);
                // Whoever asked may have gone.
                drop(answer.send(outcome));
            }
        }
    }

    /// What one request changes on top of `group`; all of it, or an error.
    fn stage(&mut self, group: &Group, writes: Vec<DocumentWrite>) -> Result<Group, Status> {
        let mut staged = Group::default();
        for (at, write) in writes.into_iter().enumerate() {
            self.stage_one(group, &mut staged, write).map_err(|refused| {
                Status::new(refused.code(), format!("write {at}: {}", refused.message()))
            })?;
        }
        Ok(staged)
    }

    fn stage_one(
        &mut self,
        group: &Group,
        staged: &mut Group,
        write: DocumentWrite,
    ) -> Result<(), Status> {
        let DocumentWrite { collection, key, kind, if_revision } = write;
        check_name("collection", &collection)?;
        check_name("key", &key)?;
        let slot = slot_of(&collection, &key);
        let row = Key::Row(slot, &collection, &key).encode();
        let present = match staged.rows.get(&row).or_else(|| group.rows.get(&row)) {
            Some(pending) => pending.clone(),
            None => self.read(&row)?,
        };
        let revision = present.as_ref().map_or(0, |document| document.revision);
        if if_revision.is_some_and(|wanted| wanted != revision) {
            return Err(Status::failed_precondition(format!(
                "a document of collection \"{collection}\" is at revision {revision}, \
                 not at the one the write names"
            )));
        }
        let document = encoded(kind)?;
        if document.is_none() && present.is_none() {
            return Ok(());
        }
        self.revision += 1;
        let counted = i64::from(document.is_some()) - i64::from(present.is_some());
        *staged.counts.entry(collection.clone()).or_default() += counted;
        let written_ms = (self.now_ms)();
        let stored = document.clone().map(|document| StoredDocument {
            collection: collection.clone(),
            key: key.clone(),
            revision: self.revision,
            document: Some(document),
            written_ms,
            ..StoredDocument::default()
        });
        staged.rows.insert(row, stored);
        staged.changes.push(DocumentChange {
            revision: self.revision,
            collection,
            key,
            deleted: document.is_none(),
            created: present.is_none(),
            document,
            written_ms,
        });
        Ok(())
    }

    fn read(&self, row: &[u8]) -> Result<Option<StoredDocument>, Status> {
        let value = self.db.get(row).map_err(|error| damaged(&error))?;
        value.map(|value| read_row(&value)).transpose()
    }

    /// Writes the group with one fsync, then lets readers see it.
    fn commit(&mut self, group: &Group) -> Result<(), Status> {
        if group.changes.is_empty() {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        for (row, document) in &group.rows {
            match document {
                Some(document) => batch.put(row, document.encode_to_vec()),
                None => batch.delete(row),
            }
        }
        for (collection, added) in &group.counts {
            let count = number(&self.db, Key::Count(collection)).saturating_add_signed(*added);
            batch.put(Key::Count(collection).encode(), count.to_be_bytes());
        }
        for change in &group.changes {
            let slot = slot_of(&change.collection, &change.key);
            batch.put(Key::Change(slot, change.revision).encode(), change.encode_to_vec());
        }
        batch.put(Key::Revision.encode(), self.revision.to_be_bytes());
        self.trim(&mut batch);
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options).map_err(|error| {
            self.revision = *self.publish.borrow();
            Status::unavailable(format!("the document store cannot write: {error}"))
        })?;
        self.publish.send_replace(self.revision);
        Ok(())
    }

    /// Takes the oldest changes away, some at a time.
    fn trim(&mut self, batch: &mut WriteBatch) {
        let kept = self.revision.saturating_sub(self.oldest);
        if kept < self.changes_max + self.changes_max / 16 {
            return;
        }
        let oldest = self.revision - self.changes_max;
        for slot in 0..SLOTS {
            batch.delete_range(Key::Change(slot, 0).encode(), Key::Change(slot, oldest).encode());
        }
        batch.put(Key::Oldest.encode(), oldest.to_be_bytes());
        self.oldest = oldest;
    }
}

impl Group {
    fn absorb(&mut self, staged: Self) {
        self.rows.extend(staged.rows);
        self.changes.extend(staged.changes);
        for (collection, added) in staged.counts {
            *self.counts.entry(collection).or_default() += added;
        }
    }
}

fn encoded(kind: Option<Kind>) -> Result<Option<EncodedDocument>, Status> {
    let refuse = |error: document::DocumentError| Status::invalid_argument(error.to_string());
    match kind {
        Some(Kind::Delete(true)) => Ok(None),
        Some(Kind::Json(text)) => {
            let value = document::parse_json(&text).map_err(refuse)?;
            if !matches!(value, document::Value::Object(_)) {
                return Err(Status::invalid_argument("a document must be a JSON object"));
            }
            let encoded = document::encode(&value).map_err(refuse)?;
            let (dictionary, value) = (encoded.dictionary.into(), encoded.value.into());
            Ok(Some(EncodedDocument { dictionary, value }))
        }
        Some(Kind::Document(encoded)) => {
            // Encoded anew, so that equal documents have equal bytes.
            let value = document::decode(&encoded.dictionary, &encoded.value).map_err(refuse)?;
            let encoded = document::encode(&value).map_err(refuse)?;
            let (dictionary, value) = (encoded.dictionary.into(), encoded.value.into());
            Ok(Some(EncodedDocument { dictionary, value }))
        }
        Some(Kind::Delete(false)) | None => {
            Err(Status::invalid_argument("a write needs `json`, `document` or `delete`"))
        }
    }
}

fn check_name(what: &str, name: &str) -> Result<(), Status> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
        return Err(Status::invalid_argument(format!(
            "a {what} has 1 to {NAME_BYTES_MAX} bytes and no zero byte"
        )));
    }
    Ok(())
}
