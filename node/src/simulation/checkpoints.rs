//! What a node reports, gathered by tick, and what its spool does meanwhile.

use std::time::Duration;

use rand::Rng as _;
use tidegate_proto::v1::{ShardId, command};
use tidegate_proto::{Epoch, Sequence};

use super::event::{Answer, MS, Machine, Micros, Timer};
use super::node::Purpose;
use super::world::World;
use crate::checkpoint::Added;
use crate::checkpoint::pending::Report;
use crate::checkpoint::ticker::recorded;
use crate::control::handle::done;
use crate::spool::retention::{Mark, ROUND};
use crate::spool::{Keep, not_needed};

/// Between the tries of one tick, as `checkpoint/ticker.rs` has it.
const RETRY: (Micros, Micros) = (20 * MS, 1_000 * MS);
/// How long what is delivered is retained.
const RETAINED: Duration = Duration::from_secs(6);
/// Of the looks at what is retained, those at which a disk is short.
const SHORT: f64 = 0.3;

impl World {
    pub(super) fn captured(
        &mut self,
        machine: Machine,
        id: ShardId,
        epoch: Epoch,
        (sequence, added): (Sequence, Added),
    ) {
        let report = Report { epoch, sequence, added };
        self.nodes[machine].memory.pending.capture(id, report);
        self.tick_soon(machine);
    }

    pub(super) fn delivered(
        &mut self,
        machine: Machine,
        (id, sink): (ShardId, &str),
        epoch: Epoch,
        (sequence, added): (Sequence, Added),
    ) {
        let report = Report { epoch, sequence, added };
        self.nodes[machine].memory.pending.deliver(id, sink, report);
        self.tick_soon(machine);
    }

    fn tick_soon(&mut self, machine: Machine) {
        let memory = &mut self.nodes[machine].memory;
        if memory.proposed.is_none() && !std::mem::replace(&mut memory.tick_due, true) {
            self.timer(machine, self.times.tick_ms * MS, Timer::Tick);
        }
    }

    /// Proposes what waits, or again what was not answered.
    pub(super) fn tick(&mut self, machine: Machine) {
        let (id, at_ms) = (self.nodes[machine].id, i64::try_from(self.now / MS).unwrap());
        let memory = &mut self.nodes[machine].memory;
        memory.tick_due = false;
        if memory.proposed.is_none() {
            memory.tick_wait = RETRY.0;
            memory.proposed = memory.pending.take(id, at_ms);
        }
        if let Some(command) = memory.proposed.clone() {
            self.propose(machine, command::Kind::Checkpoints(command), Purpose::Tick);
        }
    }

    pub(super) fn on_tick_answer(&mut self, machine: Machine, answer: Answer) {
        let memory = &mut self.nodes[machine].memory;
        let Ok(outcome) = answer.and_then(|it| done(it).map_err(|error| error.kind())) else {
            let wait = memory.tick_wait;
            memory.tick_wait = (wait * 2).min(RETRY.1);
            self.timer(machine, wait, Timer::Tick);
            return;
        };
        let Some(command) = memory.proposed.take() else { return };
        self.check_taken(&outcome);
        for (shard, upto) in recorded(&command, &outcome) {
            if let Some(log) = self.nodes[machine].disk.logs.get_mut(&shard) {
                log.standing.set_stable(upto);
                self.after_log(machine, shard);
            }
        }
        if self.nodes[machine].memory.closing {
            self.flush_and_exit(machine);
        } else {
            self.tick_soon(machine);
        }
    }

    /// Something about a log changed: what follows from that.
    pub(super) fn after_log(&mut self, machine: Machine, shard: ShardId) {
        self.report_captured(machine, shard);
        self.pump_all(machine, shard);
        let node = &mut self.nodes[machine];
        let unsynced = |log: &super::spool::Log| log.standing.unsynced().is_some();
        if !node.memory.syncing && node.disk.logs.get(&shard).is_some_and(unsynced) {
            self.sync(machine);
        }
    }

    /// Begins a group commit of all logs of a node.
    fn sync(&mut self, machine: Machine) {
        let logs = &mut self.nodes[machine].disk.logs;
        let asked = logs
            .iter()
            .filter_map(|(shard, log)| Some((*shard, log.standing.unsynced()?, log.writes())));
        let asked: Vec<_> = asked.collect();
        self.nodes[machine].memory.syncing = true;
        let delay = self.rng.random_range(MS..6 * MS);
        self.timer(machine, delay, Timer::Synced(asked));
    }

    pub(super) fn on_synced(
        &mut self,
        machine: Machine,
        asked: Vec<(ShardId, (Sequence, u64), usize)>,
    ) {
        self.nodes[machine].memory.syncing = false;
        for (shard, upto, writes) in asked {
            if let Some(log) = self.nodes[machine].disk.logs.get_mut(&shard) {
                log.set_synced(upto, writes);
                self.after_log(machine, shard);
            }
        }
    }

    /// Takes away what is delivered and old; while its disk is short, all that is
    /// delivered, also before the eyes of a copy that is catching up.
    pub(super) fn retain(&mut self, machine: Machine) {
        let round = u64::try_from(ROUND.as_micros()).unwrap();
        self.timer(machine, round, Timer::Retain);
        let now = self.instant(machine);
        let is_short = self.rng.random_bool(SHORT);
        let age = if is_short { Duration::ZERO } else { RETAINED };
        let disk = &mut self.nodes[machine].disk;
        for (id, log) in &mut disk.logs {
            let Some(shard) = disk.state.shard(*id) else { continue };
            let Some(export) = disk.state.export(id.export_id) else { continue };
            let keep = Keep { delivered: not_needed(shard, export), age, bytes: u64::MAX };
            let next = log.standing.head().next;
            log.marks.note(Mark { at: now, next, bytes: 0 });
            if let Some(upto) = log.marks.cut(&keep, now) {
                log.cut_front(upto.min(log.standing.marks().stable));
            }
        }
    }
}
