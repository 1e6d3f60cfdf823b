//! Processes that start, stop, stand still and are killed.

use rand::Rng as _;

use super::event::{MS, Machine, Micros, Timer};
use super::node::Memory;
use super::world::World;

/// How long a planned stop may drain.
const DRAIN_WAIT: Micros = 20_000 * MS;

impl World {
    /// Starts a process, if none runs and the machine is there.
    pub(super) fn start(&mut self, machine: Machine) {
        let run = self.next_number();
        let node = &mut self.nodes[machine];
        if node.alive || node.gone {
            return;
        }
        (node.alive, node.frozen) = (true, false);
        node.life += 1;
        // The vote is on the disk.
        let term = node.memory.view.term;
        node.memory = Memory { run, ..Memory::default() };
        node.memory.view.term = term;
        node.memory.view.heard = node.local(self.now);
        self.trace.note(self.now, "starts", &[machine as u64, run]);
        for (timer, most) in [
            (Timer::Heartbeat, 100),
            (Timer::Duty, 100),
            (Timer::Place(true), 1_000),
            (Timer::Look(true), 1_000),
            (Timer::Retain, 5_000),
        ] {
            let wait = self.rng.random_range(0..most * MS);
            self.timer(machine, wait, timer);
        }
        let upto = self.raft.log.len();
        if self.now == 0 {
            self.apply(machine, upto);
        }
    }

    /// The process is no more; with `power`, the disk forgets what was not synced.
    pub(super) fn kill(&mut self, machine: Machine, power: bool) {
        let node = &mut self.nodes[machine];
        if !node.alive {
            return;
        }
        let process = node.process(machine);
        (node.alive, node.frozen) = (false, false);
        node.deferred.clear();
        node.torn |= power;
        node.disk.torn |= power;
        for log in node.disk.logs.values_mut() {
            log.restart(power.then_some(&mut self.rng));
        }
        self.trace.note(self.now, "killed", &[machine as u64, u64::from(power)]);
        self.end_streams(process);
    }

    pub(super) fn end_process(&mut self, machine: Machine) {
        self.kill(machine, false);
    }

    /// Drains what runs there, then ends.
    pub(super) fn stop(&mut self, machine: Machine) {
        if !self.nodes[machine].runs() {
            return;
        }
        self.trace.note(self.now, "stops", &[machine as u64]);
        self.nodes[machine].memory.closing = true;
        self.timer(machine, DRAIN_WAIT, Timer::Exit);
        let roles: Vec<_> = self.nodes[machine].memory.actors.keys().cloned().collect();
        for role in &roles {
            self.drain(machine, role);
        }
        if roles.is_empty() {
            self.flush_and_exit(machine);
        }
    }

    /// Sends out the last checkpoints, then ends.
    pub(super) fn flush_and_exit(&mut self, machine: Machine) {
        let memory = &mut self.nodes[machine].memory;
        if memory.proposed.is_some() || !memory.actors.is_empty() {
            return;
        }
        self.tick(machine);
        if self.nodes[machine].memory.proposed.is_none() {
            self.timer(machine, 10, Timer::Exit);
        }
    }

    pub(super) fn thaw(&mut self, machine: Machine) {
        let node = &mut self.nodes[machine];
        if !std::mem::replace(&mut node.frozen, false) {
            return;
        }
        self.trace.note(self.now, "thaws", &[machine as u64]);
        for event in std::mem::take(&mut self.nodes[machine].deferred) {
            let after = self.rng.random_range(0..3 * MS);
            self.push(after, event);
        }
    }

    /// Every machine that is there runs a process.
    pub(super) fn start_all(&mut self) {
        for machine in 0..self.nodes.len() {
            self.thaw(machine);
            self.start(machine);
        }
    }
}
