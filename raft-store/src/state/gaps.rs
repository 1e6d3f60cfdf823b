//! The table of recorded losses.

use tidegate_proto::v1::{
    Gap, GapKind, GapPolicy, Outcome, RecordGap, RepairGap, SetPosition, Shard, ShardId,
};

use super::outcome::{Verdict, conflict, created, done, exists, invalid, not_found};
use super::shards::no_shard;
use super::snapshots::{ask_again, has_rows_to_come, progress};
use super::{At, State};
use crate::keys::Row;

impl State {
    /// Answered with the gap's number; numbers start at 1 in each shard.
    pub(super) fn record_gap(&mut self, at: At, command: RecordGap) -> Verdict {
        let policy = command.policy();
        let mut gap = command.gap.ok_or_else(|| invalid("there is no gap in it"))?;
        if gap.kind() == GapKind::Unspecified {
            return Err(invalid("a gap must say how it came about"));
        }
        let id = gap.shard.unwrap_or_default();
        self.fenced_shard(id, gap.epoch)?;
        if let Some(known) = self.gaps_of(id).find(|known| is_repeat(known, &gap)) {
            return Err(exists(format!("this is gap {} of shard {id} already", known.number)));
        }
        if gap.at_ms == 0 {
            gap.at_ms = at.ms;
        }
        let shard = self.fenced_shard(id, gap.epoch)?;
        shard.gaps += 1;
        gap.number = shard.gaps;
        match policy {
            GapPolicy::Resnapshot => gap.round = ask_again(shard),
            GapPolicy::Accept => "accepted by the export's file".clone_into(&mut gap.repair),
            GapPolicy::Pause | GapPolicy::Unspecified => {}
        }
        Ok(self.add_gap(gap))
    }

    /// Answered with the number of the gap that records it, a repeat too. Lets a shard
    /// that stands still go on.
    pub(super) fn set_position(&mut self, at: At, command: SetPosition) -> Verdict {
        let SetPosition { shard, replaces, position, reason, repair, awaits } = command;
        let id = shard.unwrap_or_default();
        let shard = self.shards.get(&id).ok_or_else(|| no_shard(id))?;
        let last = shard.position_set;
        if last != replaces {
            let same = |gap: &Gap| gap.position == position && gap.detail == reason;
            return match self.gaps.get(&(id, last)).is_some_and(same) {
                true => Ok(created(last)),
                false => Err(conflict(format!(
                    "the position of shard {id} was set meanwhile, see its gap {last}; look at it, \
                     and set it again"
                ))),
            };
        }
        has_position(shard)?;
        if position.is_empty() {
            return Err(invalid("a position must not be empty"));
        }
        let captured = shard.captured.clone().unwrap_or_default();
        let shard = self.shards.get_mut(&id).ok_or_else(|| no_shard(id))?;
        shard.gaps += 1;
        shard.position_set = shard.gaps;
        shard.failure.clear();
        let mends = !repair.is_empty() || !awaits.is_empty();
        let round = if mends { 0 } else { ask_again(shard) };
        let gap = Gap {
            shard: Some(id),
            number: shard.gaps,
            kind: GapKind::PositionSet.into(),
            after: captured.sequence,
            upto: captured.sequence,
            detail: reason,
            at_ms: at.ms,
            repair,
            awaits,
            epoch: shard.epoch,
            progress: captured.progress,
            round,
            position,
        };
        Ok(self.add_gap(gap))
    }

    /// Keeps it under the number it has; gives that.
    fn add_gap(&mut self, gap: Gap) -> Outcome {
        let (id, number) = (gap.shard.unwrap_or_default(), gap.number);
        self.gaps.insert((id, number), gap);
        self.touch(Row::Shard(id));
        self.touch(Row::Gap(id, number));
        created(number)
    }

    pub(super) fn repair_gap(&mut self, command: RepairGap) -> Verdict {
        let (id, number) = (command.shard.unwrap_or_default(), command.number);
        let RepairGap { repair, by_source, .. } = command;
        let gap = self.gaps.get_mut(&(id, number));
        let gap = gap.ok_or_else(|| not_found(format!("shard {id} has no gap {number}")))?;
        if !gap.repair.is_empty() {
            return Err(conflict(format!("gap {number} of shard {id} is mended: {}", gap.repair)));
        }
        if gap.round != 0 && repair.is_empty() {
            let round = gap.round;
            let why = format!("gap {number} of shard {id} is being mended by snapshot {round}");
            return Err(conflict(why));
        }
        let shard = self.shards.get_mut(&id).ok_or_else(|| no_shard(id))?;
        match repair {
            nothing if nothing.is_empty() => gap.round = ask_again(shard),
            repair => gap.repair = repair,
        }
        if !by_source {
            shard.failure.clear();
        }
        self.touch(Row::Shard(id));
        self.touch(Row::Gap(id, number));
        Ok(done())
    }

    /// The shard's rows were read again in `round`: if that was all of them, it mends what
    /// waited for it.
    pub(super) fn mend_gaps(&mut self, id: ShardId, round: u32) {
        let Some(shard) = self.shards.get(&id) else { return };
        if shard.scope.is_some() {
            return;
        }
        let swept = shard.sweeps;
        let gone = if swept { "was deleted" } else { "may still be at sinks" };
        self.alter_gaps(id, |gap| {
            let waits = gap.round != 0 && gap.round <= round;
            if waits {
                gap.repair =
                    format!("all rows were read again, by snapshot {round}; what was gone {gone}");
            }
            waits
        });
    }

    /// Nothing mends the gaps that `round` was to mend: its own, and those of rounds that
    /// were given up for it.
    pub(super) fn reopen_gaps(&mut self, id: ShardId, round: u32) {
        self.alter_gaps(id, |gap| {
            let waits = gap.round != 0 && gap.round <= round;
            if waits {
                gap.round = 0;
            }
            waits
        });
    }

    fn alter_gaps(&mut self, id: ShardId, alter: impl Fn(&mut Gap) -> bool) {
        let of_shard = self.gaps.range_mut((id, 0)..=(id, u64::MAX));
        let open = of_shard.filter(|(_, gap)| gap.repair.is_empty());
        let altered = open.filter_map(|((_, number), gap)| alter(gap).then_some(*number));
        for number in altered.collect::<Vec<_>>() {
            self.touch(Row::Gap(id, number));
        }
    }
}

/// Its stream is somewhere, and may go on elsewhere.
fn has_position(shard: &Shard) -> Result<(), Outcome> {
    let id = shard.id.unwrap_or_default();
    if shard.anchor.is_none() {
        return Err(conflict(format!("shard {id} has not begun; it has no position yet")));
    }
    if has_rows_to_come(shard) {
        return Err(conflict(format!(
            "shard {id} has rows to come of a snapshot, which are merged with its stream; let it be \
             complete, or cancel it"
        )));
    }
    if shard.splitting || progress(shard).is_some_and(|it| it.ended) {
        return Err(conflict(format!("shard {id} has ended; set those that follow it")));
    }
    Ok(())
}

/// The same loss. One at the source is found again by each reader that begins in front
/// of it, under its own epoch; a spool is lost once.
fn is_repeat(known: &Gap, gap: &Gap) -> bool {
    if gap.kind() == GapKind::SpoolLost {
        return *known == Gap { number: known.number, at_ms: known.at_ms, ..gap.clone() };
    }
    (known.kind, &known.detail) == (gap.kind, &gap.detail)
}
