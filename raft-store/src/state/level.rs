//! Which commands every node knows.
//!
//! A node stops at a command that it does not know. So each says up to which level it knows
//! them, and none above the least is proposed: first all nodes are upgraded, then what is
//! new works. Once such a command was applied, the state holds what it did, and a node that
//! knows less is refused.

use tidegate_proto::v1::command::Kind;
use tidegate_proto::v1::{GapKind, Node, Outcome};

use super::State;
use super::outcome::{conflict, invalid};
use crate::keys::Row;

/// The highest level this build knows.
pub const LEVEL: u32 = 3;

/// From which level on nodes know a command.
pub(super) fn needed(kind: &Kind) -> u32 {
    match kind {
        Kind::ClusterCreate(_)
        | Kind::NodeJoin(_)
        | Kind::NodeUp(_)
        | Kind::NodeDown(_)
        | Kind::NodeCordon(_)
        | Kind::NodeRemove(_)
        | Kind::NodePromote(_)
        | Kind::ExportPut(_)
        | Kind::ExportSetState(_)
        | Kind::ExportDelete(_)
        | Kind::ExportSetRate(_)
        | Kind::ShardsDiscovered(_)
        | Kind::Anchor(_)
        | Kind::Checkpoints(_)
        | Kind::ShardFailed(_)
        | Kind::SetCopies(_)
        | Kind::SetInSync(_)
        | Kind::MoveShard(_)
        | Kind::SplitShard(_)
        | Kind::SnapshotStart(_)
        | Kind::SnapshotBegin(_)
        | Kind::SnapshotCancel(_)
        | Kind::SnapshotPause(_) => 0,
        Kind::Assign(assign) => u32::from(!assign.rescues.is_empty()),
        Kind::RecordGap(record) => match &record.gap {
            Some(gap) if gap.kind > GapKind::PositionSet.into() => 3,
            Some(gap) if !gap.awaits.is_empty() => 2,
            Some(_) | None => 0,
        },
        Kind::RepairGap(repair) => u32::from(repair.by_source) * 3,
        Kind::SetPosition(set) => 1 + u32::from(!set.awaits.is_empty()),
        Kind::SetOutOfReach(_) => 1,
        Kind::Many(many) => {
            let kinds = many.commands.iter().filter_map(|command| command.kind.as_ref());
            kinds.map(needed).max().unwrap_or(0)
        }
    }
}

impl State {
    /// Why a command must not be proposed yet: some node would stop at it. Asked before
    /// it goes into the log.
    ///
    /// # Errors
    ///
    /// A refusal that names the node.
    pub fn is_known_to_all(&self, kind: &Kind) -> Result<(), Outcome> {
        let needed = needed(kind);
        let behind = |node: &&Node| node.level < needed;
        match self.nodes.values().find(behind) {
            None => Ok(()),
            Some(node) => Err(conflict(format!(
                "node {} runs a version that does not know this command; upgrade all nodes first",
                node.name
            ))),
        }
    }

    /// A node that knows commands up to `level` can apply all there may be in the log.
    pub(super) fn admits(&self, level: u32) -> Result<(), Outcome> {
        let used = self.cluster.as_ref().map_or(0, |cluster| cluster.level);
        if level < used {
            return Err(invalid(
                "this node's version is older than what the cluster uses already; start the \
                 version that the other nodes run",
            ));
        }
        Ok(())
    }

    /// A command was applied: from now on every node has to know it.
    pub(super) fn uses(&mut self, level: u32) {
        let cluster = self.cluster.as_mut().filter(|cluster| cluster.level < level);
        if let Some(cluster) = cluster {
            cluster.level = level;
            self.touch(Row::Cluster);
        }
    }
}
