//! Reading changes page by page, in the order of their revisions.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rocksdb::{DBRawIterator, ReadOptions, Snapshot};
use tidegate_proto::v1::{ChangesResponse, DocumentChange};

use super::error::StoreError;
use super::keys::{self, Revision, RowKey, Slots};
use super::rows::{ChangeKind, ChangeRow};
use super::store::{Core, encoded};

/// Bytes of changes after which a page ends.
const PAGE_BYTES: usize = 256 << 10;

/// The changes of `slots` after `after`, all from one snapshot: a revision below
/// the page's own that is not in the page is not in these slots either.
pub(super) fn page(
    core: &Core,
    slots: Slots,
    after: Revision,
) -> Result<ChangesResponse, StoreError> {
    let snapshot = core.db.snapshot();
    let head = core.head(&snapshot)?;
    head.check(after)?;
    let mut page = ChangesResponse { changes: Vec::new(), revision: head.last.0 };
    if after == head.last {
        return Ok(page);
    }
    let mut merge = Merge::open(&snapshot, slots, after)?;
    let mut room = PAGE_BYTES;
    while let Some((revision, bytes)) = merge.peek()? {
        if room == 0 {
            break;
        }
        let change = change(revision, bytes)?;
        room = room.saturating_sub(bytes.len());
        assert!(after < revision && revision <= head.last, "a page lies within the snapshot");
        page.changes.push(change);
        merge.step()?;
    }
    // Full: what comes behind the last change is not known to this page.
    if let (Some(last), true) = (page.changes.last(), merge.peek()?.is_some()) {
        page.revision = last.revision;
    }
    Ok(page)
}

/// The slots' logs, side by side; the next change is the lowest at any front.
struct Merge<'a> {
    logs: Vec<DBRawIterator<'a>>,
    fronts: BinaryHeap<Reverse<(Revision, usize)>>,
}

impl<'a> Merge<'a> {
    fn open(snapshot: &'a Snapshot<'a>, slots: Slots, after: Revision) -> Result<Self, StoreError> {
        let mut merge = Self { logs: Vec::new(), fronts: BinaryHeap::new() };
        for slot in slots.each() {
            let mut options = ReadOptions::default();
            options.set_iterate_upper_bound(RowKey::behind_changes(slot));
            let mut log = snapshot.raw_iterator_opt(options);
            log.seek(RowKey::Change(slot, after.next()).encode());
            merge.logs.push(log);
            merge.enqueue(merge.logs.len() - 1)?;
        }
        Ok(merge)
    }

    /// The next change's revision and row.
    fn peek(&self) -> Result<Option<(Revision, &[u8])>, StoreError> {
        let Some(Reverse((revision, log))) = self.fronts.peek() else { return Ok(None) };
        let bytes = self.logs[*log].value().ok_or(StoreError::Corrupt("a change is gone"))?;
        Ok(Some((*revision, bytes)))
    }

    fn step(&mut self) -> Result<(), StoreError> {
        let Some(Reverse((_, log))) = self.fronts.pop() else { return Ok(()) };
        self.logs[log].next();
        self.enqueue(log)
    }

    /// Queues a log by the change at its front, if it has one.
    fn enqueue(&mut self, log: usize) -> Result<(), StoreError> {
        let Some(key) = self.logs[log].key() else { return Ok(self.logs[log].status()?) };
        let unknown = StoreError::Corrupt("a change has no proper key");
        let revision = keys::read_change(key).ok_or(unknown)?;
        self.fronts.push(Reverse((revision, log)));
        Ok(())
    }
}

fn change(revision: Revision, bytes: &[u8]) -> Result<DocumentChange, StoreError> {
    let row = ChangeRow::decode(bytes)?;
    let (collection, key) = keys::names(row.key)?;
    let deleted = row.kind == ChangeKind::Delete;
    Ok(DocumentChange {
        revision: revision.0,
        collection,
        key,
        deleted,
        created: row.kind == ChangeKind::Insert,
        document: (!deleted).then(|| encoded(row.dictionary, row.value)),
        written_ms: row.written_ms,
    })
}
