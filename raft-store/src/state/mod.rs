//! What the cluster agreed on: a pure fold over the commands in the log.
//!
//! [`State::apply`] has no error, clock or I/O. A refusal is an outcome that
//! every node reaches alike. One file per table; each keeps the rules that the
//! comments in `state.proto` promise.

mod checkpoints;
mod cluster;
mod copies;
mod exports;
mod gaps;
mod level;
mod nodes;
mod outcome;
mod rows;
mod shards;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};

use tidegate_proto::v1::command::Kind;
use tidegate_proto::v1::{
    Cluster, Command, Export, Gap, ManyOutcomes, Node, Outcome, Shard, ShardId,
};

pub use self::level::LEVEL;
use crate::keys::Row;
use crate::types::COMMAND_VERSION;

/// The tables, in memory. Lent by [`crate::StateHandle::read`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    cluster: Option<Cluster>,
    nodes: BTreeMap<u64, Node>,
    exports: BTreeMap<u64, Export>,
    shards: BTreeMap<ShardId, Shard>,
    gaps: BTreeMap<(ShardId, u64), Gap>,
    /// Rows that differ from those on disk.
    dirty: BTreeSet<Row>,
    /// More than checkpoints moved since this was last asked.
    moved: bool,
}

/// Commands of this kind may share an entry: none of their outcomes is an id that is
/// the entry's.
#[must_use]
pub fn gathers(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Assign(_)
            | Kind::Anchor(_)
            | Kind::Checkpoints(_)
            | Kind::ShardFailed(_)
            | Kind::SetCopies(_)
            | Kind::SetInSync(_)
            | Kind::MoveShard(_)
            | Kind::RecordGap(_)
            | Kind::RepairGap(_)
            | Kind::SnapshotBegin(_)
            | Kind::SetOutOfReach(_)
    )
}

/// Where in the log a command stands, and when it was proposed.
#[derive(Clone, Copy, Debug)]
struct At {
    index: u64,
    ms: i64,
}

impl State {
    /// Folds the command at `index` of the log into the tables.
    ///
    /// Indexes must rise from call to call: they become ids and versions.
    pub fn apply(&mut self, index: u64, command: Command) -> Outcome {
        let at = At { index, ms: command.proposed_ms };
        let Some(kind) = command.kind else {
            return outcome::invalid("a command must say what it wants");
        };
        let Kind::Many(many) = kind else { return self.apply_one(at, kind) };
        let outcomes = many.commands.into_iter().map(|it| self.apply_one_of_many(index, it));
        let outcomes = outcomes.collect();
        outcome::of(outcome::Kind::Many(ManyOutcomes { outcomes }))
    }

    fn apply_one_of_many(&mut self, index: u64, command: Command) -> Outcome {
        let at = At { index, ms: command.proposed_ms };
        match command.kind.filter(gathers) {
            Some(kind) if command.version == COMMAND_VERSION => self.apply_one(at, kind),
            _ => outcome::invalid("a command of this kind needs an entry of its own"),
        }
    }

    fn apply_one(&mut self, at: At, kind: Kind) -> Outcome {
        let level = level::needed(&kind);
        match self.decide(at, kind) {
            Ok(outcome) => {
                self.uses(level);
                outcome
            }
            Err(refusal) => refusal,
        }
    }

    fn decide(&mut self, at: At, kind: Kind) -> outcome::Verdict {
        match kind {
            Kind::ClusterCreate(command) => self.create_cluster(at, command),
            Kind::NodeJoin(command) => self.join_node(at, command),
            Kind::NodeUp(command) => self.raise_node(at, command),
            Kind::NodeDown(command) => self.lower_node(at, command),
            Kind::NodeCordon(command) => self.cordon_node(command),
            Kind::NodePromote(command) => self.promote_node(command),
            Kind::NodeRemove(command) => self.remove_node(command),
            Kind::ExportPut(command) => self.put_export(at, command),
            Kind::ExportSetState(command) => self.set_export_state(&command),
            Kind::ExportSetRate(command) => self.set_export_rate(&command),
            Kind::ExportDelete(command) => self.delete_export(&command),
            Kind::ShardsDiscovered(command) => self.discover_shards(command),
            Kind::Assign(command) => self.assign(command),
            Kind::Anchor(command) => self.anchor(at, command),
            Kind::Checkpoints(command) => Ok(self.take_checkpoints(at, command)),
            Kind::ShardFailed(command) => self.fail_shard(command),
            Kind::SetCopies(command) => self.set_copies(command),
            Kind::SetInSync(command) => self.set_in_sync(&command),
            Kind::MoveShard(command) => self.move_shard(command),
            Kind::SplitShard(command) => self.split_shard(command),
            Kind::SnapshotStart(command) => self.start_snapshot(&command),
            Kind::SnapshotBegin(command) => self.begin_snapshot(command),
            Kind::SnapshotCancel(command) => self.cancel_snapshot(&command),
            Kind::SnapshotPause(command) => self.pause_snapshot(&command),
            Kind::SetPosition(command) => self.set_position(at, command),
            Kind::SetOutOfReach(command) => self.set_out_of_reach(&command),
            Kind::RecordGap(command) => self.record_gap(at, command),
            Kind::RepairGap(command) => self.repair_gap(command),
            Kind::Many(_) => Err(outcome::invalid("commands are not nested")),
        }
    }

    /// Who this cluster is; `None` before it was created.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The node with this id.
    #[must_use]
    pub fn node(&self, id: u64) -> Option<&Node> {
        self.nodes.get(&id)
    }

    /// All exports, in the order they were created.
    pub fn exports(&self) -> impl Iterator<Item = &Export> {
        self.exports.values()
    }

    /// The export with this id.
    #[must_use]
    pub fn export(&self, id: u64) -> Option<&Export> {
        self.exports.get(&id)
    }

    /// The export with this name.
    #[must_use]
    pub fn export_named(&self, name: &str) -> Option<&Export> {
        self.exports.values().find(|export| export.name == name)
    }

    /// All shards, by export, in the order they were discovered.
    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.values()
    }

    /// The shards of one export, in the order they were discovered.
    pub fn shards_of(&self, export_id: u64) -> impl Iterator<Item = &Shard> {
        self.shards.range(shards::all_of(export_id)).map(|(_, shard)| shard)
    }

    /// The shard with this id.
    #[must_use]
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        self.shards.get(&id)
    }

    /// All recorded losses, by shard, oldest first.
    pub fn gaps(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.values()
    }

    /// The recorded losses of one shard, oldest first.
    pub fn gaps_of(&self, shard: ShardId) -> impl Iterator<Item = &Gap> {
        self.gaps.range((shard, 0)..=(shard, u64::MAX)).map(|(_, gap)| gap)
    }

    /// A row changed in a way that only those who watch progress care about.
    fn mark(&mut self, row: Row) {
        self.dirty.insert(row);
    }

    /// A row changed in a way that loops over the topology must see.
    fn touch(&mut self, row: Row) {
        self.dirty.insert(row);
        self.moved = true;
    }
}

#[cfg(test)]
mod tests;
