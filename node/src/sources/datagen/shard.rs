//! One shard: what its stream and its snapshot share.

use std::sync::{Mutex, PoisonError};

use tidegate_proto::v1::Operation;
use tidegate_proto::{Key, KeyPart};

use super::DatagenConfig;
use super::generate::{Order, change, first_order};
use super::template::Template;
use crate::error::{Error, ErrorKind, Result};

/// Changes folded into the table in one go, so that nobody waits long for it.
const FOLDED_MAX: u64 = 1_000_000;

/// A shard's documents, and its table as a snapshot sees it.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) config: DatagenConfig,
    pub(super) number: u32,
    pub(super) template: Template,
    table: Mutex<Table>,
}

/// Which change each of the first rows was last touched by.
///
/// A snapshot must be at least as new as the place where the stream was opened
/// in this process, since the merge forgets what it touched before that.
#[derive(Debug, Default)]
struct Table {
    /// Where the stream was opened last; nothing may be read before it was.
    opened: Option<u64>,
    /// Changes before this one are folded in.
    at: u64,
    /// By row: 1 + the last change that touched it; 0 for none.
    touched: Vec<u64>,
}

impl Shard {
    pub(super) fn new(config: &DatagenConfig, number: u32) -> Result<Self> {
        let template = Template::new(number, config.document_bytes)?;
        Ok(Self { config: config.clone(), number, template, table: Mutex::default() })
    }

    /// The encoded key of a row.
    pub(super) fn key(&self, row: u64) -> Result<Key> {
        Key::encode(&[KeyPart::String(self.template.key(row))]).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "encode a generated key").because(error)
        })
    }

    /// From now on, snapshots are read at `place` or later.
    pub(super) fn open(&self, place: u64) {
        self.table().opened = Some(place);
    }

    /// Calls `each` for those of `rows` that exist, at one place in the stream,
    /// until it says no. Gives that place and the row to go on with; `None` if
    /// the table is not there yet: ask again.
    pub(super) fn scan(
        &self,
        rows: std::ops::Range<u64>,
        mut each: impl FnMut(u64, Order) -> Result<bool>,
    ) -> Result<Option<(u64, u64)>> {
        let mut table = self.table();
        if !table.fold(&self.config, self.number) {
            return Ok(None);
        }
        for row in rows.clone() {
            let Some(order) = table.order(&self.config, self.number, row) else { continue };
            if !each(row, order)? {
                return Ok(Some((table.at, row + 1)));
            }
        }
        Ok(Some((table.at, rows.end)))
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Brings the table to where the stream was opened, or nearer to it; says
    /// whether it is there.
    fn fold(&mut self, config: &DatagenConfig, shard: u32) -> bool {
        let Some(opened) = self.opened else { return false };
        self.touched.resize(usize::try_from(config.snapshot_rows).unwrap_or(0), 0);
        let upto = opened.min(self.at.saturating_add(FOLDED_MAX));
        while self.at < upto {
            let row = usize::try_from(change(config, shard, self.at).row).unwrap_or(usize::MAX);
            self.at += 1;
            if let Some(touched) = self.touched.get_mut(row) {
                *touched = self.at;
            }
        }
        self.at >= opened
    }

    fn order(&self, config: &DatagenConfig, shard: u32, row: u64) -> Option<Order> {
        let touched = *self.touched.get(usize::try_from(row).ok()?)?;
        let Some(last) = touched.checked_sub(1) else {
            return Some(first_order(config, shard, row));
        };
        let generated = change(config, shard, last);
        (generated.operation != Operation::Delete).then_some(generated.order)
    }
}
