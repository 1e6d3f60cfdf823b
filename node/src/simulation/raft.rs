//! The replicated log, as one list of commands that the product's fold applies.
//!
//! How Raft copies entries is left out; what its users see is not: leaders that
//! change, two nodes that both believe to lead, proposals that are lost, late, or
//! taken although nobody heard so, and nodes that apply later than others.

use std::collections::BTreeSet;

use rand::Rng as _;
use tidegate_proto::v1::{Command, command};
use tidegate_raft_store::State;

use super::event::{Answer, Event, MS, Machine, Message, Process, Timer};
use super::network::Fate;
use super::world::World;
use crate::error::ErrorKind;

/// An entry that no majority has yet.
#[derive(Clone, Debug)]
struct Pending {
    number: u64,
    leader: Machine,
    term: u64,
    command: Command,
    /// Who hears the outcome.
    from: Process,
}

/// The group.
#[derive(Debug, Default)]
pub(super) struct Raft {
    pub(super) log: Vec<Command>,
    /// All of the log, applied.
    pub(super) truth: State,
    pub(super) term: u64,
    pub(super) leader: Option<Machine>,
    pub(super) voters: BTreeSet<Machine>,
    pending: Vec<Pending>,
    number: u64,
}

impl World {
    /// Takes a proposal as the leader.
    pub(super) fn submit(&mut self, leader: Machine, from: Process, number: u64, command: Command) {
        if !self.nodes[leader].leads(leader) {
            self.answer(leader, from, number, Err(ErrorKind::Unavailable));
            return;
        }
        let term = self.nodes[leader].memory.view.term;
        self.raft.number += 1;
        let proposal = self.raft.number;
        self.raft.pending.push(Pending { number: proposal, leader, term, command, from });
        self.asked.insert(proposal, number);
        let delay = self.rng.random_range(MS..6 * MS);
        self.push(delay, Event::Commit { proposal });
    }

    /// Commits the entry and those before it, if a majority follows its leader.
    pub(super) fn commit(&mut self, proposal: u64) {
        let Some(entry) = self.raft.pending.iter().find(|it| it.number == proposal) else { return };
        let (leader, term) = (entry.leader, entry.term);
        if self.raft.term != term || self.raft.leader != Some(leader) {
            // The next leader decides what becomes of it.
            return;
        }
        if !self.nodes[leader].runs() || !self.majority(leader, false) {
            self.push(50 * MS, Event::Commit { proposal });
            return;
        }
        let due = |it: &Pending| it.term == term && it.number <= proposal;
        let (due, rest) = self.raft.pending.drain(..).partition(due);
        self.raft.pending = rest;
        self.enter(due);
        self.apply(leader, self.raft.log.len());
        self.append_all(leader);
    }

    /// Some of what the last leader had, and no majority confirmed, is kept; nobody
    /// hears so.
    pub(super) fn inherit(&mut self) {
        let mut rest = std::mem::take(&mut self.raft.pending);
        rest.retain(|it| it.term + 1 == self.raft.term);
        let kept = self.rng.random_range(0..=rest.len());
        rest.truncate(kept);
        self.enter(rest);
        self.asked.clear();
    }

    /// Puts entries behind the log.
    fn enter(&mut self, entries: Vec<Pending>) {
        for entry in entries {
            self.raft.log.push(entry.command.clone());
            let index = self.raft.log.len() as u64;
            self.trace.note(self.now, "committed", &[index, entry.leader as u64]);
            self.trace.tell(self.now, || format!("  #{index} {:?}", entry.command.kind));
            self.before_apply(&entry.command);
            let outcome = self.raft.truth.apply(index, entry.command.clone());
            self.after_apply(&entry.command, &outcome);
            let asked = self.asked.remove(&entry.number);
            if let Some(number) = asked {
                self.answer(entry.leader, entry.from, number, Ok(outcome));
            }
        }
    }

    fn answer(&mut self, leader: Machine, to: Process, number: u64, answer: Answer) {
        let message = Message::Proposed { to, number, answer };
        if leader == to.machine {
            self.push(50, Event::Arrive(to.machine, message));
        } else {
            self.send(leader, to.machine, message);
        }
    }

    /// Applies what is committed, as far as `machine` has heard.
    pub(super) fn apply(&mut self, machine: Machine, upto: usize) {
        let node = &mut self.nodes[machine];
        let upto = upto.min(self.raft.log.len());
        let mut moved = false;
        while node.disk.applied < upto {
            let command = self.raft.log[node.disk.applied].clone();
            moved |= !matches!(command.kind, Some(command::Kind::Checkpoints(_)));
            node.disk.applied += 1;
            node.disk.state.apply(node.disk.applied as u64, command);
        }
        if moved {
            let (look, place) = (self.rng.random_range(50..MS), self.rng.random_range(50..MS));
            self.timer(machine, look, Timer::Look(false));
            if self.nodes[machine].leads(machine) {
                self.timer(machine, place, Timer::Place(false));
            }
        }
    }

    /// Tells all others how far the log is committed.
    pub(super) fn append_all(&mut self, leader: Machine) {
        let term = self.nodes[leader].memory.view.term;
        let commit = self.nodes[leader].disk.applied;
        for other in 0..self.nodes.len() {
            if other != leader && !self.nodes[other].gone {
                self.send(leader, other, Message::Append { leader, term, commit, sent: self.now });
            }
        }
    }

    /// Sends one message on its way.
    pub(super) fn send(&mut self, from: Machine, to: Machine, message: Message) {
        if let Fate::Arrives(after, again) = self.network.fate(from, to, &mut self.rng) {
            if let Some(again) = again {
                self.push(again, Event::Arrive(to, message.clone()));
            }
            self.push(after, Event::Arrive(to, message));
        }
    }
}
