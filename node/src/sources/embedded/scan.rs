//! Reading documents page by page.

use rocksdb::{Direction, IteratorMode, ReadOptions, Snapshot};
use tidegate_proto::v1::{ScanResponse, StoredDocument};
use tidegate_proto::{Key, KeyPart, document};

use super::error::StoreError;
use super::keys::{self, RowKey, Slots};
use super::rows::DocumentRow;
use super::store::{Core, encoded};

/// The version of cursors; the rest is a slot and a document's key.
const CURSOR: u8 = 1;
/// Bytes of documents after which a page ends.
const PAGE_BYTES: usize = 256 << 10;

/// Which documents a page shall have.
#[derive(Clone, Debug)]
pub struct ScanQuery {
    /// Only of these slots.
    pub slots: Slots,
    /// Only of this collection; empty for all.
    pub collection: String,
    /// Behind this page's cursor; empty to start.
    pub after: Vec<u8>,
    /// A page ends after about so many bytes; 256 KiB if it is 0 or more.
    pub bytes: u64,
    /// Give documents as JSON, not as Variant.
    pub as_json: bool,
}

/// The documents behind the cursor, by slot, then collection, then key, all of
/// them as they were at one moment: that of the page's revision.
pub(super) fn page(core: &Core, query: &ScanQuery) -> Result<ScanResponse, StoreError> {
    let snapshot = core.db.snapshot();
    let mut page = ScanResponse {
        cursor: query.after.clone().into(),
        revision: core.head(&snapshot)?.last.0,
        ..ScanResponse::default()
    };
    let collection = collection_prefix(&query.collection)?;
    let (first, mut after) = match query.after.as_slice() {
        [] => (0, None),
        cursor => {
            let row = row_of(cursor)?;
            let (slot, _) = keys::read_document(&row).ok_or_else(foreign)?;
            (slot, Some(row))
        }
    };
    let mut room = match usize::try_from(query.bytes) {
        Ok(bytes) if bytes > 0 => bytes.min(PAGE_BYTES),
        _ => PAGE_BYTES,
    };
    for slot in query.slots.each().filter(|slot| *slot >= first) {
        let prefix = RowKey::Document(slot, &collection).encode();
        // The cursor says where to go on in its own slot only.
        let after =
            after.take().filter(|after| keys::read_document(after).is_some_and(|at| at.0 == slot));
        let reader = SlotReader { snapshot: &snapshot, prefix: &prefix, as_json: query.as_json };
        if !reader.read(after.as_deref(), &mut room, &mut page)? {
            return Ok(page);
        }
    }
    page.done = true;
    Ok(page)
}

/// Reads what begins with `prefix`, all of it in one slot.
struct SlotReader<'a> {
    snapshot: &'a Snapshot<'a>,
    prefix: &'a [u8],
    as_json: bool,
}

impl SlotReader<'_> {
    /// Adds the rows behind `after` to the page; `false` if the page is full.
    fn read(
        &self,
        after: Option<&[u8]>,
        room: &mut usize,
        page: &mut ScanResponse,
    ) -> Result<bool, StoreError> {
        let from = after.unwrap_or(self.prefix).max(self.prefix);
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mode = IteratorMode::From(from, Direction::Forward);
        for row in self.snapshot.iterator_opt(mode, options) {
            let (row, bytes) = row?;
            if !row.starts_with(self.prefix) {
                break;
            }
            if after == Some(&row[..]) {
                continue;
            }
            if *room == 0 {
                return Ok(false);
            }
            let document = self.document(&row, &bytes)?;
            *room = room.saturating_sub(bytes.len().max(document.json.len()).max(1));
            page.documents.push(document);
            page.cursor = [&[CURSOR], &row[1..]].concat().into();
        }
        Ok(true)
    }

    fn document(&self, row: &[u8], bytes: &[u8]) -> Result<StoredDocument, StoreError> {
        let unknown = StoreError::Corrupt("a document has no proper key");
        let (_, key) = keys::read_document(row).ok_or(unknown)?;
        let (collection, key) = keys::names(key)?;
        let row = DocumentRow::decode(bytes)?;
        let mut stored = StoredDocument {
            collection,
            key,
            revision: row.revision.0,
            written_ms: row.written_ms,
            ..StoredDocument::default()
        };
        if self.as_json {
            stored.json = json(row.dictionary, row.value)?.into();
        } else {
            stored.document = Some(encoded(row.dictionary, row.value));
        }
        Ok(stored)
    }
}

/// A stored document as JSON.
pub(super) fn json(dictionary: &[u8], value: &[u8]) -> Result<Vec<u8>, StoreError> {
    let mut json = Vec::with_capacity(value.len() * 2);
    let written = document::write_json(dictionary, value, &mut json);
    written.map_err(|_| StoreError::Corrupt("a document is not what was written"))?;
    Ok(json)
}

/// What the keys of a collection's documents begin with.
fn collection_prefix(collection: &str) -> Result<Vec<u8>, StoreError> {
    if collection.is_empty() {
        return Ok(Vec::new());
    }
    let prefix = Key::encode(&[KeyPart::String(collection.to_owned())]);
    let prefix = prefix.map_err(|error| StoreError::Request(format!("collection: {error}")))?;
    Ok(prefix.as_bytes().to_vec())
}

/// The row a cursor stands for.
fn row_of(cursor: &[u8]) -> Result<Vec<u8>, StoreError> {
    let (slot, key) = match cursor {
        [CURSOR, high, low, key @ ..] => (u16::from_be_bytes([*high, *low]), key),
        _ => return Err(foreign()),
    };
    keys::names(key).map_err(|_| foreign())?;
    Ok(RowKey::Document(slot, key).encode())
}

fn foreign() -> StoreError {
    StoreError::Request("`after` is no cursor of this store; leave it empty to start".to_owned())
}
