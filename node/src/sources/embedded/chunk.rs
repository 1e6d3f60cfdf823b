//! Rows of one slot.

use bytes::Bytes;
use tidegate_proto::v1::{Operation, ScanRequest, ScanResponse, SlotRange, StoredDocument};
use tidegate_proto::{BatchBuilder, Draft, Key, KeyPart};
use tonic::{Streaming, async_trait};

use crate::error::{Error, ErrorKind, Result};
use crate::sources::embedded::client::{Embedded, Position};
use crate::sources::{ChunkReader, Page};

/// A scan, opened when the first page is asked for.
pub(super) struct Chunk {
    source: Embedded,
    slots: SlotRange,
    cursor: Bytes,
    responses: Option<Streaming<ScanResponse>>,
}

impl Chunk {
    pub(super) fn new(source: Embedded, slots: SlotRange, cursor: &[u8]) -> Self {
        Self { source, slots, cursor: Bytes::copy_from_slice(cursor), responses: None }
    }

    async fn open(&self) -> Result<Streaming<ScanResponse>> {
        let request = ScanRequest {
            slots: Some(self.slots),
            after: self.cursor.clone(),
            ..ScanRequest::default()
        };
        let responses = self.source.documents().scan(request).await;
        let responses = responses.map_err(|status| self.source.explain("scan", &status))?;
        Ok(responses.into_inner())
    }
}

#[async_trait]
impl ChunkReader for Chunk {
    async fn page(&mut self, out: &mut BatchBuilder, bytes_max: usize) -> Result<Page> {
        let mut responses = match self.responses.take() {
            Some(responses) => responses,
            None => self.open().await?,
        };
        let mut page = Page { cursor: self.cursor.clone(), ..Page::default() };
        while out.bytes() < bytes_max && !page.done {
            let message = responses.message().await;
            let message = message.map_err(|status| self.source.explain("scan", &status))?;
            let cut = || Error::new(ErrorKind::Unavailable, "the document store ended the scan");
            let response = message.ok_or_else(cut)?;
            for document in &response.documents {
                push(out, document)?;
            }
            if !response.cursor.is_empty() {
                page.cursor = response.cursor;
            }
            page.done = response.done;
            // Any store will do: only the revision is compared.
            let seen = Position { store: String::new(), revision: response.revision };
            page.seen = seen.encode();
        }
        self.cursor = page.cursor.clone();
        self.responses = Some(responses);
        Ok(page)
    }
}

fn push(out: &mut BatchBuilder, row: &StoredDocument) -> Result<()> {
    let key = key_of(&row.key)?;
    let document = row.document.as_ref();
    out.push(&Draft {
        operation: Operation::Snapshot,
        collection: &row.collection,
        key: key.as_bytes(),
        document: document.map(|document| (&document.dictionary[..], &document.value[..])),
        before: None,
        committed_ms: row.written_ms,
    });
    Ok(())
}

/// The store's keys are strings.
pub(super) fn key_of(text: &str) -> Result<Key> {
    Key::encode(&[KeyPart::String(text.to_owned())]).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "a key of the document store").because(error)
    })
}
