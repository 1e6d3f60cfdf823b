//! The table of shards: who reads and writes each, and from where.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use tidegate_proto::v1::{
    Anchor, Assign, Checkpoint, Export, NodeState, Outcome, SetOutOfReach, Shard, ShardFailed,
    ShardId, ShardSpec, ShardsDiscovered, SplitShard,
};

use super::copies::{has_all, start_epoch, with_reader};
use super::outcome::{Verdict, conflict, done, exists, fenced, invalid, not_found};
use super::snapshots::has_rows_to_come;
use super::{At, State};
use crate::keys::Row;

/// The ids of all shards an export can have.
pub(super) fn all_of(export_id: u64) -> RangeInclusive<ShardId> {
    ShardId { export_id, index: 0 }..=ShardId { export_id, index: u32::MAX }
}

/// `epoch` is current and has an owner: nobody reads or writes in epoch 0.
pub(super) fn owns(shard: &Shard, epoch: u64) -> bool {
    epoch == shard.epoch && epoch > 0
}

impl State {
    pub(super) fn discover_shards(&mut self, command: ShardsDiscovered) -> Verdict {
        let export_id = command.export_id;
        let known: BTreeSet<&str> = self
            .shards_of(export_id)
            .filter_map(|s| s.spec.as_ref())
            .map(|s| s.name.as_str())
            .collect();
        let mut fresh = BTreeMap::new();
        let mut order = Vec::new();
        for spec in command.shards {
            if spec.name.is_empty() {
                return Err(invalid("a shard needs a name"));
            }
            if !known.contains(spec.name.as_str()) && !fresh.contains_key(&spec.name) {
                order.push(spec.name.clone());
                fresh.insert(spec.name.clone(), spec);
            }
        }
        let specs = order.iter().filter_map(|name| fresh.remove(name)).collect();
        self.add_shards(export_id, specs)
    }

    fn add_shards(&mut self, export_id: u64, specs: Vec<ShardSpec>) -> Verdict {
        let export = self.exports.get_mut(&export_id).ok_or_else(|| no_export(export_id))?;
        if specs.is_empty() {
            return Ok(done());
        }
        for spec in specs {
            let id = ShardId { export_id, index: export.shards };
            export.shards += 1;
            let captured = Some(Checkpoint::default());
            let shard = Shard { id: Some(id), spec: Some(spec), captured, ..Shard::default() };
            let before = self.shards.insert(id, shard);
            assert!(before.is_none(), "the next index is free");
            self.dirty.insert(Row::Shard(id));
        }
        self.touch(Row::Export(export_id));
        Ok(done())
    }

    pub(super) fn split_shard(&mut self, command: SplitShard) -> Verdict {
        let id = command.shard.unwrap_or_default();
        let shard = self.shards.get(&id).ok_or_else(|| no_shard(id))?;
        if !owns(shard, command.epoch) {
            return Err(fenced(id, shard.epoch));
        }
        let name = shard.spec.as_ref().map_or("", |spec| spec.name.as_str());
        let children = command.children.into_iter().map(|spec| ShardSpec {
            parents: vec![name.to_owned()],
            continues: true,
            ..spec
        });
        let children: Vec<ShardSpec> = children.collect();
        let known = |name: &str| {
            let mut specs = self.shards_of(id.export_id).filter_map(|it| it.spec.as_ref());
            specs.find(|spec| spec.name == name)
        };
        if shard.splitting {
            if children.iter().all(|child| known(&child.name) == Some(child)) {
                return Ok(done());
            }
            return Err(conflict(format!("shard {id} is being split already")));
        }
        let progress = shard.captured.as_ref().and_then(|at| at.progress.clone());
        let progress = progress.unwrap_or_default();
        if shard.anchor.is_none() || has_rows_to_come(shard) {
            let why = format!("shard {id} is still read for its snapshot; split it after that");
            return Err(conflict(why));
        }
        if progress.ended {
            return Err(conflict(format!("shard {id} has ended; split those that follow it")));
        }
        let names: BTreeSet<&str> = children.iter().map(|child| child.name.as_str()).collect();
        if names.len() < 2 || names.len() < children.len() || names.contains("") {
            return Err(invalid("a shard is split into two or more, each with a name of its own"));
        }
        if let Some(taken) = names.iter().find(|name| known(name).is_some()) {
            return Err(exists(format!("there is a shard {taken:?} already")));
        }
        if let Some(shard) = self.shards.get_mut(&id) {
            shard.splitting = true;
        }
        self.touch(Row::Shard(id));
        self.add_shards(id.export_id, children)
    }

    pub(super) fn assign(&mut self, mut command: Assign) -> Verdict {
        let id = command.shard.unwrap_or_default();
        let (shard, export) = self.shard_and_export(id)?;
        if shard.epoch != command.replaces {
            return Err(conflict(format!(
                "shard {id} is in epoch {}, not {}; look again and decide again",
                shard.epoch, command.replaces
            )));
        }
        let sinks: BTreeSet<&str> = export.sinks.iter().map(|sink| sink.name.as_str()).collect();
        if let Some(sink) = command.writers.keys().find(|sink| !sinks.contains(sink.as_str())) {
            return Err(invalid(format!("export {:?} has no sink {sink:?}", export.name)));
        }
        command.writers.retain(|_, node| *node != 0);
        let workers = command.writers.values().chain(&command.copies).chain([&command.reader]);
        let workers = workers.filter(|node| **node != 0);
        for node in workers {
            if !self.nodes.contains_key(node) {
                return Err(not_found(format!("there is no node {node} to work on shard {id}")));
            }
        }
        if command.reader != 0 && !has_all(shard, command.reader) && !command.anew {
            return Err(conflict(format!(
                "node {} is not in sync and would begin the spool of shard {id} anew",
                command.reader
            )));
        }
        let shard = self.shards.get_mut(&id).ok_or_else(|| no_shard(id))?;
        if shard.moving_to != 0 && shard.moving_to != command.reader {
            let why = "the shard was assigned otherwise meanwhile; look at it, and move it again";
            shard.move_given_up = why.to_owned();
        }
        shard.epoch += 1;
        shard.out_of_reach.clear();
        shard.rescued.extend(command.rescues.into_iter().map(|sink| (sink, shard.epoch)));
        shard.reader = command.reader;
        shard.writers = command.writers;
        shard.moving_to = 0;
        shard.copies = with_reader(command.copies, command.reader);
        let nodes = &self.nodes;
        let up = |id| nodes.get(&id).is_some_and(|node| node.state() == NodeState::Up);
        start_epoch(shard, up);
        self.touch(Row::Shard(id));
        Ok(done())
    }

    pub(super) fn anchor(&mut self, at: At, command: Anchor) -> Verdict {
        let id = command.shard.unwrap_or_default();
        let shard = self.fenced_shard(id, command.epoch)?;
        if !owns(shard, command.epoch) {
            return Err(fenced(id, shard.epoch));
        }
        if shard.anchor.is_some() {
            return Err(exists(format!("shard {id} has an anchor already")));
        }
        let progress = command.progress.unwrap_or_default();
        let captured = shard.captured.get_or_insert_default();
        captured.progress = Some(progress.clone());
        captured.at_ms = at.ms;
        captured.epoch = command.epoch;
        shard.anchor = Some(progress);
        shard.chunks = command.chunks;
        shard.rows_estimated = command.rows_estimated;
        self.touch(Row::Shard(id));
        Ok(done())
    }

    pub(super) fn fail_shard(&mut self, command: ShardFailed) -> Verdict {
        let id = command.shard.unwrap_or_default();
        let shard = self.fenced_shard(id, command.epoch)?;
        if shard.failure != command.reason {
            shard.failure = command.reason;
            self.touch(Row::Shard(id));
        }
        Ok(done())
    }

    pub(super) fn set_out_of_reach(&mut self, command: &SetOutOfReach) -> Verdict {
        let id = command.shard.unwrap_or_default();
        let shard = self.fenced_shard(id, command.epoch)?;
        let known = shard.out_of_reach.contains(&command.sink);
        if known == command.out_of_reach {
            return Ok(done());
        }
        match command.out_of_reach {
            true => shard.out_of_reach.push(command.sink.clone()),
            false => shard.out_of_reach.retain(|sink| *sink != command.sink),
        }
        self.touch(Row::Shard(id));
        Ok(done())
    }

    /// Lets the failed shards of an export be tried again.
    pub(super) fn clear_failures(&mut self, export_id: u64) {
        let failed = self.shards_of(export_id).filter(|shard| !shard.failure.is_empty());
        let failed: Vec<ShardId> = failed.filter_map(|shard| shard.id).collect();
        for id in failed {
            if let Some(shard) = self.shards.get_mut(&id) {
                shard.failure.clear();
            }
            self.touch(Row::Shard(id));
        }
    }

    /// The shard, for a caller that knows it is in `epoch`.
    pub(super) fn fenced_shard(&mut self, id: ShardId, epoch: u64) -> Result<&mut Shard, Outcome> {
        let shard = self.shards.get_mut(&id).ok_or_else(|| no_shard(id))?;
        if shard.epoch != epoch {
            return Err(fenced(id, shard.epoch));
        }
        Ok(shard)
    }

    pub(super) fn shard_and_export(&self, id: ShardId) -> Result<(&Shard, &Export), Outcome> {
        let shard = self.shards.get(&id).ok_or_else(|| no_shard(id))?;
        let export = self.exports.get(&id.export_id).ok_or_else(|| no_export(id.export_id))?;
        Ok((shard, export))
    }

    /// Deletes the shards of an export, and their gaps.
    pub(super) fn delete_shards(&mut self, export_id: u64) {
        let shards: Vec<ShardId> =
            self.shards.range(all_of(export_id)).map(|(id, _)| *id).collect();
        for id in shards {
            let gaps: Vec<u64> = self.gaps_of(id).map(|gap| gap.number).collect();
            for number in gaps {
                self.gaps.remove(&(id, number));
                self.touch(Row::Gap(id, number));
            }
            self.shards.remove(&id);
            self.touch(Row::Shard(id));
        }
    }

    /// Forgets what the shards of an export know of these sinks.
    pub(super) fn remove_sinks(&mut self, export_id: u64, names: &[String]) {
        for (id, shard) in self.shards.range_mut(all_of(export_id)) {
            for name in names {
                shard.writers.remove(name);
                shard.delivered.remove(name);
                shard.rescued.remove(name);
                shard.out_of_reach.retain(|sink| sink != name);
            }
            self.dirty.insert(Row::Shard(*id));
        }
    }
}

pub(super) fn no_shard(id: ShardId) -> Outcome {
    not_found(format!("there is no shard {id}"))
}

pub(super) fn no_export(id: u64) -> Outcome {
    not_found(format!("there is no export with id {id}"))
}
