//! P3: the lake, against a bare Parquet writer.
//!
//! METHOD One core. Ours starts from encoded batches (`sink`) or from the
//! source itself in a node of its own (`whole`) and ends when files and their
//! manifest are synced to disk. The other side has its record batches ready,
//! read from the files ours has written, with their schema, codec and row
//! groups, and writes them into memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::UInt64Type;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tidegate_node::config::SinkSpec;
use tidegate_node::sinks::{self, SinkShard};
use tidegate_node::sources::datagen::state_after;
use tidegate_proto::Epoch;
use tidegate_tests::latest::State;

use crate::bench::{Bench, Better, Goal, Outcome, float, require, timed};
use crate::machine::pinned;
use crate::node::{Node, Start, delivered, generated};
use crate::stock::{self, Stock};

const SINK_1K: Goal = goal("P3.sink-1k", "lake sink, 1 KB documents, to a bare ArrowWriter", 0.85);
const SINK_100: Goal =
    goal("P3.sink-100", "lake sink, 100 B documents, to a bare ArrowWriter", 0.60);
const WHOLE_1K: Goal =
    goal("P3.whole-1k", "datagen to lake in one node, 1 KB documents, to a bare ArrowWriter", 0.85);
const WHOLE_320: Goal = goal(
    "P3.whole-320",
    "datagen to lake in one node, 320 B documents, to a bare ArrowWriter",
    0.60,
);
/// The core both sides have.
const CORE: u32 = 1;
const CORES: &str = "1";
const FILE_BYTES: u64 = 64 << 20;

const fn goal(id: &'static str, what: &'static str, goal: f64) -> Goal {
    Goal { id, what, goal, better: Better::Higher, unit: "rows/s" }
}

pub(crate) async fn run(bench: &mut Bench) -> Outcome<()> {
    sink(bench, &SINK_1K, 1024, 300_000).await?;
    sink(bench, &SINK_100, 100, 1_000_000).await?;
    whole(bench, &WHOLE_1K, 1024, 300_000).await?;
    whole(bench, &WHOLE_320, 320, 600_000).await
}

async fn sink(bench: &mut Bench, goal: &Goal, document_bytes: usize, rows: u64) -> Outcome<()> {
    let stock = Arc::new(Stock::make(document_bytes, rows).await?);
    let first = bench.folder()?;
    let (taken, to) = (Arc::clone(&stock), first.clone());
    pinned(CORE, move || write(taken, to)).await?;
    check(&first, rows, &stock.state)?;
    let ready = Arc::new(Ready::read(&first)?);
    let folder = bench.folder()?;
    let mut round = 0;
    let a = async || {
        round += 1;
        let into = folder.join(round.to_string());
        let (taken, to) = (Arc::clone(&stock), into.clone());
        let seconds = pinned(CORE, move || write(taken, to)).await?;
        check(&into, rows, &stock.state)?;
        std::fs::remove_dir_all(into)?;
        Ok(float(rows) / seconds)
    };
    bench.pair(goal, a, async || ready.rate(rows).await).await
}

/// Seconds from the first batch to the last manifest.
async fn write(stock: Arc<Stock>, folder: PathBuf) -> Outcome<f64> {
    let table = toml::from_str(&format!("path = {folder:?}\ntarget-file-bytes = {FILE_BYTES}\n"))?;
    let spec = SinkSpec { name: "lake".to_owned(), kind: "lake".to_owned(), table };
    let [export, shard, sink] = ["bench", "0", "lake"].map(str::to_owned);
    let shard = SinkShard { export, uid: String::new(), shard, sink, epoch: Epoch(1) };
    let mut sink = sinks::open(&sinks::parse(&spec)?, &shard).await?.sink;
    Ok(timed(stock.deliver(&mut *sink)).await?.0)
}

async fn whole(bench: &mut Bench, goal: &Goal, document_bytes: usize, rows: u64) -> Outcome<()> {
    let config = stock::generated(document_bytes, rows);
    let state = state_after(&config, 0, rows)?;
    let folder = bench.folder()?;
    let mut node = Node::start(&folder, Start { cores: CORES, ..Start::default() }).await?;
    let mut ready = None;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        let (name, lake) = (format!("r{round}"), folder.join(format!("lake{round}")));
        let seconds = export(&mut node, &name, document_bytes, rows, &lake).await?;
        check(&lake, rows, &state)?;
        if ready.is_none() {
            ready = Some(Ready::read(&lake)?);
        }
        std::fs::remove_dir_all(lake)?;
        let bare = ready.as_ref().ok_or("there are record batches")?;
        ours.push(float(rows) / seconds);
        theirs.push(bare.rate(rows).await?);
        bench.round(goal, round, ours[round], theirs[round]);
    }
    node.stop().await?;
    bench.line(goal, &ours, &theirs, "with capture, spool and checkpoints on the same core")
}

/// Seconds from the first checkpoint to the last of a new export.
async fn export(
    node: &mut Node,
    name: &str,
    document_bytes: usize,
    rows: u64,
    lake: &Path,
) -> Outcome<f64> {
    let source = format!("document-bytes = {document_bytes}\nchanges = {rows}");
    let sink = format!("[[sink]]\nkind = \"lake\"\npath = {lake:?}\ndelay-ms = 500");
    node.apply(&generated(name, &source, &sink)).await?;
    let every = Duration::from_millis(10);
    node.until(name, every, |shards| shards.iter().any(|shard| shard.captured.is_some())).await?;
    let work = node.until(name, every, |shards| delivered(shards, "lake") >= rows);
    let (seconds, ()) = timed(work).await?;
    node.delete(name).await?;
    Ok(seconds)
}

/// Record batches as they stand in finished files, one per row group.
struct Ready {
    files: Arc<Vec<Vec<RecordBatch>>>,
    bytes: u64,
}

impl Ready {
    fn read(lake: &Path) -> Outcome<Self> {
        let (mut files, mut bytes) = (Vec::new(), 0);
        for path in data_files(lake)? {
            bytes += path.metadata()?.len();
            let groups = reader(&path)?.metadata().num_row_groups();
            let mut batches = Vec::new();
            for group in 0..groups {
                let rows = reader(&path)?.with_row_groups(vec![group]).with_batch_size(1 << 20);
                batches.extend(rows.build()?.collect::<Result<Vec<_>, _>>()?);
            }
            files.push(batches);
        }
        Ok(Self { files: Arc::new(files), bytes })
    }

    /// Rows per second of the bare writer; its files must be as large as ours.
    async fn rate(&self, rows: u64) -> Outcome<f64> {
        let files = Arc::clone(&self.files);
        let all = async move {
            let encoded: Outcome<Vec<usize>> = files.iter().map(|file| encode(file)).collect();
            Ok(encoded?.into_iter().sum::<usize>())
        };
        let (seconds, bytes) = pinned(CORE, move || timed(all)).await?;
        let same = (float(bytes) / float(self.bytes) - 1.0).abs() <= 0.01;
        require(same, &format!("the bare writer's files have {bytes} bytes, ours {}", self.bytes))?;
        Ok(float(rows) / seconds)
    }
}

fn encode(batches: &[RecordBatch]) -> Outcome<usize> {
    let schema = batches.first().ok_or("a file has rows")?.schema();
    let options =
        ArrowWriterOptions::new().with_properties(properties()?).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options)?;
    for batch in batches {
        writer.write(batch)?;
        writer.flush()?;
    }
    Ok(writer.into_inner()?.len())
}

/// As the lake sets them; that both sides' files are of one size shows it.
fn properties() -> Outcome<WriterProperties> {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(None)
        .set_max_row_group_bytes(None);
    for counter in ["sequence", "clock"] {
        builder = builder
            .set_column_dictionary_enabled(counter.into(), false)
            .set_column_encoding(counter.into(), Encoding::DELTA_BINARY_PACKED);
    }
    for column in ["key", "key_bytes", "content_hash"] {
        builder = builder.set_column_dictionary_enabled(column.into(), false);
    }
    for column in ["document", "before"] {
        let value = ColumnPath::from(vec![column.to_owned(), "value".to_owned()]);
        builder = builder
            .set_column_dictionary_enabled(value.clone(), false)
            .set_column_statistics_enabled(value, EnabledStatistics::None);
    }
    Ok(builder.build())
}

/// Every sequence once, and the latest of each key as the source has it.
fn check(lake: &Path, rows: u64, state: &State) -> Outcome<()> {
    let mut by_sequence = BTreeMap::new();
    for path in data_files(lake)? {
        let reader = reader(&path)?;
        let columns = ["sequence", "key_bytes", "content_hash"];
        let mask = ProjectionMask::columns(reader.parquet_schema(), columns);
        for batch in reader.with_projection(mask).build()? {
            let batch = batch?;
            let column = |name: &str| batch.column_by_name(name).ok_or("a lake file's column");
            let sequences = column("sequence")?.as_primitive::<UInt64Type>();
            let keys = column("key_bytes")?.as_binary::<i32>();
            let hashes = column("content_hash")?.as_fixed_size_binary();
            for row in 0..batch.num_rows() {
                let hash = hashes.is_valid(row).then(|| hashes.value(row).to_vec());
                by_sequence.insert(sequences.value(row), (keys.value(row).to_vec(), hash));
            }
        }
    }
    let tiles = by_sequence.keys().copied().eq(1..=rows);
    require(tiles, "the lake holds every sequence once")?;
    let mut found = BTreeMap::new();
    for (key, hash) in by_sequence.into_values() {
        match hash {
            Some(hash) => drop(found.insert(key, hash)),
            None => drop(found.remove(&key)),
        }
    }
    let same = found.len() == state.len()
        && found.iter().all(|(key, hash)| state.get(key).is_some_and(|it| it[..] == hash[..]));
    require(same, "the lake's latest documents are the source's")
}

fn reader(path: &Path) -> Outcome<ParquetRecordBatchReaderBuilder<File>> {
    Ok(ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?)
}

fn data_files(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(data_files(&path)?);
        } else if path.extension().is_some_and(|end| end == "parquet") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
