//! What nodes propose, and the leader's placement loop.

use rand::Rng as _;
use tidegate_proto::v1::{Assign, command};

use super::Broken;
use super::event::{Answer, Event, MS, Machine, Message, Micros, Timer};
use super::node::Purpose;
use super::world::World;
use crate::control::handle::done;
use crate::control::members::up;
use crate::error::ErrorKind;
use crate::placement::planner::ROUND;

const PROPOSE_WAIT: Micros = 10_000 * MS;

impl World {
    /// The leader's placement loop.
    pub(super) fn place(&mut self, machine: Machine, periodic: bool) {
        if periodic {
            let every = u64::try_from(ROUND.as_micros()).unwrap();
            self.timer(machine, every, Timer::Place(true));
        }
        let now = self.instant(machine);
        let node = &mut self.nodes[machine];
        if periodic {
            node.memory.planner.look(&node.disk.state, now);
        }
        if !node.leads(machine) {
            node.memory.planner.forget(&self.times);
            return;
        }
        if node.memory.placing > 0 {
            node.memory.place_again = true;
            return;
        }
        let steps = node.memory.planner.steps(&node.disk.state, now);
        node.memory.placing = steps.len();
        for step in steps {
            let step = self.perhaps_misplace(step);
            self.propose(machine, step, Purpose::Place);
        }
    }

    /// With that rule broken: any node may be the next owner.
    pub(super) fn perhaps_misplace(&mut self, step: command::Kind) -> command::Kind {
        if !self.is_broken(Broken::OwnerNotInSync) {
            return step;
        }
        let command::Kind::Assign(assign) = step else { return step };
        let up = up(&self.raft.truth);
        let any = up.get(self.rng.random_range(0..up.len().max(1)));
        let reader = any.map_or(assign.reader, |(node, _)| node.0);
        command::Kind::Assign(Assign { reader, anew: true, ..assign })
    }

    /// Proposes by way of the leader that this node knows.
    pub(super) fn propose(
        &mut self,
        machine: Machine,
        kind: command::Kind,
        purpose: Purpose,
    ) -> u64 {
        let number = self.next_number();
        let command = self.command(kind);
        self.nodes[machine].memory.waiting.insert(number, purpose);
        let from = self.nodes[machine].process(machine);
        let to = from;
        match self.nodes[machine].memory.view.leader {
            Some(leader) if leader == machine => self.submit(machine, from, number, command),
            Some(leader) if self.nodes[leader].alive && !self.network.refuses(leader) => {
                self.send(machine, leader, Message::Propose { from, number, command });
            }
            _ => {
                let answer: Answer = Err(ErrorKind::Unavailable);
                self.push(MS, Event::Arrive(machine, Message::Proposed { to, number, answer }));
            }
        }
        self.timer(machine, PROPOSE_WAIT, Timer::ProposalLate(number));
        number
    }

    pub(super) fn on_proposed(&mut self, machine: Machine, number: u64, answer: Answer) {
        let Some(purpose) = self.nodes[machine].memory.waiting.remove(&number) else { return };
        match purpose {
            Purpose::Nothing => {}
            Purpose::Announce => self.nodes[machine].disk.torn &= answer.is_err(),
            Purpose::Down => {
                self.nodes[machine].memory.deciding = false;
                self.look_for_lost(machine);
            }
            Purpose::Place => {
                let memory = &mut self.nodes[machine].memory;
                memory.placing -= 1;
                if memory.placing == 0 && std::mem::take(&mut memory.place_again) {
                    self.timer(machine, 10, Timer::Place(false));
                }
            }
            Purpose::Copies(shard, task, in_sync) => {
                let refused = answer.is_ok_and(|outcome| done(outcome).is_err());
                self.copies_recorded(machine, shard, task, refused.then_some(&in_sync));
            }
            Purpose::Reader(shard, task) => self.on_reader_answer(machine, shard, task, answer),
            Purpose::Tick => self.on_tick_answer(machine, answer),
        }
    }
}
