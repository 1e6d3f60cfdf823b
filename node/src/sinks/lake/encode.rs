//! One data file: rows in, Parquet bytes out.
//!
//! The bytes depend on the rows and the settings alone: groups are cut by rows
//! and bytes, not by the batches that brought them, and nothing in the file
//! tells when or where it was written.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression as Codec, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::config::Compression;
use super::rows::{Rows, schema};
use crate::error::{Error, ErrorKind, Result};
use crate::sinks::SinkBatch;

/// A row group is written once it has this many bytes or rows.
const GROUP_BYTES: usize = 8 << 20;
const GROUP_ROWS: usize = 65_536;

/// Settings of the files of one sink.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileSettings {
    /// How pages are packed.
    pub(super) compression: Compression,
    /// Whether stable fields get columns.
    pub(super) shred: bool,
}

/// Builds one file. Holds the rows of one group and the bytes of those before.
#[derive(Debug)]
pub(super) struct FileEncoder {
    shard: String,
    settings: FileSettings,
    rows: Rows,
    writer: Option<Writer>,
    first: u64,
    last: u64,
    count: u64,
}

#[derive(Debug)]
struct Writer {
    parquet: ArrowWriter<Vec<u8>>,
    schema: SchemaRef,
    shape: Option<DataType>,
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
        let (rows, writer) = (Rows::default(), None);
        Self { shard, settings, rows, writer, first: 0, last: 0, count: 0 }
    }

    /// Adds the change at `row` of `batch` behind the others. Slow once per group.
    pub(super) fn push(&mut self, batch: &SinkBatch, row: usize) -> Result<()> {
        let sequence = batch.first.0 + row as u64;
        assert!(sequence > self.last, "rows come in the order of their sequences");
        if self.count == 0 {
            self.first = sequence;
        }
        self.last = sequence;
        self.count += 1;
        self.rows.push(batch, row);
        if self.rows.bytes() >= GROUP_BYTES || self.rows.len() >= GROUP_ROWS {
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
        if self.rows.len() == 0 {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let shape = if self.settings.shred { rows.profile()?.schema() } else { None };
                none.insert(Writer::open(shape, self.settings.compression)?)
            }
        };
        let columns = rows.columns(&self.shard, writer.shape.as_ref())?;
        let group = RecordBatch::try_new(Arc::clone(&writer.schema), columns).map_err(encoding)?;
        writer.parquet.write(&group).map_err(encoding)?;
        writer.parquet.flush().map_err(encoding)
    }
}

impl Writer {
    fn open(shape: Option<DataType>, compression: Compression) -> Result<Self> {
        let schema = schema(shape.as_ref()).map_err(encoding)?;
        let options = ArrowWriterOptions::new()
            .with_properties(properties(compression)?)
            .with_skip_arrow_metadata(true);
        let parquet = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&schema), options)
            .map_err(encoding)?;
        Ok(Self { parquet, schema, shape })
    }
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
    for counter in ["sequence", "clock", "previous"] {
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

pub(super) fn encoding(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    corrupt("encode a data file for the lake").because(error)
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}
