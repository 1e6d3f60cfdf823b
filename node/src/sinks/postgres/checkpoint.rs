//! The row that says how far a shard is in this database, and who may move it.
//!
//! ```text
//!   id | export | shard | sink | uid | epoch | opened | sequence | records | progress | ...
//!                               |      |       |         |
//!        another: refused or replaced   |       any other: open anew
//!                     a higher one: fenced
//! ```
//!
//! It is moved in the transaction that brings the rows, only from where its mover
//! knows it to be, and only by the last who opened it: of two that hold the same
//! epoch one, too, has been replaced.

use prost::Message as _;
use tidegate_proto::Sequence;
use tidegate_proto::v1::Progress;
use tokio_postgres::Row;

use super::client::{Session, get};
use super::gather::Sealed;
use super::names::{constant, quoted};
use crate::error::{Error, ErrorKind, Result};
use crate::sinks::{Committed, SinkShard};

/// The table of these rows; one in each schema that is written to.
pub(super) const TABLE: &str = "tidegate_checkpoint";
/// Taken while tables are made: `CREATE .. IF NOT EXISTS` of two at once fails.
pub(super) const MAKING: &str = "SELECT pg_advisory_xact_lock(8387236824967669861)";

/// Within a transaction: whoever adds a column waits for those who use the table, and all
/// who come then wait for it. It gives up soon, and tries again later.
pub(super) const SOON: &str = "SET LOCAL lock_timeout = '2s'";

/// The right to move one row.
#[derive(Debug)]
pub(super) struct Claim {
    /// The row; other tables name the shard by it.
    pub(super) id: i32,
    pub(super) sequence: u64,
    pub(super) records: u64,
    progress: Vec<u8>,
    epoch: i64,
    opened: i64,
    /// Of the session that claimed.
    update: tokio_postgres::Statement,
    table: String,
}

impl Claim {
    /// Takes the row from whoever had it under this epoch or an older one, and
    /// ends that one's session.
    pub(super) async fn take(session: &Session, schema: &str, shard: &SinkShard) -> Result<Self> {
        let doing = "claim the checkpoint row";
        let table = format!("{}.{}", quoted(schema), quoted(TABLE));
        make(session, schema, &table).await?;
        let epoch = whole(shard.epoch.0)?;
        let name = Name::of(shard);
        // A transaction that hangs there would be waited for.
        let end = format!(
            "SELECT pg_terminate_backend(a.pid) FROM {table} c JOIN pg_stat_activity a \
             ON a.pid = c.backend AND a.backend_start = c.backend_start \
             WHERE (c.export, c.shard, c.sink) = ($1, $2, $3) AND c.epoch <= $4 \
             AND c.uid IN ('', $5) AND a.usename = current_user AND a.pid <> pg_backend_pid()"
        );
        let Name { export, shard: of_shard, sink } = &name;
        session.all(doing, &end, &[export, of_shard, sink, &epoch, &shard.uid]).await?;
        session.run(doing, "BEGIN").await?;
        let row = name.row(session, &table).await?;
        let (id, opened): (i32, i64) = (get(&row, 0)?, get(&row, 2)?);
        let admitted = match admits(&row, &table, shard) {
            Ok(()) => is_alone(session, &table, (&name, shard)).await,
            refused => refused,
        };
        if let Err(error) = admitted {
            session.run(doing, "ROLLBACK").await?;
            return Err(error);
        }
        let claim = format!(
            "UPDATE {table} SET uid = $3, epoch = $2, opened = opened + 1, updated_at = now(), \
             backend = pg_backend_pid(), backend_start = (SELECT backend_start \
             FROM pg_stat_activity WHERE pid = pg_backend_pid()) WHERE id = $1"
        );
        session.execute(doing, &claim, &[&id, &epoch, &shard.uid]).await?;
        session.run(doing, "COMMIT").await?;
        let update = format!(
            "UPDATE {table} SET sequence = $1, records = $2, progress = $3, updated_at = now() \
             WHERE id = $4 AND epoch = $5 AND opened = $6 AND sequence = $7"
        );
        let update = session.prepare(doing, &update).await?;
        let (sequence, records) = (counted(&row, 3)?, counted(&row, 4)?);
        let progress = get(&row, 5)?;
        Ok(Self { id, sequence, records, progress, epoch, opened: opened + 1, update, table })
    }

    /// What the database has.
    pub(super) fn committed(&self) -> Result<Option<Committed>> {
        if self.sequence == 0 {
            return Ok(None);
        }
        let progress = Progress::decode(&self.progress[..]).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "progress in a tidegate_checkpoint row").because(error)
        })?;
        Ok(Some(Committed { sequence: Sequence(self.sequence), progress, records: self.records }))
    }

    /// Moves the row, within the transaction that brings the rows. After an
    /// error that transaction must not be committed.
    pub(super) async fn advance(&self, session: &Session, sealed: &Sealed) -> Result<()> {
        let doing = "move the checkpoint row";
        let (upto, records) = (whole(sealed.upto)?, whole(sealed.records)?);
        let before = whole(sealed.before)?;
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
            [&upto, &records, &sealed.progress, &self.id, &self.epoch, &self.opened, &before];
        if session.perform(doing, &self.update, &values).await? == 1 {
            return Ok(());
        }
        let select = format!("SELECT epoch FROM {} WHERE id = $1", self.table);
        let rows = session.all(doing, &select, &[&self.id]).await?;
        let there: Option<i64> = rows.first().map(|row| get(row, 0)).transpose()?;
        match there {
            Some(there) if there > self.epoch => Err(fenced(there, self.epoch)),
            _ => Err(Error::new(
                ErrorKind::Unknown,
                "the checkpoint row is not where this owner left it; open the postgres sink anew",
            )),
        }
    }

    /// The same right, once the row is where `sealed` has moved it.
    pub(super) fn moved(&mut self, sealed: &Sealed) {
        assert!(self.sequence == sealed.before, "commits follow one another");
        (self.sequence, self.records) = (sealed.upto, sealed.records);
    }
}

/// What a row is found by.
struct Name {
    export: String,
    shard: String,
    sink: String,
}

impl Name {
    /// Such as it is in the tables: U+0000 is in no text of PostgreSQL.
    fn of(shard: &SinkShard) -> Self {
        let [export, shard, sink] =
            [&shard.export, &shard.shard, &shard.sink].map(|text| text.replace('\0', "\u{fffd}"));
        Self { export, shard, sink }
    }

    /// The row, locked until the transaction ends; made if it is missing. It is looked for
    /// first: each row that is not inserted, too, takes a number from the identity.
    async fn row(&self, session: &Session, table: &str) -> Result<Row> {
        let doing = "claim the checkpoint row";
        let names: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&self.export, &self.shard, &self.sink];
        let select = format!(
            "SELECT id, epoch, opened, sequence, records, progress, uid FROM {table} \
             WHERE (export, shard, sink) = ($1, $2, $3) FOR UPDATE"
        );
        if let Some(row) = session.all(doing, &select, &names).await?.pop() {
            return Ok(row);
        }
        let insert = format!(
            "INSERT INTO {table} (export, shard, sink) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
        );
        session.execute(doing, &insert, &names).await?;
        session.one(doing, &select, &names).await
    }
}

/// Refuses a shard that may not move the row.
fn admits(row: &Row, table: &str, shard: &SinkShard) -> Result<()> {
    let (there, own): (i64, i64) = (get(row, 1)?, whole(shard.epoch.0)?);
    let (uid, delivered): (String, _) = (get(row, 6)?, Sequence(counted(row, 3)?));
    if shard.owns((&uid, delivered), "the database", &remedy(table, shard))? && there > own {
        return Err(fenced(there, own));
    }
    Ok(())
}

/// Refuses a shard beside those of another export of its name, of which none may be called
/// as this one is: they would write the same tables.
async fn is_alone(
    session: &Session,
    table: &str,
    (name, shard): (&Name, &SinkShard),
) -> Result<()> {
    // One that has delivered nothing is moved on: it looks again before it writes.
    let moved = format!(
        "UPDATE {table} SET opened = opened + 1 WHERE (export, sink) = ($1, $2) \
         AND shard <> $3 AND sequence = 0 AND uid NOT IN ('', $4)"
    );
    let doing = "look for another export's checkpoint rows";
    let Name { export, shard: of_shard, sink } = name;
    session.execute(doing, &moved, &[export, sink, of_shard, &shard.uid]).await?;
    let others = format!(
        "SELECT uid, sequence FROM {table} WHERE (export, sink) = ($1, $2) AND sequence > 0 \
         AND uid NOT IN ('', $3) LIMIT 1"
    );
    match session.all(doing, &others, &[export, sink, &shard.uid]).await?.pop() {
        None => Ok(()),
        Some(row) => {
            let (uid, delivered): (String, _) = (get(&row, 0)?, Sequence(counted(&row, 1)?));
            shard.owns((&uid, delivered), "the database", &remedy(table, shard)).map(drop)
        }
    }
}

fn remedy(table: &str, shard: &SinkShard) -> String {
    format!(
        "To begin anew, drop the tables it wrote and DELETE FROM {table} WHERE export = {} AND \
         sink = {}; or set another `schema`",
        constant(&shard.export),
        constant(&shard.sink)
    )
}

/// Makes schema and table, unless they are there: then no right to make any is
/// needed.
async fn make(session: &Session, schema: &str, table: &str) -> Result<()> {
    let doing = "make the checkpoint table";
    let there = "SELECT to_regnamespace($1) IS NOT NULL, to_regclass($2) IS NOT NULL, \
                 EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($2) \
                 AND attname = 'uid' AND NOT attisdropped)";
    let there = session.one(doing, there, &[&quoted(schema), &table]).await?;
    let (namespace, relation): (bool, bool) = (get(&there, 0)?, get(&there, 1)?);
    if relation {
        // Tables of earlier versions have none.
        let uid = format!(
            "BEGIN; {MAKING}; {SOON}; ALTER TABLE {table} \
             ADD COLUMN IF NOT EXISTS uid text NOT NULL DEFAULT ''; COMMIT"
        );
        let doing = "add the column uid (text NOT NULL DEFAULT '') to tidegate_checkpoint, which its \
                     owner may do by hand";
        return if get(&there, 2)? { Ok(()) } else { session.run(doing, &uid).await };
    }
    let schema = match namespace {
        true => String::new(),
        false => format!("CREATE SCHEMA IF NOT EXISTS {};", quoted(schema)),
    };
    let sql = format!(
        "BEGIN; {MAKING}; {schema} \
         CREATE TABLE IF NOT EXISTS {table} ( \
         id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
         export text NOT NULL, shard text NOT NULL, sink text NOT NULL, \
         uid text NOT NULL DEFAULT '', \
         epoch bigint NOT NULL DEFAULT 0, opened bigint NOT NULL DEFAULT 0, \
         sequence bigint NOT NULL DEFAULT 0, records bigint NOT NULL DEFAULT 0, \
         progress bytea NOT NULL DEFAULT '', \
         backend integer, backend_start timestamp with time zone, \
         updated_at timestamp with time zone, \
         UNIQUE (export, shard, sink)); COMMIT"
    );
    session.run(doing, &sql).await
}

fn fenced(there: i64, own: i64) -> Error {
    let what = format!("the checkpoint row is at epoch {there}, this owner has {own}");
    Error::new(ErrorKind::Fenced, what)
}

fn whole(number: u64) -> Result<i64> {
    i64::try_from(number)
        .map_err(|_| Error::new(ErrorKind::Corrupt, "a number beyond 2^63 for the checkpoint row"))
}

fn counted(row: &Row, column: usize) -> Result<u64> {
    u64::try_from(get::<i64>(row, column)?).map_err(|_| {
        Error::new(ErrorKind::Corrupt, "a number below zero in a tidegate_checkpoint row")
    })
}
