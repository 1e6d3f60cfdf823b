//! One segment of a table's parallel scan.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_proto::v1::Operation;
use tidegate_proto::{BatchBuilder, Draft};
use tonic::async_trait;

use super::capacity::Capacity;
use super::client::{Client, ScanRequest};
use super::decode::{self, Item};
use super::rounds::Rounds;
use super::token::{Cursor, Descriptor};
use crate::error::{Error, ErrorKind, Result};
use crate::sources::{ChunkReader, Page};

/// Scans one segment, each page as new as the moment it is asked for.
pub(super) struct SegmentScan {
    pub(super) client: Client,
    pub(super) rounds: Arc<Rounds>,
    pub(super) capacity: Arc<Capacity>,
    pub(super) descriptor: Descriptor,
    pub(super) segment: u32,
    /// The last key read.
    pub(super) after: Option<Item>,
    /// The most items of one page; 0 for no limit.
    pub(super) page_limit: u32,
    /// Of the last page, to guess how many items the next may have.
    pub(super) bytes_per_item: Option<usize>,
}

/// The last key that `cursor` stands for; `None` at the start.
pub(super) fn last_key(cursor: &[u8], descriptor: &Descriptor) -> Result<Option<Item>> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let cursor = Cursor::decode(cursor)?;
    if cursor.segments != descriptor.segments {
        let why = "a dynamodb cursor belongs to a scan of another number of segments; start the \
                   snapshot again";
        return Err(Error::new(ErrorKind::Corrupt, why));
    }
    Ok(Some(cursor.last))
}

impl SegmentScan {
    /// Items to ask for, so that they have about `bytes_max` bytes.
    fn limit(&self, bytes_max: usize) -> Option<i32> {
        let fitting = self.bytes_per_item.map(|bytes| (bytes_max / bytes.max(1)).max(1));
        let set = usize::try_from(self.page_limit).ok().filter(|limit| *limit > 0);
        let limit = fitting.into_iter().chain(set).min()?;
        Some(i32::try_from(limit).unwrap_or(i32::MAX))
    }

    fn push(&self, item: Item, out: &mut BatchBuilder) -> Result<()> {
        let key = decode::key(&item, &self.descriptor)?;
        let encoded = decode::encode(item)?;
        out.push(&Draft {
            operation: Operation::Snapshot,
            collection: &self.client.table,
            key: key.as_bytes(),
            document: Some((&encoded.dictionary, &encoded.value)),
            before: None,
            committed_ms: 0,
        });
        Ok(())
    }
}

#[async_trait]
impl ChunkReader for SegmentScan {
    async fn page(&mut self, out: &mut BatchBuilder, bytes_max: usize) -> Result<Page> {
        self.capacity.wait().await;
        let request = ScanRequest {
            segment: self.segment,
            segments: self.descriptor.segments,
            after: self.after.clone(),
            limit: self.limit(bytes_max),
        };
        let answer = self.client.scan(request).await?;
        let seen = self.rounds.stamp();
        let used = answer.consumed_capacity.and_then(|used| used.capacity_units);
        self.capacity.spend(used.unwrap_or(0.0));
        let items = answer.items.unwrap_or_default();
        let (count, before) = (items.len(), out.bytes());
        for item in items {
            self.push(item, out)?;
        }
        self.bytes_per_item = (out.bytes() - before).checked_div(count).or(self.bytes_per_item);
        self.after = answer.last_evaluated_key.filter(|key| !key.is_empty());
        let cursor = match &self.after {
            Some(last) => {
                let segments = self.descriptor.segments;
                Cursor { segments, last: last.clone() }.encode()?
            }
            None => Bytes::new(),
        };
        Ok(Page { cursor, done: self.after.is_none(), seen })
    }
}
