//! What the sink holds between two commits.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tidegate_proto::DocumentError;
use tidegate_proto::v1::{Change, ChangeBatch, Operation, Progress};

use super::config::Mode;
use super::encode::{Encoder, Row, collection, corrupt, dictionary_of};
use super::infer::{Columns, Fields, Search};
use super::layout::Layout;
use super::names;
use crate::error::{Error, ErrorKind, Result};
use crate::sinks::{SinkBatch, SinkShard};

/// Batches on their way into one transaction. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The last sequence the target has, and the changes in it.
    committed: u64,
    records: u64,
    /// The sequence the next change must have.
    next: u64,
    /// Each with the first of its sequences that no batch before it brought.
    batches: Vec<(SinkBatch, u64)>,
    progress: Arc<Progress>,
    bytes: u64,
    changes: u64,
}

/// What one transaction brings.
#[derive(Debug)]
pub(super) struct Sealed {
    /// Where the target must be for it, and where it is with it.
    pub(super) before: u64,
    pub(super) upto: u64,
    /// Changes the target has with it.
    pub(super) records: u64,
    /// Protobuf of the shard's whole progress with it.
    pub(super) progress: Vec<u8>,
    pub(super) tables: Vec<Staged>,
}

/// The rows of one table.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) table: String,
    /// How the rows are made.
    pub(super) layout: Arc<Layout>,
    /// A whole binary COPY, in pieces.
    pub(super) copy: Vec<Bytes>,
    /// Rows that are there afterwards.
    pub(super) puts: u64,
    /// Rows that are not.
    pub(super) deletes: u64,
}

/// Which table a change goes to.
#[derive(Debug)]
pub(super) struct Shape {
    /// As the export file has it.
    pub(super) template: String,
    pub(super) shard: SinkShard,
}

impl Shape {
    fn table(&self, collection: &str) -> String {
        names::table(&self.template, &self.shard, collection)
    }

    fn is_by_collection(&self) -> bool {
        self.template.contains("{collection}")
    }
}

impl Held {
    /// Nothing yet, behind `committed`.
    pub(super) fn behind(committed: u64, records: u64) -> Self {
        let (batches, progress) = (Vec::new(), Arc::default());
        Self { committed, records, next: committed + 1, batches, progress, bytes: 0, changes: 0 }
    }

    /// The sequence the next change must have.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// No change is waiting.
    pub(super) fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// Bytes of the batches taken, unpacked.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Changes taken.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Goes on at `first`: what lies between was lost. Only while empty.
    pub(super) fn skip_to(&mut self, first: u64) {
        assert!(self.is_empty() && first > self.next, "a loss comes before the changes behind it");
        self.next = first;
    }

    /// Takes the changes of `batch` that it does not have yet.
    pub(super) fn take(&mut self, batch: &SinkBatch) -> Result<()> {
        let (first, last) = (batch.first.0, batch.last().0);
        if batch.batch.changes.len() as u64 != (last + 1).saturating_sub(first) {
            let what = "a batch's changes are not as many as its sequences";
            return Err(Error::new(ErrorKind::Corrupt, what));
        }
        assert!(first <= self.next && self.next <= last, "the sink admits no other batch");
        self.batches.push((batch.clone(), self.next));
        self.changes += last + 1 - self.next;
        self.bytes += u64::from(batch.frame.raw_bytes());
        self.next = last + 1;
        self.progress(&batch.progress);
        Ok(())
    }

    /// Moves progress on; it is committed with the next changes.
    pub(super) fn progress(&mut self, progress: &Arc<Progress>) {
        self.progress = Arc::clone(progress);
    }

    /// Fields that may need a column, by table. CPU work.
    pub(super) fn search(
        &self,
        shape: &Shape,
        columns: &Columns,
    ) -> Result<BTreeMap<String, Fields>> {
        let mut found = BTreeMap::new();
        for (batch, _) in &self.batches {
            for (table, search) in searched(&batch.batch, shape, columns)? {
                let fields = found.entry(table).or_default();
                search.finish(columns.fields_max(), fields).map_err(unsound)?;
            }
        }
        found.retain(|table, fields| !columns.knows(table) || !fields.is_empty());
        Ok(found)
    }

    /// Makes the rows, as shard `id`. CPU work. Not for an empty one.
    pub(super) fn seal(&self, shape: &Shape, columns: &Columns, id: i32) -> Result<Sealed> {
        let mut rows = Rows { shape, columns, id, named: HashMap::new(), found: Vec::new() };
        assert!(!self.is_empty(), "a commit has changes");
        for (batch, from) in &self.batches {
            let changes = batch.batch.changes.iter().zip(batch.first.0..);
            for (change, sequence) in changes.filter(|(_, sequence)| sequence >= from) {
                rows.push(Row { batch, change, sequence })?;
            }
        }
        Ok(Sealed {
            before: self.committed,
            upto: self.next - 1,
            records: self.records + self.changes,
            progress: self.progress.encode_to_vec(),
            tables: rows.encode()?,
        })
    }
}

/// What documents of a batch look like: those of one table and dictionary together.
fn searched<'a>(
    batch: &'a ChangeBatch,
    shape: &Shape,
    columns: &Columns,
) -> Result<Vec<(String, Search<'a>)>> {
    let mut searches: HashMap<_, (String, Search<'a>)> = HashMap::new();
    let documents = |change: &&Change| !change.document.is_empty() && !is_mark(change);
    for change in batch.changes.iter().filter(documents) {
        let (_, search) = match searches.entry((change.collection, change.dictionary)) {
            Entry::Occupied(search) => search.into_mut(),
            Entry::Vacant(free) => {
                let table = shape.table(collection(batch, change)?);
                let dictionary = dictionary_of(batch, change.dictionary)?;
                let search = Search::new(columns, &table, dictionary).map_err(unsound)?;
                free.insert((table, search))
            }
        };
        search.look(&change.document).map_err(unsound)?;
    }
    Ok(searches.into_values().collect())
}

/// It tells of a gap, not of a key.
fn is_mark(change: &Change) -> bool {
    change.operation() == Operation::Gap
}

fn unsound(error: DocumentError) -> Error {
    corrupt("a document").because(error)
}

/// Rows and the tables they belong to.
struct Rows<'a> {
    shape: &'a Shape,
    columns: &'a Columns,
    id: i32,
    named: HashMap<&'a str, Arc<str>>,
    found: Vec<(Arc<str>, Row<'a>)>,
}

impl<'a> Rows<'a> {
    /// Takes a change. A mark is a row where all of the shard's changes are; it belongs to no
    /// collection.
    fn push(&mut self, row: Row<'a>) -> Result<()> {
        if is_mark(row.change) && !self.has_marks() {
            return Ok(());
        }
        let collection = collection(&row.batch.batch, row.change)?;
        let table = self.named.entry(collection);
        let table = table.or_insert_with(|| self.shape.table(collection).into());
        self.found.push((Arc::clone(table), row));
        Ok(())
    }

    /// All of the shard's changes are rows of one table.
    fn has_marks(&self) -> bool {
        self.columns.base.mode == Mode::Append && !self.shape.is_by_collection()
    }

    /// Of several changes of a key only the last has an effect on its row.
    fn encode(mut self) -> Result<Vec<Staged>> {
        let key = |row: &Row<'a>| -> &'a [u8] { &row.change.key };
        match self.columns.base.mode {
            Mode::Append => self.found.sort_by(|(a, _), (b, _)| a.cmp(b)),
            Mode::Upsert => {
                // In the order of keys the index is walked once. Stable: the last stays last.
                self.found.sort_by(|(a, one), (b, two)| (a, key(one)).cmp(&(b, key(two))));
                self.found.reverse();
                self.found.dedup_by(|(a, one), (b, two)| a == b && key(one) == key(two));
                self.found.reverse();
            }
        }
        let tables = self.found.chunk_by(|(a, _), (b, _)| a == b);
        tables.map(|rows| self.staged(rows)).collect()
    }

    fn staged(&self, rows: &[(Arc<str>, Row<'a>)]) -> Result<Staged> {
        let table = rows.first().map_or_else(String::new, |(table, _)| table.to_string());
        let layout = Arc::clone(self.columns.layout(&table));
        let mut encoder = Encoder::new(&layout, self.id);
        for (_, row) in rows {
            encoder.push(*row)?;
        }
        let gone = |change: &Change| change.document.is_empty();
        let deletes = rows.iter().filter(|(_, row)| gone(row.change)).count() as u64;
        let puts = rows.len() as u64 - deletes;
        let copy = encoder.finish();
        Ok(Staged { table, layout, copy, puts, deletes })
    }
}
