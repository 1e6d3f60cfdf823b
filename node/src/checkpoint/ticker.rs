//! Gathers reports and proposes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_proto::v1::{Checkpoints, CheckpointsTaken, Outcome, ShardId, command, outcome};
use tidegate_proto::{Epoch, Sequence};
use tokio::sync::Notify;

use crate::checkpoint::pending::{Pending, Report};
use crate::checkpoint::window::Added;
use crate::clock;
use crate::control::Control;
use crate::error::Result;
use crate::retry::Backoff;
use crate::spool::Spool;

/// Proposes the reports of this node, one entry per tick.
#[derive(Debug)]
pub struct Checkpointer {
    control: Control,
    spool: Arc<Spool>,
    reports: Arc<Reports>,
}

#[derive(Debug, Default)]
struct Reports {
    pending: Mutex<Pending>,
    waiting: Notify,
}

/// Reports of one shard under one epoch.
#[derive(Clone, Debug)]
pub struct Reporter {
    reports: Arc<Reports>,
    shard: ShardId,
    epoch: Epoch,
}

impl Reporter {
    /// Everything up to and including `at` is on this node's disk.
    pub fn captured(&self, at: Sequence, added: Added) {
        let report = Report { epoch: self.epoch, sequence: at, added };
        self.pending(|pending| pending.capture(self.shard, report));
    }

    /// Everything up to and including `at` is durable at `sink`. Called with
    /// what a `Durable` says, or with what a sink told when it was opened.
    pub fn delivered(&self, sink: &str, at: Sequence, added: Added) {
        let report = Report { epoch: self.epoch, sequence: at, added };
        self.pending(|pending| pending.deliver(self.shard, sink, report));
    }

    fn pending(&self, report: impl FnOnce(&mut Pending)) {
        report(&mut self.reports.pending.lock().unwrap_or_else(PoisonError::into_inner));
        self.reports.waiting.notify_one();
    }
}

impl Checkpointer {
    /// Proposes through `control`; makes `spool` stable as captures are recorded.
    #[must_use]
    pub fn new(control: Control, spool: Arc<Spool>) -> Self {
        Self { control, spool, reports: Arc::default() }
    }

    /// For the owner of `shard` under `epoch`.
    #[must_use]
    pub fn reporter(&self, shard: ShardId, epoch: Epoch) -> Reporter {
        Reporter { reports: Arc::clone(&self.reports), shard, epoch }
    }

    /// Ticks for as long as the node lives. Idle shards cost nothing.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.control.times().tick());
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.reports.waiting.notified().await;
            ticks.tick().await;
            if let Some(command) = self.take() {
                self.settle(command).await;
            }
        }
    }

    /// Sends out what still waits; for a shutdown.
    pub async fn flush(&self) -> Result<()> {
        match self.take() {
            Some(command) => self.propose(&command).await,
            None => Ok(()),
        }
    }

    fn take(&self) -> Option<Checkpoints> {
        let mut pending = self.reports.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.take(self.control.node(), clock::now_ms())
    }

    /// Proposes until the outcome is known. The same command each time: the
    /// state takes a checkpoint it already has for a repeat.
    async fn settle(&self, command: Checkpoints) {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        while let Err(error) = self.propose(&command).await {
            tracing::warn!(error = %error, "record checkpoints; trying again");
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    async fn propose(&self, command: &Checkpoints) -> Result<()> {
        let kind = command::Kind::Checkpoints(command.clone());
        let outcome = self.control.insist(kind).await?;
        if let Some(outcome::Kind::Checkpoints(taken)) = &outcome.kind {
            for fenced in &taken.fenced {
                let (shard, current) = (fenced.shard.unwrap_or_default(), fenced.current);
                tracing::info!(%shard, current, "checkpoint fenced: the shard has another owner");
            }
            for refusal in &taken.refused {
                let shard = refusal.shard.unwrap_or_default();
                tracing::error!(%shard, reason = refusal.reason, "checkpoint refused");
            }
        }
        for (shard, upto) in recorded(command, &outcome) {
            if let Some(log) = self.spool.log(shard) {
                log.set_stable(upto);
            }
        }
        Ok(())
    }
}

/// What of `command` is recorded as captured now, given its outcome.
pub(crate) fn recorded(command: &Checkpoints, outcome: &Outcome) -> Vec<(ShardId, Sequence)> {
    let all = CheckpointsTaken::default();
    let taken = match &outcome.kind {
        Some(outcome::Kind::Checkpoints(taken)) => taken,
        Some(_) | None => &all,
    };
    let current = taken.fenced.iter().map(|it| (it.shard.unwrap_or_default(), it.current));
    let current: BTreeMap<_, _> = current.collect();
    let refused = taken.refused.iter().filter(|it| it.sink.is_empty());
    let refused: BTreeSet<_> = refused.map(|it| it.shard.unwrap_or_default()).collect();
    let captured = command.captured.iter().filter_map(|captured| {
        let shard = captured.shard.unwrap_or_default();
        // What an older owner's writers delivered may be in the same command, and fenced.
        let fenced = current.get(&shard).is_some_and(|current| *current != captured.epoch);
        let sequence = captured.checkpoint.as_ref().map_or(0, |at| at.sequence);
        (!fenced && !refused.contains(&shard)).then_some((shard, Sequence(sequence)))
    });
    captured.collect()
}

#[cfg(test)]
mod tests {
    use tidegate_proto::v1::{Captured, Checkpoint, Delivered, Fenced, RefusedCheckpoint};

    use super::*;

    #[test]
    fn a_capture_counts_though_what_an_older_owner_delivered_does_not() {
        let shard = Some(ShardId { export_id: 1, index: 0 });
        let checkpoint = Some(Checkpoint { sequence: 40, ..Checkpoint::default() });
        let captured = Captured { shard, epoch: 3, checkpoint };
        let delivered = Delivered { shard, epoch: 2, ..Delivered::default() };
        let command = Checkpoints {
            captured: vec![captured],
            delivered: vec![delivered],
            ..Checkpoints::default()
        };
        let with = |taken| {
            let kind = Some(outcome::Kind::Checkpoints(taken));
            recorded(&command, &Outcome { kind })
        };
        let fenced = |current| CheckpointsTaken {
            fenced: vec![Fenced { shard, current }],
            ..CheckpointsTaken::default()
        };
        let refused = |sink: &str| CheckpointsTaken {
            refused: vec![RefusedCheckpoint {
                shard,
                sink: sink.to_owned(),
                ..RefusedCheckpoint::default()
            }],
            ..CheckpointsTaken::default()
        };
        let counts = vec![(ShardId { export_id: 1, index: 0 }, Sequence(40))];
        assert_eq!(with(fenced(3)), counts, "its own epoch is current");
        assert!(with(fenced(4)).is_empty());
        assert_eq!(with(refused("lake")), counts);
        assert!(with(refused("")).is_empty());
    }
}
