//! The transaction: rows, then the checkpoint row, then the commit.

use super::checkpoint::Claim;
use super::client::Session;
use super::config::PostgresConfig;
use super::gather::{Sealed, Shape, Staged};
use super::tables::{self, Merge};
use crate::error::{Error, ErrorKind, Result};

/// A session that holds the right to move a shard's checkpoint row.
pub(super) struct Link {
    session: Session,
    pub(super) claim: Claim,
}

/// Why a transaction did not end well.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not committed, and never will be.
    Not(Error),
    /// The commit was sent, and its answer is not known.
    Unsure(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Not(error)
    }
}

impl Link {
    /// Connects and takes the row; from then on older owners are refused.
    pub(super) async fn open(config: &PostgresConfig, shape: &Shape) -> Result<Self> {
        let session = Session::connect(config).await?;
        let claim = Claim::take(&session, &config.schema, &shape.shard).await?;
        Ok(Self { session, claim })
    }

    /// Brings `sealed`, all or nothing. After an error the link is of no use.
    pub(super) async fn write(
        &mut self,
        config: &PostgresConfig,
        sealed: &Sealed,
    ) -> Result<(), Failure> {
        tables::forget(&mut self.session).await?;
        for Staged { table, layout, .. } in &sealed.tables {
            tables::ready(&mut self.session, &config.schema, table, layout).await?;
        }
        self.session.run("begin", "BEGIN").await?;
        let mut held_back = None;
        for staged in &sealed.tables {
            held_back = self.put(staged).await?.or(held_back);
            tables::unaltered(&self.session, &config.schema, &staged.table).await?;
        }
        // Rows of a successor are newer than ours: then this says so.
        self.claim.advance(&self.session, sealed).await?;
        if let Some(error) = held_back {
            return Err(error.into());
        }
        // A commit that waits for a standby and is cut short by the timeout would
        // count as done here, and be lost with this server.
        let commit = "SET LOCAL statement_timeout = 0; COMMIT";
        self.session.run("commit", commit).await.map_err(Failure::Unsure)?;
        self.claim.moved(sealed);
        Ok(())
    }

    /// An answer if rows were held back that should not be.
    async fn put(&self, staged: &Staged) -> Result<Option<Error>> {
        let Staged { table, puts, deletes, .. } = staged;
        let there = self.session.tables.get(table);
        let there = there.ok_or_else(|| wrong(table, "was not made ready"))?;
        require(table, self.session.copy(&there.copy, staged).await?, puts + deletes)?;
        let Some(Merge { merge, delete }) = &there.merge else { return Ok(None) };
        let mut merged = 0;
        if *puts > 0 {
            merged = self.session.perform("merge rows", merge, &[]).await?;
        }
        if *deletes > 0 {
            self.session.perform("delete rows", delete, &[]).await?;
        }
        Ok((merged != *puts).then(|| ahead(table)))
    }
}

/// The checkpoint row vouches that no row there is newer.
fn ahead(table: &str) -> Error {
    let what = format!(
        "table \"{table}\" has rows of this shard that are newer than its checkpoint row, or a \
         trigger holds rows back; set that row back no further than the table, or delete it to \
         begin anew"
    );
    Error::new(ErrorKind::Config, what)
}

fn require(table: &str, arrived: u64, sent: u64) -> Result<()> {
    if arrived == sent {
        return Ok(());
    }
    Err(wrong(table, &format!("took {arrived} of {sent} rows; look for a trigger that drops some")))
}

fn wrong(table: &str, what: &str) -> Error {
    Error::new(ErrorKind::Config, format!("table \"{table}\" of the postgres sink {what}"))
}
