//! What breaks, and those who mend it and give orders.

use rand::Rng as _;
use tidegate_proto::NodeId;
use tidegate_proto::v1::{
    ClusterCreate, Command, ExportPut, ExportSetState, ExportState, MoveShard, NodeCordon,
    NodeJoin, NodeRemove, NodeState, ShardId, ShardSpec, ShardsDiscovered, SinkRef, command,
    outcome,
};
use tidegate_raft_store::LEVEL;

use super::event::{Event, MS, Machine};
use super::faults::Fault;
use super::node::{Node, Purpose};
use super::source::Source;
use super::world::World;

const EXPORT: &str = "orders";

impl World {
    /// Makes the cluster as it is before anything goes wrong.
    pub(super) fn found(&mut self) {
        self.write(command::Kind::ClusterCreate(ClusterCreate { cluster_id: "c".to_owned() }));
        for _ in 0..self.setting.machines {
            self.add_machine();
        }
        let sinks = (0..self.setting.sinks)
            .map(|at| SinkRef { name: format!("s{at}"), kind: "lake".to_owned() });
        let spec = format!(
            "name = \"{EXPORT}\"\n[source]\nkind = \"datagen\"\n{}[spool]\ncopies = {}\n",
            (0..self.setting.sinks)
                .map(|at| format!("[[sink]]\nname = \"s{at}\"\nkind = \"jsonl\"\nstdout = true\n"))
                .collect::<String>(),
            self.setting.copies
        );
        let put = ExportPut {
            name: EXPORT.to_owned(),
            spec,
            sinks: sinks.collect(),
            ..ExportPut::default()
        };
        self.write(command::Kind::ExportPut(put));
        let export_id = self.raft.truth.exports().next().map_or(0, |export| export.id);
        let shards = (0..self.setting.shards)
            .map(|at| ShardSpec { name: format!("t{at}"), ..ShardSpec::default() });
        let shards = shards.collect();
        self.write(command::Kind::ShardsDiscovered(ShardsDiscovered { export_id, shards }));
        let ids: Vec<_> = self.raft.truth.shards().filter_map(|shard| shard.id).collect();
        for id in ids {
            let every = self.rng.random_range(25..120) * MS;
            self.sources.insert(id, Source::new(every, self.setting.heal_at + 2_000 * MS));
        }
        let leader = self.rng.random_range(0..self.nodes.len());
        for machine in 0..self.nodes.len() {
            self.start(machine);
        }
        self.stand(leader);
        for (at, fault) in self.setting.faults.clone() {
            self.push(at, Event::Fault(fault));
        }
        self.push(100 * MS, Event::Observe);
    }

    /// Into the log, as it was before the world began.
    fn write(&mut self, kind: command::Kind) -> u64 {
        let command: Command = self.command(kind);
        self.raft.log.push(command.clone());
        let outcome = self.raft.truth.apply(self.raft.log.len() as u64, command);
        match outcome.kind {
            Some(outcome::Kind::Created(created)) => created.id,
            _ => 0,
        }
    }

    fn add_machine(&mut self) -> Machine {
        let machine = self.nodes.len();
        let (name, address) = (format!("n{machine}"), Node::address(machine));
        let region = if self.one_in(3) { "b" } else { "a" };
        let (learner, level) = (false, LEVEL);
        let join = NodeJoin { name, address, region: region.to_owned(), learner, level };
        let id = NodeId(self.write(command::Kind::NodeJoin(join)));
        // Clocks differ by up to 4 in a hundred.
        let rate = self.rng.random_range(960..=1040);
        self.nodes.push(Node::new(id, rate, region));
        self.raft.voters.insert(machine);
        machine
    }

    pub(super) fn on_fault(&mut self, fault: Fault) {
        self.last_fault = self.now;
        self.trace.tell(self.now, || format!("FAULT {fault:?}"));
        self.checks.faults += 1;
        let others = 0..self.nodes.len();
        match fault {
            Fault::Kill { machine, power } => self.kill(machine, power),
            Fault::Start(machine) => self.start(machine),
            Fault::Freeze(machine) => self.nodes[machine].frozen = self.nodes[machine].alive,
            Fault::Thaw(machine) => self.thaw(machine),
            Fault::Stop(machine) => self.stop(machine),
            Fault::Wipe(machine) => self.wipe(machine),
            Fault::Link { from, to, passes } => self.network.set(from, to, passes),
            Fault::Island { machine, passes } => {
                for other in others.filter(|other| *other != machine) {
                    self.network.set(machine, other, passes);
                    self.network.set(other, machine, passes);
                }
            }
            Fault::Refuse { machine, refuses } => self.network.set_refusing(machine, refuses),
            Fault::Trouble(thousandths) => self.network.trouble = thousandths,
            Fault::SlowSinks(slow) => self.slow_sinks = slow,
            Fault::Move { shard, machine } => self.order_move(shard, machine),
            Fault::Cordon { machine, cordoned } => {
                let node = self.nodes[machine].id.0;
                self.order(command::Kind::NodeCordon(NodeCordon { node, cordoned }));
            }
            Fault::Pause(paused) => {
                let state = if paused { ExportState::Paused } else { ExportState::Active };
                let set = ExportSetState { name: EXPORT.to_owned(), state: state.into() };
                self.order(command::Kind::ExportSetState(set));
            }
            Fault::Remove(machine) => {
                let node = self.nodes[machine].id;
                let cordon = NodeCordon { node: node.0, cordoned: true };
                self.order(command::Kind::NodeCordon(cordon));
                self.leaving.push_back(node);
            }
            Fault::Heal => self.heal(),
        }
    }

    /// An operator's command, by the first node that has a leader.
    fn order(&mut self, kind: command::Kind) {
        let knows = |node: &Node| node.runs() && node.memory.view.leader.is_some();
        if let Some(machine) = self.nodes.iter().position(knows) {
            self.propose(machine, kind, Purpose::Nothing);
        }
    }

    fn order_move(&mut self, shard: usize, machine: Machine) {
        let to = self.nodes[machine].id.0;
        let Some(shard) = self.raft.truth.shards().nth(shard) else { return };
        let (id, epoch) = (shard.id, shard.epoch);
        let to = MoveShard { shard: id, epoch, reader: to, ..MoveShard::default() };
        self.order(command::Kind::MoveShard(to));
    }

    /// The machine is lost; an empty one joins under another name.
    fn wipe(&mut self, machine: Machine) {
        self.kill(machine, false);
        let node = &mut self.nodes[machine];
        (node.gone, node.torn) = (true, true);
        node.disk.logs.clear();
        self.leaving.push_back(self.nodes[machine].id);
        self.trace.note(self.now, "lost", &[machine as u64]);
        let fresh = self.add_machine();
        self.start(fresh);
    }

    fn heal(&mut self) {
        self.network.heal();
        self.slow_sinks = false;
        self.start_all();
        self.restore();
    }

    /// Makes good on what operators asked for and the log does not have.
    pub(super) fn restore(&mut self) {
        let truth = &self.raft.truth;
        let paused = truth.exports().any(|export| export.state() == ExportState::Paused);
        let cordoned = truth.nodes().filter(|node| node.cordoned).map(|node| node.id);
        let stays = |node: &u64| !self.leaving.contains(&NodeId(*node));
        let cordoned: Vec<_> = cordoned.filter(stays).collect();
        if paused {
            let state = ExportState::Active.into();
            let set = ExportSetState { name: EXPORT.to_owned(), state };
            self.order(command::Kind::ExportSetState(set));
        }
        for node in cordoned {
            self.order(command::Kind::NodeCordon(NodeCordon { node, cordoned: false }));
        }
    }

    /// Takes those out that are to leave, as soon as they may.
    pub(super) fn remove_leaving(&mut self) {
        let Some(id) = self.leaving.front().copied() else { return };
        if self.raft.truth.node(id.0).is_none() {
            self.leaving.pop_front();
            if let Some(machine) = self.machine_of(id.0) {
                self.kill(machine, false);
                self.nodes[machine].gone = true;
                self.raft.voters.remove(&machine);
            }
            return;
        }
        let node = self.raft.truth.node(id.0);
        if node.is_some_and(|node| node.cordoned || node.state() == NodeState::Down) {
            self.order(command::Kind::NodeRemove(NodeRemove { node: id.0 }));
        } else {
            self.order(command::Kind::NodeCordon(NodeCordon { node: id.0, cordoned: true }));
        }
    }

    /// The shards, in order.
    pub(super) fn shard_ids(&self) -> Vec<ShardId> {
        self.sources.keys().copied().collect()
    }
}
