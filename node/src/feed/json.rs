//! A change as one JSON text, for those who ask for it.

use std::io::Write as _;

use tidegate_proto::v1::{Change, ChangeBatch, Operation, Rewound};
use tidegate_proto::{Epoch, Key, Sequence, Told, document};

use crate::error::{Error, ErrorKind, Result};

/// Where a change is from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    pub(super) export: &'a str,
    pub(super) shard: &'a str,
    pub(super) epoch: Epoch,
    pub(super) first: Sequence,
    /// The loss of a spool that the change follows.
    pub(super) rewound: Option<Rewound>,
}

/// One line without its end: envelope first, then key and documents.
pub(super) fn change(origin: &Origin<'_>, batch: &ChangeBatch, at: usize) -> Result<Vec<u8>> {
    let change = &batch.changes[at];
    let mut out = Vec::with_capacity(256 + change.document.len() * 2);
    out.extend_from_slice(b"{\"export\":");
    string(origin.export, &mut out);
    out.extend_from_slice(b",\"shard\":");
    string(origin.shard, &mut out);
    let sequence = origin.first.plus(at as u64);
    write(&mut out, format_args!(",\"epoch\":{},\"sequence\":{sequence}", origin.epoch));
    write(&mut out, format_args!(",\"operation\":\"{}\"", name(change.operation())));
    if let Some(Rewound { after, upto }) = origin.rewound {
        write(&mut out, format_args!(",\"rewound\":{{\"after\":{after},\"upto\":{upto}}}"));
    }
    out.extend_from_slice(b",\"collection\":");
    string(batch.collections.get(change.collection as usize).map_or("", |it| it), &mut out);
    out.extend_from_slice(b",\"key\":");
    Key::from_bytes(change.key.clone()).write_json(&mut out).map_err(damaged)?;
    if !change.document.is_empty() {
        out.extend_from_slice(b",\"document\":");
        document_of(batch, change.dictionary, &change.document, &mut out)?;
    }
    if !change.before.is_empty() {
        out.extend_from_slice(b",\"before\":");
        document_of(batch, change.before_dictionary, &change.before, &mut out)?;
    }
    told(&mut out, Told::of(change));
    times(&mut out, batch, change, at);
    out.push(b'}');
    Ok(out)
}

/// The operation's name, as in the CLI and in sinks.
fn name(operation: Operation) -> &'static str {
    match operation {
        Operation::Unspecified => "unspecified",
        Operation::Insert => "insert",
        Operation::Update => "update",
        Operation::Delete => "delete",
        Operation::Snapshot => "snapshot",
        Operation::Upsert => "upsert",
        Operation::Gap => "gap",
    }
}

fn told(out: &mut Vec<u8>, told: Told) {
    if let Some(novelty) = told.word() {
        write(out, format_args!(",\"novelty\":\"{novelty}\""));
    }
    if told.previous > Sequence(0) {
        write(out, format_args!(",\"previous\":{}", told.previous));
    }
}

fn times(out: &mut Vec<u8>, batch: &ChangeBatch, change: &Change, at: usize) {
    let clock = batch.clock + at as u64;
    write(out, format_args!(",\"captured_ms\":{},\"clock\":{clock}", batch.captured_ms));
    if change.committed_ms != 0 {
        write(out, format_args!(",\"committed_ms\":{}", change.committed_ms));
    }
}

fn document_of(
    batch: &ChangeBatch,
    dictionary: u32,
    value: &[u8],
    out: &mut Vec<u8>,
) -> Result<()> {
    let dictionary = batch.dictionaries.get(dictionary as usize);
    let dictionary =
        dictionary.ok_or_else(|| damaged("it names a dictionary that is not there"))?;
    document::write_json(dictionary, value, out).map_err(damaged)
}

fn string(text: &str, out: &mut Vec<u8>) {
    // Writing a string to memory cannot fail.
    drop(serde_json::to_writer(out, text));
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Nor can this.
    drop(out.write_fmt(text));
}

fn damaged(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("a spooled change does not decode: {why}"))
}
