//! What a reader of the lake goes by: one small JSON file per commit or fence.

use std::collections::BTreeMap;

use prost::Message as _;
use serde::{Deserialize, Serialize};
use tidegate_proto::Sequence;
use tidegate_proto::v1::Progress;

use crate::error::{Error, ErrorKind, Result};
use crate::sinks::{Committed, SinkShard};

/// Against what another export of the name has delivered.
pub(super) const REMEDY: &str =
    "To begin anew, take the export's folder away, or give the sink another `path`";

/// The format this node writes, and the newest it reads.
pub(super) const FORMAT: u32 = 1;

/// One link of a shard's chain; `number` is its place in it, dense from 1.
///
/// Ranges hold both ends. A fence repeats what the link before it said is
/// committed, so the last link always tells the whole state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// [`FORMAT`].
    pub(super) format: u32,
    /// What it does.
    pub(super) kind: Kind,
    /// Its place in the chain; also its name.
    pub(super) number: u64,
    /// The export's name, as the operator wrote it.
    pub(super) export: String,
    /// Of that export, see [`SinkShard::uid`]; empty in manifests of before there were any.
    #[serde(default)]
    pub(super) uid: String,
    /// The shard's name, as the source tells it.
    pub(super) shard: String,
    /// Of the writer. Never falls along a chain, among links of one `uid`.
    pub(super) epoch: u64,
    /// The first sequence it adds; `to + 1` in a fence, which adds none.
    pub(super) from: u64,
    /// The last sequence the lake has with it.
    pub(super) to: u64,
    /// Sequences right before `from` that no file has: a recorded loss.
    pub(super) skipped: Option<Skipped>,
    /// Changes of the shard in the lake with it, over all epochs.
    pub(super) records: u64,
    /// The shard's whole progress at `to`: protobuf in hexadecimal. Absent
    /// until the first commit.
    pub(super) progress: Option<String>,
    /// Changes it adds, by operation.
    pub(super) operations: BTreeMap<String, u64>,
    /// The files it adds, by collection.
    pub(super) files: Vec<DataFile>,
    /// blake3 of the manifest before it, as stored; absent in the first.
    pub(super) previous: Option<String>,
}

/// What a manifest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// Adds files.
    Commit,
    /// Shuts out the epochs below its own.
    Fence,
}

/// A stretch of sequences that was lost before it reached the lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Skipped {
    /// The first of them.
    pub(super) from: u64,
    /// The last of them.
    pub(super) to: u64,
}

/// A data file, written in full before the manifest that names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DataFile {
    /// Relative to the lake's root.
    pub(super) path: String,
    /// The collection's name, as the source tells it.
    pub(super) collection: String,
    /// Changes in it.
    pub(super) rows: u64,
    /// Its size.
    pub(super) bytes: u64,
    /// Of its bytes, in hexadecimal.
    pub(super) blake3: String,
    /// The sequence of its first change.
    pub(super) from: u64,
    /// The sequence of its last change.
    pub(super) to: u64,
}

impl Manifest {
    /// The bytes to store: the same for equal manifests.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::new(ErrorKind::Corrupt, "encode a manifest").because(error))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads link `number` of `shard`'s chain.
    pub(super) fn decode(bytes: &[u8], shard: &SinkShard, number: u64) -> Result<Self> {
        let corrupt = |why: &str| {
            let what = format!("manifest {number} of shard {} in the lake {why}", shard.shard);
            Error::new(ErrorKind::Corrupt, what)
        };
        let version: Version = serde_json::from_slice(bytes)
            .map_err(|error| corrupt("is not a manifest; restore it").because(error))?;
        if version.format > FORMAT {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "manifest {number} of shard {} has format {}, this node reads up to {FORMAT}; \
                     upgrade the node",
                    shard.shard, version.format
                ),
            ));
        }
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| corrupt("does not decode; restore it").because(error))?;
        let own = manifest.number == number
            && manifest.export == shard.export
            && manifest.shard == shard.shard;
        if !own {
            return Err(corrupt("belongs to another place; give each export a path of its own"));
        }
        Ok(manifest)
    }

    /// See [`SinkShard::owns`].
    pub(super) fn is_of(&self, shard: &SinkShard) -> Result<bool> {
        shard.owns((&self.uid, Sequence(self.to)), "the lake", REMEDY)
    }

    /// What the target has with it; `None` before the first commit.
    pub(super) fn committed(&self) -> Result<Option<Committed>> {
        let Some(progress) = &self.progress else { return Ok(None) };
        let progress = from_hex(progress)
            .and_then(|bytes| Progress::decode(&bytes[..]).ok())
            .ok_or_else(|| {
                let what = format!("progress in manifest {} does not decode", self.number);
                Error::new(ErrorKind::Corrupt, what)
            })?;
        Ok(Some(Committed { sequence: Sequence(self.to), progress, records: self.records }))
    }
}

/// All versions have this much in common.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// `progress` as a manifest holds it.
pub(super) fn progress_hex(progress: &Progress) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    let bytes = progress.encode_to_vec();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let byte = |pair: &[u8]| match pair {
        [high, low] => {
            let (high, low) = (char::from(*high).to_digit(16)?, char::from(*low).to_digit(16)?);
            u8::try_from(high << 4 | low).ok()
        }
        _ => None,
    };
    text.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_proto::Epoch;

    use super::*;

    fn shard() -> SinkShard {
        let [export, uid, shard, sink] = ["orders", "c/1", "0", "lake"].map(str::to_owned);
        SinkShard { export, uid, shard, sink, epoch: Epoch(3) }
    }

    fn fence() -> Manifest {
        Manifest {
            format: FORMAT,
            kind: Kind::Fence,
            number: 7,
            export: "orders".into(),
            uid: "c/1".into(),
            shard: "0".into(),
            epoch: 3,
            from: 11,
            to: 10,
            skipped: None,
            records: 10,
            progress: Some(progress_hex(&Progress {
                stream: "p\u{0}".into(),
                ..Progress::default()
            })),
            operations: BTreeMap::new(),
            files: Vec::new(),
            previous: Some("ab".into()),
        }
    }

    #[test]
    fn a_manifest_comes_back_as_it_was_with_its_progress() {
        let bytes = fence().encode().unwrap();
        let back = Manifest::decode(&bytes, &shard(), 7).unwrap();
        assert_eq!(back, fence());
        let committed = back.committed().unwrap().unwrap();
        assert_eq!((committed.sequence, committed.records), (Sequence(10), 10));
        assert_eq!(&committed.progress.stream[..], b"p\0");
    }

    fn any_file() -> impl Strategy<Value = DataFile> {
        (".{0,9}", ".{0,9}", "[0-9a-f]{0,8}", any::<[u64; 4]>()).prop_map(
            |(path, collection, blake3, [rows, bytes, from, to])| DataFile {
                path,
                collection,
                rows,
                bytes,
                blake3,
                from,
                to,
            },
        )
    }

    fn any_manifest() -> impl Strategy<Value = Manifest> {
        let files = proptest::collection::vec(any_file(), 0..4);
        let operations = proptest::collection::btree_map(".{0,9}", any::<u64>(), 0..4);
        let skipped = proptest::option::of(any::<(u64, u64)>());
        let progress = proptest::option::of(any::<Vec<u8>>());
        (files, operations, skipped, progress, any::<[u64; 5]>(), any::<Option<String>>()).prop_map(
            |(files, operations, skipped, stream, [number, epoch, from, to, records], previous)| {
                let of =
                    |stream: Vec<u8>| Progress { stream: stream.into(), ..Progress::default() };
                let kind = if files.is_empty() { Kind::Fence } else { Kind::Commit };
                let skipped = skipped.map(|(from, to)| Skipped { from, to });
                let progress = stream.map(|stream| progress_hex(&of(stream)));
                let numbered = Manifest { number, epoch, from, to, records, ..fence() };
                Manifest { kind, skipped, progress, operations, files, previous, ..numbered }
            },
        )
    }

    proptest! {
        #[test]
        fn any_manifest_comes_back(manifest in any_manifest()) {
            let bytes = manifest.encode().unwrap();
            let back = Manifest::decode(&bytes, &shard(), manifest.number).unwrap();
            prop_assert_eq!(&back, &manifest);
            let committed = back.committed().unwrap();
            prop_assert_eq!(committed.map(|it| progress_hex(&it.progress)), manifest.progress);
        }

        #[test]
        fn a_damaged_manifest_is_refused_or_another(
            manifest in any_manifest(),
            at: proptest::sample::Index,
            byte: u8,
        ) {
            let mut bytes = manifest.encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            // The outcome does not matter; coming back does.
            if let Ok(read) = Manifest::decode(&bytes, &shard(), manifest.number) {
                drop(read.committed());
            }
            drop(Manifest::decode(&bytes[at..], &shard(), manifest.number));
        }

        #[test]
        fn hexadecimal_is_read_or_refused(text in "[0-9a-fA-F+ é]{0,8}") {
            let manifest = Manifest { progress: Some(text.clone()), ..fence() };
            let even = text.len() % 2 == 0 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            prop_assert!(even || manifest.committed().is_err());
        }
    }

    #[test]
    fn what_is_not_this_shards_manifest_is_refused() {
        let bytes = fence().encode().unwrap();
        let refused = |bytes: &[u8], number| Manifest::decode(bytes, &shard(), number).unwrap_err();
        assert_eq!(refused(&bytes, 8).kind(), ErrorKind::Corrupt);
        assert_eq!(refused(&bytes[..bytes.len() / 2], 7).kind(), ErrorKind::Corrupt);
        let newer = String::from_utf8(bytes).unwrap().replace("\"format\": 1", "\"format\": 2");
        let error = refused(newer.as_bytes(), 7);
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("upgrade"), "{error}");
    }

    #[test]
    fn progress_that_is_not_hexadecimal_is_refused() {
        for bad in ["0", "zz", "é0", "ff"] {
            let manifest = Manifest { progress: Some(bad.into()), ..fence() };
            assert_eq!(manifest.committed().unwrap_err().kind(), ErrorKind::Corrupt, "{bad}");
        }
    }
}
