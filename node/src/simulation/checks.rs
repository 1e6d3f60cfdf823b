//! The promises, looked at after everything that could break them.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_proto::v1::{
    Assign, Checkpoints, Command, GapKind, NodeDown, Outcome, RecordGap, Shard, ShardId, command,
    outcome,
};
use tidegate_proto::{Epoch, NodeId, Sequence};

use super::Broken;
use super::event::{Machine, Micros};
use super::sink::{Attempt, SinkId};
use super::source::{Item, Place};
use super::spool::Batch;
use super::world::World;

/// What was seen to happen.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) faults: u64,
    pub(super) assigned: u64,
    /// What writers and feeds were given.
    seen: BTreeMap<ShardId, BTreeMap<Sequence, Item>>,
    /// What owners appended, and when.
    appended: BTreeMap<(ShardId, Epoch, Sequence), (Item, Micros)>,
    /// Who captured under each epoch, since when.
    owners: BTreeMap<(ShardId, Epoch), (Machine, Micros)>,
    sinks: BTreeMap<SinkId, Delivered>,
    /// Runs that a firewall, or the machine, once said are gone.
    refused: BTreeSet<(NodeId, u64)>,
    /// As they were before the command at hand.
    before: Option<Shard>,
    /// Epochs whose reader was not in sync.
    anew: BTreeSet<(ShardId, Epoch)>,
}

/// What a sink has, as its readers see it.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    epoch: u64,
    last: Sequence,
    pub(super) place: Place,
}

impl Checks {
    pub(super) fn was_refused(&mut self, id: NodeId, run: u64) {
        self.refused.insert((id, run));
    }

    pub(super) fn delivered(&self, sink: &SinkId) -> Place {
        self.sinks.get(sink).map_or_else(Place::default, |it| it.place)
    }
}

impl World {
    /// An owner appended a batch, or a copy took it: under one epoch, a sequence
    /// is one change.
    pub(super) fn appended(&mut self, shard: ShardId, batch: &Batch) {
        for (at, item) in batch.rows() {
            let entry = (item, self.now);
            let known = *self.checks.appended.entry((shard, batch.epoch, at)).or_insert(entry);
            if known.0 != item {
                let epoch = batch.epoch;
                self.fail(|_| {
                    format!("shard {shard}: two logs differ at {at} under epoch {epoch}")
                });
            }
        }
    }

    /// A reader begins to capture; its log ends at `last`.
    pub(super) fn took_over(
        &mut self,
        machine: Machine,
        shard: ShardId,
        epoch: Epoch,
        last: Sequence,
    ) {
        self.trace.note(
            self.now,
            "takes over",
            &[machine as u64, u64::from(shard.index), epoch.0, last.0],
        );
        let owner = *self.checks.owners.entry((shard, epoch)).or_insert((machine, self.now));
        if owner.0 != machine {
            self.fail(|_| format!("shard {shard}: two owners under epoch {epoch}"));
        }
        let Some(seen) = self.checks.seen.get(&shard) else { return };
        let most = seen.last_key_value().map_or(Sequence(0), |(at, _)| *at);
        let log = self.nodes[machine].disk.logs.get(&shard);
        let rows = log.iter().flat_map(|log| log.read_all(Sequence(0))).flat_map(Batch::rows);
        let replaced =
            rows.into_iter().find(|(at, item)| seen.get(at).is_some_and(|it| it != item));
        if let Some((at, _)) = replaced {
            self.fail(|_| format!("shard {shard}: {at} was seen and is another at epoch {epoch}"));
        }
        if most > last {
            self.fail(|_| {
                format!("shard {shard}: {most} was seen, epoch {epoch} begins at {last}")
            });
        }
    }

    /// A writer or a feed is given batches.
    pub(super) fn served(&mut self, machine: Machine, shard: ShardId, batches: &[Batch]) {
        let newest = self.checks.owners.range((shard, Epoch(0))..=(shard, Epoch(u64::MAX)));
        let newest = newest.last().map(|((_, epoch), (_, since))| (*epoch, *since));
        for batch in batches {
            for (at, item) in batch.rows() {
                let seen = self.checks.seen.entry(shard).or_default();
                if let Some(known) = seen.get(&at) {
                    if *known != item {
                        self.fail(|_| {
                            format!("shard {shard}: {at} is seen as two changes at m{machine}")
                        });
                    }
                    continue;
                }
                seen.insert(at, item);
                let made = self.checks.appended.get(&(shard, batch.epoch, at)).map(|it| it.1);
                let late = newest.is_some_and(|(epoch, since)| {
                    epoch > batch.epoch && made.is_some_and(|made| made > since)
                });
                if late {
                    self.fail(|_| {
                        format!("shard {shard}: {at} of an old owner is seen beside a new one's")
                    });
                }
            }
        }
    }

    pub(super) fn sink_opened(&mut self, sink: &SinkId, epoch: u64) {
        let delivered = self.checks.sinks.entry(sink.clone()).or_default();
        delivered.epoch = delivered.epoch.max(epoch);
    }

    /// A sink committed: each change once, in order, of no old epoch.
    pub(super) fn sink_committed(&mut self, attempt: &Attempt) {
        let numbers = [u64::from(attempt.sink.0.index), attempt.epoch, attempt.upto().0];
        self.trace.note(self.now, "delivered", &numbers);
        let alone = self.setting.sinks == 1;
        let shard = attempt.sink.0;
        let mut delivered = self.checks.sinks.remove(&attempt.sink).unwrap_or_default();
        let mut wrong = None;
        if attempt.epoch < delivered.epoch {
            wrong = Some(format!("epoch {} after epoch {}", attempt.epoch, delivered.epoch));
        }
        for batch in &attempt.batches {
            // What was read again may come again, to a sink that was ahead.
            let mut again = batch.rewound.is_some() && !alone;
            for (at, item) in batch.rows().filter(|(at, _)| *at > attempt.after) {
                let jump = at != delivered.last.next();
                let lost = self.raft.truth.gaps_of(shard).any(|gap| gap.upto + 1 == at.0);
                if at <= delivered.last || (jump && !(batch.rewound.is_some() && lost)) {
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
        }
        self.checks.sinks.insert(attempt.sink.clone(), delivered);
        if let Some(wrong) = wrong {
            let sink = &attempt.sink.1;
            self.fail(|_| format!("shard {shard}, sink {sink}: {wrong}"));
        }
    }

    pub(super) fn before_apply(&mut self, command: &Command) {
        self.checks.before = match &command.kind {
            Some(command::Kind::Assign(assign)) => {
                self.raft.truth.shard(assign.shard.unwrap_or_default()).cloned()
            }
            _ => None,
        };
    }

    pub(super) fn after_apply(&mut self, command: &Command, outcome: &Outcome) {
        let done = matches!(outcome.kind, Some(outcome::Kind::Done(_) | outcome::Kind::Created(_)));
        match &command.kind {
            Some(command::Kind::Assign(assign)) if done => self.after_assign(assign),
            Some(command::Kind::NodeDown(down)) if done => self.after_down(down),
            Some(command::Kind::RecordGap(gap)) if done => self.after_gap(gap),
            Some(command::Kind::Checkpoints(reports)) => self.after_checkpoints(reports),
            _ => {}
        }
    }

    fn after_assign(&mut self, assign: &Assign) {
        let id = assign.shard.unwrap_or_default();
        let (Some(before), Some(now)) = (self.checks.before.take(), self.raft.truth.shard(id))
        else {
            return;
        };
        self.checks.assigned += 1;
        let (from, to) = (before.epoch, now.epoch);
        let anew = now.anew == now.epoch;
        let whole = before.in_sync.iter().find(|node| {
            let up = self
                .raft
                .truth
                .node(**node)
                .is_some_and(|it| it.state() == tidegate_proto::v1::NodeState::Up);
            anew && up && self.machine_of(**node).is_some_and(|machine| !self.nodes[machine].gone)
        });
        let whole = whole.copied();
        if anew {
            self.checks.anew.insert((id, Epoch(to)));
        }
        if to != from + 1 {
            self.fail(|_| format!("shard {id}: epoch {from} became {to}"));
        }
        if let Some(node) = whole {
            self.fail(|_| {
                format!("shard {id}: given up at epoch {to} though node {node} is up and in sync")
            });
        }
    }

    /// Who is declared down for its silence has stopped by itself.
    fn after_down(&mut self, down: &NodeDown) {
        if self.is_broken(Broken::StartBeforeStop) {
            // What comes of it is to show.
            return;
        }
        let id = NodeId(down.node);
        let Some(machine) = self.machine_of(down.node) else { return };
        let node = &self.nodes[machine];
        let acts = node.alive && node.memory.run == down.run && self.lease_held(machine);
        if acts && !self.checks.refused.contains(&(id, down.run)) {
            self.fail(|_| {
                format!("node {id} is declared down for silence and still holds its lease")
            });
        }
    }

    /// A loss is recorded only if there was one.
    fn after_gap(&mut self, gap: &RecordGap) {
        let Some(gap) = gap.gap.as_ref().filter(|gap| gap.kind() == GapKind::SpoolLost) else {
            return;
        };
        let (id, epoch) = (gap.shard.unwrap_or_default(), Epoch(gap.epoch));
        let reader = self.raft.truth.shard(id).map_or(0, |shard| shard.reader);
        let torn = self.machine_of(reader).is_some_and(|machine| self.nodes[machine].torn);
        if !torn && !self.checks.anew.contains(&(id, epoch)) {
            self.fail(|_| {
                format!("shard {id}: epoch {epoch} began anew though its reader had all of it")
            });
        }
    }

    /// A node's report was answered: only one that comes late a second time, and
    /// whose answer nobody hears, may go back.
    pub(super) fn check_taken(&mut self, outcome: &Outcome) {
        if let Some(outcome::Kind::Checkpoints(taken)) = &outcome.kind
            && let Some(refused) = taken.refused.first().cloned()
        {
            self.fail(|_| format!("a checkpoint was refused: {refused:?}"));
        }
    }

    /// No checkpoint is beyond what there is.
    fn after_checkpoints(&mut self, reports: &Checkpoints) {
        for report in &reports.delivered {
            let id = report.shard.unwrap_or_default();
            let known =
                self.raft.truth.shard(id).and_then(|shard| shard.delivered.get(&report.sink));
            let (told, sink) = (known.map_or(0, |at| at.sequence), (id, report.sink.clone()));
            let there = self.checks.sinks.get(&sink).map_or(0, |it| it.last.0);
            if told > there {
                self.fail(|_| {
                    format!("shard {id}: {told} counts as delivered, the sink has {there}")
                });
            }
        }
        for report in &reports.captured {
            self.check_captured(report.shard.unwrap_or_default());
        }
    }

    /// Every copy in sync has what counts as captured, or lost its disk's end.
    fn check_captured(&mut self, id: ShardId) {
        let shard = self.raft.truth.shard(id).filter(|shard| shard.anew != shard.epoch);
        let Some(shard) = shard else { return };
        let captured = shard.captured.as_ref().map_or(0, |at| at.sequence);
        // A log may be begun anew under it, and then nothing of it is known yet.
        let lacking = shard.in_sync.iter().find(|node| {
            let Some(machine) = self.machine_of(**node) else { return false };
            let last = self.nodes[machine]
                .disk
                .logs
                .get(&id)
                .map_or(0, |log| log.standing.head().last().0);
            !self.nodes[machine].torn && last < captured && captured > 0
        });
        if let Some(node) = lacking.copied() {
            self.fail(|_| {
                format!("shard {id}: {captured} counts as captured, node {node} in sync has less")
            });
        }
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
