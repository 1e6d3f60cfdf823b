//! What a shard holds in the end, for tests: a fold that shares no path with
//! the stream but the draws themselves.

use std::collections::BTreeMap;

use tidegate_proto::v1::Operation;
use tidegate_proto::{Key, KeyPart, content_hash, document};

use super::DatagenConfig;
use super::generate::{Order, change, first_order};
use super::template::Template;
use crate::error::{Error, ErrorKind, Result};

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
        if generated.operation == Operation::Delete {
            rows.remove(&generated.row);
        } else {
            rows.insert(generated.row, generated.order);
        }
    }
    let template = Template::new(shard, config.document_bytes)?;
    let hashed = |(row, order): (u64, Order)| {
        let refuse = |why: String| Error::new(ErrorKind::Corrupt, why);
        let key = Key::encode(&[KeyPart::String(template.key(row))])
            .map_err(|error| refuse(error.to_string()))?;
        let encoded = document::encode(&template.value(row, &order))
            .map_err(|error| refuse(error.to_string()))?;
        Ok((key.as_bytes().to_vec(), content_hash(&encoded.dictionary, &encoded.value)))
    };
    rows.into_iter().map(hashed).collect()
}
