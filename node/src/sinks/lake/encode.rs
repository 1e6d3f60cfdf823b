//! One data file: rows in, Parquet bytes out.
//!
//! The bytes depend on the rows and the settings alone: groups are cut by rows
//! and bytes, not by the batches that brought them, and nothing in the file
//! tells when or where it was written.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, FixedSizeBinaryBuilder, RecordBatch, StringBuilder, StructArray,
    TimestampMillisecondBuilder, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression as Codec, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use parquet_variant::{Variant, VariantMetadata};
use parquet_variant_compute::{VariantArray, VariantType, shred_variant};
use tidegate_proto::Key;

use super::config::Compression;
use super::shred::Profile;
use crate::error::{Error, ErrorKind, Result};

/// A row group is written once it has this many bytes or rows.
const GROUP_BYTES: usize = 8 << 20;
const GROUP_ROWS: usize = 65_536;
/// Metadata of a document without fields, for rows that have none.
const EMPTY_METADATA: &[u8] = &[1, 0, 0];

/// Settings of the files of one sink.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileSettings {
    /// How pages are packed.
    pub(super) compression: Compression,
    /// Whether stable fields get columns.
    pub(super) shred: bool,
}

/// A change as a file holds it. Byte fields lend from the batch they came in.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) epoch: u64,
    pub(super) sequence: u64,
    pub(super) operation: &'static str,
    pub(super) key: Bytes,
    /// Variant metadata and value.
    pub(super) document: Option<(Bytes, Bytes)>,
    pub(super) before: Option<(Bytes, Bytes)>,
    /// 0 if untold.
    pub(super) committed_ms: i64,
    pub(super) captured_ms: i64,
    pub(super) clock: u64,
    /// Empty if there is no document.
    pub(super) content_hash: Bytes,
}

/// Builds one file. Holds the rows of one group and the bytes of those before.
#[derive(Debug)]
pub(super) struct FileEncoder {
    shard: String,
    settings: FileSettings,
    rows: Vec<Row>,
    bytes: usize,
    writer: Option<Writer>,
    first: u64,
    last: u64,
    count: u64,
}

#[derive(Debug)]
struct Writer {
    parquet: ArrowWriter<Vec<u8>>,
    schema: SchemaRef,
    shredding: Option<DataType>,
}

/// A file, complete.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    pub(super) rows: u64,
    /// The sequences of its first and last row.
    pub(super) from: u64,
    pub(super) to: u64,
}

impl FileEncoder {
    pub(super) fn new(shard: &str, settings: FileSettings) -> Self {
        let shard = shard.to_owned();
        let (rows, writer) = (Vec::new(), None);
        Self { shard, settings, rows, bytes: 0, writer, first: 0, last: 0, count: 0 }
    }

    /// Adds a row behind the others. Slow once per group.
    pub(super) fn push(&mut self, row: Row) -> Result<()> {
        assert!(row.sequence > self.last, "rows come in the order of their sequences");
        if self.count == 0 {
            self.first = row.sequence;
        }
        self.last = row.sequence;
        self.count += 1;
        self.bytes += row.bytes();
        self.rows.push(row);
        if self.bytes >= GROUP_BYTES || self.rows.len() >= GROUP_ROWS {
            self.write_group()?;
        }
        Ok(())
    }

    /// No row was added.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Ends the file.
    pub(super) fn finish(mut self) -> Result<Encoded> {
        self.write_group()?;
        let writer = self.writer.take();
        let writer = writer.ok_or_else(|| corrupt("a data file without rows"))?;
        let bytes = writer.parquet.into_inner().map_err(encoding)?;
        Ok(Encoded { bytes, rows: self.count, from: self.first, to: self.last })
    }

    fn write_group(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        check_documents(&rows)?;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let shredding = if self.settings.shred { profile(&rows).schema() } else { None };
                none.insert(Writer::open(shredding, self.settings.compression)?)
            }
        };
        let columns = columns(&rows, &self.shard, writer.shredding.as_ref()).map_err(encoding)?;
        let group = RecordBatch::try_new(Arc::clone(&writer.schema), columns).map_err(encoding)?;
        writer.parquet.write(&group).map_err(encoding)?;
        writer.parquet.flush().map_err(encoding)
    }
}

impl Row {
    fn bytes(&self) -> usize {
        let both = [&self.document, &self.before].into_iter().flatten();
        64 + self.key.len() + both.map(|(_, value)| value.len()).sum::<usize>()
    }
}

impl Writer {
    fn open(shredding: Option<DataType>, compression: Compression) -> Result<Self> {
        let schema = schema(shredding.as_ref()).map_err(encoding)?;
        let options = ArrowWriterOptions::new()
            .with_properties(properties(compression)?)
            .with_skip_arrow_metadata(true);
        let parquet = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&schema), options)
            .map_err(encoding)?;
        Ok(Self { parquet, schema, shredding })
    }
}

/// Makes sure that every document decodes, since what comes later takes it for
/// granted.
fn check_documents(rows: &[Row]) -> Result<()> {
    // A batch's documents share few dictionaries.
    let mut known: Option<(&Bytes, VariantMetadata<'_>)> = None;
    for row in rows {
        // The parser's own words may quote the document.
        let bad =
            || corrupt(&format!("the document of sequence {} is not a variant", row.sequence));
        for (metadata, value) in row.before.iter().chain(&row.document) {
            let fields = match &known {
                Some((bytes, fields)) if is_same(bytes, metadata) => fields.clone(),
                _ => {
                    let fields = VariantMetadata::try_new(metadata).map_err(|_| bad())?;
                    known.insert((metadata, fields)).1.clone()
                }
            };
            Variant::try_new_with_metadata(fields, value).map_err(|_| bad())?;
        }
    }
    Ok(())
}

/// The very bytes, not only equal ones.
fn is_same(a: &Bytes, b: &Bytes) -> bool {
    (a.as_ptr(), a.len()) == (b.as_ptr(), b.len())
}

/// What the documents after a change look like, which all decode.
fn profile(rows: &[Row]) -> Profile {
    let mut profile = Profile::default();
    for (metadata, value) in rows.iter().filter_map(|row| row.document.as_ref()) {
        if !profile.look(&Variant::new(metadata, value)) {
            break;
        }
    }
    profile
}

fn properties(compression: Compression) -> Result<WriterProperties> {
    let codec = match compression {
        Compression::Zstd => Codec::ZSTD(ZstdLevel::try_new(1).map_err(encoding)?),
        Compression::None => Codec::UNCOMPRESSED,
    };
    let mut builder = WriterProperties::builder()
        .set_created_by("tidegate".to_owned())
        .set_compression(codec)
        .set_max_row_group_row_count(None)
        .set_max_row_group_bytes(None);
    for counter in ["sequence", "clock"] {
        let column = ColumnPath::from(counter);
        builder = builder
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    // Hardly a value comes twice: a dictionary would be built to be thrown away.
    let value = |column: &str| ColumnPath::from(vec![column.to_owned(), "value".to_owned()]);
    for column in ["key".into(), "key_bytes".into(), "content_hash".into()]
        .into_iter()
        .chain(["document", "before"].map(value))
    {
        builder = builder.set_column_dictionary_enabled(column, false);
    }
    for column in ["document", "before"].map(value) {
        builder = builder.set_column_statistics_enabled(column, EnabledStatistics::None);
    }
    Ok(builder.build())
}

fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// The columns of a file. `document` has the shape that shredding gives it.
fn schema(shredding: Option<&DataType>) -> Result<SchemaRef, ArrowError> {
    let field = |name: &str, data_type| Field::new(name, data_type, false);
    let nullable = |name: &str, data_type| Field::new(name, data_type, true);
    let variant = |name: &str, shredding: Option<&DataType>| {
        let mut field = nullable(name, variants(&[], shredding)?.data_type().clone());
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
        variant("document", shredding)?,
        variant("before", None)?,
        nullable("committed_at", timestamp_type()),
        field("captured_at", timestamp_type()),
        field("clock", DataType::UInt64),
        nullable("content_hash", DataType::FixedSizeBinary(16)),
    ])))
}

fn columns(
    rows: &[Row],
    shard: &str,
    shredding: Option<&DataType>,
) -> Result<Vec<ArrayRef>, ArrowError> {
    let (mut shards, mut operations) = (StringBuilder::new(), StringBuilder::new());
    let (mut keys, mut key_bytes) = (StringBuilder::new(), BinaryBuilder::new());
    let mut committed = TimestampMillisecondBuilder::new().with_timezone("UTC");
    let mut captured = TimestampMillisecondBuilder::new().with_timezone("UTC");
    let mut hashes = FixedSizeBinaryBuilder::new(16);
    for row in rows {
        shards.append_value(shard);
        operations.append_value(row.operation);
        keys.append_value(key_json(&row.key)?);
        key_bytes.append_value(&row.key);
        committed.append_option((row.committed_ms != 0).then_some(row.committed_ms));
        captured.append_value(row.captured_ms);
        if row.content_hash.is_empty() {
            hashes.append_null();
        } else {
            hashes.append_value(&row.content_hash)?;
        }
    }
    let numbers = |number: fn(&Row) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(number)))
    };
    let documents: Vec<_> = rows.iter().map(|row| row.document.as_ref()).collect();
    let befores: Vec<_> = rows.iter().map(|row| row.before.as_ref()).collect();
    Ok(vec![
        Arc::new(shards.finish()),
        numbers(|row| row.epoch),
        numbers(|row| row.sequence),
        Arc::new(operations.finish()),
        Arc::new(keys.finish()),
        Arc::new(key_bytes.finish()),
        Arc::new(variants(&documents, shredding)?.into_inner()),
        Arc::new(variants(&befores, None)?.into_inner()),
        Arc::new(committed.finish()),
        Arc::new(captured.finish()),
        numbers(|row| row.clock),
        Arc::new(hashes.finish()),
    ])
}

/// Documents as a variant column: as they are, or shredded.
fn variants(
    documents: &[Option<&(Bytes, Bytes)>],
    shredding: Option<&DataType>,
) -> Result<VariantArray, ArrowError> {
    let (mut metadata, mut values) = (BinaryBuilder::new(), BinaryBuilder::new());
    for document in documents {
        let (fields, value) = document.map_or((EMPTY_METADATA, &[][..]), |(m, v)| (m, v));
        metadata.append_value(fields);
        values.append_value(value);
    }
    let nulls: NullBuffer = documents.iter().map(Option::is_some).collect();
    let fields = Fields::from(vec![
        Field::new("metadata", DataType::Binary, false),
        Field::new("value", DataType::Binary, false),
    ]);
    let columns: Vec<ArrayRef> = vec![Arc::new(metadata.finish()), Arc::new(values.finish())];
    let plain = VariantArray::try_new(&StructArray::try_new(fields, columns, Some(nulls))?)?;
    shredding.map_or_else(|| Ok(plain.clone()), |shredding| shred_variant(&plain, shredding))
}

fn key_json(key: &Bytes) -> Result<String, ArrowError> {
    let bad = || ArrowError::InvalidArgumentError("a key does not decode".to_owned());
    let mut text = Vec::new();
    Key::from_bytes(key.clone()).write_json(&mut text).map_err(|_| bad())?;
    String::from_utf8(text).map_err(|_| bad())
}

fn encoding(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    corrupt("encode a data file for the lake").because(error)
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}
