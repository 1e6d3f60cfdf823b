//! Tables of a PostgreSQL database, exactly once.
//!
//! Rows and the row that says how far the shard is are committed together, and
//! that row is moved only from where its mover knows it to be: [`checkpoint`]
//! keeps owners apart and answers after a commit whose answer was lost.
//! [`gather`] takes batches, [`encode`] makes rows of them as [`layout`] says,
//! [`fit`] puts values into declared columns, [`tables`] makes what is missing,
//! [`write`] is the transaction, [`commits`] their order.
//!
//! Snapshot rows need no care here: the merge upstream lets none follow a newer
//! change of its key, and sequences are the order of both. So what comes last is
//! what is true, and a delete leaves nothing behind.
//!
//! Memory: the batches of a transaction, below `batch-bytes`, and the rows of two.

mod check;
mod checkpoint;
mod client;
mod commits;
mod config;
mod encode;
mod fit;
mod gather;
mod layout;
mod names;
mod numeric;
mod tables;
mod tls;
mod write;

use std::sync::Arc;

use tidegate_proto::Sequence;
use tonic::async_trait;

pub(super) use self::check::check;
use self::commits::{Commits, Place};
pub use self::config::PostgresConfig;
use self::gather::{Held, Shape};
use self::layout::Layout;
use self::write::Link;
use crate::error::{Error, ErrorKind, Result};
use crate::sinks::{Durable, Guarantee, Opened, Sink, SinkBatch, SinkShard, SinkTraits, Written};

/// Opens the database for a shard, and shuts out owners before this one.
pub(super) async fn open(config: &PostgresConfig, shard: &SinkShard) -> Result<Opened> {
    let shape = Arc::new(Shape {
        layout: Layout::new(config),
        template: config.table.clone(),
        shard: shard.clone(),
    });
    let link = Link::open(config, &shape).await?;
    let committed = link.claim.committed()?;
    let (row, sequence, records) = (link.claim.id, link.claim.sequence, link.claim.records);
    let place = Place { config: config.clone(), shape: Arc::clone(&shape), row };
    let sink = PostgresSink {
        limits: Limits {
            bytes: config.batch_bytes,
            changes: config.batch_changes,
            delay_ms: config.delay_ms,
        },
        shape,
        row,
        held: Held::behind(sequence, records),
        commits: Commits::new(place, link),
        idle: false,
        fresh: true,
    };
    Ok(Opened { sink: Box::new(sink), committed })
}

/// What a transaction may hold, and how long it may wait.
struct Limits {
    bytes: u64,
    changes: u64,
    delay_ms: u64,
}

/// The database, open for one shard.
struct PostgresSink {
    limits: Limits,
    shape: Arc<Shape>,
    /// The checkpoint row's number, which rows name their shard by.
    row: i32,
    held: Held,
    commits: Commits,
    /// A batch without changes was accepted since the last flush.
    idle: bool,
    /// No changes were taken since it was opened.
    fresh: bool,
}

#[async_trait]
impl Sink for PostgresSink {
    fn traits(&self) -> SinkTraits {
        SinkTraits {
            kind: "postgres",
            guarantee: Guarantee::ExactlyOnce,
            flush_after_ms: self.limits.delay_ms,
        }
    }

    /// While one transaction is written, the next is gathered: what a full one
    /// answers is the end of the one before.
    async fn write(&mut self, batch: &SinkBatch) -> Result<Written> {
        if self.commits.failed() {
            self.commits.first().await?;
        }
        if batch.batch.changes.is_empty() {
            self.held.progress(&batch.progress);
            self.idle = true;
            return Ok(Written::Accepted);
        }
        let next = self.held.next();
        if batch.last().0 < next {
            let committed = self.commits.committed();
            let durable = batch.last().0 <= committed;
            let everything = Durable::vouch(Sequence(committed));
            return Ok(if durable { Written::Durable(everything) } else { Written::Accepted });
        }
        if batch.first.0 > next {
            self.skip(batch).await?;
        }
        self.held.take(batch)?;
        self.fresh = false;
        let full =
            self.held.bytes() >= self.limits.bytes || self.held.changes() >= self.limits.changes;
        if !full {
            return Ok(Written::Accepted);
        }
        let durable = self.seal().await?;
        Ok(durable.map_or(Written::Accepted, Written::Durable))
    }

    /// Progress alone is not written: it covers no change, and to lose it costs
    /// no more than to read that stretch of the source again.
    async fn flush(&mut self) -> Result<Option<Durable>> {
        let mut durable = self.commits.first().await?;
        if !self.held.is_empty() {
            self.seal().await?;
        }
        while let Some(last) = self.commits.first().await? {
            durable = Some(last);
        }
        let idle = std::mem::take(&mut self.idle);
        let nothing_more = || Durable::vouch(Sequence(self.commits.committed()));
        Ok(durable.or_else(|| idle.then(nothing_more)))
    }
}

impl PostgresSink {
    /// Leaves out the sequences before `batch`, if they are a recorded loss.
    async fn skip(&mut self, batch: &SinkBatch) -> Result<()> {
        if batch.batch.rewound.is_none() {
            let (next, last) = (self.held.next(), batch.first.0 - 1);
            let missing = format!("changes {next} to {last} never came to the postgres sink");
            if !self.fresh {
                return Err(Error::new(ErrorKind::Corrupt, missing));
            }
            // They were delivered once, and the database no longer has them.
            let what = format!(
                "{missing}: the database was set back. Restore it, or set `sequence` of row {} \
                 of tidegate_checkpoint to {last} to go on without them",
                self.row
            );
            return Err(Error::new(ErrorKind::Config, what));
        }
        if !self.held.is_empty() {
            self.seal().await?;
        }
        self.held.skip_to(batch.first.0);
        Ok(())
    }

    /// Makes a transaction of what is held, while the one before is written, and
    /// waits for that one.
    async fn seal(&mut self) -> Result<Option<Durable>> {
        let (held, shape, row) = (self.held.clone(), Arc::clone(&self.shape), self.row);
        let sealed = tokio::task::spawn_blocking(move || held.seal(&shape, row));
        let sealed = sealed.await.map_err(|_| {
            Error::new(ErrorKind::Unknown, "a call to the postgres sink did not end; open it anew")
        })??;
        self.held = Held::behind(sealed.upto, sealed.records);
        self.commits.push(sealed);
        if self.commits.len() > 1 { self.commits.first().await } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests;
