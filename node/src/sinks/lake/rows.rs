//! Changes on their way into a row group, and its columns.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, BinaryBuilder, FixedSizeBinaryBuilder, StringBuilder,
    TimestampMillisecondBuilder, UInt64Array, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::variant::VariantType;
use tidegate_proto::document::Dictionary;
use tidegate_proto::v1::{Change, ChangeBatch};
use tidegate_proto::{Key, Told};

use super::columns::{Documents, Names};
use super::encode::encoding;
use super::gather::operation_name;
use super::shred::Profile;
use crate::error::{Error, ErrorKind, Result};
use crate::sinks::SinkBatch;

/// Changes that wait for their row group. They stay where their batches have
/// them.
#[derive(Debug, Default)]
pub(super) struct Rows {
    lent: Vec<Lent>,
    count: usize,
    bytes: usize,
}

/// Some changes of one batch.
#[derive(Debug)]
struct Lent {
    batch: Arc<ChangeBatch>,
    epoch: u64,
    /// The sequence and the clock of the batch's first change.
    first: u64,
    clock: u64,
    /// Which changes, in order.
    rows: Vec<usize>,
}

impl Rows {
    /// Adds a change of `batch`.
    pub(super) fn push(&mut self, batch: &SinkBatch, row: usize) {
        let known = self.lent.last().is_some_and(|last| Arc::ptr_eq(&last.batch, &batch.batch));
        if !known {
            self.lent.push(Lent {
                batch: Arc::clone(&batch.batch),
                epoch: batch.frame.epoch().0,
                first: batch.first.0,
                // The clock is that of the frame's first change, wherever `batch` begins.
                clock: batch.batch.clock + (batch.first.0 - batch.frame.first().0),
                rows: Vec::new(),
            });
        }
        if let Some(last) = self.lent.last_mut() {
            let change = &last.batch.changes[row];
            last.rows.push(row);
            self.count += 1;
            self.bytes += 64 + change.key.len() + change.document.len() + change.before.len();
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// About what they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the documents after a change look like.
    pub(super) fn profile(&self) -> Result<Profile> {
        let mut profile = Profile::default();
        for lent in &self.lent {
            if !lent.look(&mut profile)? {
                break;
            }
        }
        Ok(profile)
    }

    /// Their columns, as [`schema`] names them.
    pub(super) fn columns(&self, shard: &str, shape: Option<&DataType>) -> Result<Vec<ArrayRef>> {
        let mut columns = Columns::new(self.count, shape).map_err(encoding)?;
        for lent in &self.lent {
            let mut dictionaries = Dictionaries::of(&lent.batch);
            for row in &lent.rows {
                columns.push(shard, lent, *row, &mut dictionaries)?;
            }
        }
        columns.finish().map_err(encoding)
    }
}

impl Lent {
    /// Shows the documents to `profile`; `false` once it has seen enough.
    fn look(&self, profile: &mut Profile) -> Result<bool> {
        // Documents mostly have the dictionary of the one before.
        let mut last: Option<(u32, Dictionary<'_>)> = None;
        let changes = self.rows.iter().map(|row| (*row, &self.batch.changes[*row]));
        for (row, change) in changes.filter(|(_, change)| !change.document.is_empty()) {
            let bad = |_| bad_document(self.first + row as u64);
            let names = match last {
                Some((number, names)) if number == change.dictionary => names,
                _ => Dictionary::parse(dictionary(&self.batch, change.dictionary)?).map_err(bad)?,
            };
            last = Some((change.dictionary, names));
            if !profile.look(names, &change.document).map_err(bad)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The dictionaries of one batch, prepared when they are first needed.
struct Dictionaries<'a> {
    batch: &'a ChangeBatch,
    documents: Vec<Option<Names<'a>>>,
    befores: Vec<Option<Names<'a>>>,
}

impl<'a> Dictionaries<'a> {
    fn of(batch: &'a ChangeBatch) -> Self {
        let none = || batch.dictionaries.iter().map(|_| None).collect();
        Self { batch, documents: none(), befores: none() }
    }
}

/// Columns of a row group under way.
struct Columns {
    shards: StringBuilder,
    epochs: Vec<u64>,
    sequences: Vec<u64>,
    operations: StringBuilder,
    keys: StringBuilder,
    key_bytes: BinaryBuilder,
    documents: Documents,
    befores: Documents,
    committed: TimestampMillisecondBuilder,
    captured: TimestampMillisecondBuilder,
    clocks: Vec<u64>,
    hashes: FixedSizeBinaryBuilder,
    novelties: StringBuilder,
    previous: UInt64Builder,
    key: Vec<u8>,
}

impl Columns {
    fn new(rows: usize, shape: Option<&DataType>) -> Result<Self, ArrowError> {
        let strings = || StringBuilder::with_capacity(rows, 0);
        let times = || TimestampMillisecondBuilder::with_capacity(rows).with_timezone("UTC");
        Ok(Self {
            shards: strings(),
            epochs: Vec::with_capacity(rows),
            sequences: Vec::with_capacity(rows),
            operations: strings(),
            keys: strings(),
            key_bytes: BinaryBuilder::with_capacity(rows, 0),
            documents: Documents::new(shape, rows)?,
            befores: Documents::new(None, rows)?,
            committed: times(),
            captured: times(),
            clocks: Vec::with_capacity(rows),
            hashes: FixedSizeBinaryBuilder::with_capacity(rows, 16),
            novelties: strings(),
            previous: UInt64Builder::with_capacity(rows),
            key: Vec::new(),
        })
    }

    fn push<'a>(
        &mut self,
        shard: &str,
        lent: &'a Lent,
        row: usize,
        dictionaries: &mut Dictionaries<'a>,
    ) -> Result<()> {
        let change = &lent.batch.changes[row];
        let sequence = lent.first + row as u64;
        self.shards.append_value(shard);
        self.epochs.push(lent.epoch);
        self.sequences.push(sequence);
        self.operations.append_value(operation_name(change.operation())?);
        self.push_key(&change.key)?;
        self.push_documents(change, sequence, dictionaries)?;
        self.committed.append_option((change.committed_ms != 0).then_some(change.committed_ms));
        self.captured.append_value(lent.batch.captured_ms);
        self.clocks.push(lent.clock + row as u64);
        if change.content_hash.is_empty() {
            self.hashes.append_null();
        } else {
            self.hashes.append_value(&change.content_hash).map_err(encoding)?;
        }
        self.novelties.append_option(Told::of(change).word());
        self.previous.append_option((change.previous != 0).then_some(change.previous));
        Ok(())
    }

    fn push_key(&mut self, key: &Bytes) -> Result<()> {
        self.key.clear();
        let written = Key::from_bytes(key.clone()).write_json(&mut self.key);
        let text = written.ok().and_then(|()| str::from_utf8(&self.key).ok());
        self.keys.append_value(text.ok_or_else(|| corrupt("a key does not decode"))?);
        self.key_bytes.append_value(key);
        Ok(())
    }

    fn push_documents<'a>(
        &mut self,
        change: &'a Change,
        sequence: u64,
        dictionaries: &mut Dictionaries<'a>,
    ) -> Result<()> {
        let Dictionaries { batch, documents, befores } = dictionaries;
        for (column, value, number, known) in [
            (&mut self.documents, &change.document, change.dictionary, documents),
            (&mut self.befores, &change.before, change.before_dictionary, befores),
        ] {
            if value.is_empty() {
                column.push_none();
                continue;
            }
            let bytes = dictionary(batch, number)?;
            let bad = |_| bad_document(sequence);
            let names = match &mut known[number as usize] {
                Some(names) => names,
                none => none.insert(column.names(bytes).map_err(bad)?),
            };
            column.push(names, value).map_err(bad)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        let numbers = |numbers: Vec<u64>| Arc::new(UInt64Array::from(numbers));
        Ok(vec![
            Arc::new(self.shards.finish()),
            numbers(self.epochs),
            numbers(self.sequences),
            Arc::new(self.operations.finish()),
            Arc::new(self.keys.finish()),
            Arc::new(self.key_bytes.finish()),
            Arc::new(self.documents.finish()?),
            Arc::new(self.befores.finish()?),
            Arc::new(self.committed.finish()),
            Arc::new(self.captured.finish()),
            numbers(self.clocks),
            Arc::new(self.hashes.finish()),
            Arc::new(self.novelties.finish()),
            Arc::new(self.previous.finish()),
        ])
    }
}

/// The columns of a file. `document` has the shape that shredding gives it.
pub(super) fn schema(shape: Option<&DataType>) -> Result<SchemaRef, ArrowError> {
    let field = |name: &str, data_type| Field::new(name, data_type, false);
    let nullable = |name: &str, data_type| Field::new(name, data_type, true);
    let timestamp = || DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let variant = |name: &str, shape: Option<&DataType>| {
        let mut field = nullable(name, Documents::new(shape, 0)?.finish()?.data_type().clone());
        field.try_with_extension_type(VariantType)?;
        Ok::<_, ArrowError>(field)
    };
    Ok(Arc::new(Schema::new(vec![
        field("shard", DataType::Utf8),
        field("epoch", DataType::UInt64),
        field("sequence", DataType::UInt64),
        field("operation", DataType::Utf8),
        field("key", DataType::Utf8),
        field("key_bytes", DataType::Binary),
        variant("document", shape)?,
        variant("before", None)?,
        nullable("committed_at", timestamp()),
        field("captured_at", timestamp()),
        field("clock", DataType::UInt64),
        nullable("content_hash", DataType::FixedSizeBinary(16)),
        nullable("novelty", DataType::Utf8),
        nullable("previous", DataType::UInt64),
    ])))
}

fn dictionary(batch: &ChangeBatch, number: u32) -> Result<&Bytes> {
    let found = batch.dictionaries.get(number as usize);
    found.ok_or_else(|| corrupt("a change names a dictionary that its batch does not have"))
}

/// The parser's own words may quote the document.
fn bad_document(sequence: u64) -> Error {
    corrupt(&format!("the document of sequence {sequence} is not a variant"))
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}
