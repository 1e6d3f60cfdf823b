//! The `[source]` table of an export file.

use std::sync::Arc;

use crate::config::{ExportSpec, parse};
use crate::error::{Error, ErrorKind, Result};
use crate::sources::Source;
use crate::sources::datagen::{Datagen, DatagenConfig};
use crate::sources::dynamodb::{Dynamodb, DynamodbConfig};
use crate::sources::embedded::{Embedded, EmbeddedConfig};
use crate::sources::redis::{Redis, RedisConfig};

/// Every source there is. Adding one is a variant, its arms, and its folder.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    /// The document store that comes with Tidegate.
    Embedded(EmbeddedConfig),
    /// Changes made up from a seed.
    Datagen(DatagenConfig),
    /// A DynamoDB table and its stream.
    Dynamodb(DynamodbConfig),
    /// A Redis or Valkey primary.
    Redis(RedisConfig),
}

impl SourceConfig {
    /// Reads the `[source]` table by its `kind`.
    pub fn parse(spec: &ExportSpec) -> Result<Self> {
        let mut table = spec.source.clone();
        table.remove("kind");
        let place = "[source]";
        match spec.source_kind()? {
            "embedded" => parse(place, table).map(Self::Embedded),
            "datagen" => parse(place, table).map(Self::Datagen),
            "dynamodb" => parse(place, table).map(Self::Dynamodb),
            "redis" => parse(place, table).map(Self::Redis),
            other => {
                let why = format!(
                    "[source] kind = \"{other}\" is not known; there are embedded, datagen, \
                     dynamodb and redis"
                );
                Err(Error::new(ErrorKind::Config, why))
            }
        }
    }
}

/// Opens a source. References to secrets are resolved here and nowhere else.
pub async fn open(config: &SourceConfig) -> Result<Arc<dyn Source>> {
    Ok(match config {
        SourceConfig::Embedded(config) => Arc::new(Embedded::open(config)?),
        SourceConfig::Datagen(config) => Arc::new(Datagen::new(config, crate::clock::now_ms)?),
        SourceConfig::Dynamodb(config) => Arc::new(Dynamodb::open(config).await?),
        SourceConfig::Redis(config) => Arc::new(Redis::open(config)?),
    })
}
