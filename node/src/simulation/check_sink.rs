//! What sinks are promised: each change once, in order, of no old epoch.

use super::checks::Delivered;
use super::sink::{Attempt, SinkId};
use super::source::Place;
use super::spool::Batch;
use super::world::World;

impl World {
    pub(super) fn sink_opened(&mut self, sink: &SinkId, epoch: u64) {
        let delivered = self.checks.sinks.entry(sink.clone()).or_default();
        delivered.epoch = delivered.epoch.max(epoch);
    }

    /// A sink committed: each change once, in order, of no old epoch.
    pub(super) fn sink_committed(&mut self, attempt: &Attempt) {
        let shard = attempt.sink.0;
        let numbers = [u64::from(shard.index), attempt.epoch, attempt.upto().0];
        self.trace.note(self.now, "delivered", &numbers);
        let mut delivered = self.checks.sinks.remove(&attempt.sink).unwrap_or_default();
        let mut wrong = None;
        if attempt.epoch < delivered.epoch {
            wrong = Some(format!("epoch {} after epoch {}", attempt.epoch, delivered.epoch));
        }
        for batch in &attempt.batches {
            wrong = wrong.or(self.take_batch(&mut delivered, attempt, batch));
        }
        self.checks.sinks.insert(attempt.sink.clone(), delivered);
        if let Some(wrong) = wrong {
            let sink = &attempt.sink.1;
            self.fail(format!("shard {shard}, sink {sink}: {wrong}"));
        }
    }

    /// Adds a batch to what a sink has; says what is wrong with that.
    fn take_batch(
        &self,
        delivered: &mut Delivered,
        attempt: &Attempt,
        batch: &Batch,
    ) -> Option<String> {
        let mut wrong = None;
        // What was read again may come again, to a sink that was ahead of another.
        let mut again = batch.rewound.is_some() && self.setting.sinks > 1;
        for (at, item) in batch.rows().filter(|(at, _)| *at > attempt.after) {
            let jump = at != delivered.last.next();
            let mut gaps = self.raft.truth.gaps_of(attempt.sink.0);
            let lost = batch.rewound.is_some() && gaps.any(|gap| gap.upto + 1 == at.0);
            if at <= delivered.last || (jump && !lost) {
                wrong = Some(format!("{at} behind {}", delivered.last));
            }
            if std::mem::take(&mut again) {
                delivered.place = rewind(delivered.place, batch);
            }
            delivered.last = at;
            let taken = &mut delivered.place.0[item.lane];
            if item.number != *taken + 1 {
                wrong = Some(format!("{item:?} at {at}, behind its lane's {taken}"));
            }
            *taken = item.number;
        }
        wrong
    }
}

/// Where the source stood before the first of each lane in `batch`; never forward.
fn rewind(place: Place, batch: &Batch) -> Place {
    let mut ends = Place::of(&batch.progress);
    for (_, item) in batch.rows() {
        ends.0[item.lane] = ends.0[item.lane].min(item.number - 1);
    }
    for (end, now) in ends.0.iter_mut().zip(place.0) {
        *end = now.min(*end);
    }
    ends
}
