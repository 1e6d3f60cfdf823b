//! Redis and Valkey, read as one of their replicas.
//!
//! A primary is one shard, and so is a whole cluster (`cluster`). A primary sends a dump and then, for ever, the commands that
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
//!   cluster           the streams of all primaries of a cluster
//! ```

mod apply;
mod check;
mod cluster;
mod config;
mod document;
mod keyspace;
mod link;
mod object;
mod output;
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
use std::time::Duration;

use bytes::Bytes;
use tidegate_proto::BatchBuilder;
use tidegate_proto::v1::{Check, ShardSpec};
use tonic::async_trait;

pub use config::RedisConfig;

use check::Server;
use cluster::{ClusterStream, Places, Seen, Whole};
use position::Position;
use rereads::Rereads;
use stream::{Besides, RedisStream};

use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::sources::{
    Anchor, Captured, ChangeStream, ChunkReader, MergeRule, Page, Rows, Source, SourceTraits,
};

/// The shard of a primary with its databases.
const PRIMARY: &str = "primary";
/// The longest to wait before its stream is opened again: a busy primary's backlog lasts for
/// seconds.
const AGAIN: Duration = Duration::from_secs(1);
/// The shard of all primaries of a cluster.
const CLUSTER: &str = "cluster";

/// A primary and its databases, or a cluster.
#[derive(Debug)]
pub struct Redis {
    config: RedisConfig,
    rereads: Arc<Rereads>,
    /// Nodes of the cluster.
    seen: Seen,
}

impl Redis {
    /// Checks `config`. Nothing is asked of the server yet.
    pub fn open(config: &RedisConfig) -> Result<Self> {
        config.address()?;
        Ok(Self { config: config.clone(), rereads: Arc::default(), seen: Seen::default() })
    }

    /// What the first server says that can be asked. Only a cluster has several.
    async fn describe(&self) -> Result<Server> {
        let addresses = self.config.addresses()?;
        let mut answer = Err(Error::new(ErrorKind::Config, "[source]: endpoint names no server"));
        for address in &addresses {
            answer = check::describe(&self.config.at(address)).await;
            if answer.is_ok() {
                break;
            }
        }
        if answer.as_ref().is_ok_and(|server| !server.cluster && addresses.len() > 1) {
            let why = "[source]: endpoint names several servers that are no cluster; name one";
            return Err(Error::new(ErrorKind::Config, why));
        }
        answer
    }
}

#[async_trait]
impl Source for Redis {
    fn traits(&self) -> SourceTraits {
        SourceTraits {
            kind: "redis",
            merge: MergeRule::Touched,
            dynamic: false,
            rows: Rows::Streamed,
            keeps: None,
            again: AGAIN,
        }
    }

    async fn discover(&self) -> Result<Vec<ShardSpec>> {
        let name = if self.describe().await?.cluster { CLUSTER } else { PRIMARY };
        Ok(vec![ShardSpec { name: name.to_owned(), ..ShardSpec::default() }])
    }

    /// The rows come with the stream, since both are one connection: there are no
    /// chunks.
    async fn anchor(&self, shard: &ShardSpec) -> Result<Anchor> {
        let rows_estimated = if shard.name == CLUSTER {
            cluster::count_keys(&self.config, &self.seen).await?
        } else {
            self.describe().await?.keys
        };
        Ok(Anchor { position: Position::Anew.encode(), chunks: 0, rows_estimated })
    }

    async fn stream(&self, _shard: &ShardSpec, _position: &[u8]) -> Result<Box<dyn ChangeStream>> {
        let why = "a redis source computes changes from what was captured: open it with that";
        Err(Error::new(ErrorKind::Config, why))
    }

    async fn stream_from(
        &self,
        shard: &ShardSpec,
        position: &[u8],
        captured: Arc<dyn Captured>,
    ) -> Result<Box<dyn ChangeStream>> {
        if shard.name == CLUSTER {
            let (config, seen, rereads) = (&self.config, &self.seen, &self.rereads);
            let whole = Whole { config, seen, rereads };
            let places = Places::decode(position)?;
            return Ok(Box::new(ClusterStream::open(whole, places, captured).await?));
        }
        let position = Position::decode(position)?;
        let rereads = Arc::clone(&self.rereads);
        let besides = Besides { rereads, now_ms: clock::now_ms, gate: None };
        Ok(Box::new(RedisStream::open(&self.config, position, captured, besides).await?))
    }

    async fn chunk(&self, _: &ShardSpec, _: u32, _: &[u8]) -> Result<Box<dyn ChunkReader>> {
        Ok(Box::new(NoRows))
    }

    async fn check(&self) -> Vec<Check> {
        match self.describe().await {
            Ok(server) if server.cluster => cluster::checks(&self.config, &self.seen).await,
            Ok(_) | Err(_) => check::checks(&self.config).await,
        }
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
