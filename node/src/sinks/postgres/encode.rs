//! Changes as rows of PostgreSQL's binary COPY.

use bytes::Bytes;
use tidegate_proto::v1::{Change, ChangeBatch};
use tidegate_proto::{Key, KeyPart, Value, document};

use super::config::Column;
use super::fit;
use super::layout::{Cell, Layout};
use crate::error::{Error, ErrorKind, Result};
use crate::sinks::SinkBatch;
use crate::sinks::lake::operation_name;

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
/// The type `text`, as arrays name it.
const TEXT_OID: u32 = 25;
/// Longer keys are cut, and end in a hash: an index takes 2704 bytes.
const KEY_BYTES_MAX: usize = 2000;
const HASH_BYTES: usize = 32;
/// Bytes sent at a time.
const PIECE_BYTES: usize = 256 << 10;

/// A change that becomes a row.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) batch: &'a SinkBatch,
    pub(super) change: &'a Change,
    pub(super) sequence: u64,
}

/// Rows of one table, on their way into one COPY.
pub(super) struct Encoder<'a> {
    layout: &'a Layout,
    shard: i32,
    out: Vec<u8>,
    json: Vec<u8>,
    problems: Vec<String>,
}

impl<'a> Encoder<'a> {
    /// For the rows of `shard`, as the checkpoint table numbers it.
    pub(super) fn new(layout: &'a Layout, shard: i32) -> Self {
        let (json, problems) = (Vec::new(), Vec::new());
        Self { layout, shard, out: HEADER.to_vec(), json, problems }
    }

    /// Adds one row.
    pub(super) fn push(&mut self, row: Row<'_>) -> Result<()> {
        self.problems.clear();
        let cells =
            i16::try_from(self.layout.cells.len()).map_err(|_| corrupt("too many columns"))?;
        self.out.extend_from_slice(&cells.to_be_bytes());
        let layout = self.layout;
        let parts = if layout.cells.iter().any(Cell::is_part) { decoded(row)? } else { None };
        for cell in &layout.cells {
            self.cell(cell, row, parts.as_ref())?;
        }
        Ok(())
    }

    /// All of it, in pieces.
    pub(super) fn finish(mut self) -> Vec<Bytes> {
        self.out.extend_from_slice(&TRAILER);
        let all = Bytes::from(self.out);
        let starts = (0..all.len()).step_by(PIECE_BYTES);
        starts.map(|start| all.slice(start..all.len().min(start + PIECE_BYTES))).collect()
    }

    fn cell(&mut self, cell: &Cell, row: Row<'_>, parts: Option<&Value>) -> Result<()> {
        let Row { batch, change, sequence } = row;
        let decoded = &batch.batch;
        match cell {
            Cell::Key => self.key(change)?,
            Cell::KeyBytes => {
                let key = compared(&change.key);
                self.bytes(&key);
            }
            Cell::Document => {
                self.json(decoded, change.dictionary, &change.document, "document")?;
            }
            Cell::Before => {
                self.json(decoded, change.before_dictionary, &change.before, "before")?;
            }
            Cell::Declared(column) | Cell::Inferred(column) => self.part(column, parts),
            Cell::Shard => self.bytes(&self.shard.to_be_bytes()),
            Cell::Sequence => self.bytes(&whole(sequence)?.to_be_bytes()),
            Cell::Epoch => self.bytes(&whole(batch.frame.epoch().0)?.to_be_bytes()),
            Cell::Operation => self.bytes(operation_name(change.operation())?.as_bytes()),
            Cell::Collection => {
                let name = collection(decoded, change)?.replace('\0', "\u{fffd}");
                self.bytes(name.as_bytes());
            }
            Cell::CommittedAt => self.time(change.committed_ms),
            Cell::CapturedAt => self.time(decoded.captured_ms),
            Cell::Problems => self.problems(),
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(&length(bytes.len()));
        self.out.extend_from_slice(bytes);
    }

    /// A key of one string as that string, any other as JSON.
    fn key(&mut self, change: &Change) -> Result<()> {
        let key = Key::from_bytes(change.key.clone());
        let parts = key.parts().map_err(|_| corrupt("a key"))?;
        if let [KeyPart::String(text)] = parts.as_slice() {
            if !text.contains('\0') {
                self.bytes(text.as_bytes());
                return Ok(());
            }
            self.problem("key", fit::NUL);
        }
        self.json.clear();
        key.write_json(&mut self.json).map_err(|_| corrupt("a key"))?;
        self.out.extend_from_slice(&length(self.json.len()));
        self.out.extend_from_slice(&self.json);
        Ok(())
    }

    /// A document as it is; or, if `jsonb` would refuse it, its JSON as text in
    /// an object.
    fn json(
        &mut self,
        batch: &ChangeBatch,
        dictionary: u32,
        value: &[u8],
        name: &str,
    ) -> Result<()> {
        if value.is_empty() {
            self.out.extend_from_slice(&NULL);
            return Ok(());
        }
        let dictionary = dictionary_of(batch, dictionary)?;
        let start = self.open();
        self.out.push(fit::JSONB_VERSION);
        document::write_json(dictionary, value, &mut self.out)
            .map_err(|error| corrupt("a document").because(error))?;
        if fit::has_nul(&self.out[start + 5..]) {
            self.json.clear();
            self.json.extend_from_slice(&self.out[start + 5..]);
            let text = str::from_utf8(&self.json).map_err(|_| corrupt("a document"))?;
            self.out.truncate(start + 5);
            self.out.extend_from_slice(b"{\"$json\":");
            serde_json::to_writer(&mut self.out, text)
                .map_err(|error| corrupt("a document").because(error))?;
            self.out.push(b'}');
            self.problem(name, fit::NUL);
        }
        self.close(start);
        Ok(())
    }

    fn part(&mut self, column: &Column, document: Option<&Value>) {
        let value = document.and_then(|document| fit::find(document, &column.path()));
        let start = self.open();
        match fit::write(column.kind, value, &mut self.out) {
            Ok(true) => self.close(start),
            Ok(false) => self.null(start),
            Err(why) => {
                self.null(start);
                self.problem(&column.name, why);
            }
        }
    }

    fn time(&mut self, milliseconds: i64) {
        let known = Some(milliseconds).filter(|milliseconds| *milliseconds != 0);
        match known.and_then(fit::milliseconds) {
            Some(micros) => self.bytes(&micros.to_be_bytes()),
            None => self.out.extend_from_slice(&NULL),
        }
    }

    fn problem(&mut self, name: &str, why: &str) {
        self.problems.push(format!("{name}: {why}"));
    }

    /// An array of text of one dimension, that counts from 1.
    fn problems(&mut self) {
        if self.problems.is_empty() {
            self.out.extend_from_slice(&NULL);
            return;
        }
        let start = self.open();
        for number in [1, 0] {
            self.out.extend_from_slice(&i32::to_be_bytes(number));
        }
        self.out.extend_from_slice(&TEXT_OID.to_be_bytes());
        self.out.extend_from_slice(&length(self.problems.len()));
        self.out.extend_from_slice(&1_i32.to_be_bytes());
        for problem in std::mem::take(&mut self.problems) {
            self.bytes(problem.as_bytes());
        }
        self.close(start);
    }

    /// Leaves room for a length, to be told when the value is there.
    fn open(&mut self) -> usize {
        self.out.extend_from_slice(&NULL);
        self.out.len() - NULL.len()
    }

    fn close(&mut self, start: usize) {
        let bytes = length(self.out.len() - start - NULL.len());
        self.out[start..start + bytes.len()].copy_from_slice(&bytes);
    }

    fn null(&mut self, start: usize) {
        self.out.truncate(start + NULL.len());
    }
}

/// The name of a change's collection.
pub(super) fn collection<'a>(batch: &'a ChangeBatch, change: &Change) -> Result<&'a str> {
    let index = usize::try_from(change.collection).ok();
    let name = index.and_then(|index| batch.collections.get(index));
    name.map(String::as_str).ok_or_else(|| corrupt("a change without its collection"))
}

/// The key as the table compares it: in the order of keys, and never too long
/// for an index. A cut key is longer than any that is not.
fn compared(key: &Bytes) -> Bytes {
    if key.len() <= KEY_BYTES_MAX {
        return key.clone();
    }
    let mut cut = key[..=KEY_BYTES_MAX - HASH_BYTES].to_vec();
    cut.extend_from_slice(blake3::hash(key).as_bytes());
    cut.into()
}

fn decoded(row: Row<'_>) -> Result<Option<Value>> {
    if row.change.document.is_empty() {
        return Ok(None);
    }
    let dictionary = dictionary_of(&row.batch.batch, row.change.dictionary)?;
    let value = document::decode(dictionary, &row.change.document);
    value.map(Some).map_err(|error| corrupt("a document").because(error))
}

/// The dictionary that a document of `batch` names by its place.
pub(super) fn dictionary_of(batch: &ChangeBatch, index: u32) -> Result<&Bytes> {
    let dictionary = usize::try_from(index).ok().and_then(|index| batch.dictionaries.get(index));
    dictionary.ok_or_else(|| corrupt("a document without its dictionary"))
}

fn length(bytes: usize) -> [u8; 4] {
    let length = i32::try_from(bytes).expect("a document and its names are bounded far below");
    length.to_be_bytes()
}

fn whole(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| corrupt("a sequence beyond 2^63"))
}

pub(super) fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{what} does not decode for the postgres sink"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_are_cut_and_stay_apart() {
        let key = |last: u8| Bytes::from([vec![7; 5000], vec![last]].concat());
        let (one, two) = (compared(&key(1)), compared(&key(2)));
        assert_eq!((one.len(), two.len()), (2001, 2001));
        assert_ne!(one, two);
        let short = Bytes::from(vec![7; 2000]);
        assert_eq!(compared(&short), short);
    }
}
