//! The lake on a local folder: the contract, and what is its own.

mod s3;
mod shredding;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, StructArray};
use arrow::datatypes::UInt64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::variant::{VariantArray, unshred_variant};
use tidegate_proto::v1::{Operation, Rewound};
use tidegate_proto::{BatchBuilder, Draft, Epoch, Key, KeyPart, Value, document};

use super::manifest::{Kind, Manifest, Skipped};
use super::*;
use crate::config::parse;
use crate::sinks::contract::{self, Target, batch, batch_of, shard};

struct Folder(tempfile::TempDir);

#[async_trait]
impl Target for Folder {
    async fn open(&self, shard: &SinkShard) -> Result<Opened> {
        open(&self.config(), shard).await
    }

    async fn read(&self, shard: &SinkShard) -> Vec<u64> {
        let mut found = Vec::new();
        for file in self.chain(shard).iter().flat_map(|manifest| &manifest.files) {
            let bytes = std::fs::read(self.0.path().join(&file.path)).unwrap();
            assert_eq!(blake3::hash(&bytes).to_hex().as_str(), file.blake3);
            let sequences: Vec<u64> = groups(&bytes).iter().flat_map(sequences).collect();
            assert_eq!(sequences.len() as u64, file.rows);
            assert_eq!((sequences.first(), sequences.last()), (Some(&file.from), Some(&file.to)));
            found.extend(sequences);
        }
        found
    }
}

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn config(&self) -> LakeConfig {
        let path = self.0.path().to_str().unwrap().to_owned();
        parse("[[sink]]", toml::Table::from_iter([("path".to_owned(), path.into())])).unwrap()
    }

    /// All manifests, checked against each other.
    fn chain(&self, shard: &SinkShard) -> Vec<Manifest> {
        let mut chain: Vec<Manifest> = Vec::new();
        let mut previous = None;
        for number in 1.. {
            let Ok(bytes) = std::fs::read(self.0.path().join(names::manifest(shard, number)))
            else {
                break;
            };
            let manifest = Manifest::decode(&bytes, shard, number).unwrap();
            assert_eq!(manifest.previous, previous);
            let last = chain.last().filter(|last| last.uid == manifest.uid);
            let (to, epoch) = last.map_or((0, 0), |last| (last.to, last.epoch));
            let lost = manifest.skipped.map_or(0, |lost| lost.to + 1 - lost.from);
            assert_eq!(manifest.from, to + 1 + lost, "manifests tile");
            assert!(manifest.epoch >= epoch);
            previous = Some(blake3::hash(&bytes).to_hex().to_string());
            chain.push(manifest);
        }
        chain
    }
}

fn groups(bytes: &[u8]) -> Vec<arrow::array::RecordBatch> {
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::copy_from_slice(bytes)).unwrap();
    reader.build().unwrap().map(std::result::Result::unwrap).collect()
}

fn sequences(group: &arrow::array::RecordBatch) -> Vec<u64> {
    let column = group.column_by_name("sequence").unwrap();
    column.as_primitive::<UInt64Type>().values().to_vec()
}

/// Every document in a file, as JSON, whatever its columns.
fn documents(bytes: &[u8]) -> Vec<Option<String>> {
    let mut found = Vec::new();
    for group in groups(bytes) {
        let column = group.column_by_name("document").unwrap();
        let shredded: &StructArray = column.as_struct();
        let plain = unshred_variant(&VariantArray::try_new(shredded).unwrap()).unwrap();
        for row in 0..plain.len() {
            found.push(column.is_valid(row).then(|| json_of(&plain, row)));
        }
    }
    found
}

fn json_of(documents: &VariantArray, row: usize) -> String {
    let bytes = |column: &arrow::array::ArrayRef| match column.as_binary_opt::<i32>() {
        Some(binary) => binary.value(row).to_vec(),
        None => column.as_binary_view().value(row).to_vec(),
    };
    let (metadata, value) = (documents.metadata_column(), documents.value_column());
    let mut text = Vec::new();
    // Through a value, which writes numbers in the one canonical way.
    let value = document::decode(&bytes(metadata), &bytes(value)).unwrap();
    let encoded = document::encode(&value).unwrap();
    document::write_json(&encoded.dictionary, &encoded.value, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// A batch of upserts of `documents`, the first with sequence `first`.
fn batch_with(first: u64, documents: &[Option<Value>]) -> SinkBatch {
    let mut builder = BatchBuilder::default();
    for (row, value) in documents.iter().enumerate() {
        let encoded = value.as_ref().map(|value| document::encode(value).unwrap());
        let key = Key::encode(&[KeyPart::String(format!("k{row}"))]).unwrap();
        builder.push(&Draft {
            operation: if encoded.is_some() { Operation::Upsert } else { Operation::Delete },
            collection: "a b/ü#1",
            key: key.as_bytes(),
            document: encoded.as_ref().map(|encoded| (&encoded.dictionary[..], &encoded.value[..])),
            before: None,
            committed_ms: 0,
        });
    }
    batch_of(&builder, first)
}

/// Documents with a value of every type, hard ones among them.
fn hard(row: u32) -> Value {
    let text = format!(
        r#"{{"id": {row}, "most": 9223372036854775807, "least": -9223372036854775808,
             "wide": 1234567890123456789012345678901234567.8, "total": {}.{},
             "mixed": {}, "nothing": null, "on": {}, "at": {{"$timestamp": "2026-01-31T12:00:00.00000{}Z"}},
             "bytes": {{"$binary": "AAH/"}}, "double": {{"$double": "Infinity"}},
             "list": [1, "two", null, {{"three": 3.5}}],
             "address": {{"city": "Käln {row}", "zip": "5{row}", "geo": {{"lat": 50.9}}}},
             "huge": {{"$number": "1E+120"}}, "": "no name"}}"#,
        row / 3,
        row % 100,
        if row.is_multiple_of(50) { "\"text\"".to_owned() } else { row.to_string() },
        row.is_multiple_of(2),
        row % 10,
    );
    document::parse_json(text.as_bytes()).unwrap()
}

fn json(value: &Value) -> String {
    let encoded = document::encode(value).unwrap();
    let mut text = Vec::new();
    document::write_json(&encoded.dictionary, &encoded.value, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn the_lake_keeps_the_contract() {
    contract::keeps_the_contract(Folder::new).await;
}

/// Writes 3 group's worth of `hard` documents and a delete under `epoch`.
async fn written_hard(folder: &Folder, config: &LakeConfig) -> (Vec<Option<Value>>, Vec<u8>) {
    let mut values: Vec<Option<Value>> = (0..600).map(|row| Some(hard(row))).collect();
    values.push(None);
    let mut opened = open(config, &shard(1)).await.unwrap();
    for (at, some) in values.chunks(250).enumerate() {
        opened.sink.write(&batch_with(1 + 250 * at as u64, some)).await.unwrap();
    }
    opened.sink.flush().await.unwrap().unwrap();
    let chain = folder.chain(&shard(1));
    let file = &chain.last().unwrap().files[0];
    (values, std::fs::read(folder.0.path().join(&file.path)).unwrap())
}

#[tokio::test]
async fn every_value_survives_with_and_without_columns_of_its_own() {
    for shred in [true, false] {
        let folder = Folder::new();
        let mut config = folder.config();
        config.shred = shred;
        let (values, bytes) = written_hard(&folder, &config).await;
        let schema = groups(&bytes)[0].schema();
        let columns = format!("{:?}", schema.field_with_name("document").unwrap().data_type());
        assert_eq!(columns.contains("typed_value"), shred, "{columns}");
        assert_eq!(columns.contains("Decimal128(18, 2)"), shred, "{columns}");
        let wanted: Vec<_> = values.iter().map(|value| value.as_ref().map(json)).collect();
        assert_eq!(documents(&bytes), wanted);
    }
}

#[tokio::test]
async fn the_same_range_gives_the_same_bytes_however_it_was_batched() {
    let (one, other) = (Folder::new(), Folder::new());
    let (values, bytes) = written_hard(&one, &one.config()).await;
    let mut opened = open(&other.config(), &shard(1)).await.unwrap();
    for (at, value) in values.iter().enumerate() {
        let mut single = batch_with(1 + at as u64, std::slice::from_ref(value));
        // Its key and clock are those it has in the bigger batch.
        let at_in_batch = at % 250;
        let decoded = Arc::make_mut(&mut single.batch);
        decoded.clock += at_in_batch as u64;
        let key = Key::encode(&[KeyPart::String(format!("k{at_in_batch}"))]).unwrap();
        decoded.changes[0].key = key.into_bytes();
        opened.sink.write(&single).await.unwrap();
    }
    opened.sink.flush().await.unwrap();
    let manifests = |folder: &Folder| folder.chain(&shard(1)).last().unwrap().files.clone();
    assert_eq!(manifests(&one), manifests(&other));
    assert!(!bytes.is_empty());
}

#[tokio::test]
async fn a_file_of_many_row_groups_has_one_shape() {
    // The first group's rows give the columns; later ones have other types, or nothing.
    let row = |at: u64| {
        let text = match at {
            0..300 => Value::String("x".repeat(40_000)),
            300..600 => Value::Int(at.cast_signed()),
            _ => Value::Binary(vec![at.to_le_bytes()[0]; 40_000]),
        };
        (!at.is_multiple_of(7) || at < 300).then(|| Value::Object(vec![("f".to_owned(), text)]))
    };
    let folder = Folder::new();
    let mut opened = folder.open(&shard(1)).await.unwrap();
    let values: Vec<_> = (0..900).map(row).collect();
    for (at, some) in values.chunks(100).enumerate() {
        opened.sink.write(&batch_with(1 + 100 * at as u64, some)).await.unwrap();
    }
    opened.sink.flush().await.unwrap();
    let chain = folder.chain(&shard(1));
    let bytes = std::fs::read(folder.0.path().join(&chain[1].files[0].path)).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes.clone()));
    assert!(builder.unwrap().metadata().num_row_groups() > 2);
    let wanted: Vec<_> = values.iter().map(|value| value.as_ref().map(json)).collect();
    assert_eq!(documents(&bytes), wanted);
}

#[tokio::test]
async fn a_target_of_bytes_commits_by_itself() {
    let folder = Folder::new();
    let mut config = folder.config();
    config.target_file_bytes = 64 << 10;
    let mut opened = open(&config, &shard(1)).await.unwrap();
    let mut first = 1;
    let durable = loop {
        match opened.sink.write(&batch(first, first + 99)).await.unwrap() {
            Written::Accepted => first += 100,
            Written::Durable(durable) => break durable,
        }
    };
    assert_eq!(durable.upto(), Sequence(first + 99));
    assert!(first > 300, "not with every batch");
    assert_eq!(folder.read(&shard(1)).await, (1..=first + 99).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_hole_is_taken_only_as_a_recorded_loss() {
    let folder = Folder::new();
    let mut opened = folder.open(&shard(1)).await.unwrap();
    opened.sink.write(&batch(1, 3)).await.unwrap();
    let error = opened.sink.write(&batch(6, 8)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let mut rewound = batch(6, 8);
    Arc::make_mut(&mut rewound.batch).rewound = Some(Rewound { after: 3, upto: 5 });
    opened.sink.write(&rewound).await.unwrap();
    opened.sink.flush().await.unwrap();
    let mut opened = folder.open(&shard(2)).await.unwrap();
    opened.sink.write(&batch(11, 12)).await.unwrap();
    opened.sink.flush().await.unwrap();
    assert_eq!(folder.read(&shard(2)).await, [1, 2, 3, 6, 7, 8, 11, 12]);
    let skipped: Vec<_> =
        folder.chain(&shard(2)).iter().filter_map(|manifest| manifest.skipped).collect();
    assert_eq!(skipped, [Skipped { from: 4, to: 5 }, Skipped { from: 9, to: 10 }]);
    assert_eq!(folder.open(&shard(2)).await.unwrap().committed.unwrap().records, 8);
}

#[tokio::test]
async fn only_a_new_epoch_makes_a_fence_and_progress_alone_makes_nothing() {
    let folder = Folder::new();
    for epoch in [1, 1, 2, 2] {
        let mut opened = folder.open(&shard(epoch)).await.unwrap();
        opened.sink.write(&batch(1, 0)).await.unwrap();
        opened.sink.flush().await.unwrap();
    }
    let kinds: Vec<_> = folder.chain(&shard(2)).iter().map(|m| (m.kind, m.epoch)).collect();
    assert_eq!(kinds, [(Kind::Fence, 1), (Kind::Fence, 2)]);
    assert!(!folder.0.path().join("orders/data").exists());
}

#[tokio::test]
async fn the_end_of_a_chain_is_found_and_a_hole_in_it_refused() {
    let folder = Folder::new();
    let mut opened = folder.open(&shard(1)).await.unwrap();
    for length in 1..=18_u64 {
        let again = folder.open(&shard(1)).await.unwrap();
        let upto = again.committed.map_or(0, |committed| committed.sequence.0);
        assert_eq!(upto, length - 1);
        opened.sink.write(&batch(length, length)).await.unwrap();
        opened.sink.flush().await.unwrap();
    }
    std::fs::remove_file(folder.0.path().join(names::manifest(&shard(1), 7))).unwrap();
    let Err(error) = folder.open(&shard(2)).await else { panic!("opened on a broken chain") };
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("is missing"), "{error}");
}

#[tokio::test]
async fn a_commit_that_could_not_be_written_is_tried_again_as_it_is() {
    let folder = Folder::new();
    let mut opened = folder.open(&shard(1)).await.unwrap();
    opened.sink.write(&batch(1, 3)).await.unwrap();
    // A file where the folder of data files has to be.
    let blocked = folder.0.path().join("orders/data");
    std::fs::write(&blocked, b"").unwrap();
    opened.sink.flush().await.unwrap_err();
    std::fs::remove_file(&blocked).unwrap();
    opened.sink.write(&batch(4, 5)).await.unwrap();
    opened.sink.flush().await.unwrap();
    assert_eq!(folder.read(&shard(1)).await, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn what_does_not_decode_is_refused_without_its_content() {
    let folder = Folder::new();
    let mut opened = folder.open(&shard(1)).await.unwrap();
    let mut bad = batch(1, 1);
    Arc::make_mut(&mut bad.batch).changes[0].document =
        bytes::Bytes::from_static(b"\x02\xffsecret");
    opened.sink.write(&bad).await.unwrap();
    let error = opened.sink.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(!error.to_string().contains("secret"), "{error}");
    assert_eq!(opened.sink.flush().await.unwrap_err().kind(), ErrorKind::Unknown, "lost track");
}

#[tokio::test]
async fn only_old_unlisted_files_of_earlier_epochs_are_swept() {
    const HOUR_MS: i64 = 60 * 60 * 1000;
    let folder = Folder::new();
    let mut opened = folder.open(&shard(1)).await.unwrap();
    opened.sink.write(&batch(1, 3)).await.unwrap();
    opened.sink.flush().await.unwrap();
    drop(opened);
    let put = |shard: &SinkShard, from, to| {
        let path = folder.0.path().join(names::data(shard, "orders", from, to));
        std::fs::write(&path, b"x").unwrap();
        path
    };
    let orphan = put(&shard(1), 4, 6);
    let own = put(&shard(2), 4, 5);
    let foreign = put(&SinkShard { shard: "table/0-1".into(), ..shard(1) }, 4, 6);
    let store = Store::open(&folder.config()).unwrap();
    let fence = Chain::open(store.clone(), shard(2)).await.unwrap().length();
    let second = shard(2);
    let sweep = |now_ms| sweep::sweep(&store, &second, fence, now_ms);
    let now_ms = clock::now_ms();
    assert_eq!(sweep(now_ms).await.unwrap(), 0, "too young");
    assert_eq!(sweep(now_ms + 2 * HOUR_MS).await.unwrap(), 1);
    assert!(!orphan.exists() && own.exists() && foreign.exists());
    assert_eq!(folder.read(&shard(2)).await, [1, 2, 3]);
}

#[test]
fn paths_of_odd_names_are_those_a_manifest_tells() {
    let path = names::data(&shard(1), "a b/ü#1", 1, 2);
    assert_eq!(path, "orders/data/a%20b%2F%C3%BC%231/table%2F0-1-1-2.parquet");
    assert!(!Path::new(&path).is_absolute());
    assert_eq!(shard(1).epoch, Epoch(1));
}

#[tokio::test]
async fn another_export_with_other_shards_is_refused_once_one_has_delivered() {
    let folder = Folder::new();
    let mut first = folder.open(&shard(1)).await.unwrap();
    let other = SinkShard { uid: "c/2".into(), shard: "cluster".into(), ..shard(1) };
    let mut late = folder.open(&other).await.unwrap();
    for opened in [&mut first, &mut late] {
        opened.sink.write(&batch(1, 2)).await.unwrap();
    }
    first.sink.flush().await.unwrap();
    let refused = late.sink.flush().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config, "{refused}");
    let refused = folder.open(&other).await.err().unwrap();
    assert!(refused.to_string().contains("another export \"orders\" delivered"), "{refused}");
    assert!(folder.read(&other).await.is_empty());

    let sibling = SinkShard { shard: "table/1".into(), ..shard(1) };
    let mut sibling = folder.open(&sibling).await.unwrap();
    sibling.sink.write(&batch(1, 2)).await.unwrap();
    sibling.sink.flush().await.unwrap();

    std::fs::remove_dir_all(folder.0.path().join("orders")).unwrap();
    let mut anew = folder.open(&other).await.unwrap();
    anew.sink.write(&batch(1, 2)).await.unwrap();
    anew.sink.flush().await.unwrap();
    assert_eq!(folder.read(&other).await, [1, 2]);
}
