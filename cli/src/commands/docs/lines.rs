//! JSON lines as batches of writes.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::BufRead;

use serde_json::{Map, Value};
use tidegate_proto::v1::DocumentWrite;
use tidegate_proto::v1::document_write::Kind;

use crate::failure::{Failure, Result};

/// A batch is closed at so many documents or bytes.
const BATCH_DOCUMENTS: usize = 1000;
const BATCH_BYTES: usize = 256 << 10;
/// The store takes no larger write.
const LINE_BYTES_MAX: usize = 15 << 20;

/// Writes on their way, with their size.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) writes: Vec<DocumentWrite>,
    pub(super) bytes: usize,
}

/// Cuts lines into batches, for several lanes: all lines of a key go by the
/// same lane, in order.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    pub(super) collection: &'a str,
    /// Field that is the key.
    pub(super) key: &'a str,
    pub(super) lanes: usize,
}

impl Lines<'_> {
    /// Hands batches to `send(lane, batch)` until the input ends, `send` says
    /// `false`, or a line is not as it should be.
    pub(super) fn cut(
        &self,
        mut input: impl BufRead,
        mut send: impl FnMut(usize, Batch) -> bool,
    ) -> Result<()> {
        let mut batches: Vec<_> = (0..self.lanes).map(|_| Batch::default()).collect();
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            let mut bounded = std::io::Read::take(&mut input, LINE_BYTES_MAX as u64 + 1);
            let read = bounded.read_until(b'\n', &mut line);
            let read = read.map_err(|error| at(number, &format!("cannot be read: {error}")))?;
            if read == 0 {
                break;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let write = self.write(&line).map_err(|why| at(number, &why))?;
            let lane = self.lane(&write.key);
            let batch = &mut batches[lane];
            batch.bytes += line.len();
            batch.writes.push(write);
            let full = batch.bytes >= BATCH_BYTES || batch.writes.len() >= BATCH_DOCUMENTS;
            if full && !send(lane, std::mem::take(batch)) {
                return Ok(());
            }
        }
        for (lane, batch) in batches.into_iter().enumerate() {
            if !batch.writes.is_empty() && !send(lane, batch) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The store keeps numbers exactly, so it gets the text as it stands.
    fn write(&self, line: &[u8]) -> Result<DocumentWrite, String> {
        let line = line.trim_ascii();
        if line.len() > LINE_BYTES_MAX {
            return Err("is longer than 15 MiB, the largest document; split it".to_owned());
        }
        let object: Map<String, Value> = serde_json::from_slice(line).map_err(|error| {
            let column = error.column();
            format!("is not a JSON object (column {column}); every line is one object, whole")
        })?;
        let key = match object.get(self.key) {
            Some(Value::String(text)) if !text.is_empty() => text.clone(),
            Some(Value::Number(number)) if !number.is_f64() => number.to_string(),
            Some(_) => {
                return Err(format!(
                    "has a field \"{}\" that is neither text nor a whole number",
                    self.key
                ));
            }
            None => return Err(format!("has no field \"{}\"; choose another --key", self.key)),
        };
        let kind = Some(Kind::Json(line.to_vec().into()));
        Ok(DocumentWrite { collection: self.collection.to_owned(), key, kind, if_revision: None })
    }

    fn lane(&self, key: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let lanes = self.lanes as u64;
        usize::try_from(hasher.finish() % lanes).unwrap_or(0)
    }
}

fn at(number: u64, why: &str) -> Failure {
    Failure::failed(format!("line {number} {why}"))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn json(write: &DocumentWrite) -> &[u8] {
        match &write.kind {
            Some(Kind::Json(json)) => json,
            other => panic!("writes are JSON, not {other:?}"),
        }
    }

    fn lines(lanes: usize) -> Lines<'static> {
        Lines { collection: "items", key: "id", lanes }
    }

    fn cut(lanes: usize, text: &str) -> Result<Vec<(usize, Batch)>> {
        let mut batches = Vec::new();
        lines(lanes).cut(text.as_bytes(), |lane, batch| {
            batches.push((lane, batch));
            true
        })?;
        Ok(batches)
    }

    #[test]
    fn a_key_keeps_to_its_lane_and_its_order() {
        let text: String =
            (0..500).map(|n| format!("{{\"id\":\"k{}\",\"n\":{n}}}\n", n % 7)).collect();
        let mut lane_of = BTreeMap::new();
        let mut seen = BTreeMap::<String, Vec<u64>>::new();
        let batches = cut(4, &text).unwrap();
        let lanes = batches
            .into_iter()
            .flat_map(|(lane, it)| it.writes.into_iter().map(move |it| (lane, it)));
        for (lane, write) in lanes {
            let value: Value = serde_json::from_slice(json(&write)).unwrap();
            assert_eq!(*lane_of.entry(write.key.clone()).or_insert(lane), lane);
            seen.entry(write.key).or_default().push(value["n"].as_u64().unwrap());
        }
        assert!(lane_of.values().collect::<BTreeSet<_>>().len() > 1, "{lane_of:?}");
        assert_eq!(seen.values().map(Vec::len).sum::<usize>(), 500);
        assert!(seen.values().all(|numbers| numbers.is_sorted()), "{seen:?}");
    }

    #[test]
    fn batches_are_closed_by_count_and_by_bytes() {
        let small: String = (0..2500).map(|n| format!("{{\"id\":{n}}}\n")).collect();
        let sizes: Vec<_> = cut(1, &small).unwrap().iter().map(|it| it.1.writes.len()).collect();
        assert_eq!(sizes, [1000, 1000, 500]);
        let pad = "x".repeat(100 << 10);
        let large: String = (0..6).map(|n| format!("{{\"id\":{n},\"p\":\"{pad}\"}}\n")).collect();
        let sizes: Vec<_> = cut(1, &large).unwrap().iter().map(|it| it.1.writes.len()).collect();
        assert_eq!(sizes, [3, 3]);
    }

    #[test]
    fn a_bad_line_is_named_by_number_and_not_quoted() {
        let failure = cut(2, "{\"id\":1}\n\n{\"id\": s3cret}\n").unwrap_err().to_string();
        assert!(failure.starts_with("line 3 ") && !failure.contains("s3cret"), "{failure}");
        let failure = cut(2, "{\"name\":1}\n").unwrap_err().to_string();
        assert!(failure.contains("line 1 has no field \"id\""), "{failure}");
        assert!(cut(2, "[1]").is_err() && cut(2, "{\"id\":1.5}").is_err());
    }

    #[test]
    fn the_text_of_a_document_is_kept() {
        let batches = cut(1, "{\"id\":7,\"n\":1234567890123456789012345678.50}\n").unwrap();
        let write = &batches[0].1.writes[0];
        assert_eq!(write.key, "7");
        assert!(json(write).ends_with(b"1234567890123456789012345678.50}"));
    }

    #[test]
    fn cutting_ends_when_nobody_takes_batches() {
        let text: String = (0..5000).map(|n| format!("{{\"id\":{n}}}\n")).collect();
        let mut taken = 0;
        lines(1)
            .cut(text.as_bytes(), |_, _| {
                taken += 1;
                false
            })
            .unwrap();
        assert_eq!(taken, 1);
    }
}
