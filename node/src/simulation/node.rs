//! A machine, its disk, and what its process has in memory.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_proto::NodeId;
use tidegate_proto::v1::{Checkpoints, ShardId};
use tidegate_raft_store::State;

use super::event::{Event, Machine, Micros, Process};
use super::spool::Log;
use super::tasks::Actor;
use crate::checkpoint::pending::Pending;
use crate::control::contacts::Contacts;
use crate::control::lease::Until;
use crate::control::liveness::Liveness;
use crate::placement::planner::Planner;
use crate::shard::role::{Role, Terms};

/// What a proposal was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Nobody waits for it, or it is made again when it is seen to be needed.
    Nothing,
    /// That this run is up.
    Announce,
    /// One of a placement round.
    Place,
    /// The copies in sync of a shard, by this task of its reader.
    Copies(ShardId, u64, BTreeSet<NodeId>),
    /// What a reader must have recorded before it goes on.
    Reader(ShardId, u64),
    /// Checkpoints.
    Tick,
    /// A node is declared down.
    Down,
}

/// What survives the process.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// Folded from the log, up to `applied`.
    pub(super) state: State,
    pub(super) applied: usize,
    pub(super) logs: BTreeMap<ShardId, Log>,
    /// The power was cut, and the cluster was not told yet.
    pub(super) torn: bool,
}

/// What a process knows of Raft's group.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) leader: Option<Machine>,
    pub(super) term: u64,
    /// When the leader was last heard, by the clock of this machine.
    pub(super) heard: Micros,
    /// When the leader said what was heard last, by the world's clock.
    pub(super) said: Micros,
    /// How much longer than Raft's lease it waits before it stands for election.
    pub(super) jitter: Micros,
    /// As a leader: when a majority last followed it, and what was committed
    /// before it led.
    pub(super) followed: Option<Micros>,
    pub(super) inherited: usize,
}

/// What a process has in memory.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is where one of the node's loops stands")]
pub(super) struct Memory {
    pub(super) run: u64,
    pub(super) lease: Until,
    pub(super) view: View,
    pub(super) liveness: Liveness,
    pub(super) contacts: Contacts,
    pub(super) leader_before: Option<Machine>,
    /// Its number, and when it was sent by this machine's clock.
    pub(super) heartbeat: Option<(u64, Micros)>,
    pub(super) waiting: BTreeMap<u64, Purpose>,
    pub(super) planner: Planner,
    /// Proposals of the round of placement that is under way.
    pub(super) placing: usize,
    pub(super) place_again: bool,
    /// A node is being declared down; the others wait.
    pub(super) deciding: bool,
    pub(super) roles: BTreeMap<Role, Terms>,
    pub(super) actors: BTreeMap<Role, Actor>,
    pub(super) draining: BTreeSet<Role>,
    pub(super) pending: Pending,
    pub(super) proposed: Option<Checkpoints>,
    pub(super) tick_due: bool,
    pub(super) tick_wait: Micros,
    pub(super) syncing: bool,
    pub(super) closing: bool,
}

/// One machine.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "any of them goes with any other")]
pub(super) struct Node {
    pub(super) id: NodeId,
    /// How fast its clock runs, in thousandths of the world's.
    rate: u64,
    pub(super) region: &'static str,
    pub(super) alive: bool,
    pub(super) life: u32,
    pub(super) frozen: bool,
    /// What waits for it to thaw.
    pub(super) deferred: Vec<Event>,
    /// Lost with its disk, or removed: it never starts again.
    pub(super) gone: bool,
    /// A power cut may have taken some of its logs' ends.
    pub(super) torn: bool,
    pub(super) disk: Disk,
    pub(super) memory: Memory,
}

impl Node {
    pub(super) fn new(id: NodeId, rate: u64, region: &'static str) -> Self {
        Self {
            id,
            rate,
            region,
            alive: false,
            life: 0,
            frozen: false,
            deferred: Vec::new(),
            gone: false,
            torn: false,
            disk: Disk::default(),
            memory: Memory::default(),
        }
    }

    /// What its clock says at `now`.
    pub(super) fn local(&self, now: Micros) -> Micros {
        now * self.rate / 1000
    }

    /// How long the world waits for what takes `local` by this clock.
    pub(super) fn wait(&self, local: Micros) -> Micros {
        local * 1000 / self.rate + 1
    }

    pub(super) fn process(&self, machine: Machine) -> Process {
        Process { machine, life: self.life }
    }

    pub(super) fn runs(&self) -> bool {
        self.alive && !self.frozen
    }

    pub(super) fn leads(&self, machine: Machine) -> bool {
        self.memory.view.leader == Some(machine)
    }

    pub(super) fn address(machine: Machine) -> String {
        format!("m{machine}")
    }
}
