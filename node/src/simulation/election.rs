//! Who leads Raft's group, who believes to, and who follows whom.

use rand::Rng as _;

use super::event::{Event, MS, Machine, Message, Micros};
use super::world::World;
use crate::error::ErrorKind;

/// Followers refuse another leader for so long after they heard one, and stand for
/// election thereafter (`ClusterConfig::silence_ms`).
const LEASE: Micros = 960 * MS;
/// How much longer they may wait for their turn and their next look.
const LATER: Micros = 300 * MS;

impl World {
    /// Enough voters can be reached from `machine`; with `free`, those that have
    /// not heard a leader for a while.
    pub(super) fn majority(&self, machine: Machine, free: bool) -> bool {
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

    /// Raft's part of what a process does every heartbeat.
    pub(super) fn raft_duty(&mut self, machine: Machine) {
        let node = &self.nodes[machine];
        let now = node.local(self.now);
        if !node.leads(machine) {
            let silent = now - node.memory.view.heard;
            if silent > LEASE + node.memory.view.jitter {
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

    /// When a majority last followed this leader, as far as it can have heard: it
    /// counts from when it said what they answered to.
    pub(super) fn followed_since(&self, machine: Machine) -> Option<Micros> {
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

    /// Stands for election.
    pub(super) fn stand(&mut self, machine: Machine) {
        let jitter = self.rng.random_range(0..LATER);
        let now = self.nodes[machine].local(self.now);
        self.nodes[machine].memory.view.jitter = jitter;
        if !self.raft.voters.contains(&machine) || !self.majority(machine, true) {
            return;
        }
        self.raft.term += 1;
        self.trace.note(self.now, "leads", &[machine as u64, self.raft.term]);
        self.raft.leader = Some(machine);
        self.leave_proposals(machine);
        let view = &mut self.nodes[machine].memory.view;
        (view.leader, view.term, view.heard) = (Some(machine), self.raft.term, now);
        view.followed = None;
        // Some of what the last leader had and no majority confirmed is kept.
        self.inherit();
        // It knows what is committed once a majority has its first entry.
        let (delay, commit) = (self.rng.random_range(MS..8 * MS), self.raft.log.len());
        self.nodes[machine].memory.view.inherited = commit;
        let term = self.raft.term;
        let message = Message::Append { leader: machine, term, commit, sent: self.now };
        self.push(delay, Event::Arrive(machine, message));
        self.append_all(machine);
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
        if term > view.term && view.leader != Some(leader) {
            self.leave_proposals(machine);
        }
        let view = &mut self.nodes[machine].memory.view;
        (view.term, view.leader, view.heard) = (term, Some(leader), now);
        view.said = sent.max(view.said);
        if leader == machine {
            view.followed = Some(now);
            self.apply(machine, commit);
        } else {
            let upto = self.part_of(machine, commit);
            self.apply(machine, upto);
        }
    }

    /// One that lags far behind gets what it lacks in pieces, and acts on each.
    fn part_of(&mut self, machine: Machine, commit: usize) -> usize {
        let from = self.nodes[machine].disk.applied;
        if commit <= from || self.rng.random_bool(0.8) {
            return commit;
        }
        self.rng.random_range(from..=commit)
    }

    /// Another leads now: what this machine proposed before has an unknown outcome, as
    /// `control/leader.rs` has it.
    fn leave_proposals(&mut self, machine: Machine) {
        let waiting: Vec<_> = self.nodes[machine].memory.waiting.keys().copied().collect();
        let to = self.nodes[machine].process(machine);
        for number in waiting {
            let answer = Err(ErrorKind::Unknown);
            self.push(MS, Event::Arrive(machine, Message::Proposed { to, number, answer }));
        }
    }

    /// A leader of an old term learns that there is a newer one.
    pub(super) fn tell_of_newer(&mut self, machine: Machine, leader: Machine, term: u64) {
        let passes = self.network.passes(machine, leader);
        let view = &mut self.nodes[leader].memory.view;
        if passes && view.leader == Some(leader) && view.term < term {
            (view.leader, view.term) = (None, term);
        }
    }
}
