//! What every source must keep, as tests over any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tidegate_proto::v1::{Operation, ShardSpec};
use tidegate_proto::{BatchBuilder, Codec, Stamp};
use tokio::time::Instant;

use crate::error::Result;
use crate::sources::{Captured, ChangeStream, ChunkReader, Known, Last, Rows, Source};

/// Bytes asked for at a time: small, so that there are many places to resume.
const BYTES: usize = 16 << 10;
const WAIT: Duration = Duration::from_millis(50);
/// After so long without a change, none is expected.
const QUIET: Duration = Duration::from_millis(1500);

/// A change as the tests compare it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen {
    pub(super) operation: i32,
    pub(super) key: Vec<u8>,
    pub(super) hash: Vec<u8>,
}

/// Changes, and the position after each read.
#[derive(Debug, Default)]
pub(super) struct Capture {
    pub(super) changes: Vec<Seen>,
    /// How many changes had been read, and where the stream was then.
    pub(super) places: Vec<(usize, Bytes)>,
    /// What was captured at each place, for sources that are indexed.
    pub(super) memories: Vec<Arc<Memory>>,
}

/// By collection, the shorter names first, and key: as an index orders them.
type Places<T> = BTreeMap<(usize, String, Vec<u8>), T>;

/// What was captured of a shard, in memory.
#[derive(Debug)]
pub(super) struct Memory(Mutex<Fold>);

#[derive(Clone, Debug)]
struct Fold {
    documents: Places<(Bytes, Bytes)>,
    marks: Places<()>,
    known: Known,
}

impl Default for Memory {
    fn default() -> Self {
        let known = Known { whole: true, exact: true };
        Self(Mutex::new(Fold { documents: Places::new(), marks: Places::new(), known }))
    }
}

impl Memory {
    /// Counts in what a read pushed.
    pub(super) fn take(&self, out: &BatchBuilder) {
        let batch = out.encode(Stamp::default(), Codec::None).decode().unwrap();
        let mut fold = self.fold();
        for change in &batch.changes {
            let place = place(&batch.collections[change.collection as usize], &change.key);
            if change.operation() == Operation::Delete {
                fold.documents.remove(&place);
            } else {
                let dictionary = batch.dictionaries[change.dictionary as usize].clone();
                fold.documents.insert(place, (dictionary, change.document.clone()));
            }
        }
    }

    /// As it is now.
    pub(super) fn copy(&self) -> Arc<Self> {
        Arc::new(Self(Mutex::new(self.fold().clone())))
    }

    /// From now on it claims no more than this.
    pub(super) fn claim(&self, known: Known) {
        self.fold().known = known;
    }

    /// By collection and key.
    pub(super) fn documents(&self) -> BTreeMap<(String, Vec<u8>), (Bytes, Bytes)> {
        let fold = self.fold();
        let named = |(place, document): (&(usize, String, Vec<u8>), &(Bytes, Bytes))| {
            ((place.1.clone(), place.2.clone()), document.clone())
        };
        fold.documents.iter().map(named).collect()
    }

    fn fold(&self) -> MutexGuard<'_, Fold> {
        self.0.lock().unwrap()
    }
}

fn place(collection: &str, key: &[u8]) -> (usize, String, Vec<u8>) {
    (collection.len(), collection.to_owned(), key.to_vec())
}

impl Captured for Memory {
    fn known(&self) -> Result<Known> {
        Ok(self.fold().known)
    }

    fn last(&self, collection: &str, key: &[u8]) -> Result<Option<Last>> {
        let found = self.fold().documents.get(&place(collection, key)).cloned();
        Ok(found.map(|(dictionary, value)| Last::Document { dictionary, value }))
    }

    fn keys_after(
        &self,
        collection: &str,
        key: &[u8],
        most: usize,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let behind = (Bound::Excluded(place(collection, key)), Bound::Unbounded);
        let fold = self.fold();
        let keys = fold.documents.range(behind).take(most);
        Ok(keys.map(|((_, collection, key), _)| (collection.clone(), key.clone())).collect())
    }

    fn mark(&self, keys: &[(String, Vec<u8>)]) -> Result<()> {
        let marks = keys.iter().map(|(collection, key)| (place(collection, key), ()));
        self.fold().marks.extend(marks);
        Ok(())
    }

    fn is_marked(&self, collection: &str, key: &[u8]) -> Result<bool> {
        Ok(self.fold().marks.contains_key(&place(collection, key)))
    }

    fn clear_marks(&self) -> Result<()> {
        self.fold().marks.clear();
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        self.fold().known = Known { whole: true, exact: true };
        Ok(())
    }
}

/// The changes in a builder.
pub(super) fn seen(builder: &BatchBuilder) -> Vec<Seen> {
    let batch = builder.encode(Stamp::default(), Codec::None).decode().unwrap();
    let look = |change: &tidegate_proto::v1::Change| Seen {
        operation: change.operation,
        key: change.key.to_vec(),
        hash: change.content_hash.to_vec(),
    };
    batch.changes.iter().map(look).collect()
}

/// Reads until `upto` changes are there, or it is quiet.
pub(super) async fn capture(stream: &mut dyn ChangeStream, upto: usize) -> Result<Capture> {
    capture_into(stream, upto, None).await
}

/// As [`capture`], for a stream that was opened over `memory`.
pub(super) async fn capture_into(
    stream: &mut dyn ChangeStream,
    upto: usize,
    memory: Option<&Memory>,
) -> Result<Capture> {
    let (mut captured, mut out) = (Capture::default(), BatchBuilder::default());
    let mut last = Instant::now();
    while captured.changes.len() < upto && last.elapsed() < QUIET {
        out.clear();
        let read = stream.read(&mut out, BYTES, WAIT).await?;
        assert_eq!(read.losses, [], "nothing is lost in a test without faults");
        if !out.is_empty() {
            last = Instant::now();
            assert!(!read.position.is_empty(), "changes move the position");
            captured.changes.extend(seen(&out));
        }
        if let Some(memory) = memory {
            memory.take(&out);
        }
        if !read.position.is_empty() {
            captured.places.push((captured.changes.len(), read.position));
            captured.memories.extend(memory.map(Memory::copy));
        }
        if read.ended {
            break;
        }
    }
    Ok(captured)
}

/// Resuming from any position gives what followed it, in the same order for
/// each key.
pub(super) async fn any_position_resumes(source: &dyn Source, shard: &ShardSpec, start: &[u8]) {
    any_position_resumes_over(source, shard, start, &Arc::default()).await;
}

/// As [`any_position_resumes`], where `memory` was captured before `start`.
pub(super) async fn any_position_resumes_over(
    source: &dyn Source,
    shard: &ShardSpec,
    start: &[u8],
    memory: &Arc<Memory>,
) {
    let open = async |position: &[u8], memory: &Arc<Memory>| {
        source.stream_from(shard, position, Arc::clone(memory) as _).await.unwrap()
    };
    let indexed = source.traits().rows == Rows::Streamed;
    let mut stream = open(start, memory).await;
    let all = capture_into(&mut *stream, 2_000, indexed.then_some(&**memory)).await.unwrap();
    assert!(all.changes.len() >= 10, "there is something to resume in");
    let step = (all.places.len() / 8).max(1);
    let mut resumed = 0;
    for (at, (count, position)) in all.places.iter().enumerate().step_by(step) {
        let wanted = &all.changes[*count..];
        if wanted.is_empty() {
            continue;
        }
        let memory = all.memories.get(at).map_or_else(Arc::default, |memory| memory.copy());
        let mut stream = open(position, &memory).await;
        let memory = indexed.then_some(&*memory);
        let again = capture_into(&mut *stream, wanted.len(), memory).await.unwrap();
        assert!(again.changes.len() >= wanted.len(), "after {count} changes");
        let again = &again.changes[..wanted.len()];
        assert_eq!(by_key(again), by_key(wanted), "after {count} changes");
        resumed += 1;
    }
    assert!(resumed > 0, "some place lies before the last change");
}

fn by_key(changes: &[Seen]) -> BTreeMap<&[u8], Vec<&Seen>> {
    let mut keys: BTreeMap<&[u8], Vec<&Seen>> = BTreeMap::new();
    for change in changes {
        keys.entry(&change.key).or_default().push(change);
    }
    keys
}

/// Every row comes once, however often a chunk's reader is opened anew. Gives
/// the rows: key and content hash.
pub(super) async fn pages_give_each_row_once(
    source: &dyn Source,
    shard: &ShardSpec,
    chunks: u32,
) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows = BTreeMap::new();
    for chunk in 0..chunks {
        let (mut cursor, mut done) = (Bytes::new(), false);
        while !done {
            let mut reader = source.chunk(shard, chunk, &cursor).await.unwrap();
            // Two pages of each reader: both ways of going on are used.
            (cursor, done) = take_page(&mut *reader, &mut rows).await;
            if !done {
                (cursor, done) = take_page(&mut *reader, &mut rows).await;
            }
        }
    }
    rows
}

async fn take_page(
    reader: &mut dyn ChunkReader,
    rows: &mut BTreeMap<Vec<u8>, Vec<u8>>,
) -> (Bytes, bool) {
    let mut out = BatchBuilder::default();
    let page = reader.page(&mut out, BYTES).await.unwrap();
    for row in seen(&out) {
        assert_eq!(row.operation, i32::from(Operation::Snapshot));
        assert_eq!(rows.insert(row.key, row.hash), None, "a row came twice");
    }
    (page.cursor, page.done)
}

/// What is written after the anchor is in the stream, and the stream passes a
/// page read after that.
pub(super) async fn writes_after_the_anchor_are_streamed<W: Future<Output = ()>>(
    source: &dyn Source,
    shard: &ShardSpec,
    write: impl FnOnce() -> W,
    wanted: &BTreeSet<Vec<u8>>,
) {
    let anchor = source.anchor(shard).await.unwrap();
    let memory = Arc::new(Memory::default());
    let opened = source.stream_from(shard, &anchor.position, Arc::clone(&memory) as _).await;
    let mut stream = opened.unwrap();
    write().await;
    let mut reader = source.chunk(shard, 0, &[]).await.unwrap();
    let page = reader.page(&mut BatchBuilder::default(), BYTES).await.unwrap();
    let (mut found, mut out) = (BTreeSet::new(), BatchBuilder::default());
    let started = Instant::now();
    while !wanted.is_subset(&found) || !(page.seen.is_empty() || stream.passed(&page.seen)) {
        assert!(started.elapsed() < Duration::from_secs(20), "a write was not streamed");
        out.clear();
        stream.read(&mut out, BYTES, WAIT).await.unwrap();
        memory.take(&out);
        found.extend(out.pending().map(|change| change.key.to_vec()));
        let passed = !page.seen.is_empty() && stream.passed(&page.seen);
        assert!(!passed || wanted.is_subset(&found), "passed a page without what it shows");
    }
}
