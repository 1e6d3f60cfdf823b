//! Talks to DynamoDB and to its streams.

use std::collections::HashMap;
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::Client as Tables;
use aws_sdk_dynamodb::config::Credentials;
use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::operation::scan::ScanOutput;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, TableDescription};
use aws_sdk_dynamodbstreams::Client as Streams;
use aws_sdk_dynamodbstreams::types::{Record, Shard, ShardIteratorType, StreamStatus};
use aws_smithy_http_client::tls;

use super::config::DynamodbConfig;
use super::lineage::{Listed, Place};
use super::problem::Problem;
use crate::config::resolve;
use crate::error::{ErrorKind, Result};

/// Longer than any single answer takes; a scan page is the slowest.
const ATTEMPT: Duration = Duration::from_secs(15);
/// With the client's own three attempts.
const OPERATION: Duration = Duration::from_secs(40);
/// Two pages of a listing are asked for no faster: AWS allows ten a second.
const LISTING_PAUSE: Duration = Duration::from_millis(110);
/// The most records one answer has.
const RECORDS_MAX: i32 = 1000;

/// One table and its streams. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) tables: Tables,
    streams: Streams,
    pub(super) table: String,
}

/// A stream as it is now.
#[derive(Clone, Debug)]
pub(super) enum Listing {
    /// It grows.
    Growing(Vec<Listed>),
    /// It was turned off; it can be read for a day.
    Off(Vec<Listed>),
    /// There is no such stream (any more).
    Missing,
}

/// What one look at a stream shard brought.
#[derive(Debug)]
pub(super) enum Fetched {
    /// Records, perhaps none, and how to go on; no iterator: the shard has ended.
    Page { records: Vec<Record>, next: Option<String> },
    /// The iterator was too old: ask for a new one.
    Expired,
    /// The record to go on behind is no longer there.
    Trimmed,
    /// The shard is not there.
    Missing,
}

/// One page of a segment.
#[derive(Debug)]
pub(super) struct ScanRequest {
    pub(super) segment: u32,
    pub(super) segments: u32,
    pub(super) after: Option<HashMap<String, AttributeValue>>,
    /// Items; `None` for as many as fit.
    pub(super) limit: Option<i32>,
}

impl Client {
    /// Asks nothing yet. Resolves what the configuration refers to.
    pub(super) async fn open(config: &DynamodbConfig) -> Result<Self> {
        let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
        let http = aws_smithy_http_client::Builder::new().tls_provider(provider).build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(3))
            .operation_attempt_timeout(ATTEMPT)
            .operation_timeout(OPERATION)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(Region::new(config.region.clone()))
            .http_client(http)
            .timeout_config(timeouts);
        if let Some(endpoint) = &config.endpoint {
            loader = loader.endpoint_url(resolve(endpoint)?);
        }
        if let (Some(access), Some(secret)) = (&config.access_key, &config.secret_key) {
            let keys =
                Credentials::new(resolve(&access.0)?, resolve(&secret.0)?, None, None, "tidegate");
            loader = loader.credentials_provider(keys);
        }
        let shared = Box::pin(loader.load()).await;
        Ok(Self {
            tables: Tables::new(&shared),
            streams: Streams::new(&shared),
            table: config.table.clone(),
        })
    }

    pub(super) async fn describe(&self) -> Result<TableDescription, Problem> {
        let doing = format!("describe table {}", self.table);
        let asked = self.tables.describe_table().table_name(&self.table).send();
        let answer = Box::pin(asked).await.map_err(|error| Problem::from_sdk(&doing, error))?;
        answer.table.ok_or_else(|| odd(&doing))
    }

    /// Every shard of `stream`, page by page.
    pub(super) async fn list(&self, stream: &str) -> Result<Listing, Problem> {
        let mut shards = Vec::new();
        let mut after = None;
        loop {
            let asked = self.streams.describe_stream().stream_arn(stream);
            let answer = match Box::pin(asked.set_exclusive_start_shard_id(after).send()).await {
                Ok(answer) => answer,
                Err(error) if error.code() == Some("ResourceNotFoundException") => {
                    return Ok(Listing::Missing);
                }
                Err(error) => {
                    let doing = format!("list the stream shards of table {}", self.table);
                    return Err(Problem::from_sdk(&doing, error));
                }
            };
            let Some(page) = answer.stream_description else { return Err(odd("list a stream")) };
            shards.extend(page.shards.unwrap_or_default().into_iter().filter_map(listed));
            if page.last_evaluated_shard_id.is_some() {
                after = page.last_evaluated_shard_id;
                tokio::time::sleep(LISTING_PAUSE).await;
                continue;
            }
            let off = matches!(
                page.stream_status,
                Some(StreamStatus::Disabled | StreamStatus::Disabling)
            );
            return Ok(if off { Listing::Off(shards) } else { Listing::Growing(shards) });
        }
    }

    /// An iterator to read `shard` from `place`, or why there is none.
    pub(super) async fn iterator(
        &self,
        stream: &str,
        shard: &str,
        place: &Place,
    ) -> Result<Result<String, Fetched>, Problem> {
        let asked = self.streams.get_shard_iterator().stream_arn(stream).shard_id(shard);
        let asked = match place {
            Place::After(last) => asked
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .sequence_number(last.as_str()),
            Place::Horizon { .. } | Place::Finished => {
                asked.shard_iterator_type(ShardIteratorType::TrimHorizon)
            }
        };
        let doing = format!("open stream shard {shard} of table {}", self.table);
        match Box::pin(asked.send()).await {
            Ok(answer) => answer.shard_iterator.map(Ok).ok_or_else(|| odd(&doing)),
            Err(error) => match error.code() {
                Some("TrimmedDataAccessException") => Ok(Err(Fetched::Trimmed)),
                Some("ResourceNotFoundException") => Ok(Err(Fetched::Missing)),
                _ => Err(Problem::from_sdk(&doing, error)),
            },
        }
    }

    pub(super) async fn records(&self, shard: &str, iterator: String) -> Result<Fetched, Problem> {
        let asked = self.streams.get_records().shard_iterator(iterator).limit(RECORDS_MAX);
        let answer = match Box::pin(asked.send()).await {
            Ok(answer) => answer,
            Err(error) => {
                return match error.code() {
                    Some("ExpiredIteratorException") => Ok(Fetched::Expired),
                    Some("TrimmedDataAccessException") => Ok(Fetched::Trimmed),
                    Some("ResourceNotFoundException") => Ok(Fetched::Missing),
                    _ => {
                        let doing = format!("read stream shard {shard} of table {}", self.table);
                        Err(Problem::from_sdk(&doing, error))
                    }
                };
            }
        };
        let records = answer.records.unwrap_or_default();
        Ok(Fetched::Page { records, next: answer.next_shard_iterator })
    }

    /// One page, as new as the moment it is asked for.
    pub(super) async fn scan(&self, request: ScanRequest) -> Result<ScanOutput, Problem> {
        let segment = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let asked = self
            .tables
            .scan()
            .table_name(&self.table)
            .segment(segment(request.segment))
            .total_segments(segment(request.segments))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .set_limit(request.limit)
            .set_exclusive_start_key(request.after);
        let doing = format!("scan segment {} of table {}", request.segment, self.table);
        Box::pin(asked.send()).await.map_err(|error| Problem::from_sdk(&doing, error))
    }
}

fn listed(shard: Shard) -> Option<Listed> {
    let range = shard.sequence_number_range;
    let closed = range.is_some_and(|range| range.ending_sequence_number.is_some());
    Some(Listed { id: shard.shard_id?, parent: shard.parent_shard_id, closed })
}

fn odd(doing: &str) -> Problem {
    let what = format!("dynamodb: {doing}: the answer holds nothing");
    Problem::new(ErrorKind::Unavailable, what, "it is tried again".to_owned())
}
