//! Changes of a range of slots, as the store commits them.

use std::time::Duration;

use tidegate_proto::v1::{ChangesRequest, ChangesResponse, DocumentChange, Operation, SlotRange};
use tidegate_proto::{BatchBuilder, Draft, Key};
use tonic::{Streaming, async_trait};

use crate::error::{Error, ErrorKind, Result};
use crate::sources::embedded::client::{Embedded, Position};
use crate::sources::{ChangeStream, Read};

/// An open call of `Documents.Changes`.
pub(super) struct Stream {
    source: Embedded,
    responses: Streaming<ChangesResponse>,
    position: Position,
}

impl Stream {
    pub(super) async fn open(
        source: Embedded,
        slots: SlotRange,
        position: Position,
    ) -> Result<Self> {
        let request = ChangesRequest { slots: Some(slots), after: position.revision };
        let responses = source.documents().changes(request).await;
        let responses = responses.map_err(|status| source.explain("read changes", &status))?;
        Ok(Self { source, responses: responses.into_inner(), position })
    }

    async fn response(&mut self, wait: Duration) -> Result<Option<ChangesResponse>> {
        // Dropping `message` loses nothing: it is cancel safe.
        let Ok(message) = tokio::time::timeout(wait, self.responses.message()).await else {
            return Ok(None);
        };
        let message = message.map_err(|status| self.source.explain("read changes", &status))?;
        let ended = || Error::new(ErrorKind::Unavailable, "the document store ended the stream");
        message.ok_or_else(ended).map(Some)
    }
}

#[async_trait]
impl ChangeStream for Stream {
    async fn read(
        &mut self,
        out: &mut BatchBuilder,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Read> {
        let mut moved = false;
        let mut wait = wait;
        while out.bytes() < bytes_max {
            let Some(response) = self.response(wait).await? else { break };
            for change in &response.changes {
                push(out, change)?;
            }
            self.position.revision = response.revision;
            moved = true;
            // More only if it is there already.
            wait = Duration::ZERO;
        }
        let position = if moved { self.position.encode() } else { bytes::Bytes::new() };
        Ok(Read { position, ..Read::default() })
    }

    fn passed(&self, seen: &[u8]) -> bool {
        Position::decode(seen).is_ok_and(|seen| self.position.revision >= seen.revision)
    }
}

fn push(out: &mut BatchBuilder, change: &DocumentChange) -> Result<()> {
    let operation = match (change.deleted, change.created) {
        (true, _) => Operation::Delete,
        (false, true) => Operation::Insert,
        (false, false) => Operation::Update,
    };
    let key = super::chunk::key_of(&change.key)?;
    let document = change.document.as_ref();
    out.push(&Draft {
        operation,
        collection: &change.collection,
        key: Key::as_bytes(&key),
        document: document.map(|document| (&document.dictionary[..], &document.value[..])),
        before: None,
        committed_ms: change.written_ms,
    });
    Ok(())
}
