//! The replicated log, as one list of commands that the product's fold applies.
//!
//! How Raft copies entries is left out; what its users see is not: leaders that
//! change, two nodes that both believe to lead, proposals that are lost, late, or
//! taken although nobody heard so, and nodes that apply later than others.

use std::collections::BTreeSet;

use rand::Rng as _;
use tidegate_proto::v1::{Command, command};
use tidegate_raft_store::State;

use super::event::{Answer, Event, MS, Machine, Message, Micros, Process, Timer};
use super::network::Fate;
use super::world::World;
use crate::error::ErrorKind;

/// Followers refuse another leader for so long after they heard one (openraft's
/// `election_timeout_max`, as `control/join.rs` sets it).
const LEASE: Micros = 960 * MS;
/// The shortest time beyond that before a follower stands for election.
const ELECTION: Micros = 800 * MS;

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

    /// Enough voters can be reached from `machine`; with `free`, those that have
    /// not heard a leader for a while.
    fn majority(&self, machine: Machine, free: bool) -> bool {
        let with = |voter: &&Machine| {
            let node = &self.nodes[**voter];
            let free = !free
                || **voter == machine
                || node.local(self.now) - node.memory.view.heard > LEASE;
            node.runs() && free && self.network.both_ways(machine, **voter)
        };
        self.raft.voters.iter().filter(with).count() * 2 > self.raft.voters.len()
    }

    /// A majority could follow some leader right now, with `machine` among it.
    pub(super) fn could_follow(&self, machine: Machine) -> bool {
        self.raft.leader.is_some_and(|leader| {
            self.nodes[leader].runs()
                && self.nodes[leader].leads(leader)
                && self.majority(leader, false)
                && self.network.both_ways(leader, machine)
        })
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

    pub(super) fn on_append(
        &mut self,
        machine: Machine,
        (leader, term): (Machine, u64),
        commit: usize,
        sent: Micros,
    ) {
        let now = self.nodes[machine].local(self.now);
        let view = &mut self.nodes[machine].memory.view;
        if term < view.term {
            let newer = view.term;
            self.tell_of_newer(machine, leader, newer);
            return;
        }
        (view.term, view.leader, view.heard) = (term, Some(leader), now);
        view.said = sent.max(view.said);
        if leader == machine {
            view.followed = Some(now);
        }
        self.apply(machine, commit);
    }

    /// A leader of an old term learns that there is a newer one.
    fn tell_of_newer(&mut self, machine: Machine, leader: Machine, term: u64) {
        let passes = self.network.passes(machine, leader);
        let view = &mut self.nodes[leader].memory.view;
        if passes && view.leader == Some(leader) && view.term < term {
            (view.leader, view.term) = (None, term);
        }
    }

    /// When a majority last followed this leader, as far as it can have heard: it
    /// counts from when it said what they answered to.
    fn followed_since(&self, machine: Machine) -> Option<Micros> {
        let term = self.nodes[machine].memory.view.term;
        let said = self.raft.voters.iter().map(|voter| {
            let view = &self.nodes[*voter].memory.view;
            let follows = view.term == term && view.leader == Some(machine);
            match *voter == machine {
                true => self.now,
                false if follows && self.network.passes(*voter, machine) => view.said,
                false => 0,
            }
        });
        let mut said: Vec<_> = said.collect();
        said.sort_unstable();
        let since = said[(said.len() - 1) / 2];
        (since > 0).then_some(since)
    }

    /// Raft's part of what a process does every heartbeat.
    pub(super) fn raft_duty(&mut self, machine: Machine) {
        let node = &self.nodes[machine];
        let now = node.local(self.now);
        if !node.leads(machine) {
            let silent = now - node.memory.view.heard;
            if silent > LEASE + ELECTION + node.memory.view.jitter {
                self.stand(machine);
            }
            return;
        }
        if let Some(since) = self.followed_since(machine) {
            let node = &mut self.nodes[machine];
            let since = node.local(since);
            let before = node.memory.view.followed.unwrap_or(0);
            node.memory.view.followed = Some(since.max(before));
        }
        self.append_all(machine);
    }

    /// Stands for election.
    pub(super) fn stand(&mut self, machine: Machine) {
        let jitter = self.rng.random_range(0..LEASE - ELECTION);
        let now = self.nodes[machine].local(self.now);
        self.nodes[machine].memory.view.jitter = jitter;
        if !self.raft.voters.contains(&machine) || !self.majority(machine, true) {
            return;
        }
        self.raft.term += 1;
        self.trace.note(self.now, "leads", &[machine as u64, self.raft.term]);
        self.raft.leader = Some(machine);
        let view = &mut self.nodes[machine].memory.view;
        (view.leader, view.term, view.heard) = (Some(machine), self.raft.term, now);
        view.followed = None;
        // Some of what the last leader had and no majority confirmed is kept.
        let mut rest = std::mem::take(&mut self.raft.pending);
        rest.retain(|it| it.term + 1 == self.raft.term);
        let kept = self.rng.random_range(0..=rest.len());
        rest.truncate(kept);
        self.enter(rest);
        self.asked.clear();
        // It knows what is committed once a majority has its first entry.
        let (delay, commit) = (self.rng.random_range(MS..8 * MS), self.raft.log.len());
        self.nodes[machine].memory.view.inherited = commit;
        let term = self.raft.term;
        let message = Message::Append { leader: machine, term, commit, sent: self.now };
        self.push(delay, Event::Arrive(machine, message));
        self.append_all(machine);
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
