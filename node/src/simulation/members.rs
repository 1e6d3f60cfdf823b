//! How nodes stay in the cluster: heartbeats and leases, pings, and the leader's
//! look at who is silent.

use std::time::Duration;

use rand::Rng as _;
use tidegate_proto::NodeId;
use tidegate_proto::v1::{HeartbeatResponse, NodeDown, NodeUp, command};
use tidegate_raft_store::LEVEL;

use super::Broken;
use super::event::{Event, MS, Machine, Message, Micros, Process, Timer};
use super::node::{Node, Purpose};
use super::world::World;
use crate::control::elections::TURN;
use crate::control::handle::counts_as_up;
use crate::control::lease::Until;
use crate::control::members::{blame, lost, up};

impl World {
    fn beat_every(&self) -> Micros {
        self.times.heartbeat_ms * MS
    }

    /// Tells the leader that this node lives; one heartbeat at a time.
    pub(super) fn heartbeat(&mut self, machine: Machine) {
        let number = self.next_number();
        let local = self.nodes[machine].local(self.now);
        let memory = &mut self.nodes[machine].memory;
        memory.heartbeat = Some((number, local));
        let (leader, run) = (memory.view.leader, memory.run);
        let from = self.nodes[machine].process(machine);
        match leader {
            Some(leader) if leader == machine => {
                let heard = self.hear(machine, machine, run);
                self.on_heartbeat_answer(machine, number, heard);
            }
            Some(leader) => {
                self.send(machine, leader, Message::Heartbeat { from, run, number });
                self.timer(machine, self.times.lease_ms * MS, Timer::HeartbeatLate(number));
            }
            None => self.on_heartbeat_answer(machine, number, None),
        }
    }

    pub(super) fn on_heartbeat(&mut self, machine: Machine, from: Process, run: u64, number: u64) {
        let heard = self.hear(machine, from.machine, run);
        self.send(machine, from.machine, Message::HeartbeatAnswer { to: from, number, heard });
    }

    /// As the leader; `None` from one that is none, or that no quorum follows.
    fn hear(&mut self, machine: Machine, from: Machine, run: u64) -> Option<HeartbeatResponse> {
        let followed_ms_ago = self.followed_ago(machine)? / MS;
        let now = self.instant(machine);
        let id = self.nodes[from].id;
        let node = &mut self.nodes[machine];
        let up = counts_as_up(&node.disk.state, id, run);
        if up && !node.memory.liveness.heard(id, run, now) {
            return None;
        }
        Some(HeartbeatResponse { up, followed_ms_ago })
    }

    /// It leads, and what `control/handle.rs` asks of metrics besides holds.
    fn followed_ago(&self, machine: Machine) -> Option<Micros> {
        let node = &self.nodes[machine];
        let view = &node.memory.view;
        let ago = view.followed.map(|at| node.local(self.now) - at);
        let caught_up = node.leads(machine) && node.disk.applied >= view.inherited;
        ago.filter(|ago| caught_up && *ago < self.times.lease_ms * MS)
    }

    pub(super) fn on_heartbeat_answer(
        &mut self,
        machine: Machine,
        number: u64,
        heard: Option<HeartbeatResponse>,
    ) {
        let Some((asked, sent)) = self.nodes[machine].memory.heartbeat else { return };
        if asked != number {
            return;
        }
        self.nodes[machine].memory.heartbeat = None;
        match heard {
            Some(answer) if answer.up => {
                self.nodes[machine].disk.torn = false;
                self.renew(machine, sent, answer.followed_ms_ago);
            }
            Some(_) => self.announce(machine),
            None => {}
        }
        let spent = self.nodes[machine].local(self.now) - sent;
        let every = self.beat_every();
        let wait = if spent < every { every - spent } else { every };
        self.timer(machine, wait, Timer::Heartbeat);
    }

    pub(super) fn heartbeat_late(&mut self, machine: Machine, number: u64) {
        self.on_heartbeat_answer(machine, number, None);
    }

    fn renew(&mut self, machine: Machine, sent: Micros, followed_ms_ago: u64) {
        let (sent_at, now) = (self.instant_of(sent), self.instant(machine));
        let memory = &mut self.nodes[machine].memory;
        let held_before = memory.lease.held(now);
        memory.lease =
            Until::renewed(sent_at, Duration::from_millis(followed_ms_ago), self.times.lease());
        let left = u64::try_from(memory.lease.left(now).as_micros()).unwrap();
        if !held_before {
            self.timer(machine, 100, Timer::Look(false));
        }
        self.timer(machine, left + 100, Timer::Look(false));
    }

    pub(super) fn lease_held(&self, machine: Machine) -> bool {
        self.nodes[machine].memory.lease.held(self.instant(machine))
    }

    fn announce(&mut self, machine: Machine) {
        let node = &self.nodes[machine];
        let up = NodeUp {
            node: node.id.0,
            address: Node::address(machine),
            region: node.region.to_owned(),
            run: node.memory.run,
            torn: node.disk.torn && !self.is_broken(Broken::TornTails),
            level: LEVEL,
        };
        self.propose(machine, command::Kind::NodeUp(up), Purpose::Announce);
    }

    /// Every heartbeat: Raft's beat, pings, and who is lost.
    pub(super) fn duty(&mut self, machine: Machine) {
        self.timer(machine, self.beat_every(), Timer::Duty);
        self.raft_duty(machine);
        self.ping_all(machine);
        self.look_for_lost(machine);
    }

    fn ping_all(&mut self, machine: Machine) {
        let to = self.nodes[machine].process(machine);
        for from in (0..self.nodes.len()).filter(|other| *other != machine) {
            let other = &self.nodes[from];
            let refused = self.network.refuses(from) || (!other.alive && !other.gone);
            let delay = self.network.delay(&mut self.rng);
            if !self.network.both_ways(machine, from) {
                continue;
            }
            let run = self.nodes[from].memory.run;
            if refused {
                self.push(delay, Event::Arrive(machine, Message::Refused { to, from }));
            } else if self.nodes[from].runs() {
                self.push(delay, Event::Arrive(machine, Message::Pong { to, from, run }));
            }
        }
    }

    pub(super) fn on_pong(&mut self, machine: Machine, from: Machine, run: u64) {
        let (id, now) = (self.nodes[from].id, self.instant(machine));
        self.nodes[machine].memory.contacts.heard(id, run, now);
    }

    pub(super) fn on_refused(&mut self, machine: Machine, from: Machine) {
        let (id, run) = (self.nodes[from].id, self.nodes[from].memory.run);
        self.checks.was_refused(id, run);
        if self.nodes[machine].memory.contacts.refused(id) {
            self.look_for_lost(machine);
            self.replace_leader(machine, from, 0);
        }
    }

    /// If the process that is gone led, its followers stand for election in turn.
    pub(super) fn replace_leader(&mut self, machine: Machine, gone: Machine, tries: u32) {
        let id = self.nodes[gone].id;
        let memory = &self.nodes[machine].memory;
        let led = memory.view.leader.is_none_or(|leader| leader == gone);
        if !led || memory.contacts.gone(id).is_none() {
            return;
        }
        if tries > 0 {
            self.stand(machine);
        }
        let turn = u64::try_from(TURN.as_micros()).unwrap();
        let before = (0..machine).filter(|other| *other != gone).count() as u64;
        let rest = if tries == 0 { 0 } else { (turn * 3) << (tries - 1).min(2) };
        let wait = turn * before + self.rng.random_range(0..turn / 3) + rest;
        self.timer(machine, wait, Timer::Stand { gone, tries: tries + 1 });
    }

    /// As the leader: declares nodes down.
    pub(super) fn look_for_lost(&mut self, machine: Machine) {
        let (now, patience) = (self.instant(machine), self.patience());
        let followed = self.followed_ago(machine).is_some();
        let ids: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
        let node = &mut self.nodes[machine];
        let (leads, state, memory) = (node.leads(machine), &node.disk.state, &mut node.memory);
        if !leads {
            memory.leader_before = memory.view.leader.or(memory.leader_before);
            memory.liveness.forget();
            return;
        }
        if !followed {
            memory.liveness.excuse();
            return;
        }
        if memory.deciding {
            return;
        }
        if let Some(before) = memory.leader_before.take() {
            // It may have been this node that was away, not the leader before it; then
            // that one's lease may last a moment longer than it is held for up.
            let run = state.node(ids[before].0).map_or(0, |node| node.run);
            let heard = memory.contacts.last(ids[before], run);
            self.checks.was_refused(ids[before], heard.map_or(0, |_| run));
            blame(&up(state), &memory.contacts, &mut memory.liveness, ids[before]);
        }
        let gone = lost(up(state), &memory.contacts, &mut memory.liveness, (now, patience));
        // One after the other; those behind the first are seen again.
        if let Some((id, run)) = gone.first().copied() {
            self.declare_down(machine, id, run);
        }
    }

    fn patience(&self) -> Duration {
        if self.is_broken(Broken::StartBeforeStop) {
            return self.times.lease() / 2;
        }
        self.times.down()
    }

    fn declare_down(&mut self, machine: Machine, id: NodeId, run: u64) {
        let kind = command::Kind::NodeDown(NodeDown { node: id.0, run });
        // Only as the leader, so it goes nowhere else.
        self.nodes[machine].memory.deciding = true;
        self.propose(machine, kind, Purpose::Down);
    }
}
