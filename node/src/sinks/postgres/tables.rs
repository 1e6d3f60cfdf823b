//! The tables that rows go to: made, checked and extended on first use.

use std::sync::Arc;

use tokio_postgres::{Row, Statement};

use super::checkpoint::{MAKING, SOON};
use super::client::{Session, get};
use super::config::{Mode, refuse};
use super::infer::{self, Columns, Existing, Fields, Known};
use super::layout::{Cell, Layout, OWNER};
use super::names::{constant, quoted};
use crate::error::{Error, ErrorKind, Result};

/// Tables kept ready in a session from commit to commit. Their staging tables are
/// the session's own.
const READY_MAX: usize = 256;

/// A table that was checked, with what is done to it.
pub(super) struct Table {
    /// What it was made ready for.
    layout: Arc<Layout>,
    /// Of its staging table.
    number: usize,
    /// Into the staging table, if there is one, else straight in.
    pub(super) copy: Statement,
    /// From the staging table.
    pub(super) merge: Option<Merge>,
    /// Its columns as they are, see [`existing`].
    look: Statement,
}

/// What is done with staged rows.
pub(super) struct Merge {
    pub(super) merge: Statement,
    pub(super) delete: Statement,
}

/// Forgets the tables of a session that has seen very many. Not within a
/// transaction.
pub(super) async fn forget(session: &mut Session) -> Result<()> {
    if session.tables.len() < READY_MAX {
        return Ok(());
    }
    session.tables.clear();
    session.run("drop the staging tables", "DISCARD TEMP").await
}

/// Makes `name` ready in this session for rows of this layout. Not within a
/// transaction.
pub(super) async fn ready(
    session: &mut Session,
    schema: &str,
    name: &str,
    layout: &Arc<Layout>,
) -> Result<()> {
    let before = session.tables.get(name);
    if before.is_some_and(|table| Arc::ptr_eq(&table.layout, layout)) {
        return Ok(());
    }
    let number = before.map_or(session.tables.len(), |table| table.number);
    let full = full(schema, name);
    fit(session, &full, layout).await?;
    let (copy, merge) = match layout.mode {
        Mode::Append => (session.prepare("prepare a copy", &layout.copy(&full)).await?, None),
        Mode::Upsert => stage(session, &full, layout, number).await?,
    };
    let look = session.prepare("look at a table", EXISTING).await?;
    let table = Table { layout: Arc::clone(layout), number, copy, merge, look };
    session.tables.insert(name.to_owned(), table);
    Ok(())
}

/// `Unavailable` if columns of `name` were altered since it was made ready: values were
/// made for others. Within the transaction, behind what wrote to it: from then on nobody
/// can alter it.
pub(super) async fn unaltered(session: &Session, schema: &str, name: &str) -> Result<()> {
    let Some(Table { layout, look, .. }) = session.tables.get(name) else { return Ok(()) };
    let full = full(schema, name);
    let rows = session.query("look at a table", look, &[&full]).await?;
    let there = rows.iter().map(Existing::read).collect::<Result<Vec<_>>>()?;
    let is =
        |cell: &Cell| there.iter().any(|it| it.name == cell.name() && it.kind == cell.sql_type());
    match layout.cells.iter().find(|cell| !is(cell)) {
        None => Ok(()),
        Some(cell) => {
            let what = format!("column \"{}\" of table {full} was altered", cell.name());
            Err(Error::new(ErrorKind::Unavailable, what))
        }
    }
}

/// Makes columns for `fields`, as far as there may be; says what the table then
/// has. In a session that is not written with.
///
/// Several writers of one table may do so at once. Each adds only what it sees
/// to be missing while it holds the lock, so all come to the same columns.
pub(super) async fn extend(
    session: &Session,
    schema: &str,
    name: &str,
    columns: &Columns,
    fields: &Fields,
) -> Result<Known> {
    let full = full(schema, name);
    fit(session, &full, &columns.base).await?;
    let mut decision = columns.decide(&existing(session, &full).await?, fields)?;
    if !decision.add.is_empty() {
        session.run("add a column", &format!("BEGIN; {MAKING}; {SOON}")).await?;
        decision = columns.decide(&existing(session, &full).await?, fields)?;
        let add: String = decision.add.iter().map(|cell| addition(&full, cell)).collect();
        session.run("add a column", &format!("{add} COMMIT")).await?;
    }
    for cell in &decision.add {
        let (column, kind) = (cell.name(), cell.sql_type());
        tracing::info!(table = full, column, kind, "a field of documents has a column from now on");
    }
    for column in &decision.foreign {
        tracing::warn!(table = full, column, "the column is not ours: its field is not written");
    }
    if decision.known.is_full() {
        let most = columns.most();
        tracing::warn!(
            table = full,
            most,
            "no more columns: other fields are in the document only"
        );
    }
    Ok(decision.known)
}

async fn stage(
    session: &Session,
    full: &str,
    layout: &Layout,
    number: usize,
) -> Result<(Statement, Option<Merge>)> {
    let doing = "make a staging table";
    let staging = format!("pg_temp.tidegate_stage_{number}");
    let create = layout.create_staging(&staging);
    session.run(doing, &format!("DROP TABLE IF EXISTS {staging}; {create}")).await?;
    let copy = session.prepare(doing, &layout.copy(&staging)).await?;
    let merge = session.prepare(doing, &layout.merge(full, &staging)).await?;
    let delete = session.prepare(doing, &Layout::delete(full, &staging)).await?;
    Ok((copy, Some(Merge { merge, delete })))
}

/// Makes the table if it is missing, and the columns of documents' parts it lacks.
async fn fit(session: &Session, full: &str, layout: &Layout) -> Result<()> {
    let mut there = existing(session, full).await?;
    if there.is_empty() {
        create(session, full, layout).await?;
        there = existing(session, full).await?;
    }
    check_owner(full, layout, &there)?;
    for cell in &layout.cells {
        let (name, wanted) = (cell.name(), cell.sql_type());
        match there.iter().find(|existing| existing.name == name) {
            Some(Existing { kind, .. }) if kind == wanted => {}
            Some(_) if matches!(cell, Cell::Inferred(_)) => {
                let what = format!(
                    "inferred column \"{name}\" of table {full} was altered; open the postgres \
                     sink anew"
                );
                return Err(Error::new(ErrorKind::Unknown, what));
            }
            Some(Existing { kind, .. }) => {
                return Err(refuse(&format!(
                    "column \"{name}\" of table {full} is {kind}, and should be {wanted}; \
                     alter it, or declare another type or name"
                )));
            }
            None if cell.is_part() => {
                let sql = format!("BEGIN; {MAKING}; {SOON}; {} COMMIT", addition(full, cell));
                session.run("add a column", &sql).await?;
            }
            None => {
                return Err(refuse(&format!(
                    "table {full} is there already, without the column \"{name}\"; rename it, \
                     or set `schema` or `table`"
                )));
            }
        }
    }
    Ok(())
}

/// Adds a column, unless it is there.
fn addition(full: &str, cell: &Cell) -> String {
    let (name, kind) = (quoted(cell.name()), cell.sql_type());
    let add = format!("ALTER TABLE {full} ADD COLUMN IF NOT EXISTS {name} {kind};");
    let Cell::Inferred(column) = cell else { return add };
    let comment = constant(&infer::comment(&column.path().concat()));
    format!("{add} COMMENT ON COLUMN {full}.{name} IS {comment};")
}

/// Makes the table, unless another has by now.
async fn create(session: &Session, full: &str, layout: &Layout) -> Result<()> {
    let doing = "make a table";
    session.run(doing, &format!("BEGIN; {MAKING}")).await?;
    let missing = existing(session, full).await?.is_empty();
    let create = if missing { layout.create(full) } else { String::new() };
    session.run(doing, &format!("{create} COMMIT")).await?;
    if missing {
        tracing::info!(table = full, "the table was not there: it gets what comes from now on");
    }
    Ok(())
}

/// Refuses a table that another export, or another sink of this one, writes to.
fn check_owner(full: &str, layout: &Layout, there: &[Existing]) -> Result<()> {
    let Some(own) = &layout.owner else { return Ok(()) };
    let shard = there.iter().find(|existing| existing.name == Cell::Shard.name());
    let other = shard.and_then(|existing| existing.comment.as_ref());
    match other.filter(|other| other.starts_with(OWNER) && *other != own) {
        None => Ok(()),
        Some(other) => Err(refuse(&format!(
            "table {full} is written by another, whose keys could be the same ({other}; this is \
             {own}); put {{export}} into `table`, or set `schema`"
        ))),
    }
}

/// Of the table that `$1` names.
const EXISTING: &str = "SELECT attname::text, format_type(atttypid, atttypmod), \
    col_description(attrelid, attnum) FROM pg_attribute \
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";

/// A table's columns; none if there is no such table.
async fn existing(session: &Session, full: &str) -> Result<Vec<Existing>> {
    let rows = session.all("look at a table", EXISTING, &[&full]).await?;
    rows.iter().map(Existing::read).collect()
}

impl Existing {
    fn read(row: &Row) -> Result<Self> {
        Ok(Self { name: get(row, 0)?, kind: get(row, 1)?, comment: get(row, 2)? })
    }
}

fn full(schema: &str, name: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(name))
}
