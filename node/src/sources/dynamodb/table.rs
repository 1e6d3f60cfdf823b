//! What an export needs of a table, and how to give it that.

use aws_sdk_dynamodb::types::{KeyType, StreamViewType, TableDescription};
use tidegate_proto::v1::Check;

use super::client::{Client, Listing, ScanRequest};
use super::config::DynamodbConfig;
use super::problem::Problem;
use super::token::Descriptor;
use crate::error::ErrorKind;

/// A table that can be exported.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) descriptor: Descriptor,
    /// DynamoDB counts its items about every six hours.
    pub(super) items: u64,
}

impl Table {
    /// Asks for the table, and refuses one whose stream is not as it must be.
    pub(super) async fn find(client: &Client, config: &DynamodbConfig) -> Result<Self, Problem> {
        let described = client.describe().await?;
        Self::judge(&described, config)
    }

    fn judge(described: &TableDescription, config: &DynamodbConfig) -> Result<Self, Problem> {
        let on = described.stream_specification.as_ref().filter(|stream| stream.stream_enabled);
        let view = on.and_then(|stream| stream.stream_view_type.as_ref());
        match view {
            Some(StreamViewType::NewImage | StreamViewType::NewAndOldImages) => {}
            Some(other) => return Err(wrong_view(config, other.as_str())),
            None => return Err(no_stream(config)),
        }
        let stream = described.latest_stream_arn.clone().ok_or_else(|| no_stream(config))?;
        let key = |wanted: &KeyType| {
            let elements = described.key_schema.iter().flatten();
            let mut found = elements.filter(|element| element.key_type == *wanted);
            found.next().map(|element| element.attribute_name.clone())
        };
        let partition_key = key(&KeyType::Hash).ok_or_else(|| {
            let what = format!("dynamodb: table {} has no partition key", config.table);
            Problem::new(ErrorKind::Config, what, "check that it is ACTIVE".to_owned())
        })?;
        let descriptor = Descriptor {
            table: described.table_arn.clone().unwrap_or_default(),
            stream,
            partition_key,
            sort_key: key(&KeyType::Range),
            segments: config.segments,
        };
        let items = described.item_count.and_then(|count| u64::try_from(count).ok());
        Ok(Self { descriptor, items: items.unwrap_or(0) })
    }
}

/// Looks at all that an export needs; changes nothing, reads one item.
pub(super) async fn checks(client: &Client, config: &DynamodbConfig) -> Vec<Check> {
    let described = match client.describe().await {
        Ok(described) => described,
        Err(problem) => return vec![problem.check("table")],
    };
    let mut checks = vec![passed("table", format!("table {} is there", config.table))];
    match Table::judge(&described, config) {
        Ok(table) => {
            let view = "its stream is on and carries new images";
            checks.push(passed("stream", view.to_owned()));
            checks.push(check_listing(client, &table.descriptor.stream).await);
        }
        Err(problem) => checks.push(problem.check("stream")),
    }
    let one = ScanRequest { segment: 0, segments: 1, after: None, limit: Some(1) };
    checks.push(match client.scan(one).await {
        Ok(_) => passed("scan", "the table can be scanned".to_owned()),
        Err(problem) => problem.check("scan"),
    });
    checks
}

async fn check_listing(client: &Client, stream: &str) -> Check {
    match client.list(stream).await {
        Ok(Listing::Growing(shards) | Listing::Off(shards)) => {
            passed("stream-read", format!("it has {} stream shards", shards.len()))
        }
        Ok(Listing::Missing) => Problem::new(
            ErrorKind::Unavailable,
            "dynamodb: the table's stream is not there".to_owned(),
            "wait a minute if it was just turned on".to_owned(),
        )
        .check("stream-read"),
        Err(problem) => problem.check("stream-read"),
    }
}

fn passed(name: &str, detail: String) -> Check {
    Check { name: name.to_owned(), passed: true, detail, remedy: String::new() }
}

fn no_stream(config: &DynamodbConfig) -> Problem {
    let what = format!("dynamodb: the stream of table {} is off", config.table);
    Problem::new(ErrorKind::Config, what, format!("turn it on: {}", turn_on(config)))
}

fn wrong_view(config: &DynamodbConfig, view: &str) -> Problem {
    let what = format!(
        "dynamodb: the stream of table {} carries {view}, not what items hold",
        config.table
    );
    let remedy = format!("turn it off and on again: {} && {}", turn_off(config), turn_on(config));
    Problem::new(ErrorKind::Config, what, remedy)
}

fn turn_on(config: &DynamodbConfig) -> String {
    let setting = "StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES";
    update(config, setting)
}

fn turn_off(config: &DynamodbConfig) -> String {
    update(config, "StreamEnabled=false")
}

fn update(config: &DynamodbConfig, setting: &str) -> String {
    let endpoint = config.endpoint.as_ref();
    let endpoint = endpoint.map_or_else(String::new, |url| format!(" --endpoint-url {url}"));
    format!(
        "aws dynamodb update-table --region {} --table-name {} --stream-specification {setting}{endpoint}",
        config.region, config.table
    )
}
