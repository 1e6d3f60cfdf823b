//! What the log is promised, and what it promises.

use tidegate_proto::v1::{
    Assign, Checkpoints, Command, GapKind, NodeDown, NodeState, Outcome, RecordGap, ShardId,
    command, outcome,
};
use tidegate_proto::{Epoch, NodeId};

use super::Broken;
use super::world::World;

impl World {
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

    pub(super) fn after_assign(&mut self, assign: &Assign) {
        let id = assign.shard.unwrap_or_default();
        let (Some(before), Some(now)) = (self.checks.before.take(), self.raft.truth.shard(id))
        else {
            return;
        };
        self.checks.assigned += 1;
        let (from, to) = (before.epoch, now.epoch);
        let anew = now.anew == now.epoch;
        let whole = before.in_sync.iter().find(|node| {
            let up = self.raft.truth.node(**node).is_some_and(|it| it.state() == NodeState::Up);
            anew && !before.torn
                && up
                && self.machine_of(**node).is_some_and(|machine| !self.nodes[machine].gone)
        });
        let whole = whole.copied();
        if to != from + 1 {
            self.fail(format!("shard {id}: epoch {from} became {to}"));
        }
        if let Some(node) = whole {
            self.fail(format!(
                "shard {id}: given up at epoch {to} though node {node} is up and in sync"
            ));
        }
    }

    /// Who is declared down for its silence has stopped by itself.
    pub(super) fn after_down(&mut self, down: &NodeDown) {
        if self.is_broken(Broken::StartBeforeStop) {
            // What comes of it is to show.
            return;
        }
        let id = NodeId(down.node);
        let Some(machine) = self.machine_of(down.node) else { return };
        let node = &self.nodes[machine];
        let acts = node.alive && node.memory.run == down.run && self.lease_held(machine);
        if acts && !self.checks.refused.contains(&(id, down.run)) {
            self.fail(format!("node {id} is declared down for silence and still holds its lease"));
        }
    }

    /// A loss is recorded only if there was one.
    pub(super) fn after_gap(&mut self, gap: &RecordGap) {
        let Some(gap) = gap.gap.as_ref().filter(|gap| gap.kind() == GapKind::SpoolLost) else {
            return;
        };
        let (id, epoch) = (gap.shard.unwrap_or_default(), Epoch(gap.epoch));
        let shard = self.raft.truth.shard(id);
        let (reader, anew) = shard.map_or((0, 0), |shard| (shard.reader, shard.anew));
        // Or one before it was to begin anew, and never did.
        let begun = self.checks.owners.contains_key(&(id, Epoch(anew)));
        let due = anew > 0 && (anew == epoch.0 || !begun);
        let torn = self.machine_of(reader).is_some_and(|machine| self.nodes[machine].torn);
        if !torn && !due {
            self.fail(format!(
                "shard {id}: epoch {epoch} began anew though its reader had all of it"
            ));
        }
    }

    /// A node's report was answered: only one that comes late a second time, and
    /// whose answer nobody hears, may go back.
    pub(super) fn check_taken(&mut self, outcome: &Outcome) {
        if let Some(outcome::Kind::Checkpoints(taken)) = &outcome.kind
            && let Some(refused) = taken.refused.first().cloned()
        {
            self.fail(format!("a checkpoint was refused: {refused:?}"));
        }
    }

    /// No checkpoint is beyond what there is.
    pub(super) fn after_checkpoints(&mut self, reports: &Checkpoints) {
        for report in &reports.delivered {
            let id = report.shard.unwrap_or_default();
            let known =
                self.raft.truth.shard(id).and_then(|shard| shard.delivered.get(&report.sink));
            let (told, sink) = (known.map_or(0, |at| at.sequence), (id, report.sink.clone()));
            let there = self.checks.sinks.get(&sink).map_or(0, |it| it.last.0);
            if told > there {
                self.fail(format!("shard {id}: {told} counts as delivered, the sink has {there}"));
            }
        }
        for report in &reports.captured {
            self.check_captured(report.shard.unwrap_or_default());
        }
    }

    /// Every copy in sync has what counts as captured, or lost its disk's end.
    pub(super) fn check_captured(&mut self, id: ShardId) {
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
            self.fail(format!(
                "shard {id}: {captured} counts as captured, node {node} in sync has less"
            ));
        }
    }
}
