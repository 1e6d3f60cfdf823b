//! A change as one line of JSON.

use std::io::Write as _;

use bytes::Bytes;
use tidegate_proto::v1::Change;
use tidegate_proto::{Key, Sequence, Told, document};

use crate::error::{Error, ErrorKind, Result};
use crate::sinks::lake::operation_name;
use crate::sinks::{SinkBatch, SinkShard};

/// Puts the line of `change`, with its newline, behind what is in `out`.
pub(super) fn write(
    shard: &SinkShard,
    batch: &SinkBatch,
    change: &Change,
    sequence: u64,
    out: &mut Vec<u8>,
) -> Result<()> {
    let decoded = &batch.batch;
    let collection = usize::try_from(change.collection).ok();
    let collection = collection.and_then(|index| decoded.collections.get(index));
    let collection = collection.ok_or_else(|| corrupt("a change without its collection"))?;
    let operation = operation_name(change.operation())?;
    let epoch = batch.frame.epoch();
    write!(
        out,
        r#"{{"export":{},"shard":{},"epoch":{epoch},"sequence":{sequence},"operation":"{operation}","collection":{},"key":"#,
        quoted(&shard.export)?,
        quoted(&shard.shard)?,
        quoted(collection)?,
    )
    .map_err(|error| corrupt("write a line").because(error))?;
    Key::from_bytes(change.key.clone()).write_json(out).map_err(|_| corrupt("a key"))?;
    let both = [
        (&b",\"document\":"[..], change.dictionary, &change.document),
        (b",\"before\":", change.before_dictionary, &change.before),
    ];
    for (label, dictionary, value) in both {
        out.extend_from_slice(label);
        write_document(&decoded.dictionaries, dictionary, value, out)?;
    }
    let told = Told::of(change);
    let novelty = told.word().map_or("null".to_owned(), |word| format!("\"{word}\""));
    let previous = match told.previous {
        Sequence(0) => "null".to_owned(),
        previous => previous.to_string(),
    };
    write!(out, r#","novelty":{novelty},"previous":{previous}"#)
        .map_err(|error| corrupt("write a line").because(error))?;
    // The clock is that of the frame's first change, wherever `batch` begins.
    let clock = decoded.clock + (sequence - batch.frame.first().0);
    let (committed, captured) = (change.committed_ms, decoded.captured_ms);
    let committed = if committed == 0 { "null".to_owned() } else { committed.to_string() };
    writeln!(out, r#","committed_ms":{committed},"captured_ms":{captured},"clock":{clock}}}"#)
        .map_err(|error| corrupt("write a line").because(error))
}

fn write_document(
    dictionaries: &[Bytes],
    dictionary: u32,
    value: &[u8],
    out: &mut Vec<u8>,
) -> Result<()> {
    if value.is_empty() {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    let metadata = usize::try_from(dictionary).ok().and_then(|index| dictionaries.get(index));
    let metadata = metadata.ok_or_else(|| corrupt("a document without its dictionary"))?;
    document::write_json(metadata, value, out).map_err(|error| corrupt("a document").because(error))
}

fn quoted(text: &str) -> Result<String> {
    serde_json::to_string(text).map_err(|error| corrupt("a name").because(error))
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{what} does not decode for the jsonl sink"))
}
