//! Chunk tasks over a source that fails now and then.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tidegate_proto::Draft;
use tidegate_proto::v1::{Check, ChunkProgress, Operation};
use tonic::async_trait;

use super::*;
use crate::config::ExportSpec;
use crate::error::{Error, ErrorKind};
use crate::retry;
use crate::sources::{
    Anchor, ChangeStream, ChunkReader, MergeRule, Page, Rows, Source, SourceTraits,
};

const CHUNKS: u32 = 4;
const ROWS: u8 = 9;

/// Each chunk has the rows 0 to 8, two to a page; a cursor is the next row.
#[derive(Default)]
struct Flaky {
    pages: Arc<AtomicU32>,
    /// Every so many pages one fails; 0: none.
    fails_every: u32,
    /// How it fails.
    fails_with: Option<ErrorKind>,
}

struct FlakyChunk {
    pages: Arc<AtomicU32>,
    fails_every: u32,
    fails_with: ErrorKind,
    next: u8,
}

#[async_trait]
impl Source for Flaky {
    fn traits(&self) -> SourceTraits {
        SourceTraits {
            kind: "flaky",
            merge: MergeRule::Touched,
            dynamic: false,
            rows: Rows::Chunked,
            keeps: None,
            again: retry::MOST,
        }
    }

    async fn discover(&self) -> Result<Vec<ShardSpec>> {
        Ok(Vec::new())
    }

    async fn anchor(&self, _shard: &ShardSpec) -> Result<Anchor> {
        Ok(Anchor::default())
    }

    async fn stream(&self, _: &ShardSpec, _: &[u8]) -> Result<Box<dyn ChangeStream>> {
        Err(Error::new(ErrorKind::Config, "it has chunks only"))
    }

    async fn chunk(&self, _: &ShardSpec, _: u32, cursor: &[u8]) -> Result<Box<dyn ChunkReader>> {
        Ok(Box::new(FlakyChunk {
            pages: Arc::clone(&self.pages),
            fails_every: self.fails_every,
            fails_with: self.fails_with.unwrap_or(ErrorKind::Unavailable),
            next: cursor.first().copied().unwrap_or(0),
        }))
    }

    async fn check(&self) -> Vec<Check> {
        Vec::new()
    }
}

#[async_trait]
impl ChunkReader for FlakyChunk {
    async fn page(&mut self, out: &mut BatchBuilder, _: usize) -> Result<Page> {
        let number = self.pages.fetch_add(1, Ordering::Relaxed) + 1;
        for _ in 0..2.min(ROWS - self.next) {
            out.push(&Draft {
                operation: Operation::Snapshot,
                collection: "c",
                key: &[self.next],
                document: None,
                before: None,
                committed_ms: 0,
            });
            self.next += 1;
        }
        if self.fails_every > 0 && number.is_multiple_of(self.fails_every) {
            return Err(Error::new(self.fails_with, "it fails now and then"));
        }
        let cursor = vec![self.next].into();
        Ok(Page { cursor, done: self.next == ROWS, ..Page::default() })
    }
}

fn start(source: Flaky, lanes: usize, progress: &Progress) -> Chunks {
    let text = format!(
        "name = \"e\"\n[source]\nkind = \"flaky\"\n[snapshot]\nchunks-in-flight = {lanes}\n"
    );
    let job = Job {
        name: "e".to_owned(),
        spec: ExportSpec::parse(&text).unwrap(),
        source: Arc::new(source),
        sinks: HashMap::new(),
    };
    let shard = Shard { chunks: CHUNKS, ..Shard::default() };
    Chunks::start((&job, &shard), progress, Pace::new(0), 1 << 20)
}

#[tokio::test]
async fn each_row_comes_once_and_in_order_though_reading_fails() {
    let at = |row: u8, done| ChunkProgress {
        cursor: vec![row].into(),
        done,
        ..ChunkProgress::default()
    };
    let progress =
        Progress { chunks: [(1, at(5, false)), (2, at(9, true))].into(), ..Progress::default() };
    let source = Flaky { fails_every: 5, ..Flaky::default() };
    let mut chunks = start(source, 2, &progress);
    let (mut rows, mut ends) = (BTreeMap::<u32, Vec<u8>>::new(), Vec::new());
    while let Some(page) = chunks.next().await {
        let page = page.unwrap();
        let read = rows.entry(page.chunk).or_default();
        read.extend(page.rows.pending().map(|row| row.key[0]));
        assert_eq!(page.page.cursor[..], [*read.last().unwrap() + 1], "the cursor follows");
        if page.page.done {
            ends.push(page.chunk);
        }
    }
    ends.sort_unstable();
    assert_eq!(ends, [0, 1, 3], "chunk 2 was done");
    let whole: Vec<u8> = (0..ROWS).collect();
    assert_eq!(rows, [(0, whole.clone()), (1, vec![5, 6, 7, 8]), (3, whole)].into());
}

#[tokio::test]
async fn what_nobody_takes_is_not_read_ahead_of() {
    let source = Flaky::default();
    let pages = Arc::clone(&source.pages);
    let chunks = start(source, 2, &Progress::default());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let read = pages.load(Ordering::Relaxed);
    assert!((2..=4).contains(&read), "{read} pages: two wait, two are in hand");
    drop(chunks);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(pages.load(Ordering::Relaxed), read, "dropping it ends the reading");
}

#[tokio::test]
async fn a_failure_that_stays_is_handed_on() {
    let fails_with = Some(ErrorKind::Config);
    let source = Flaky { fails_every: 3, fails_with, ..Flaky::default() };
    let mut chunks = start(source, 1, &Progress::default());
    let mut failed = None;
    while let Some(page) = chunks.next().await {
        assert!(failed.is_none(), "nothing comes behind it");
        failed = page.err();
    }
    assert_eq!(failed.unwrap().kind(), ErrorKind::Config);
}
