//! The table of recorded losses.

use tidegate_proto::v1::{Gap, GapKind, RecordGap, RepairGap};

use super::outcome::{Verdict, created, done, exists, invalid, not_found};
use super::{At, State};
use crate::keys::Row;

impl State {
    /// Answered with the gap's number; numbers start at 1 in each shard.
    pub(super) fn record_gap(&mut self, at: At, command: RecordGap) -> Verdict {
        let mut gap = command.gap.ok_or_else(|| invalid("there is no gap in it"))?;
        if gap.kind() == GapKind::Unspecified {
            return Err(invalid("a gap must say how it came about"));
        }
        let id = gap.shard.unwrap_or_default();
        let last = self.fenced_shard(id, gap.epoch)?.gaps;
        if self.gaps.get(&(id, last)).is_some_and(|known| is_repeat(known, &gap)) {
            return Err(exists(format!("this is gap {last} of shard {id} already")));
        }
        let number = last + 1;
        gap.number = number;
        if gap.at_ms == 0 {
            gap.at_ms = at.ms;
        }
        let epoch = gap.epoch;
        self.fenced_shard(id, epoch)?.gaps = number;
        self.gaps.insert((id, number), gap);
        self.touch(Row::Shard(id));
        self.touch(Row::Gap(id, number));
        Ok(created(number))
    }

    pub(super) fn repair_gap(&mut self, command: RepairGap) -> Verdict {
        if command.repair.is_empty() {
            return Err(invalid("a repair must say how the gap was mended"));
        }
        let (id, number) = (command.shard.unwrap_or_default(), command.number);
        let gap = self.gaps.get_mut(&(id, number));
        let gap = gap.ok_or_else(|| not_found(format!("shard {id} has no gap {number}")))?;
        gap.repair = command.repair;
        self.touch(Row::Gap(id, number));
        Ok(done())
    }
}

/// Equal in all but time and number. A gap that was repaired since is no
/// longer equal: the same loss again is a new one.
fn is_repeat(known: &Gap, gap: &Gap) -> bool {
    *known == Gap { number: known.number, at_ms: known.at_ms, ..gap.clone() }
}
