//! What the sink holds between two commits.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_proto::v1::{Operation, Progress};

use super::encode::{Encoded, FileEncoder, FileSettings};
use super::manifest::{DataFile, FORMAT, Kind, Manifest, Skipped, progress_hex};
use super::names;
use crate::error::{Error, ErrorKind, Result};
use crate::sinks::{SinkBatch, SinkShard};

/// Changes on their way into files, one file for each collection.
#[derive(Debug)]
pub(super) struct Gathering {
    shard: SinkShard,
    settings: FileSettings,
    /// The last sequence the lake has, and the changes in it.
    committed: u64,
    records: u64,
    skipped: Option<Skipped>,
    /// The sequence the next change must have.
    next: u64,
    /// One for each collection, in the order they came.
    files: Vec<(String, FileEncoder)>,
    operations: Vec<(&'static str, u64)>,
    bytes: u64,
    progress: Option<Arc<Progress>>,
}

/// Files ready to be written, and the manifest that will name them.
#[derive(Debug)]
pub(super) struct Sealed {
    /// Paths and contents.
    pub(super) files: Vec<(String, Bytes)>,
    /// Without its place in the chain.
    pub(super) manifest: Manifest,
}

impl Gathering {
    /// Nothing yet, behind `committed`.
    pub(super) fn behind(
        shard: SinkShard,
        settings: FileSettings,
        committed: u64,
        records: u64,
    ) -> Self {
        Self {
            shard,
            settings,
            committed,
            records,
            skipped: None,
            next: committed + 1,
            files: Vec::new(),
            operations: Vec::new(),
            bytes: 0,
            progress: None,
        }
    }

    /// The sequence the next change must have.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// No change is waiting.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Bytes of the batches taken, unpacked.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Goes on at `first`: what lies between was lost. Only while empty.
    pub(super) fn skip_to(&mut self, first: u64) {
        assert!(self.is_empty() && first > self.next, "a loss comes before the changes behind it");
        self.skipped = Some(Skipped { from: self.committed + 1, to: first - 1 });
        self.next = first;
    }

    /// Takes the changes of `batch` that it does not have yet. CPU work.
    pub(super) fn take(&mut self, batch: &SinkBatch) -> Result<()> {
        let (first, last) = (batch.first.0, batch.last().0);
        let changes = &batch.batch.changes;
        if changes.len() as u64 != (last + 1).saturating_sub(first) {
            return Err(corrupt("a batch's changes are not as many as its sequences"));
        }
        assert!(first <= self.next && self.next <= last, "the sink admits no other batch");
        // By the number of a collection in this batch.
        let files: Vec<usize> =
            batch.batch.collections.iter().map(|collection| self.file(collection)).collect();
        let foreign = || corrupt("a change names a collection that its batch does not have");
        let next = self.next;
        let known = usize::try_from(next - first).unwrap_or(usize::MAX);
        for (row, change) in changes.iter().enumerate().skip(known) {
            let file = *files.get(change.collection as usize).ok_or_else(foreign)?;
            self.count(change.operation())?;
            self.files[file].1.push(batch, row)?;
        }
        self.files.retain(|(_, file)| !file.is_empty());
        self.next = last + 1;
        self.bytes += u64::from(batch.frame.raw_bytes());
        self.progress = Some(Arc::clone(&batch.progress));
        Ok(())
    }

    /// Which file the changes of `collection` go to.
    fn file(&mut self, collection: &str) -> usize {
        self.files.iter().position(|(known, _)| known == collection).unwrap_or_else(|| {
            let file = FileEncoder::new(&self.shard.shard, self.settings);
            self.files.push((collection.to_owned(), file));
            self.files.len() - 1
        })
    }

    fn count(&mut self, operation: Operation) -> Result<()> {
        let name = operation_name(operation)?;
        // Few, and mostly the same as the one before.
        match self.operations.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => self.operations.push((name, 1)),
        }
        Ok(())
    }

    /// Moves progress on; it is committed with the next changes.
    pub(super) fn progress(&mut self, progress: &Arc<Progress>) {
        self.progress = Some(Arc::clone(progress));
    }

    /// Ends all files. CPU work. Not for an empty one.
    pub(super) fn seal(self) -> Result<Sealed> {
        assert!(!self.is_empty(), "a commit has changes");
        let (first, to) = (self.skipped.map_or(self.committed, |lost| lost.to) + 1, self.next - 1);
        let (mut files, mut listed) = (Vec::new(), Vec::new());
        let mut rows = 0;
        let mut gathered = self.files;
        gathered.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (collection, encoder) in gathered {
            let file = encoder.finish()?;
            let path = names::data(&self.shard, &collection, first, to);
            rows += file.rows;
            listed.push(data_file(&path, collection, &file));
            files.push((path, Bytes::from(file.bytes)));
        }
        assert!(rows == to + 1 - first, "files hold every sequence of their commit once");
        let manifest = Manifest {
            format: FORMAT,
            kind: Kind::Commit,
            number: 0,
            export: self.shard.export,
            uid: self.shard.uid,
            shard: self.shard.shard,
            epoch: self.shard.epoch.0,
            from: first,
            to,
            skipped: self.skipped,
            records: self.records + rows,
            progress: self.progress.map(|progress| progress_hex(&progress)),
            operations: self.operations.into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
            files: listed,
            previous: None,
        };
        Ok(Sealed { files, manifest })
    }
}

fn data_file(path: &str, collection: String, file: &Encoded) -> DataFile {
    DataFile {
        path: path.to_owned(),
        collection,
        rows: file.rows,
        bytes: file.bytes.len() as u64,
        blake3: blake3::hash(&file.bytes).to_hex().to_string(),
        from: file.from,
        to: file.to,
    }
}

/// The word for an operation in everything a sink writes.
pub(in crate::sinks) fn operation_name(operation: Operation) -> Result<&'static str> {
    match operation {
        Operation::Insert => Ok("insert"),
        Operation::Update => Ok("update"),
        Operation::Delete => Ok("delete"),
        Operation::Snapshot => Ok("snapshot"),
        Operation::Upsert => Ok("upsert"),
        Operation::Gap => Ok("gap"),
        Operation::Unspecified => Err(corrupt("a change without an operation")),
    }
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}
