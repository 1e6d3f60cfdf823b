//! The world: machines, what connects them, and the loop that lets things happen.

use std::collections::{BTreeMap, VecDeque};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tidegate_proto::NodeId;
use tidegate_proto::v1::{Command, ShardId, command};
use tokio::time::Instant;

use super::Broken;
use super::checks::Checks;
use super::event::{Event, MS, Machine, Message, Micros, Origin, Process, Queue, Timer};
use super::faults::Setting;
use super::network::Network;
use super::node::Node;
use super::raft::Raft;
use super::settle::Watch;
use super::sink::{Sink, SinkId};
use super::source::Source;
use super::streams::Connection;
use super::trace::Trace;
use crate::config::ClusterConfig;

/// Nothing takes longer than this to settle once all is mended.
const SETTLE: Micros = 90_000 * MS;

/// Everything there is.
pub(super) struct World {
    pub(super) now: Micros,
    origin: Origin,
    queue: Queue,
    pub(super) rng: StdRng,
    pub(super) broken: Option<Broken>,
    pub(super) times: ClusterConfig,
    pub(super) setting: Setting,
    pub(super) nodes: Vec<Node>,
    pub(super) raft: Raft,
    pub(super) network: Network,
    pub(super) connections: BTreeMap<u64, Connection>,
    /// The proposer's own numbers of what is on its way into the log.
    pub(super) asked: BTreeMap<u64, u64>,
    pub(super) numbers: u64,
    pub(super) sources: BTreeMap<ShardId, Source>,
    pub(super) sinks: BTreeMap<SinkId, Sink>,
    pub(super) slow_sinks: bool,
    /// Machines that an operator wants out.
    pub(super) leaving: VecDeque<NodeId>,
    pub(super) last_fault: Micros,
    pub(super) checks: Checks,
    pub(super) watch: Watch,
    pub(super) trace: Trace,
    pub(super) violation: Option<String>,
    pub(super) settled: bool,
}

impl World {
    pub(super) fn new(seed: u64, broken: Option<Broken>, text: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let setting = Setting::draw(&mut rng);
        // Faults are short, so are what a copy may lag and a move may take.
        let mut times = ClusterConfig { lag_ms: 1_000, move_ms: 3_000, ..ClusterConfig::default() };
        if broken == Some(Broken::LongLease) {
            times.lease_ms = times.down_ms;
        }
        let mut world = Self {
            now: 0,
            origin: Origin::new(),
            queue: Queue::default(),
            rng,
            broken,
            times,
            setting,
            nodes: Vec::new(),
            raft: Raft::default(),
            network: Network::default(),
            connections: BTreeMap::new(),
            asked: BTreeMap::new(),
            numbers: 0,
            sources: BTreeMap::new(),
            sinks: BTreeMap::new(),
            slow_sinks: false,
            leaving: VecDeque::new(),
            last_fault: 0,
            checks: Checks::default(),
            watch: Watch::default(),
            trace: Trace::new(text),
            violation: None,
            settled: false,
        };
        world.found();
        world
    }

    /// Lets everything happen, until all has settled or a promise is broken.
    pub(super) fn run(&mut self) {
        let end = self.setting.heal_at + SETTLE;
        while let Some((at, event)) = self.queue.pop() {
            self.now = at;
            self.handle(event);
            if self.settled || self.violation.is_some() {
                return;
            }
            if at > end {
                self.tell_tasks();
                let why = self.why_unsettled();
                self.fail(why);
            }
        }
    }

    /// The first promise that was broken ends the run.
    pub(super) fn fail(&mut self, why: String) {
        if self.violation.is_none() {
            self.trace.tell(self.now, || format!("VIOLATION: {why}"));
            self.violation = Some(why);
        }
    }

    fn handle(&mut self, event: Event) {
        if let Event::Timer(Process { machine, life }, _) = &event
            && (!self.nodes[*machine].alive || self.nodes[*machine].life != *life)
        {
            return;
        }
        if let Event::Timer(Process { machine, .. }, _) | Event::Arrive(machine, _) = &event
            && self.nodes[*machine].frozen
        {
            let machine = *machine;
            self.nodes[machine].deferred.push(event);
            return;
        }
        match event {
            Event::Timer(process, timer) => self.on_timer(process.machine, timer),
            Event::Arrive(machine, message) => {
                if self.nodes[machine].alive {
                    self.on_message(machine, message);
                }
            }
            Event::Stream { connection, to_server } => self.on_stream(connection, to_server),
            Event::Commit { proposal } => self.commit(proposal),
            Event::SinkOpen(opening) => self.on_sink_open(opening),
            Event::SinkCommit(attempt) => self.on_sink_commit(&attempt),
            Event::Fault(fault) => self.on_fault(fault),
            Event::Observe => self.observe(),
        }
    }

    fn on_timer(&mut self, machine: Machine, timer: Timer) {
        match timer {
            Timer::Heartbeat => self.heartbeat(machine),
            Timer::HeartbeatLate(number) => self.heartbeat_late(machine, number),
            Timer::Duty => self.duty(machine),
            Timer::Stand { gone, tries } => self.replace_leader(machine, gone, tries),
            Timer::Place(periodic) => self.place(machine, periodic),
            Timer::Look(periodic) => self.look(machine, periodic),
            Timer::Tick => self.tick(machine),
            Timer::Synced(asked) => self.on_synced(machine, asked),
            Timer::Retain => self.retain(machine),
            Timer::Task(role, task) => self.on_task(machine, &role, task),
            Timer::Copies(shard, task) => self.look_at_copies(machine, shard, task),
            Timer::ProposalLate(number) => {
                self.on_proposed(machine, number, Err(crate::error::ErrorKind::Unknown));
            }
            Timer::Exit => self.end_process(machine),
        }
    }

    fn on_message(&mut self, machine: Machine, message: Message) {
        let here = self.nodes[machine].process(machine);
        match message {
            Message::Heartbeat { from, run, number } => {
                self.on_heartbeat(machine, from, run, number);
            }
            Message::Propose { from, number, command } => {
                self.submit(machine, from, number, command);
            }
            Message::Append { leader, term, commit, sent } => {
                self.on_append(machine, (leader, term), commit, sent);
            }
            Message::HeartbeatAnswer { to, number, heard } if to == here => {
                self.on_heartbeat_answer(machine, number, heard);
            }
            Message::Proposed { to, number, answer } if to == here => {
                self.on_proposed(machine, number, answer);
            }
            Message::Pong { to, from, run } if to == here => self.on_pong(machine, from, run),
            Message::Refused { to, from } if to == here => self.on_refused(machine, from),
            Message::SinkOpened { to, task, opened } if to == here => {
                self.on_sink_opened(machine, task, &opened);
            }
            Message::SinkCommitted { to, task, committed } if to == here => {
                self.on_sink_committed(machine, task, committed);
            }
            // For a process that is no more.
            Message::HeartbeatAnswer { .. }
            | Message::Proposed { .. }
            | Message::Pong { .. }
            | Message::Refused { .. }
            | Message::SinkOpened { .. }
            | Message::SinkCommitted { .. } => {}
        }
    }

    pub(super) fn push(&mut self, after: Micros, event: Event) {
        self.queue.push(self.now + after, event);
    }

    /// After so long by the machine's own clock, in its process of now.
    pub(super) fn timer(&mut self, machine: Machine, after: Micros, timer: Timer) {
        let node = &self.nodes[machine];
        let (process, wait) = (node.process(machine), node.wait(after));
        self.push(wait, Event::Timer(process, timer));
    }

    /// What the machine's clock says, as the product takes it.
    pub(super) fn instant(&self, machine: Machine) -> Instant {
        self.origin.after(self.nodes[machine].local(self.now))
    }

    /// As [`World::instant`], of a moment this machine remembers.
    pub(super) fn instant_of(&self, local: Micros) -> Instant {
        self.origin.after(local)
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The machine that has this id.
    pub(super) fn machine_of(&self, id: u64) -> Option<Machine> {
        self.nodes.iter().position(|node| node.id.0 == id)
    }

    pub(super) fn is_broken(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    /// A command as nodes propose it; no promise rests on the time in it.
    pub(super) fn command(&self, kind: command::Kind) -> Command {
        let proposed_ms = i64::try_from(self.now / MS).unwrap();
        Command { version: 1, proposed_ms, kind: Some(kind) }
    }

    pub(super) fn one_in(&mut self, times: u32) -> bool {
        self.rng.random_ratio(1, times)
    }
}
