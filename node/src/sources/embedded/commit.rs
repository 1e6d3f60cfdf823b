//! One commit: the changes of some requests, and what has to change with them.

use std::collections::HashMap;

use rocksdb::{Direction, IteratorMode, WriteBatch};

use super::error::StoreError;
use super::keys::{self, Revision, RowKey, SLOTS};
use super::rows::{self, ChangeKind, ChangeRow, DocumentRow, Head};
use super::store::{Core, synced};
use super::writer::Staged;

/// Into how many parts the log is cut, so that the oldest can be dropped.
const BLOCKS: u64 = 64;

/// The changes of one commit. Its reads see what it has taken so far.
pub(super) struct Commit<'a> {
    core: &'a Core,
    /// Where the store was before.
    before: Head,
    head: Head,
    now_ms: i64,
    batch: WriteBatch,
    /// By row key: the revision a document has got here; `None` if deleted.
    touched: HashMap<Vec<u8>, Option<Revision>>,
    /// By collection: documents it has won or lost here.
    counts: HashMap<String, i64>,
}

/// What a write does: `before` is the revision its document had.
pub(super) struct Step<'a> {
    write: &'a Staged,
    row: Vec<u8>,
    before: Option<Revision>,
    revision: Revision,
}

impl<'a> Commit<'a> {
    /// A commit with nothing in it, of a store that is at `head`.
    pub(super) fn begin(core: &'a Core, head: Head) -> Self {
        Self {
            core,
            before: head,
            head,
            now_ms: (core.options.now_ms)(),
            batch: WriteBatch::default(),
            touched: HashMap::new(),
            counts: HashMap::new(),
        }
    }

    /// What a request's writes would do; changes nothing yet.
    pub(super) fn steps<'w>(&self, writes: &'w [Staged]) -> Result<Vec<Step<'w>>, StoreError> {
        let mut steps: Vec<Step<'w>> = Vec::with_capacity(writes.len());
        let mut seen: HashMap<Vec<u8>, Option<Revision>> = HashMap::new();
        let mut last = self.head.last;
        for (index, write) in writes.iter().enumerate() {
            let row = RowKey::Document(write.slot, write.key.as_bytes()).encode();
            let before = match seen.get(&row) {
                Some(before) => *before,
                None => self.revision(&row)?,
            };
            let wanted = write.if_revision;
            if wanted.is_some_and(|wanted| wanted != before.unwrap_or_default()) {
                let collection = write.collection.clone();
                return Err(StoreError::Precondition { collection, index });
            }
            if write.document.is_none() && before.is_none() {
                continue;
            }
            last = last.next();
            seen.insert(row.clone(), write.document.as_ref().map(|_| last));
            steps.push(Step { write, row, before, revision: last });
        }
        Ok(steps)
    }

    /// The revision of a document, `None` if there is none.
    fn revision(&self, row: &[u8]) -> Result<Option<Revision>, StoreError> {
        if let Some(revision) = self.touched.get(row) {
            return Ok(*revision);
        }
        let stored = self.core.db.get_pinned(row)?;
        stored.map(|bytes| Ok(DocumentRow::decode(&bytes)?.revision)).transpose()
    }

    /// Takes a request's steps in; the revision of the last.
    pub(super) fn take(&mut self, steps: Vec<Step<'_>>) -> Revision {
        for step in steps {
            assert_eq!(step.revision, self.head.last.next(), "revisions are dense");
            self.head.last = step.revision;
            self.log(&step);
            let count = self.counts.entry(step.write.collection.clone()).or_default();
            match (&step.write.document, step.before) {
                (Some(_), None) => *count += 1,
                (None, Some(_)) => *count -= 1,
                (Some(_), Some(_)) | (None, None) => {}
            }
            let revision = step.write.document.as_ref().map(|document| {
                let row = DocumentRow {
                    revision: step.revision,
                    written_ms: self.now_ms,
                    dictionary: &document.dictionary,
                    value: &document.value,
                };
                self.batch.put(&step.row, row.encode());
                step.revision
            });
            if revision.is_none() {
                self.batch.delete(&step.row);
            }
            self.touched.insert(step.row, revision);
        }
        self.head.last
    }

    fn log(&mut self, step: &Step<'_>) {
        let document = step.write.document.as_ref();
        let change = ChangeRow {
            kind: match (document, step.before) {
                (Some(_), None) => ChangeKind::Insert,
                (Some(_), Some(_)) => ChangeKind::Update,
                (None, _) => ChangeKind::Delete,
            },
            written_ms: self.now_ms,
            key: step.write.key.as_bytes(),
            dictionary: document.map_or(&[][..], |document| &document.dictionary),
            value: document.map_or(&[][..], |document| &document.value),
        };
        let key = RowKey::Change(step.write.slot, step.revision).encode();
        let value = change.encode();
        let bytes = u64::try_from(key.len() + value.len()).unwrap_or(u64::MAX);
        self.head.log_bytes += bytes;
        self.head.open_bytes += bytes;
        self.batch.put(key, value);
    }

    /// Makes the changes durable, with all that goes with them; where the store
    /// is then.
    pub(super) fn finish(mut self) -> Result<Head, StoreError> {
        if self.head == self.before {
            return Ok(self.head);
        }
        self.count()?;
        self.trim()?;
        self.close_block();
        self.batch.put(RowKey::Head.encode(), self.head.encode());
        self.core.db.write_opt(self.batch, &synced())?;
        Ok(self.head)
    }

    fn count(&mut self) -> Result<(), StoreError> {
        let negative = || StoreError::Corrupt("a collection has fewer documents than none");
        for (collection, change) in std::mem::take(&mut self.counts) {
            let row = RowKey::Collection(&collection).encode();
            let before = self.core.db.get_pinned(&row)?;
            let before = before.map_or(Ok(0), |bytes| rows::decode_count(&bytes))?;
            let after = before.checked_add_signed(change).ok_or_else(negative)?;
            let documents = self.head.documents.checked_add_signed(change);
            self.head.documents = documents.ok_or_else(negative)?;
            if after == 0 {
                self.batch.delete(row);
            } else {
                self.batch.put(row, rows::encode_count(after));
            }
        }
        Ok(())
    }

    /// Ends the log's newest block here if it is large enough.
    fn close_block(&mut self) {
        let options = &self.core.options;
        let changes = self.head.last.0 - self.head.blocked.0;
        if self.head.open_bytes >= options.log_bytes_max / BLOCKS
            || changes >= options.log_changes_max / BLOCKS
        {
            let bytes = std::mem::take(&mut self.head.open_bytes);
            self.head.blocked = self.head.last;
            self.batch.put(RowKey::Block(self.head.last).encode(), rows::encode_count(bytes));
        }
    }

    /// Drops the oldest blocks of earlier commits while the log is too large.
    fn trim(&mut self) -> Result<(), StoreError> {
        let options = &self.core.options;
        let oldest = self.head.oldest;
        let first = RowKey::Block(Revision(0)).encode();
        let mut blocks = None;
        loop {
            let changes = self.head.last.next().0 - self.head.oldest.0;
            if self.head.log_bytes <= options.log_bytes_max && changes <= options.log_changes_max {
                break;
            }
            let mode = IteratorMode::From(&first, Direction::Forward);
            let blocks = blocks.get_or_insert_with(|| self.core.db.iterator(mode));
            let Some((key, bytes)) = blocks.next().transpose()? else { break };
            let Some(last) = keys::read_block(&key) else { break };
            self.head.log_bytes = self.head.log_bytes.saturating_sub(rows::decode_count(&bytes)?);
            self.head.oldest = last.next();
            self.batch.delete(key);
        }
        if self.head.oldest > oldest {
            for slot in 0..SLOTS {
                let from = RowKey::Change(slot, Revision(0)).encode();
                self.batch.delete_range(from, RowKey::Change(slot, self.head.oldest).encode());
            }
        }
        Ok(())
    }
}
