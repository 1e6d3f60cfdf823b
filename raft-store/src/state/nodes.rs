//! The table of nodes: who may take part, and who is up.
//!
//! ```text
//!   NodeJoin --> JOINING --NodeUp--> UP --NodeDown--> DOWN --NodeUp--> UP
//!                                    |                  |
//!                                    +- cordoned, idle -+--NodeRemove--> gone
//! ```

use tidegate_proto::v1::{
    Node, NodeCordon, NodeDown, NodeJoin, NodePromote, NodeRemove, NodeState, NodeUp, Shard,
};

use super::outcome::{Verdict, conflict, created, done, exists, invalid, not_found};
use super::{At, State};
use crate::keys::Row;

/// The first node's id, so that a cluster can start before it has a log.
const FIRST: u64 = 1;

impl State {
    /// A join that is repeated before the node came up gives the same id.
    pub(super) fn join_node(&mut self, at: At, command: NodeJoin) -> Verdict {
        if command.name.is_empty() || command.address.is_empty() {
            return Err(invalid("a node needs a name and an address"));
        }
        self.admits(command.level)?;
        if let Some(known) = self.nodes.values().find(|node| node.name == command.name) {
            if known.state() == NodeState::Joining && known.address == command.address {
                return Ok(created(known.id));
            }
            return Err(exists(format!(
                "node {} has the name {:?} already; choose another, or remove that node first",
                known.id, known.name
            )));
        }
        let id = if self.nodes.is_empty() { FIRST } else { at.index };
        assert!(!self.nodes.contains_key(&id), "indexes rise, so ids are new");
        let node = Node {
            id,
            name: command.name,
            address: command.address,
            region: command.region,
            state: NodeState::Joining.into(),
            since_ms: at.ms,
            learner: command.learner,
            level: command.level,
            ..Node::default()
        };
        self.nodes.insert(id, node);
        self.touch(Row::Node(id));
        Ok(created(id))
    }

    pub(super) fn raise_node(&mut self, at: At, command: NodeUp) -> Verdict {
        if command.address.is_empty() {
            return Err(invalid("a node that is up has an address"));
        }
        self.admits(command.level)?;
        let node = self.nodes.get_mut(&command.node).ok_or_else(|| no_node(command.node))?;
        if node.state() != NodeState::Up || node.run != command.run {
            node.since_ms = at.ms;
        }
        let another = node.run != 0 && node.run != command.run;
        node.set_state(NodeState::Up);
        node.run = command.run;
        node.address = command.address;
        node.region = command.region;
        node.level = command.level;
        self.touch(Row::Node(command.node));
        if another {
            self.forget_run(command.node, command.torn);
        }
        Ok(done())
    }

    pub(super) fn lower_node(&mut self, at: At, command: NodeDown) -> Verdict {
        let node = self.nodes.get_mut(&command.node).ok_or_else(|| no_node(command.node))?;
        if node.run != command.run {
            return Err(conflict(format!(
                "node {} has started again since: it is in another run",
                command.node
            )));
        }
        if node.state() == NodeState::Down {
            return Ok(done());
        }
        node.set_state(NodeState::Down);
        node.since_ms = at.ms;
        self.touch(Row::Node(command.node));
        Ok(done())
    }

    pub(super) fn cordon_node(&mut self, command: NodeCordon) -> Verdict {
        let node = self.nodes.get_mut(&command.node).ok_or_else(|| no_node(command.node))?;
        if node.cordoned != command.cordoned {
            node.cordoned = command.cordoned;
            self.touch(Row::Node(command.node));
        }
        Ok(done())
    }

    pub(super) fn promote_node(&mut self, command: NodePromote) -> Verdict {
        let node = self.nodes.get_mut(&command.node).ok_or_else(|| no_node(command.node))?;
        if std::mem::take(&mut node.learner) {
            self.touch(Row::Node(command.node));
        }
        Ok(done())
    }

    /// The last node stays, so that the id of the first is never given again.
    pub(super) fn remove_node(&mut self, command: NodeRemove) -> Verdict {
        let id = command.node;
        let node = self.nodes.get(&id).ok_or_else(|| no_node(id))?;
        if node.state() != NodeState::Down && !node.cordoned {
            return Err(conflict(format!("node {id} may still get work; cordon it first")));
        }
        if let Some(shard) = self.shards.values().find(|shard| works_on(shard, id)) {
            return Err(conflict(format!(
                "node {id} still has work on shard {}; drain it first",
                shard.id.unwrap_or_default()
            )));
        }
        if self.nodes.len() == 1 {
            return Err(conflict(format!("node {id} is the last one of this cluster")));
        }
        self.nodes.remove(&id);
        self.touch(Row::Node(id));
        Ok(done())
    }
}

fn works_on(shard: &Shard, node: u64) -> bool {
    let writes = shard.writers.values().any(|writer| *writer == node);
    writes || shard.reader == node || shard.copies.contains(&node)
}

fn no_node(id: u64) -> tidegate_proto::v1::Outcome {
    not_found(format!("there is no node {id}"))
}
