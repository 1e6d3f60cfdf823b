//! A shard's changes, as they are due.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_proto::v1::Operation;
use tidegate_proto::{BatchBuilder, Draft};
use tokio::time::Instant;
use tonic::async_trait;

use super::generate::change;
use super::shard::Shard;
use super::{COLLECTION, place_of};
use crate::error::Result;
use crate::sources::{ChangeStream, Read};

/// Generates one change after the other, no faster than it is set to.
pub(super) struct DatagenStream {
    shard: Arc<Shard>,
    now_ms: fn() -> i64,
    /// Changes before this one have been pushed.
    next: u64,
    /// Where it was opened, and when: what is due counts from here.
    opened: (u64, Instant),
    document: Vec<u8>,
}

impl DatagenStream {
    pub(super) fn new(shard: Arc<Shard>, next: u64, now_ms: fn() -> i64) -> Self {
        Self { shard, now_ms, next, opened: (next, Instant::now()), document: Vec::new() }
    }

    /// Changes before this one are due.
    fn due(&self) -> u64 {
        let config = &self.shard.config;
        let end = if config.changes == 0 { u64::MAX } else { config.changes };
        if config.rate_per_second == 0 {
            return end;
        }
        let elapsed = self.opened.1.elapsed().as_millis();
        let since = elapsed * u128::from(config.rate_per_second) / 1000;
        self.opened.0.saturating_add(u64::try_from(since).unwrap_or(u64::MAX)).min(end)
    }

    /// Waits until a change is due, at most `wait`.
    async fn wait(&self, wait: Duration) {
        let per_second = f64::from(self.shard.config.rate_per_second.max(1));
        tokio::time::sleep(Duration::from_secs_f64(1.0 / per_second).min(wait)).await;
    }

    /// Every change there is has been given.
    fn has_ended(&self) -> bool {
        let changes = self.shard.config.changes;
        changes != 0 && self.next >= changes
    }

    fn push(&mut self, out: &mut BatchBuilder, committed_ms: i64) -> Result<()> {
        let shard = &*self.shard;
        let generated = change(&shard.config, shard.number, self.next);
        let key = shard.key(generated.row)?;
        let mut document = None;
        if generated.operation != Operation::Delete {
            shard.template.render(generated.row, &generated.order, &mut self.document);
            document = Some((shard.template.dictionary(), &self.document[..]));
        }
        out.push(&Draft {
            operation: generated.operation,
            collection: COLLECTION,
            key: key.as_bytes(),
            document,
            before: None,
            committed_ms,
        });
        self.next += 1;
        Ok(())
    }
}

#[async_trait]
impl ChangeStream for DatagenStream {
    async fn read(
        &mut self,
        out: &mut BatchBuilder,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Read> {
        if self.due() <= self.next && !self.has_ended() {
            self.wait(wait).await;
        }
        let (before, due, committed_ms) = (self.next, self.due(), (self.now_ms)());
        while self.next < due && out.bytes() < bytes_max {
            self.push(out, committed_ms)?;
        }
        assert!(self.next <= due.max(before), "no change is given before it is due");
        let moved = self.next > before;
        let position = if moved { place_of(self.next) } else { Bytes::new() };
        Ok(Read { position, ended: self.has_ended(), losses: Vec::new() })
    }

    fn passed(&self, seen: &[u8]) -> bool {
        super::place(seen).is_ok_and(|seen| self.next >= seen)
    }
}
