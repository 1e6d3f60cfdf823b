//! Files of lines: the contract, and what is their own.

use std::io::Write as _;

use super::*;
use crate::config::parse;
use crate::sinks::contract::{self, Target, batch, shard};

struct Folder(tempfile::TempDir);

#[async_trait]
impl Target for Folder {
    async fn open(&self, shard: &SinkShard) -> Result<Opened> {
        open(&self.config(), shard).await
    }

    async fn read(&self, shard: &SinkShard) -> Vec<u64> {
        let lines = self.lines();
        let own = lines.iter().filter(|line| line["shard"] == shard.shard.as_str());
        own.map(|line| line["sequence"].as_u64().unwrap()).collect()
    }
}

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn config(&self) -> JsonlConfig {
        let path = self.0.path().to_str().unwrap().to_owned();
        let table = [("path".to_owned(), path.into()), ("rotate-bytes".to_owned(), 2048.into())];
        parse("[[sink]]", toml::Table::from_iter(table)).unwrap()
    }

    fn files(&self) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
        files.sort_by_key(|path| {
            let from = path.file_stem().unwrap().to_str().unwrap().rsplit('-').next().unwrap();
            from.parse::<u64>().unwrap()
        });
        files
    }

    /// All lines of all files, in order.
    fn lines(&self) -> Vec<serde_json::Value> {
        let texts = self.files().into_iter().map(|path| std::fs::read_to_string(path).unwrap());
        let text: String = texts.collect();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
async fn the_files_keep_the_contract() {
    contract::keeps_the_contract(Folder::new).await;
}

#[tokio::test]
async fn a_line_tells_all_about_its_change() {
    let folder = Folder::new();
    let mut opened = folder.open(&shard(3)).await.unwrap();
    opened.sink.write(&batch(1, 2)).await.unwrap();
    opened.sink.flush().await.unwrap();
    let wanted = serde_json::json!({
        "export": "orders", "shard": "table/0", "epoch": 1, "sequence": 2, "operation": "upsert",
        "collection": "orders", "key": "2", "document": {"id": 2, "name": "row 2"},
        "before": null, "novelty": "duplicate", "previous": 1,
        "committed_ms": 1_700_000_000_000_i64,
        "captured_ms": 1_700_000_000_000_i64, "clock": (1_u64 << 40) + 1
    });
    assert_eq!(folder.lines()[1], wanted);
}

#[tokio::test]
async fn a_torn_line_is_cut_off_and_written_anew() {
    let folder = Folder::new();
    let mut opened = folder.open(&shard(1)).await.unwrap();
    opened.sink.write(&batch(1, 2)).await.unwrap();
    opened.sink.flush().await.unwrap();
    drop(opened);
    let mut file = std::fs::OpenOptions::new().append(true).open(&folder.files()[0]).unwrap();
    file.write_all(br#"{"sequence": 3}"#).unwrap();
    file.write_all(b"\n{\"seq").unwrap();
    let mut opened = folder.open(&shard(1)).await.unwrap();
    assert_eq!(opened.committed.as_ref().unwrap().sequence, Sequence(2));
    opened.sink.write(&batch(3, 3)).await.unwrap();
    opened.sink.flush().await.unwrap();
    assert_eq!(folder.read(&shard(1)).await, [1, 2, 3]);
}

#[tokio::test]
async fn files_rotate_by_size_and_by_epoch() {
    let folder = Folder::new();
    for epoch in [1, 2] {
        let mut opened = folder.open(&shard(epoch)).await.unwrap();
        let from = opened.committed.as_ref().map_or(1, |committed| committed.sequence.0 + 1);
        for first in [from, from + 10, from + 20] {
            opened.sink.write(&batch(first, first + 9)).await.unwrap();
            opened.sink.flush().await.unwrap();
        }
    }
    let names: Vec<_> =
        folder.files().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    assert_eq!(names[3], "orders-table%2F0-2-31.jsonl");
    assert_eq!(folder.read(&shard(2)).await, (1..=60).collect::<Vec<_>>());
}

#[tokio::test]
async fn many_lines_are_written_without_a_flush() {
    let folder = Folder::new();
    let mut opened = folder.open(&shard(1)).await.unwrap();
    let durable = opened.sink.write(&batch(1, 30_000)).await.unwrap();
    assert_eq!(durable, Written::Durable(Durable::vouch(Sequence(30_000))));
}

#[tokio::test]
async fn a_lost_file_is_noticed() {
    let folder = Folder::new();
    let mut opened = folder.open(&shard(1)).await.unwrap();
    opened.sink.write(&batch(1, 2)).await.unwrap();
    opened.sink.flush().await.unwrap();
    std::fs::write(&folder.files()[0], b"{}\n").unwrap();
    let Err(error) = folder.open(&shard(1)).await else { panic!("opened on a short file") };
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}
