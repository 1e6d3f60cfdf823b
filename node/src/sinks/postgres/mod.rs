//! Tables of a PostgreSQL database, exactly once.
//!
//! Rows and the row that says how far the shard is are committed together, and
//! that row is moved only from where its mover knows it to be: [`checkpoint`]
//! keeps owners apart and answers after a commit whose answer was lost.
//! [`gather`] takes batches, [`infer`] finds fields that should have columns,
//! [`encode`] makes rows as [`layout`] says, [`fit`] puts values into columns,
//! [`tables`] makes what is missing, [`write`] is the transaction, [`commits`]
//! their order.
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
mod connect;
mod encode;
mod fit;
mod gather;
mod infer;
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
use self::client::Session;
use self::commits::{Commits, Place};
pub use self::config::PostgresConfig;
use self::gather::{Held, Shape};
use self::infer::Columns;
use self::write::Link;
use crate::error::{Error, ErrorKind, Result};
use crate::sinks::{Durable, Guarantee, Opened, Sink, SinkBatch, SinkShard, SinkTraits, Written};

/// Opens the database for a shard, and shuts out owners before this one.
pub(super) async fn open(config: &PostgresConfig, shard: &SinkShard) -> Result<Opened> {
    let shape = Arc::new(Shape { template: config.table.clone(), shard: shard.clone() });
    let link = Link::open(config, &shape).await?;
    let committed = link.claim.committed()?;
    let (row, sequence, records) = (link.claim.id, link.claim.sequence, link.claim.records);
    let place = Place { config: config.clone(), shape: Arc::clone(&shape), row };
    let columns = Arc::new(Columns::new(config, &shape.shard));
    let sink = PostgresSink {
        config: config.clone(),
        shape,
        columns,
        row,
        held: Held::behind(sequence, records),
        commits: Commits::new(place, link),
        idle: false,
        fresh: true,
    };
    Ok(Opened { sink: Box::new(sink), committed })
}

/// The database, open for one shard.
struct PostgresSink {
    config: PostgresConfig,
    shape: Arc<Shape>,
    columns: Arc<Columns>,
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
            flush_after_ms: self.config.delay_ms,
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
        if self.is_full() {
            // It could not be sealed before, and must not grow.
            self.seal().await?;
        }
        if batch.first.0 > next {
            self.skip(batch).await?;
        }
        self.held.take(batch)?;
        self.fresh = false;
        if !self.is_full() {
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
    /// What is held is enough for a transaction.
    fn is_full(&self) -> bool {
        let (bytes, changes) = (self.config.batch_bytes, self.config.batch_changes);
        self.held.bytes() >= bytes || self.held.changes() >= changes
    }

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
        if self.columns.infers() {
            self.infer().await?;
        }
        let row = self.row;
        let sealed =
            self.compute(move |held, shape, columns| held.seal(shape, columns, row)).await?;
        self.held = Held::behind(sealed.upto, sealed.records);
        self.commits.push(sealed);
        if self.commits.len() > 1 { self.commits.first().await } else { Ok(None) }
    }

    /// Sees to it that fields that are held have columns. On a connection of its
    /// own: the other is busy with the transaction before.
    async fn infer(&mut self) -> Result<()> {
        let found = self.compute(Held::search).await?;
        if found.is_empty() {
            return Ok(());
        }
        let session = Session::connect(&self.config).await?;
        for (table, fields) in found {
            let schema = &self.config.schema;
            let known = tables::extend(&session, schema, &table, &self.columns, &fields).await?;
            Arc::make_mut(&mut self.columns).learn(table, known);
        }
        Ok(())
    }

    /// CPU work on what is held.
    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Held, &Shape, &Columns) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let held = self.held.clone();
        let (shape, columns) = (Arc::clone(&self.shape), Arc::clone(&self.columns));
        let done = tokio::task::spawn_blocking(move || work(&held, &shape, &columns)).await;
        done.map_err(|_| {
            Error::new(ErrorKind::Unknown, "a call to the postgres sink did not end; open it anew")
        })?
    }
}

#[cfg(test)]
mod tests;
