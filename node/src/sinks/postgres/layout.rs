//! The columns of a table, and the SQL that follows from them.

use super::config::{Column, Mode, PostgresConfig};
use super::names::{constant, quoted};
use crate::sinks::SinkShard;

/// How the comment begins that says whose table it is.
pub(super) const OWNER: &str = "tidegate: export ";

/// One column.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    /// The key as text to read.
    Key,
    /// The document after the change; null on delete.
    Document,
    /// The document before it.
    Before,
    /// A part of the document.
    Declared(Column),
    /// A field of the document, which nobody declared.
    Inferred(Column),
    /// The key as Tidegate orders and compares it.
    KeyBytes,
    /// Which shard brought it: `id` in the checkpoint table.
    Shard,
    Sequence,
    Epoch,
    Operation,
    Collection,
    CommittedAt,
    CapturedAt,
    /// What does not stand in its column as it is in the document, and why.
    Problems,
}

impl Cell {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Key => "key",
            Self::Document => "document",
            Self::Before => "before",
            Self::Declared(column) | Self::Inferred(column) => &column.name,
            Self::KeyBytes => "tidegate_key",
            Self::Shard => "tidegate_shard",
            Self::Sequence => "tidegate_sequence",
            Self::Epoch => "tidegate_epoch",
            Self::Operation => "tidegate_operation",
            Self::Collection => "tidegate_collection",
            Self::CommittedAt => "tidegate_committed_at",
            Self::CapturedAt => "tidegate_captured_at",
            Self::Problems => "tidegate_problems",
        }
    }

    /// It holds a part of the document.
    pub(super) fn is_part(&self) -> bool {
        matches!(self, Self::Declared(_) | Self::Inferred(_))
    }

    /// As PostgreSQL itself writes the type.
    pub(super) fn sql_type(&self) -> &'static str {
        match self {
            Self::Key | Self::Operation | Self::Collection => "text",
            Self::Document | Self::Before => "jsonb",
            Self::Declared(column) | Self::Inferred(column) => column.kind.sql(),
            Self::KeyBytes => "bytea",
            Self::Shard => "integer",
            Self::Sequence | Self::Epoch => "bigint",
            Self::CommittedAt | Self::CapturedAt => "timestamp with time zone",
            Self::Problems => "text[]",
        }
    }
}

/// The columns that a table has, in order.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) mode: Mode,
    /// Whose table it is: the comment of [`Cell::Shard`] says so, where keys of two owners
    /// would get in each other's way.
    pub(super) owner: Option<String>,
    /// Ends in [`Cell::Problems`]: the others find them.
    pub(super) cells: Vec<Cell>,
}

impl Layout {
    pub(super) fn new(config: &PostgresConfig, shard: &SinkShard) -> Self {
        let mut cells = vec![Cell::Key, Cell::Document];
        if config.mode == Mode::Append {
            cells.push(Cell::Before);
        }
        cells.extend(config.columns.iter().cloned().map(Cell::Declared));
        cells.extend([Cell::KeyBytes, Cell::Shard, Cell::Sequence]);
        if config.mode == Mode::Append {
            cells.extend([Cell::Epoch, Cell::Operation, Cell::Collection, Cell::CapturedAt]);
        }
        cells.extend([Cell::CommittedAt, Cell::Problems]);
        let name = |text: &str| serde_json::Value::from(text);
        let owner = format!("{OWNER}{}, sink {}", name(&shard.export), name(&shard.sink));
        let owner = (config.mode == Mode::Upsert).then_some(owner);
        Self { mode: config.mode, owner, cells }
    }

    /// The same, with inferred columns behind the declared ones.
    pub(super) fn with(&self, inferred: Vec<Column>) -> Self {
        let mut cells = self.cells.clone();
        let behind = cells.iter().position(|cell| matches!(cell, Cell::KeyBytes));
        let behind = behind.expect("every table has the key");
        cells.splice(behind..behind, inferred.into_iter().map(Cell::Inferred));
        Self { mode: self.mode, owner: self.owner.clone(), cells }
    }

    /// Makes `table`, without inferred columns.
    pub(super) fn create(&self, table: &str) -> String {
        let primary = match self.mode {
            Mode::Upsert => "tidegate_key",
            Mode::Append => "tidegate_shard, tidegate_sequence",
        };
        let cells = self.cells.iter().filter(|cell| !matches!(cell, Cell::Inferred(_)));
        let create =
            format!("CREATE TABLE {table} ({}, PRIMARY KEY ({primary}));", definitions(cells));
        let Some(owner) = &self.owner else { return create };
        let (shard, owner) = (Cell::Shard, constant(owner));
        format!("{create} COMMENT ON COLUMN {table}.{} IS {owner};", shard.name())
    }

    /// Makes a table of the session, emptied by every commit.
    pub(super) fn create_staging(&self, table: &str) -> String {
        format!(
            "CREATE TEMP TABLE {table} ({}) ON COMMIT DELETE ROWS",
            definitions(self.cells.iter())
        )
    }

    /// Takes rows as [`encode`](super::encode) makes them.
    pub(super) fn copy(&self, table: &str) -> String {
        format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", self.names())
    }

    /// Puts the staged rows that are there in their places.
    ///
    /// A row of this shard that is as new is left: the caller counts, and takes
    /// that for what it is, a table that is ahead of its checkpoint. Sequences of
    /// two shards say nothing about each other; there what comes later is newer,
    /// since a shard is written when all before it that had its keys are done.
    pub(super) fn merge(&self, table: &str, staging: &str) -> String {
        let set: Vec<_> = self
            .cells
            .iter()
            .map(|cell| quoted(cell.name()))
            .map(|name| format!("{name} = EXCLUDED.{name}"))
            .collect();
        format!(
            "INSERT INTO {table} AS old ({names}) SELECT {names} FROM {staging} \
             WHERE document IS NOT NULL ON CONFLICT (tidegate_key) DO UPDATE SET {} \
             WHERE old.tidegate_shard <> EXCLUDED.tidegate_shard \
             OR old.tidegate_sequence < EXCLUDED.tidegate_sequence",
            set.join(", "),
            names = self.names(),
        )
    }

    /// Removes the rows whose staged ones are deletes.
    pub(super) fn delete(table: &str, staging: &str) -> String {
        format!(
            "DELETE FROM {table} old USING {staging} new WHERE new.document IS NULL \
             AND old.tidegate_key = new.tidegate_key"
        )
    }

    fn names(&self) -> String {
        let names = self.cells.iter().map(|cell| quoted(cell.name()));
        names.collect::<Vec<_>>().join(", ")
    }
}

fn definitions<'a>(cells: impl Iterator<Item = &'a Cell>) -> String {
    let one = |cell: &Cell| format!("{} {}", quoted(cell.name()), cell.sql_type());
    cells.map(one).collect::<Vec<_>>().join(", ")
}
