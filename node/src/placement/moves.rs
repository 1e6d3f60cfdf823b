//! Every move that was asked for comes to an end.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_proto::v1::{MoveShard, NodeState, Shard, ShardId, command};
use tidegate_raft_store::State;
use tokio::time::Instant;

/// Moves under way, and since when this leader knows of them.
#[derive(Debug)]
pub(super) struct Moves {
    patience: Duration,
    since: BTreeMap<(ShardId, u64), Instant>,
}

impl Moves {
    /// A move may take `patience`.
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, since: BTreeMap::new() }
    }

    /// The commands that give up those that lead nowhere at `now`, by shard.
    pub(super) fn look(&mut self, state: &State, now: Instant) -> BTreeMap<ShardId, command::Kind> {
        let moving: Vec<&Shard> = state.shards().filter(|shard| shard.moving_to != 0).collect();
        let known = std::mem::take(&mut self.since);
        let mut given_up = BTreeMap::new();
        for shard in moving {
            let id = shard.id.unwrap_or_default();
            let since = known.get(&(id, shard.moves)).copied().unwrap_or(now);
            self.since.insert((id, shard.moves), since);
            let why = hopeless(state, shard).or_else(|| self.late(state, shard, now - since));
            if let Some(reason) = why {
                let (epoch, number) = (shard.epoch, shard.moves);
                let end = MoveShard { shard: shard.id, epoch, reader: 0, number, reason };
                given_up.insert(id, command::Kind::MoveShard(end));
            }
        }
        given_up
    }

    /// Nothing is under way.
    pub(super) fn none(&self) -> bool {
        self.since.is_empty()
    }

    fn late(&self, state: &State, shard: &Shard, took: Duration) -> Option<String> {
        let name = &state.node(shard.moving_to)?.name;
        let seconds = self.patience.as_secs();
        (took >= self.patience).then(|| {
            format!(
                "the copy on {name} was not in sync within {seconds} s; see in its log what keeps \
                 it, choose another node, or raise `move-ms`"
            )
        })
    }
}

/// Why the node that the shard is to go to will not take it, and what to do.
fn hopeless(state: &State, shard: &Shard) -> Option<String> {
    let Some(node) = state.node(shard.moving_to) else {
        return Some("the node was removed; choose another".to_owned());
    };
    let name = &node.name;
    if node.state() != NodeState::Up {
        return Some(format!(
            "{name} is down; start it and move the shard again, or choose another"
        ));
    }
    node.cordoned.then(|| {
        format!("{name} was cordoned; uncordon it and move the shard again, or choose another")
    })
}

#[cfg(test)]
mod tests;
