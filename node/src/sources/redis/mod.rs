//! Redis and Valkey, read as one of their replicas.
//!
//! A primary is one shard. It sends a dump and then, for ever, the commands that
//! change it. A change carries what its key holds behind a command, computed
//! from what was captured of the key before (`adr/0009`).
//!
//! ```text
//!   link, wire        the connection, the handshake         bytes
//!   rdb               a dump                                keys with their entries
//!   resp, apply       the commands                          what they do to entries
//!   keyspace          what each key holds                   changes
//!   document          an entry as a document
//!   stream            all of it, in order, with a position
//! ```

mod apply;
mod check;
mod config;
mod document;
mod keyspace;
mod link;
mod object;
mod position;
mod rdb;
mod rereads;
mod resp;
mod sketch;
mod stream;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
use tidegate_proto::BatchBuilder;
use tidegate_proto::v1::{Check, ShardSpec};
use tonic::async_trait;

pub use config::RedisConfig;

use position::Position;
use rereads::Rereads;
use stream::RedisStream;

use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::sources::{
    Anchor, Captured, ChangeStream, ChunkReader, MergeRule, Page, Rows, Source, SourceTraits,
};

/// A primary and its databases.
#[derive(Debug)]
pub struct Redis {
    config: RedisConfig,
    rereads: Arc<Rereads>,
}

impl Redis {
    /// Checks `config`. Nothing is asked of the server yet.
    pub fn open(config: &RedisConfig) -> Result<Self> {
        config.address()?;
        Ok(Self { config: config.clone(), rereads: Arc::default() })
    }
}

#[async_trait]
impl Source for Redis {
    fn traits(&self) -> SourceTraits {
        let merge = MergeRule::Touched;
        SourceTraits { kind: "redis", merge, dynamic: false, rows: Rows::Streamed }
    }

    async fn discover(&self) -> Result<Vec<ShardSpec>> {
        check::describe(&self.config).await?;
        Ok(vec![ShardSpec { name: "primary".to_owned(), ..ShardSpec::default() }])
    }

    /// The rows come with the stream, since both are one connection: there are no
    /// chunks.
    async fn anchor(&self, _shard: &ShardSpec) -> Result<Anchor> {
        let server = check::describe(&self.config).await?;
        let position = Position::Anew.encode();
        Ok(Anchor { position, chunks: 0, rows_estimated: server.keys })
    }

    async fn stream(&self, _shard: &ShardSpec, _position: &[u8]) -> Result<Box<dyn ChangeStream>> {
        let why = "a redis source computes changes from what was captured: open it with that";
        Err(Error::new(ErrorKind::Config, why))
    }

    async fn stream_from(
        &self,
        _shard: &ShardSpec,
        position: &[u8],
        captured: Arc<dyn Captured>,
    ) -> Result<Box<dyn ChangeStream>> {
        let position = Position::decode(position)?;
        let rereads = Arc::clone(&self.rereads);
        let stream = RedisStream::open(&self.config, position, captured, rereads, clock::now_ms);
        Ok(Box::new(stream.await?))
    }

    async fn chunk(&self, _: &ShardSpec, _: u32, _: &[u8]) -> Result<Box<dyn ChunkReader>> {
        Ok(Box::new(NoRows))
    }

    async fn check(&self) -> Vec<Check> {
        check::checks(&self.config).await
    }
}

/// There are no chunks.
struct NoRows;

#[async_trait]
impl ChunkReader for NoRows {
    async fn page(&mut self, _out: &mut BatchBuilder, _bytes_max: usize) -> Result<Page> {
        Ok(Page { done: true, cursor: Bytes::new(), ..Page::default() })
    }
}
