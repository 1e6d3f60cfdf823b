//! What a shard holds in the end, for tests: a fold that shares no path with
//! the stream but the draws themselves.

use std::collections::BTreeMap;

use tidegate_proto::document::{self, Encoded};
use tidegate_proto::v1::Operation;
use tidegate_proto::{Key, KeyPart, content_hash};

use super::DatagenConfig;
use super::generate::{Order, change, first_order};
use super::template::Template;
use crate::error::{Error, ErrorKind, Result};

/// What each change of one shard must be.
#[derive(Debug)]
pub struct Expected {
    config: DatagenConfig,
    shard: u32,
    template: Template,
}

/// One change as a subscriber or a sink must see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedChange {
    /// What happens.
    pub operation: Operation,
    /// The encoded key.
    pub key: Vec<u8>,
    /// `None` for a delete.
    pub document: Option<Encoded>,
}

impl Expected {
    /// Of a shard by its number.
    pub fn new(config: &DatagenConfig, shard: u32) -> Result<Self> {
        let template = Template::new(shard, config.document_bytes)?;
        Ok(Self { config: config.clone(), shard, template })
    }

    /// The change that follows the first `n`.
    pub fn change(&self, n: u64) -> Result<ExpectedChange> {
        let generated = change(&self.config, self.shard, n);
        let (key, document) = encoded(&self.template, generated.row, &generated.order)?;
        let document = (generated.operation != Operation::Delete).then_some(document);
        Ok(ExpectedChange { operation: generated.operation, key, document })
    }
}

/// Encoded key and content hash of every document of `shard` after its first
/// `n` changes.
pub fn state_after(
    config: &DatagenConfig,
    shard: u32,
    n: u64,
) -> Result<BTreeMap<Vec<u8>, [u8; 16]>> {
    let mut rows: BTreeMap<u64, Order> =
        (0..config.snapshot_rows).map(|row| (row, first_order(config, shard, row))).collect();
    for at in 0..n {
        let generated = change(config, shard, at);
        match generated.operation {
            Operation::Delete => drop(rows.remove(&generated.row)),
            Operation::Unspecified
            | Operation::Gap
            | Operation::Insert
            | Operation::Update
            | Operation::Snapshot
            | Operation::Upsert => drop(rows.insert(generated.row, generated.order)),
        }
    }
    let template = Template::new(shard, config.document_bytes)?;
    let hashed = |(row, order): (u64, Order)| {
        let (key, document) = encoded(&template, row, &order)?;
        Ok((key, content_hash(&document.dictionary, &document.value)))
    };
    rows.into_iter().map(hashed).collect()
}

/// One document and its key.
fn encoded(template: &Template, row: u64, order: &Order) -> Result<(Vec<u8>, Encoded)> {
    let refuse = |why: String| Error::new(ErrorKind::Corrupt, why);
    let key = Key::encode(&[KeyPart::String(template.key(row))])
        .map_err(|error| refuse(error.to_string()))?;
    let encoded =
        document::encode(&template.value(row, order)).map_err(|error| refuse(error.to_string()))?;
    Ok((key.as_bytes().to_vec(), encoded))
}
