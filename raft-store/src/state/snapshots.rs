//! Snapshots after the first: asked for, begun, held, canceled.

use tidegate_proto::v1::{
    Outcome, Progress, Shard, ShardId, SnapshotBegin, SnapshotCancel, SnapshotPause, SnapshotStart,
    SnapshotState,
};

use super::State;
use super::outcome::{Verdict, conflict, done, fenced};
use super::shards::{all_of, no_export, no_shard, owns};
use crate::keys::Row;

/// What was captured of it; nothing before the anchor.
pub(super) fn progress(shard: &Shard) -> Option<&Progress> {
    shard.captured.as_ref().and_then(|at| at.progress.as_ref())
}

/// Rows of the snapshot asked for last are to come yet.
pub(super) fn has_rows_to_come(shard: &Shard) -> bool {
    let over = |it: &Progress| it.round >= shard.round && it.snapshot() != SnapshotState::Running;
    !shard.canceled && !progress(shard).is_some_and(over)
}

/// Asks for another snapshot, of all rows; gives its round. One that is under way is
/// given up for it.
pub(super) fn ask_again(shard: &mut Shard) -> u32 {
    shard.round = shard.round.saturating_add(1);
    shard.scope = None;
    shard.canceled = false;
    shard.sweeps = false;
    shard.round
}

impl State {
    pub(super) fn start_snapshot(&mut self, command: &SnapshotStart) -> Verdict {
        let export_id = command.export_id;
        if !self.exports.contains_key(&export_id) {
            return Err(no_export(export_id));
        }
        let named = command.shards.iter().map(|index| ShardId { export_id, index: *index });
        let mut ids: Vec<ShardId> = named.collect();
        if ids.is_empty() {
            ids = self.shards.range(all_of(export_id)).map(|(id, _)| *id).collect();
        }
        for id in &ids {
            let shard = self.shards.get(id).ok_or_else(|| no_shard(*id))?;
            if shard.anchor.is_none() || has_rows_to_come(shard) {
                return Err(still_read(*id));
            }
        }
        for id in ids {
            let shard = self.shards.get_mut(&id).ok_or_else(|| no_shard(id))?;
            if progress(shard).is_some_and(|it| it.ended) {
                continue;
            }
            ask_again(shard);
            shard.scope.clone_from(&command.scope);
            self.touch(Row::Shard(id));
        }
        Ok(done())
    }

    pub(super) fn begin_snapshot(&mut self, command: SnapshotBegin) -> Verdict {
        let id = command.shard.unwrap_or_default();
        let shard = self.fenced_shard(id, command.epoch)?;
        if !owns(shard, command.epoch) {
            return Err(fenced(id, shard.epoch));
        }
        if command.round != shard.round || shard.canceled {
            return Err(conflict(format!(
                "shard {id} is to be read for snapshot {}, not {}",
                shard.round, command.round
            )));
        }
        shard.chunks = command.chunks;
        shard.rows_estimated = command.rows_estimated;
        shard.sweeps = command.sweeps;
        self.touch(Row::Shard(id));
        Ok(done())
    }

    pub(super) fn cancel_snapshot(&mut self, command: &SnapshotCancel) -> Verdict {
        let export_id = command.export_id;
        if !self.exports.contains_key(&export_id) {
            return Err(no_export(export_id));
        }
        let running = self.shards_of(export_id).filter(|shard| has_rows_to_come(shard));
        let ids: Vec<ShardId> = running.filter_map(|shard| shard.id).collect();
        if ids.is_empty() {
            return Err(conflict("no snapshot of this export is under way"));
        }
        for id in ids {
            let shard = self.shards.get_mut(&id).ok_or_else(|| no_shard(id))?;
            shard.canceled = true;
            let round = shard.round;
            self.touch(Row::Shard(id));
            self.reopen_gaps(id, round);
        }
        Ok(done())
    }

    pub(super) fn pause_snapshot(&mut self, command: &SnapshotPause) -> Verdict {
        let id = command.export_id;
        let export = self.exports.get_mut(&id).ok_or_else(|| no_export(id))?;
        if export.snapshot_paused != command.paused {
            export.snapshot_paused = command.paused;
            self.touch(Row::Export(id));
        }
        Ok(done())
    }
}

fn still_read(id: ShardId) -> Outcome {
    conflict(format!(
        "shard {id} has rows to come of a snapshot already; let it be complete, or cancel it"
    ))
}
