//! What `doctor` tries, without a shard.

use tidegate_proto::v1::Check;

use super::checkpoint::TABLE as CHECKPOINTS;
use super::client::{Session, get};
use super::config::PostgresConfig;
use super::layout::Cell;
use super::names::quoted;
use crate::error::Result;

/// Whether the database can be written to, and keeps what it has.
pub(in crate::sinks) async fn check(config: &PostgresConfig) -> Vec<Check> {
    let session = match Session::connect(config).await {
        Ok(session) => session,
        Err(error) => return vec![told("postgres", Err(error.to_string()))],
    };
    let mut checks = vec![
        ("postgres rights", rights(&session, config).await),
        ("postgres durability", durability(&session).await),
    ];
    if config.columns_inferred() > 0 {
        checks.push(("postgres ownership", ownership(&session, config).await));
    }
    let connected = told("postgres", Ok("connects".to_owned()));
    let others = checks
        .into_iter()
        .map(|(name, outcome)| told(name, outcome.unwrap_or_else(|error| Err(error.to_string()))));
    std::iter::once(connected).chain(others).collect()
}

/// What is fine, or what is not.
type Told = std::result::Result<String, String>;

fn told(name: &str, outcome: Told) -> Check {
    let (passed, detail, remedy) = match outcome {
        Ok(detail) => (true, detail, String::new()),
        Err(detail) => (false, detail, "mend what the detail names".to_owned()),
    };
    Check { name: name.to_owned(), passed, detail, remedy }
}

async fn rights(session: &Session, config: &PostgresConfig) -> Result<Told> {
    let sql = "SELECT has_database_privilege(current_database(), 'TEMP'), \
               has_database_privilege(current_database(), 'CREATE'), \
               COALESCE(has_schema_privilege(to_regnamespace($1)::oid, 'CREATE'), false), \
               to_regnamespace($1) IS NOT NULL, to_regclass($2) IS NOT NULL";
    let schema = quoted(&config.schema);
    let checkpoints = format!("{schema}.{CHECKPOINTS}");
    let row = session.one("look at rights", sql, &[&schema, &checkpoints]).await?;
    let (temporary, schemas): (bool, bool) = (get(&row, 0)?, get(&row, 1)?);
    let (tables, there): (bool, bool) = (get(&row, 2)?, get(&row, 3)?);
    if !temporary {
        return Ok(Err("the role may make no temporary tables; grant TEMP".to_owned()));
    }
    if there && !tables && get::<bool>(&row, 4)? {
        return Ok(Ok("may make no tables: all must be there before".to_owned()));
    }
    if there && !tables {
        return Ok(Err("the role may make no tables in the schema; grant CREATE".to_owned()));
    }
    if !there && !schemas {
        return Ok(Err("the schema is missing, and the role may not make it".to_owned()));
    }
    Ok(Ok("may make tables".to_owned()))
}

/// Only who owns a table adds columns to it; no grant allows that.
async fn ownership(session: &Session, config: &PostgresConfig) -> Result<Told> {
    let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
               WHERE c.relnamespace = to_regnamespace($1) AND c.relkind IN ('r', 'p') \
               AND a.attname = $2 AND NOT a.attisdropped \
               AND NOT pg_has_role(current_user, c.relowner, 'USAGE') ORDER BY 1";
    let (schema, mark) = (quoted(&config.schema), Cell::Shard.name());
    let rows = session.all("look at owners", sql, &[&schema, &mark]).await?;
    let foreign = rows.iter().map(|row| get(row, 0)).collect::<Result<Vec<String>>>()?;
    if foreign.is_empty() {
        return Ok(Ok("may add columns".to_owned()));
    }
    let tables = foreign.join(", ");
    Ok(Err(format!(
        "columns are inferred, and the role owns none of these tables, so that it may add no \
         columns there: {tables}; ALTER TABLE .. OWNER TO it, or grant it the owner's role"
    )))
}

async fn durability(session: &Session) -> Result<Told> {
    let sql = "SELECT current_setting('fsync'), current_setting('full_page_writes'), \
               current_setting('server_version')";
    let row = session.one("look at settings", sql, &[]).await?;
    let (fsync, pages): (String, String) = (get(&row, 0)?, get(&row, 1)?);
    if fsync != "on" || pages != "on" {
        let what = "the server has fsync or full_page_writes off: a crash of its machine can \
                    lose what was committed";
        return Ok(Err(what.to_owned()));
    }
    Ok(Ok(format!("commits are synced; version {}", get::<String>(&row, 2)?)))
}
