//! How far each shard is: captured, and delivered to each sink.

use tidegate_proto::v1::outcome::Kind;
use tidegate_proto::v1::{
    Checkpoint, Checkpoints, CheckpointsTaken, Export, Fenced, Outcome, RefusedCheckpoint, Shard,
    ShardId, SnapshotState,
};

use super::outcome::of;
use super::shards::owns;
use super::{At, State};
use crate::keys::Row;
use crate::progress::absorb;

/// One entry of a report, captured or delivered.
struct Report {
    shard: ShardId,
    epoch: u64,
    /// `None` for captured.
    sink: Option<String>,
    delta: Option<Checkpoint>,
}

/// Why an entry was not taken; the others of its command were.
enum Untaken {
    Fenced(Fenced),
    Refused(RefusedCheckpoint),
}

impl State {
    pub(super) fn take_checkpoints(&mut self, at: At, command: Checkpoints) -> Outcome {
        let captured = command.captured.into_iter().map(|entry| Report {
            shard: entry.shard.unwrap_or_default(),
            epoch: entry.epoch,
            sink: None,
            delta: entry.checkpoint,
        });
        let delivered = command.delivered.into_iter().map(|entry| Report {
            shard: entry.shard.unwrap_or_default(),
            epoch: entry.epoch,
            sink: Some(entry.sink),
            delta: entry.checkpoint,
        });
        let mut taken = CheckpointsTaken::default();
        for report in captured.chain(delivered) {
            match self.take(at, &report) {
                Ok(()) => {}
                Err(Untaken::Fenced(fenced)) => taken.fenced.push(fenced),
                Err(Untaken::Refused(refused)) => taken.refused.push(refused),
            }
        }
        of(Kind::Checkpoints(taken))
    }

    fn take(&mut self, at: At, report: &Report) -> Result<(), Untaken> {
        let id = report.shard;
        let refuse = |reason: &str| refused(id, report.sink.as_deref(), reason);
        let Some(shard) = self.shards.get_mut(&id) else {
            return Err(refuse(&format!("there is no shard {id}")));
        };
        if !owns(shard, report.epoch) {
            return Err(Untaken::Fenced(Fenced { shard: Some(id), current: shard.epoch }));
        }
        if !knows(self.exports.get(&id.export_id), report.sink.as_deref()) {
            return Err(refuse("its export has no such sink"));
        }
        let Some(delta) = &report.delta else {
            return Err(refuse("there is no checkpoint in it"));
        };
        let total = total_of(shard, report.sink.as_ref());
        if delta.sequence < total.sequence {
            return Err(refuse(&format!(
                "it would go back from sequence {} to {}",
                total.sequence, delta.sequence
            )));
        }
        let (before, last) = (milestone(total), total.sequence);
        advance(total, delta, report.epoch, at.ms);
        let reached = milestone(total);
        // What moved is in reach.
        let back = delta.sequence > last && is_back(shard, report.sink.as_deref());
        if reached == before && !back {
            self.mark(Row::Shard(id));
            return Ok(());
        }
        self.touch(Row::Shard(id));
        if report.sink.is_none() && reached.snapshot == SnapshotState::Complete {
            self.mend_gaps(id, reached.round);
        }
        Ok(())
    }
}

/// The source, or a sink, that was out of reach is no longer.
fn is_back(shard: &mut Shard, sink: Option<&str>) -> bool {
    let before = shard.out_of_reach.len();
    shard.out_of_reach.retain(|it| it != sink.unwrap_or_default());
    shard.out_of_reach.len() < before
}

fn total_of<'a>(shard: &'a mut Shard, sink: Option<&String>) -> &'a mut Checkpoint {
    match sink {
        None => shard.captured.get_or_insert_default(),
        Some(sink) => shard.delivered.entry(sink.clone()).or_default(),
    }
}

/// A repeat at the same sequence adds no records, but may move the progress: an
/// idle source moves its position without a change.
fn advance(total: &mut Checkpoint, delta: &Checkpoint, epoch: u64, at_ms: i64) {
    assert!(delta.sequence >= total.sequence, "checkpoints never go back");
    assert!(epoch >= total.epoch, "epochs never fall");
    if delta.sequence > total.sequence {
        total.records = total.records.saturating_add(delta.records);
        total.bytes = total.bytes.saturating_add(delta.bytes);
    }
    if let Some(progress) = &delta.progress {
        absorb(total.progress.get_or_insert_default(), progress);
    }
    total.sequence = delta.sequence;
    total.committed_ms = total.committed_ms.max(delta.committed_ms);
    if delta.kept_until_ms != 0 {
        total.kept_until_ms = delta.kept_until_ms;
    }
    total.epoch = epoch;
    total.at_ms = at_ms;
}

/// What of a checkpoint others act on: children start when their parents ended, gaps are
/// mended by a snapshot.
#[derive(PartialEq)]
struct Milestone {
    round: u32,
    snapshot: SnapshotState,
    ended: bool,
}

fn milestone(checkpoint: &Checkpoint) -> Milestone {
    let none = (0, SnapshotState::Unspecified, false);
    let progress = checkpoint.progress.as_ref();
    let (round, snapshot, ended) = progress.map_or(none, |it| (it.round, it.snapshot(), it.ended));
    Milestone { round, snapshot, ended }
}

fn knows(export: Option<&Export>, sink: Option<&str>) -> bool {
    let Some(sink) = sink else { return true };
    export.is_some_and(|export| export.sinks.iter().any(|known| known.name == sink))
}

fn refused(shard: ShardId, sink: Option<&str>, reason: &str) -> Untaken {
    let sink = sink.unwrap_or_default().to_owned();
    Untaken::Refused(RefusedCheckpoint { shard: Some(shard), sink, reason: reason.to_owned() })
}
