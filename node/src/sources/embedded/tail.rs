//! Reading a store: scans of a moment, and changes for ever.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use rocksdb::DBRawIterator;
use tidegate_proto::v1::{
    ChangesResponse, DocumentChange, ScanRequest, ScanResponse, SlotRange, StoredDocument,
};
use tokio::sync::mpsc;
use tonic::Status;

use crate::sources::embedded::keys::{Key, revision_of};
use crate::sources::embedded::service::to_json;
use crate::sources::embedded::store::{Store, damaged, read_row};

/// Bytes of documents in one response, about.
const RESPONSE_BYTES: usize = 256 << 10;
/// The least time between two looks for new changes.
const PASS: Duration = Duration::from_millis(2);

type Responses<T> = mpsc::Sender<Result<T, Status>>;

/// Sends the documents of `slots` as they are at one moment, in key order.
pub(super) fn scan(
    store: &Store,
    slots: SlotRange,
    request: &ScanRequest,
    responses: &Responses<ScanResponse>,
) -> Result<(), Status> {
    let moment = store.db.snapshot();
    let revision = moment.get(Key::Revision.encode()).map_err(|error| damaged(&error))?;
    let revision = revision.and_then(|it| it.try_into().ok()).map_or(0, u64::from_be_bytes);
    let mut response = ScanResponse { revision, ..ScanResponse::default() };
    let (mut bytes, mut sent) = (0, 0);
    for slot in slots.from..slots.upto {
        let prefix = Key::rows(slot);
        let mut rows = moment.raw_iterator();
        rows.seek(request.after.as_ref().max(&prefix[..]));
        while let (Some(key), Some(value)) = (rows.key(), rows.value()) {
            if !key.starts_with(&prefix) {
                break;
            }
            if key > &request.after[..] {
                let mut document = read_row(value)?;
                if wanted(&document, request) {
                    bytes += value.len();
                    if request.as_json {
                        to_json(&mut document)?;
                    }
                    response.documents.push(document);
                }
                response.cursor = key.to_vec().into();
            }
            if bytes >= RESPONSE_BYTES {
                sent += std::mem::take(&mut bytes) as u64;
                let next = ScanResponse { revision, ..ScanResponse::default() };
                let full = std::mem::replace(&mut response, next);
                let enough = request.limit_bytes > 0 && sent >= request.limit_bytes;
                if responses.blocking_send(Ok(full)).is_err() || enough {
                    return Ok(());
                }
            }
            rows.next();
        }
        rows.status().map_err(|error| damaged(&error))?;
    }
    response.done = true;
    drop(responses.blocking_send(Ok(response)));
    Ok(())
}

fn wanted(document: &StoredDocument, request: &ScanRequest) -> bool {
    request.collection.is_empty() || document.collection == request.collection
}

/// Sends the changes of `slots` after `after`, by revision, until nobody
/// listens. A revision is sent only when all below it are committed, which the
/// one writer sees to.
pub(super) async fn follow(
    store: Arc<Store>,
    slots: SlotRange,
    mut after: u64,
    responses: &Responses<ChangesResponse>,
) -> Result<(), Status> {
    let mut committed = store.committed();
    loop {
        let upto = *committed.borrow_and_update();
        if upto > after {
            let (store, responses) = (Arc::clone(&store), responses.clone());
            let pass = move || pass(&store, slots, after, upto, &responses);
            let listening = tokio::task::spawn_blocking(pass).await;
            if !listening.map_err(|error| Status::internal(error.to_string()))?? {
                return Ok(());
            }
            after = upto;
        }
        tokio::select! {
            changed = committed.changed() => if changed.is_err() { return Ok(()) },
            () = responses.closed() => return Ok(()),
        }
        tokio::time::sleep(PASS).await;
    }
}

/// Merges the slots' logs from `after`, exclusive, to `upto`, inclusive; false
/// if nobody listens any more.
fn pass(
    store: &Store,
    slots: SlotRange,
    after: u64,
    upto: u64,
    responses: &Responses<ChangesResponse>,
) -> Result<bool, Status> {
    let mut logs: Vec<DBRawIterator<'_>> = Vec::new();
    let mut next = BinaryHeap::new();
    for (at, slot) in (slots.from..slots.upto).enumerate() {
        let mut log = store.db.raw_iterator();
        log.seek(Key::Change(slot, after + 1).encode());
        push(&mut next, at, slot, upto, &log);
        logs.push(log);
    }
    let mut response = ChangesResponse::default();
    let mut bytes = 0;
    while let Some(Reverse((revision, at))) = next.pop() {
        let slot = slots.from + u32::try_from(at).unwrap_or_default();
        let log = &mut logs[at];
        let value = log.value().unwrap_or_default();
        bytes += value.len();
        response.changes.push(DocumentChange::decode(value).map_err(|error| damaged(&error))?);
        response.revision = revision;
        log.next();
        push(&mut next, at, slot, upto, log);
        if bytes >= RESPONSE_BYTES {
            bytes = 0;
            if responses.blocking_send(Ok(std::mem::take(&mut response))).is_err() {
                return Ok(false);
            }
        }
    }
    // Also without a change: the other slots have moved the revision.
    response.revision = upto;
    Ok(responses.blocking_send(Ok(response)).is_ok())
}

fn push(
    next: &mut BinaryHeap<Reverse<(u64, usize)>>,
    at: usize,
    slot: u32,
    upto: u64,
    log: &DBRawIterator<'_>,
) {
    let key = log.key().filter(|key| key.starts_with(&Key::changes(slot)));
    if let Some(revision) = key.and_then(revision_of).filter(|revision| *revision <= upto) {
        next.push(Reverse((revision, at)));
    }
}
