//! Changes made up from a seed: the same ones every time, as fast as wanted.
//!
//! For benchmarks, demonstrations and tests of everything behind a source. A
//! position is the number of changes taken, as 8 bytes, big endian; what the
//! final state must be is known beforehand ([`state_after`]).

mod config;
mod generate;
mod oracle;
mod shard;
mod stream;
mod template;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_proto::v1::{Check, Operation, ShardSpec};
use tidegate_proto::{BatchBuilder, Draft};
use tonic::async_trait;

pub use config::DatagenConfig;
pub use generate::{Generated, Item, Order, change};
pub use oracle::{Expected, ExpectedChange, state_after};
use shard::Shard;
use stream::DatagenStream;

use crate::error::{Error, ErrorKind, Result};
use crate::retry;
use crate::sources::{
    Anchor, ChangeStream, ChunkReader, MergeRule, Page, Rows, Source, SourceTraits,
};

/// The one collection.
const COLLECTION: &str = "orders";
/// Rows of one chunk, unless that would make too many chunks.
const CHUNK_ROWS: u64 = 10_000;
/// The most chunks of one shard.
const CHUNKS_MAX: u64 = 256;
/// How long a page waits for the stream to be opened.
const WAIT: Duration = Duration::from_millis(20);

/// A source that makes its changes up.
pub struct Datagen {
    config: DatagenConfig,
    shards: Vec<Arc<Shard>>,
    now_ms: fn() -> i64,
}

impl Datagen {
    /// Checks `config`. `now_ms` says when changes were committed.
    pub fn new(config: &DatagenConfig, now_ms: fn() -> i64) -> Result<Self> {
        config.check()?;
        let shards: Result<Vec<_>> =
            (0..config.shards).map(|number| Shard::new(config, number).map(Arc::new)).collect();
        Ok(Self { shards: shards?, config: config.clone(), now_ms })
    }

    fn shard(&self, spec: &ShardSpec) -> Result<&Arc<Shard>> {
        let number = spec.name.strip_prefix("datagen-").and_then(|number| number.parse().ok());
        let found = number.and_then(|number: usize| self.shards.get(number));
        found.ok_or_else(|| {
            let why = format!("no shard is named {}; [source] shards was lowered", spec.name);
            Error::new(ErrorKind::Config, why)
        })
    }

    fn chunk_rows(&self) -> u64 {
        CHUNK_ROWS.max(self.config.snapshot_rows.div_ceil(CHUNKS_MAX))
    }
}

#[async_trait]
impl Source for Datagen {
    fn traits(&self) -> SourceTraits {
        SourceTraits {
            kind: "datagen",
            merge: MergeRule::Touched,
            dynamic: false,
            rows: Rows::Chunked,
            keeps: None,
            again: retry::MOST,
        }
    }

    async fn discover(&self) -> Result<Vec<ShardSpec>> {
        let spec = |number| ShardSpec { name: format!("datagen-{number}"), ..Default::default() };
        Ok((0..self.config.shards).map(spec).collect())
    }

    async fn anchor(&self, spec: &ShardSpec) -> Result<Anchor> {
        self.shard(spec)?;
        let chunks = self.config.snapshot_rows.div_ceil(self.chunk_rows());
        Ok(Anchor {
            position: place_of(0),
            chunks: u32::try_from(chunks).unwrap_or(u32::MAX),
            rows_estimated: self.config.snapshot_rows,
        })
    }

    async fn stream(&self, spec: &ShardSpec, position: &[u8]) -> Result<Box<dyn ChangeStream>> {
        let shard = self.shard(spec)?;
        let next = place(position)?;
        shard.open(next);
        Ok(Box::new(DatagenStream::new(Arc::clone(shard), next, self.now_ms)))
    }

    async fn chunk(
        &self,
        spec: &ShardSpec,
        chunk: u32,
        cursor: &[u8],
    ) -> Result<Box<dyn ChunkReader>> {
        let shard = Arc::clone(self.shard(spec)?);
        let first = u64::from(chunk) * self.chunk_rows();
        let upto = (first + self.chunk_rows()).min(self.config.snapshot_rows);
        let next = if cursor.is_empty() { first } else { place(cursor)? };
        if !(first..=upto).contains(&next) {
            let why = format!("a cursor outside chunk {chunk}; [source] snapshot-rows was changed");
            return Err(Error::new(ErrorKind::Config, why));
        }
        Ok(Box::new(DatagenChunk { shard, next, upto, document: Vec::new() }))
    }

    async fn check(&self) -> Vec<Check> {
        let detail = format!("{} shards are made up on the node", self.config.shards);
        vec![Check { name: "generator".to_owned(), passed: true, detail, remedy: String::new() }]
    }
}

/// Rows of one chunk as they are where the stream was opened.
struct DatagenChunk {
    shard: Arc<Shard>,
    next: u64,
    upto: u64,
    document: Vec<u8>,
}

#[async_trait]
impl ChunkReader for DatagenChunk {
    async fn page(&mut self, out: &mut BatchBuilder, bytes_max: usize) -> Result<Page> {
        let (shard, document) = (&self.shard, &mut self.document);
        let scanned = shard.scan(self.next..self.upto, |row, order| {
            shard.template.render(row, &order, document);
            out.push(&Draft {
                operation: Operation::Snapshot,
                collection: COLLECTION,
                key: shard.key(row)?.as_bytes(),
                document: Some((shard.template.dictionary(), document)),
                before: None,
                committed_ms: 0,
            });
            Ok(out.bytes() < bytes_max)
        })?;
        let Some((at, next)) = scanned else {
            tokio::time::sleep(WAIT).await;
            return Ok(Page { cursor: place_of(self.next), ..Page::default() });
        };
        self.next = next;
        let done = self.next >= self.upto;
        Ok(Page { cursor: place_of(self.next), done, seen: place_of(at) })
    }
}

fn place_of(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn place(bytes: &[u8]) -> Result<u64> {
    let number = bytes.try_into().map(u64::from_be_bytes);
    number.map_err(|_| Error::new(ErrorKind::Corrupt, "a generated position has 8 bytes"))
}

#[cfg(test)]
mod tests;
