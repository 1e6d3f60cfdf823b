//! Talks to the server, and says what its errors mean.

use std::collections::HashMap;
use std::time::Duration;

use futures::SinkExt as _;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::config::{PostgresConfig, refuse};
use super::connect::connect;
use super::gather::Staged;
use super::tables::Table;
use crate::error::{Error, ErrorKind, Result};

/// What the server does about a statement that takes too long comes before what
/// we do about a server that says nothing.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// After this long in a transaction without a word from us the server ends it:
/// a node that hangs must not hold rows that its successor needs.
const IDLE_MS_MAX: u64 = 10_000;
/// Memory of the server for the staged rows of one commit, below the session.
const STAGING_BUFFERS: &str = "32MB";

/// A connection, set up for this sink. Dropping it closes the connection.
pub(super) struct Session {
    client: Client,
    _driver: AbortOnDrop,
    statement_timeout: Duration,
    /// The tables made ready so far, by name.
    pub(super) tables: HashMap<String, Table>,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    /// Connects and sets up.
    pub(super) async fn connect(config: &PostgresConfig) -> Result<Self> {
        let (client, driver) = connect(config).await?;
        // What it ends with, every call on the client ends with too.
        let driver = AbortOnDrop(tokio::spawn(async move { drop(driver.await) }));
        let statement_timeout = Duration::from_millis(config.statement_timeout_ms);
        let tables = HashMap::new();
        let session = Self { client, _driver: driver, statement_timeout, tables };
        session.set_up(config).await?;
        Ok(session)
    }

    async fn set_up(&self, config: &PostgresConfig) -> Result<()> {
        let doing = "set up the session";
        let row =
            "SELECT current_setting('server_encoding'), current_setting('synchronous_commit')";
        let row = self.one(doing, row, &[]).await?;
        let (encoding, commit): (String, String) = (get(&row, 0)?, get(&row, 1)?);
        if encoding != "UTF8" {
            let why = format!("the database has the encoding {encoding}; make one with UTF8");
            return Err(refuse(&why));
        }
        // Whoever asks for more than `on` keeps it.
        let commit = if commit == "remote_apply" { "remote_apply" } else { "on" };
        let settings = format!(
            "SET synchronous_commit = {commit}; \
             SET default_transaction_isolation = 'read committed'; \
             SET statement_timeout = {}; SET idle_in_transaction_session_timeout = {IDLE_MS_MAX}; \
             SET client_min_messages = warning; SET jit = off; \
             SET temp_buffers = '{STAGING_BUFFERS}'",
            config.statement_timeout_ms
        );
        self.run(doing, &settings).await
    }

    /// Statements without parameters, one after the other.
    pub(super) async fn run(&self, doing: &str, sql: &str) -> Result<()> {
        self.bounded(doing, self.client.batch_execute(sql)).await
    }

    /// The one row that a query gives.
    pub(super) async fn one(&self, doing: &str, sql: &str, values: Values<'_>) -> Result<Row> {
        self.bounded(doing, self.client.query_one(sql, values)).await
    }

    /// All rows that a query gives.
    pub(super) async fn all(&self, doing: &str, sql: &str, values: Values<'_>) -> Result<Vec<Row>> {
        self.bounded(doing, self.client.query(sql, values)).await
    }

    /// The same, prepared before.
    pub(super) async fn query(
        &self,
        doing: &str,
        statement: &Statement,
        values: Values<'_>,
    ) -> Result<Vec<Row>> {
        self.bounded(doing, self.client.query(statement, values)).await
    }

    /// Rows that a statement has changed.
    pub(super) async fn execute(&self, doing: &str, sql: &str, values: Values<'_>) -> Result<u64> {
        self.bounded(doing, self.client.execute(sql, values)).await
    }

    /// The same, prepared before.
    pub(super) async fn perform(
        &self,
        doing: &str,
        statement: &Statement,
        values: Values<'_>,
    ) -> Result<u64> {
        self.bounded(doing, self.client.execute(statement, values)).await
    }

    /// A statement to be executed many times.
    pub(super) async fn prepare(&self, doing: &str, sql: &str) -> Result<Statement> {
        self.bounded(doing, self.client.prepare(sql)).await
    }

    /// Sends all rows of a table; gives how many arrived.
    pub(super) async fn copy(&self, statement: &Statement, staged: &Staged) -> Result<u64> {
        let sent = async {
            let sink = self.client.copy_in(statement).await?;
            let mut sink = std::pin::pin!(sink);
            for piece in &staged.copy {
                sink.feed(piece.clone()).await?;
            }
            sink.finish().await
        };
        self.bounded("copy rows into the staging table", sent).await
    }

    async fn bounded<T>(
        &self,
        doing: &str,
        call: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.statement_timeout + GRACE, call).await {
            Ok(answer) => answer.map_err(|error| explain(doing, error)),
            Err(_) => Err(silent(doing)),
        }
    }
}

/// What stands for `$1` and so on.
pub(super) type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A column of a row, by its number.
pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    column: usize,
) -> Result<T> {
    row.try_get(column).map_err(|error| explain("read an answer of the database", error))
}

pub(super) fn silent(doing: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{doing}: the database does not answer"))
}

/// An error of the client, by what is to be done about it.
pub(super) fn explain(doing: &str, error: tokio_postgres::Error) -> Error {
    let Some(answer) = error.as_db_error() else {
        // Bad certificates and passwords want a person; networks mend themselves.
        return Error::new(ErrorKind::Unavailable, format!("{doing} of the postgres sink"))
            .because(error);
    };
    let (code, table) = (answer.code(), answer.table());
    let kind = kind_of(code);
    let at = table.map_or_else(String::new, |table| format!(" at table {table}"));
    let name = answer.constraint().or_else(|| answer.column());
    let name = name.map_or_else(String::new, |name| format!(", \"{name}\""));
    let what = format!("{doing} of the postgres sink{at}{name}{}", advice(code));
    // Only messages of these classes are sure not to repeat a value.
    let told = ["08", "28", "3D", "3F", "42", "53", "55", "57"];
    if told.iter().any(|class| code.code().starts_with(class)) {
        let message = format!("{} (SQLSTATE {})", answer.message(), code.code());
        return Error::new(kind, what).because(message);
    }
    Error::new(kind, what).because(format!("SQLSTATE {}", code.code()))
}

fn kind_of(code: &SqlState) -> ErrorKind {
    // Made anew, or looked at, when the sink is opened again.
    let gone =
        [&SqlState::UNDEFINED_TABLE, &SqlState::UNDEFINED_COLUMN, &SqlState::DATATYPE_MISMATCH];
    let class = code.code().get(..2).unwrap_or_default();
    match class {
        _ if gone.contains(&code) => ErrorKind::Unavailable,
        // Rights, names, constraints and limits: a person must change something.
        "0A" | "22" | "23" | "28" | "3D" | "3F" | "42" | "44" | "54" | "P0" => ErrorKind::Config,
        _ => ErrorKind::Unavailable,
    }
}

fn advice(code: &SqlState) -> &'static str {
    match code.code().get(..2).unwrap_or_default() {
        "23" => "; a constraint of the table refuses a row: drop it, or mend the source",
        "28" => "; check user and password",
        "42" if *code == SqlState::INSUFFICIENT_PRIVILEGE => "; grant what is missing",
        "55" if *code == SqlState::LOCK_NOT_AVAILABLE => {
            "; a long transaction uses the table: tried again until that ends"
        }
        "53" if *code == SqlState::DISK_FULL => "; free space on the server",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_says_who_has_to_act() {
        for (code, kind) in [
            (&SqlState::ADMIN_SHUTDOWN, ErrorKind::Unavailable),
            (&SqlState::T_R_DEADLOCK_DETECTED, ErrorKind::Unavailable),
            (&SqlState::QUERY_CANCELED, ErrorKind::Unavailable),
            (&SqlState::READ_ONLY_SQL_TRANSACTION, ErrorKind::Unavailable),
            (&SqlState::UNDEFINED_COLUMN, ErrorKind::Unavailable),
            (&SqlState::LOCK_NOT_AVAILABLE, ErrorKind::Unavailable),
            (&SqlState::DISK_FULL, ErrorKind::Unavailable),
            (&SqlState::INVALID_PASSWORD, ErrorKind::Config),
            (&SqlState::INSUFFICIENT_PRIVILEGE, ErrorKind::Config),
            (&SqlState::UNIQUE_VIOLATION, ErrorKind::Config),
            (&SqlState::NUMERIC_VALUE_OUT_OF_RANGE, ErrorKind::Config),
        ] {
            assert_eq!(kind_of(code), kind, "{code:?}");
        }
    }
}
