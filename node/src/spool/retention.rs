//! What may go: delivered, and old or too much.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::Sequence;
use tidegate_proto::v1::{Export, Shard, ShardId, SinkRef};
use tokio::time::Instant;

use crate::spool::store::Spool;

/// How often retention looks.
pub(crate) const ROUND: Duration = Duration::from_secs(5);

/// What a shard's log must keep, and for how long it may keep the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Everything up to and including this is delivered to every sink.
    pub delivered: Sequence,
    /// How long delivered changes stay.
    pub age: Duration,
    /// How many changes' worth of bytes stay, about.
    pub bytes: u64,
}

impl Keep {
    /// Keeps nothing that is delivered.
    fn without_the_delivered(self) -> Self {
        Self { age: Duration::ZERO, bytes: 0, ..self }
    }
}

/// The last sequence of a shard that nobody needs any more: every sink has it, and
/// it is recorded as captured, since the next owner adds up what comes behind that.
#[must_use]
pub fn not_needed(shard: &Shard, export: &Export) -> Sequence {
    let captured = shard.captured.as_ref().map_or(0, |at| at.sequence);
    let delivered = |sink: &SinkRef| shard.delivered.get(&sink.name).map_or(0, |at| at.sequence);
    let least = export.sinks.iter().map(delivered).min();
    Sequence(least.unwrap_or(captured).min(captured))
}

/// Where a log stood at some moment: coarse, so that it costs little.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) at: Instant,
    pub(crate) next: Sequence,
    pub(crate) bytes: u64,
}

/// The marks of one log; a pure core.
#[derive(Debug, Default)]
pub(crate) struct Marks(VecDeque<Mark>);

impl Marks {
    /// Notes where the log stands.
    pub(crate) fn note(&mut self, mark: Mark) {
        if self.0.back().is_some_and(|last| mark.next < last.next || mark.bytes < last.bytes) {
            // Another log of the shard, begun anew or cut off.
            self.0.clear();
        }
        if self.0.back().is_none_or(|last| last.next < mark.next) {
            self.0.push_back(mark);
        }
    }

    /// Up to and including where the log may be cut, if at all.
    pub(crate) fn cut(&mut self, keep: &Keep, now: Instant) -> Option<Sequence> {
        let total = self.0.back()?.bytes;
        let mut cut = None;
        while let [first, second, ..] = self.0.make_contiguous() {
            let old = now.duration_since(second.at) >= keep.age;
            let much = total - first.bytes > keep.bytes;
            let upto = Sequence(second.next.0 - 1);
            if !(old || much) || upto > keep.delivered {
                break;
            }
            cut = Some(upto);
            self.0.pop_front();
        }
        cut
    }
}

/// Cuts the logs of `spool` by what `keep` says of each, for as long as the
/// node lives; while the disk is short, by what is delivered alone. A log that
/// `keep` does not know is left alone.
pub async fn run(spool: Arc<Spool>, mut keep: impl FnMut(ShardId) -> Option<Keep> + Send) {
    let mut marks: HashMap<ShardId, Marks> = HashMap::new();
    let mut rounds = tokio::time::interval(ROUND);
    let mut was_short = false;
    loop {
        rounds.tick().await;
        let now = Instant::now();
        let short = spool.is_short();
        if short && !was_short {
            let free = spool.free_bytes() >> 20;
            tracing::warn!(free_mib = free, "the disk is short: what is delivered is not kept");
        }
        was_short = short;
        let held = spool.held();
        marks.retain(|shard, _| held.contains(shard));
        for shard in held {
            let (Some(log), Some(keep)) = (spool.log(shard), keep(shard)) else { continue };
            let keep = if short { keep.without_the_delivered() } else { keep };
            let marks = marks.entry(shard).or_default();
            marks.note(Mark { at: now, next: log.next(), bytes: log.appended_bytes() });
            let Some(upto) = marks.cut(&keep, now) else { continue };
            if let Err(error) = log.truncate_front(upto) {
                tracing::warn!(error = %error, %shard, "retention");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(delivered: u64) -> Keep {
        Keep { delivered: Sequence(delivered), age: Duration::from_secs(60), bytes: 1000 }
    }

    #[test]
    fn what_is_delivered_and_not_recorded_as_captured_is_needed() {
        use tidegate_proto::v1::Checkpoint;
        let at = |sequence| Checkpoint { sequence, ..Checkpoint::default() };
        let sink = |name: &str| SinkRef { name: name.to_owned(), ..SinkRef::default() };
        let shard = Shard {
            captured: Some(at(20)),
            delivered: [("a".to_owned(), at(25)), ("b".to_owned(), at(22))].into(),
            ..Shard::default()
        };
        let export = |sinks: &[&str]| Export {
            sinks: sinks.iter().map(|name| sink(name)).collect(),
            ..Export::default()
        };
        assert_eq!(not_needed(&shard, &export(&["a", "b"])), Sequence(20));
        assert_eq!(not_needed(&shard, &export(&["a", "c"])), Sequence(0), "c has nothing yet");
        assert_eq!(not_needed(&shard, &export(&[])), Sequence(20));
    }

    #[test]
    fn nothing_undelivered_goes_whatever_its_age() {
        let start = Instant::now();
        let mut marks = Marks::default();
        for step in 0..10u32 {
            let at = start + Duration::from_secs(10) * step;
            let step = u64::from(step);
            marks.note(Mark { at, next: Sequence(1 + step * 10), bytes: step * 10 });
        }
        let late = start + Duration::from_secs(3600);
        assert_eq!(marks.cut(&keep(0), late), None);
        assert_eq!(marks.cut(&keep(35), late), Some(Sequence(30)));
        assert_eq!(marks.cut(&keep(35), late), None, "a repeat finds nothing more");
    }

    #[test]
    fn a_log_begun_anew_is_counted_anew() {
        let start = Instant::now();
        let mut marks = Marks::default();
        marks.note(Mark { at: start, next: Sequence(50), bytes: 5000 });
        marks.note(Mark { at: start, next: Sequence(90), bytes: 10 });
        marks.note(Mark { at: start, next: Sequence(95), bytes: 20 });
        assert_eq!(marks.cut(&keep(100), start), None);
    }

    #[test]
    fn delivered_changes_stay_until_they_are_old_or_too_many() {
        let start = Instant::now();
        let mut marks = Marks::default();
        for step in 0..4u64 {
            marks.note(Mark { at: start, next: Sequence(1 + step * 10), bytes: step * 300 });
        }
        assert_eq!(marks.cut(&keep(100), start), None);
        marks.note(Mark { at: start, next: Sequence(41), bytes: 1200 });
        assert_eq!(marks.cut(&keep(100), start), Some(Sequence(10)), "over 1000 bytes");
        assert_eq!(marks.cut(&keep(100), start + Duration::from_secs(61)), Some(Sequence(40)));
    }

    #[test]
    fn on_a_short_disk_nothing_delivered_stays_and_all_else_does() {
        let start = Instant::now();
        let mut marks = Marks::default();
        for step in 0..4u64 {
            marks.note(Mark { at: start, next: Sequence(1 + step * 10), bytes: step * 10 });
        }
        assert_eq!(marks.cut(&keep(25), start), None);
        assert_eq!(marks.cut(&keep(25).without_the_delivered(), start), Some(Sequence(20)));
    }
}
