//! What lies in the sinks, at rest, against what the feed brought and the sources
//! made.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tidegate_node::sources::datagen::ExpectedChange;
use tidegate_proto::{Key, content_hash, document};

use super::bank::{Account, Totals};
use super::generated::Generated;
use super::items::Versions;
use crate::Outcome;
use crate::lake::{latest, select};
use crate::postgres::Postgres;

/// Every change in a lake, in order, with what is said of its content.
const EVERY_CHANGE: &str = "SELECT shard, sequence, operation, hex(key_bytes), \
                            hex(content_hash) FROM lake ORDER BY shard, sequence";

/// A change as a line of the `jsonl` sink has it, or a row that has the same fields.
#[derive(Clone, Debug)]
pub struct JsonChange {
    /// Its shard.
    pub shard: String,
    /// The owner that captured it.
    pub epoch: u64,
    /// Its place.
    pub sequence: u64,
    /// The whole line.
    pub line: Value,
}

/// Calls `each` for every change in the files of an export, shard by shard, in
/// order. A hole is right where a shard `begins_anew`, at its name and that
/// sequence. Returns the last sequence of each shard.
///
/// # Errors
///
/// If sequences do not tile, an epoch falls, or `each` fails.
pub fn jsonl(
    folder: &Path,
    begins_anew: impl Fn(&str, u64) -> bool,
    mut each: impl FnMut(&JsonChange) -> Outcome<()>,
) -> Outcome<BTreeMap<String, u64>> {
    let mut last = BTreeMap::new();
    for (position, stem) in positions(folder)? {
        let newest = position["file"].as_str().unwrap_or_default().to_owned();
        let bytes = position["bytes"].as_u64().unwrap_or(0);
        let mut at = (0, 0);
        for (_, path) in files(folder, &stem)? {
            let is_newest = path.file_name().is_some_and(|name| name == newest.as_str());
            let file = std::fs::File::open(&path)?;
            let counts = BufReader::new(file.take(if is_newest { bytes } else { u64::MAX }));
            for line in counts.lines() {
                let change = parse(&line?)?;
                let anew = begins_anew(&change.shard, change.sequence);
                at =
                    change.follows(at, anew).map_err(|why| format!("{}: {why}", path.display()))?;
                each(&change)?;
                last.insert(change.shard.clone(), change.sequence);
            }
        }
        let held = position["sequence"].as_u64().unwrap_or(0);
        if at.0 != held {
            return Err(format!("{stem}: lines end at {}, the position says {held}", at.0).into());
        }
    }
    Ok(last)
}

/// As [`jsonl`], for the table of an export in a database to which the postgres sink
/// appends: what is beyond its checkpoint row, or missing before it, is an error too.
///
/// # Errors
///
/// As [`jsonl`].
pub fn table(
    server: &Postgres,
    export: &str,
    begins_anew: impl Fn(&str, u64) -> bool,
    mut each: impl FnMut(&JsonChange) -> Outcome<()>,
) -> Outcome<BTreeMap<String, u64>> {
    let mut last = BTreeMap::new();
    let checkpoints =
        format!("SELECT id, sequence, shard FROM tidegate_checkpoint WHERE export = '{export}'");
    for row in server.try_query(&checkpoints)?.lines() {
        let mut columns = row.splitn(3, '|');
        let mut column = || columns.next().ok_or("a checkpoint row with less columns");
        let (id, held, shard) = (column()?, column()?.parse::<u64>()?, column()?);
        let changes = format!(
            "SELECT json_build_object('shard', '{shard}', 'epoch', tidegate_epoch, \
             'sequence', tidegate_sequence, 'operation', tidegate_operation, 'key', key, \
             'document', document) FROM {export} WHERE tidegate_shard = {id} \
             ORDER BY tidegate_sequence"
        );
        let mut at = (0, 0);
        for line in server.try_query(&changes)?.lines() {
            let change = parse(line)?;
            let anew = begins_anew(shard, change.sequence);
            at = change
                .follows(at, anew)
                .map_err(|why| format!("table {export}: {shard}: {why}"))?;
            each(&change)?;
        }
        if at.0 != held {
            let end = at.0;
            return Err(format!("{shard}: rows end at {end}, the checkpoint says {held}").into());
        }
        last.insert(shard.to_owned(), held);
    }
    Ok(last)
}

/// How far the postgres sink's checkpoint rows are, by shard of an export.
///
/// # Errors
///
/// If the database does not answer.
pub fn table_checkpoints(server: &Postgres, export: &str) -> Outcome<BTreeMap<String, u64>> {
    let all = format!("SELECT sequence, shard FROM tidegate_checkpoint WHERE export = '{export}'");
    let rows = server.try_query(&all)?;
    let row = |line: &str| {
        let (sequence, shard) = line.split_once('|').ok_or("a checkpoint row with less columns")?;
        Ok((shard.to_owned(), sequence.parse()?))
    };
    rows.lines().map(row).collect()
}

impl JsonChange {
    /// Its sequence and epoch, if it may stand behind these.
    fn follows(&self, (sequence, epoch): (u64, u64), anew: bool) -> Result<(u64, u64), String> {
        let own = (self.sequence, self.epoch);
        let next = own.0 == sequence + 1 || anew && own.0 > sequence;
        if !next || own.1 < epoch {
            return Err(format!("{} of epoch {} follows {sequence} of {epoch}", own.0, own.1));
        }
        Ok(own)
    }

    /// Fails unless it is what the generator makes.
    ///
    /// # Errors
    ///
    /// Says which change is not.
    pub fn check(&self, expected: &ExpectedChange) -> Outcome<()> {
        let document = match &expected.document {
            None => Value::Null,
            Some(encoded) => {
                let mut text = Vec::new();
                document::write_json(&encoded.dictionary, &encoded.value, &mut text)?;
                serde_json::from_slice(&text)?
            }
        };
        let mut key = Vec::new();
        Key::from_bytes(expected.key.clone().into()).write_json(&mut key)?;
        let operation = expected.operation.as_str_name().to_lowercase();
        let same = self.line["document"] == document
            && self.line["key"] == serde_json::from_slice::<Value>(&key)?
            && operation == format!("operation_{}", self.line["operation"].as_str().unwrap_or(""));
        if same {
            return Ok(());
        }
        Err(format!("{} sequence {} is not what was made", self.shard, self.sequence).into())
    }
}

/// Fails unless every change in a lake is the generator's and they tile. Returns
/// the last sequence of each shard.
///
/// # Errors
///
/// Says which change is missing, too many or another.
pub fn generated_in_lake(
    root: &Path,
    export: &str,
    generated: &Generated,
) -> Outcome<BTreeMap<String, u64>> {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for row in select(root, export, EVERY_CHANGE)? {
        let text = |at: usize| row[at].as_str().unwrap_or_default();
        let (shard, sequence) = (text(0), row[1].as_u64().unwrap_or(0));
        let before = last.get(shard).copied().unwrap_or(0);
        if sequence != before + 1 && !generated.begins_anew(shard, sequence) {
            return Err(format!("lake: {shard}: sequence {sequence} follows {before}").into());
        }
        let expected = generated.expected(shard, sequence)?;
        let hash = expected.document.as_ref();
        let hash = hash.map(|it| hex(&content_hash(&it.dictionary, &it.value)));
        let operation = expected.operation.as_str_name().to_lowercase();
        let same = operation == format!("operation_{}", text(2))
            && text(3) == hex(&expected.key)
            && hash.as_deref() == row[4].as_str();
        if !same {
            return Err(format!("lake: {shard} sequence {sequence} is not what was made").into());
        }
        last.insert(shard.to_owned(), sequence);
    }
    Ok(last)
}

/// The accounts as a lake has them.
///
/// # Errors
///
/// If a document is no account.
///
/// # Panics
///
/// If the lake is not what its manifests claim.
pub fn bank_in_lake(root: &Path, export: &str) -> Outcome<Totals> {
    let mut accounts = Totals::new();
    for (key, document) in latest(root, export) {
        let account = Account::read(&document).ok_or("a document in the lake is no account")?;
        accounts.insert(serde_json::from_str(&key)?, account);
    }
    Ok(accounts)
}

/// The items as a lake has them.
///
/// # Errors
///
/// If a document is no item.
///
/// # Panics
///
/// As [`bank_in_lake`].
pub fn items_in_lake(root: &Path, export: &str) -> Outcome<Versions> {
    let version = |(key, document): (String, Value)| {
        let version = document["version"].as_u64().ok_or("a document in the lake is no item")?;
        Ok((key, version))
    };
    latest(root, export).into_iter().map(version).collect()
}

/// Every position file of a folder, with the stem of the files it is about.
fn positions(folder: &Path) -> Outcome<Vec<(Value, String)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(stem) = name.strip_suffix(".position.json") {
            found.push((serde_json::from_slice(&std::fs::read(&path)?)?, stem.to_owned()));
        }
    }
    Ok(found)
}

/// A shard's files by their first sequence.
fn files(folder: &Path, stem: &str) -> Outcome<BTreeMap<u64, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let rest = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('-'));
        let rest = rest.and_then(|rest| rest.strip_suffix(".jsonl")?.split_once('-'));
        let numbers =
            rest.and_then(|(epoch, from)| epoch.parse::<u64>().ok().zip(from.parse().ok()));
        if let Some((_, from)) = numbers
            && found.insert(from, path).is_some()
        {
            return Err(format!("{stem}: two files begin at {from}").into());
        }
    }
    Ok(found)
}

fn parse(line: &str) -> Outcome<JsonChange> {
    let line: Value = serde_json::from_str(line)?;
    let number = |name: &str| line[name].as_u64().ok_or_else(|| format!("a line without {name}"));
    let (epoch, sequence) = (number("epoch")?, number("sequence")?);
    let shard = line["shard"].as_str().ok_or("a line without shard")?.to_owned();
    Ok(JsonChange { shard, epoch, sequence, line })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, file: &str, sequences: &[u64]) {
        let line = |at: &u64| format!("{{\"shard\":\"s\",\"epoch\":1,\"sequence\":{at}}}\n");
        let text: String = sequences.iter().map(line).collect();
        std::fs::write(folder.join(file), text).unwrap();
    }

    fn read(folder: &Path, sequence: u64) -> Result<BTreeMap<String, u64>, String> {
        let newest = "e-s-1-3.jsonl";
        let bytes = std::fs::metadata(folder.join(newest)).unwrap().len();
        let position = format!(r#"{{"file":"{newest}","bytes":{bytes},"sequence":{sequence}}}"#);
        std::fs::write(folder.join("e-s.position.json"), position).unwrap();
        jsonl(folder, |_, _| false, |_| Ok(())).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_that_tile_pass_and_others_are_found() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "e-s-1-1.jsonl", &[1, 2]);
        write(folder.path(), "e-s-1-3.jsonl", &[3, 4]);
        assert_eq!(read(folder.path(), 4).unwrap()["s"], 4);
        assert!(read(folder.path(), 5).unwrap_err().contains("lines end at 4"));
        write(folder.path(), "e-s-1-3.jsonl", &[2, 3]);
        assert!(read(folder.path(), 3).unwrap_err().contains("2 of epoch 1 follows 2"));
    }
}
