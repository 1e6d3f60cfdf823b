//! Who keeps a shard's spool, and who of them has all of it.
//!
//! ```text
//!   copies:   assigned to keep the spool        Assign, SetCopies (leader)
//!   in sync:  have every change that is stable  SetInSync (owner), Assign
//! ```
//!
//! The next owner is one that is in sync, so what anybody has seen stays.

use tidegate_proto::v1::{MoveShard, NodeState, Outcome, SetCopies, SetInSync, Shard, ShardId};

use super::State;
use super::outcome::{Verdict, conflict, created, done, fenced, invalid, not_found};
use super::shards::{no_shard, owns};
use crate::keys::Row;

impl State {
    pub(super) fn set_copies(&mut self, command: SetCopies) -> Verdict {
        let id = command.shard.unwrap_or_default();
        if let Some(node) = command.copies.iter().find(|node| !self.nodes.contains_key(node)) {
            return Err(not_found(format!("there is no node {node} to keep a copy of shard {id}")));
        }
        let shard = self.owned_shard(id, command.epoch)?;
        shard.copies = with_reader(command.copies, shard.reader);
        let (copies, in_sync) = (&shard.copies, &mut shard.in_sync);
        in_sync.retain(|node| copies.contains(node));
        self.touch(Row::Shard(id));
        Ok(done())
    }

    pub(super) fn set_in_sync(&mut self, command: &SetInSync) -> Verdict {
        let id = command.shard.unwrap_or_default();
        for copy in &command.copies {
            if self.nodes.get(&copy.node).is_none_or(|node| node.run != copy.run) {
                return Err(conflict(format!("node {} is in another run by now", copy.node)));
            }
        }
        let shard = self.owned_shard(id, command.epoch)?;
        let mut in_sync: Vec<u64> = command.copies.iter().map(|copy| copy.node).collect();
        in_sync.sort_unstable();
        in_sync.dedup();
        if !in_sync.contains(&shard.reader) {
            return Err(invalid(format!("the owner of shard {id} is always in sync with itself")));
        }
        if let Some(node) = in_sync.iter().find(|node| !shard.copies.contains(node)) {
            return Err(conflict(format!("node {node} keeps no copy of shard {id}")));
        }
        if shard.in_sync != in_sync {
            shard.copied |= in_sync.len() > 1;
            shard.in_sync = in_sync;
            self.touch(Row::Shard(id));
        }
        Ok(done())
    }

    pub(super) fn move_shard(&mut self, command: MoveShard) -> Verdict {
        let (id, to) = (command.shard.unwrap_or_default(), command.reader);
        if to == 0 {
            return self.give_up_move(command);
        }
        let node = self.nodes.get(&to);
        let node = node.ok_or_else(|| not_found(format!("there is no node {to}")))?;
        if node.state() != NodeState::Up || node.cordoned {
            let why = format!("node {to} is down or cordoned; choose another for shard {id}");
            return Err(conflict(why));
        }
        let shard = self.owned_shard(id, command.epoch)?;
        if shard.moving_to != to {
            shard.moves += 1;
            // It is there already: that ends the move before.
            shard.moving_to = if to == shard.reader { 0 } else { to };
            shard.move_given_up.clear();
        }
        let number = shard.moves;
        self.touch(Row::Shard(id));
        Ok(created(number))
    }

    fn give_up_move(&mut self, command: MoveShard) -> Verdict {
        let id = command.shard.unwrap_or_default();
        let shard = self.owned_shard(id, command.epoch)?;
        if shard.moving_to != 0 && shard.moves == command.number {
            shard.moving_to = 0;
            shard.move_given_up = command.reason;
            self.touch(Row::Shard(id));
        }
        Ok(done())
    }

    fn owned_shard(&mut self, id: ShardId, epoch: u64) -> Result<&mut Shard, Outcome> {
        let shard = self.shards.get_mut(&id).ok_or_else(|| no_shard(id))?;
        if !owns(shard, epoch) {
            return Err(fenced(id, shard.epoch));
        }
        Ok(shard)
    }

    /// Another run of `node` started: what it read has no reader, and what
    /// others keep too it may have less of than before. If it is `torn`, so it may
    /// of what it alone has: only a log that never had another copy was synced
    /// before anything of it was seen.
    pub(super) fn forget_run(&mut self, node: u64, torn: bool) {
        let mut changed = Vec::new();
        for (id, shard) in &mut self.shards {
            if !shard.in_sync.contains(&node) {
                continue;
            }
            if shard.reader == node {
                shard.reader = 0;
            }
            if shard.in_sync == [node] {
                shard.torn |= torn && shard.copied;
            } else {
                shard.in_sync.retain(|other| *other != node);
            }
            changed.push(*id);
        }
        for id in changed {
            self.touch(Row::Shard(id));
        }
    }
}

/// Sorted, once each, with the reader.
pub(super) fn with_reader(mut copies: Vec<u64>, reader: u64) -> Vec<u64> {
    copies.push(reader);
    copies.retain(|node| *node != 0);
    copies.sort_unstable();
    copies.dedup();
    copies
}

/// `node` has all that was seen of the shard, if anything was.
pub(super) fn has_all(shard: &Shard, node: u64) -> bool {
    let fresh = shard.in_sync.is_empty();
    fresh || (shard.in_sync.contains(&node) && !shard.torn)
}

/// Takes what a shard's new epoch means for its copies; `up` tells which nodes
/// are. Its reader and copies are the new ones already.
pub(super) fn start_epoch(shard: &mut Shard, up: impl Fn(u64) -> bool) {
    if shard.reader == 0 {
        return;
    }
    if !has_all(shard, shard.reader) {
        shard.in_sync.clear();
        shard.anew = shard.epoch;
    }
    shard.torn = false;
    let (reader, copies) = (shard.reader, &shard.copies);
    shard.in_sync.retain(|node| *node == reader || (copies.contains(node) && up(*node)));
    shard.in_sync = with_reader(std::mem::take(&mut shard.in_sync), reader);
}
