//! A DynamoDB table: its stream, and its items by a parallel scan.
//!
//! One table is one shard. Its changes come from the table's stream, which is
//! itself many stream shards that follow each other; `lineage.rs` keeps their
//! order. Its rows come from a scan in segments, consistent reads all of them,
//! since an eventually consistent one could miss a write that the stream has
//! already left behind.
//!
//! ```text
//!   discover   describe the table           -> descriptor: ARNs, key, segments
//!   anchor     list the stream's shards     -> position: open ones from their oldest record
//!   stream     position, listings           -> changes        (stream, look, listing, record)
//!   chunk      segment, last key            -> rows           (chunk, capacity)
//! ```

#![allow(clippy::wildcard_enum_match_arm, reason = "the SDK's enums may grow at any time")]

mod capacity;
mod chunk;
mod client;
mod config;
mod decode;
mod lineage;
mod listing;
mod look;
mod problem;
mod record;
mod rounds;
mod sequence;
mod stream;
mod table;
mod token;

use std::sync::Arc;

use tidegate_proto::v1::{Check, ShardSpec};
use tonic::async_trait;

pub use config::DynamodbConfig;

use capacity::Capacity;
use chunk::{SegmentScan, last_key};
use client::{Client, Listing};
use lineage::Lineage;
use problem::Problem;
use rounds::Rounds;
use stream::DynamodbStream;
use table::Table;
use token::{Descriptor, Position};

use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::retry;
use crate::sources::{Anchor, ChangeStream, ChunkReader, MergeRule, Rows, Source, SourceTraits};

/// A DynamoDB table.
pub struct Dynamodb {
    client: Client,
    config: Arc<DynamodbConfig>,
    rounds: Arc<Rounds>,
    capacity: Arc<Capacity>,
}

impl Dynamodb {
    /// Checks `config` and resolves the secrets it refers to. Nothing is asked
    /// of DynamoDB yet.
    pub async fn open(config: &DynamodbConfig) -> Result<Self> {
        config.check()?;
        Ok(Self {
            client: Client::open(config).await?,
            config: Arc::new(config.clone()),
            rounds: Arc::new(Rounds::new(clock::now_ms())),
            capacity: Arc::new(Capacity::new(config.read_units_per_second)),
        })
    }

    fn descriptor(&self, shard: &ShardSpec) -> Result<Descriptor> {
        if shard.name != self.config.table {
            let why = format!(
                "the shard is of table {}, [source] names {}; create another export instead",
                shard.name, self.config.table
            );
            return Err(Error::new(ErrorKind::Config, why));
        }
        Descriptor::decode(&shard.descriptor)
    }
}

#[async_trait]
impl Source for Dynamodb {
    fn traits(&self) -> SourceTraits {
        SourceTraits {
            kind: "dynamodb",
            merge: MergeRule::Touched,
            dynamic: false,
            rows: Rows::Chunked,
            keeps: Some(stream::RETENTION),
            again: retry::MOST,
        }
    }

    async fn discover(&self) -> Result<Vec<ShardSpec>> {
        let table = Box::pin(Table::find(&self.client, &self.config)).await?;
        let name = self.config.table.clone();
        let descriptor = table.descriptor.encode();
        Ok(vec![ShardSpec { name, descriptor, ..ShardSpec::default() }])
    }

    async fn anchor(&self, shard: &ShardSpec) -> Result<Anchor> {
        let descriptor = self.descriptor(shard)?;
        let table = Box::pin(Table::find(&self.client, &self.config)).await?;
        descriptor.check_key(&table.descriptor)?;
        let stream = table.descriptor.stream;
        let Listing::Growing(listing) = self.client.list(&stream).await? else {
            let what = format!("dynamodb: the stream of table {} is changing", self.config.table);
            let remedy = "it is tried again".to_owned();
            return Err(Problem::new(ErrorKind::Unavailable, what, remedy).into());
        };
        let lineage = Lineage::anchored(&listing, self.rounds.now_ms());
        Ok(Anchor {
            position: Position { stream, lineage }.encode(),
            chunks: descriptor.segments,
            rows_estimated: table.items,
        })
    }

    async fn rows_estimated(&self) -> Result<u64> {
        Ok(Box::pin(Table::find(&self.client, &self.config)).await?.items)
    }

    async fn stream(&self, shard: &ShardSpec, position: &[u8]) -> Result<Box<dyn ChangeStream>> {
        let descriptor = self.descriptor(shard)?;
        let position = Position::decode(position)?;
        let (client, config) = (self.client.clone(), Arc::clone(&self.config));
        let rounds = Arc::clone(&self.rounds);
        Ok(Box::new(DynamodbStream::new(client, config, rounds, descriptor, position)))
    }

    async fn chunk(
        &self,
        shard: &ShardSpec,
        chunk: u32,
        cursor: &[u8],
    ) -> Result<Box<dyn ChunkReader>> {
        let descriptor = self.descriptor(shard)?;
        if chunk >= descriptor.segments {
            let why = format!("chunk {chunk} of a scan in {} segments", descriptor.segments);
            return Err(Error::new(ErrorKind::Corrupt, why));
        }
        Ok(Box::new(SegmentScan {
            client: self.client.clone(),
            rounds: Arc::clone(&self.rounds),
            capacity: Arc::clone(&self.capacity),
            after: last_key(cursor, &descriptor)?,
            descriptor,
            segment: chunk,
            page_limit: self.config.page_limit,
            bytes_per_item: None,
        }))
    }

    async fn check(&self) -> Vec<Check> {
        table::checks(&self.client, &self.config).await
    }
}

#[cfg(test)]
mod tests;
