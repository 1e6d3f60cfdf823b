//! The tables that rows go to: made, checked and extended on first use.

use tokio_postgres::Statement;

use super::checkpoint::MAKING;
use super::client::{Session, get};
use super::config::{Mode, refuse};
use super::layout::{Cell, Layout};
use super::names::quoted;
use crate::error::Result;

/// Tables kept ready in a session from commit to commit. Their staging tables are
/// the session's own.
const READY_MAX: usize = 256;

/// A table that was checked, with what is done to it.
pub(super) enum Table {
    /// Rows go through a staging table.
    Upsert {
        /// Into the staging table.
        copy: Statement,
        merge: Statement,
        delete: Statement,
    },
    /// Rows go straight in.
    Append { copy: Statement },
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

/// Makes `name` ready in this session. Not within a transaction.
pub(super) async fn ready(
    session: &mut Session,
    schema: &str,
    name: &str,
    layout: &Layout,
) -> Result<()> {
    if session.tables.contains_key(name) {
        return Ok(());
    }
    let full = format!("{}.{}", quoted(schema), quoted(name));
    fit(session, &full, layout).await?;
    let table = match layout.mode {
        Mode::Append => {
            Table::Append { copy: session.prepare("prepare a copy", &layout.copy(&full)).await? }
        }
        Mode::Upsert => stage(session, &full, layout).await?,
    };
    session.tables.insert(name.to_owned(), table);
    Ok(())
}

async fn stage(session: &Session, full: &str, layout: &Layout) -> Result<Table> {
    let doing = "make a staging table";
    let staging = format!("pg_temp.tidegate_stage_{}", session.tables.len());
    session.run(doing, &layout.create_staging(&staging)).await?;
    Ok(Table::Upsert {
        copy: session.prepare(doing, &layout.copy(&staging)).await?,
        merge: session.prepare(doing, &layout.merge(full, &staging)).await?,
        delete: session.prepare(doing, &Layout::delete(full, &staging)).await?,
    })
}

/// Makes the table if it is missing, and the declared columns it lacks.
async fn fit(session: &Session, full: &str, layout: &Layout) -> Result<()> {
    let mut there = columns(session, full).await?;
    if there.is_empty() {
        let sql = format!("BEGIN; {MAKING}; {}; COMMIT", layout.create(full));
        session.run("make a table", &sql).await?;
        there = columns(session, full).await?;
    }
    for cell in &layout.cells {
        let (name, wanted) = (cell.name(), cell.sql_type());
        match there.iter().find(|(column, _)| column == name) {
            Some((_, kind)) if kind == wanted => {}
            Some((_, kind)) => {
                return Err(refuse(&format!(
                    "column \"{name}\" of table {full} is {kind}, and should be {wanted}; \
                     alter it, or declare another type or name"
                )));
            }
            None if matches!(cell, Cell::Declared(_)) => {
                let sql = format!(
                    "BEGIN; {MAKING}; \
                     ALTER TABLE {full} ADD COLUMN IF NOT EXISTS {} {wanted}; COMMIT",
                    quoted(name)
                );
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

/// Names and types of a table's columns; none if there is no such table.
async fn columns(session: &Session, full: &str) -> Result<Vec<(String, String)>> {
    let sql = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute \
               WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";
    let rows = session.all("look at a table", sql, &[&full]).await?;
    rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
}
