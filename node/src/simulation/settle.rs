//! Whether the cluster comes to rest: looked at ten times a second.

use std::collections::BTreeSet;

use tidegate_proto::v1::{NodeState, Shard};
use tidegate_proto::{Epoch, NodeId};

use super::event::{Event, MS, Machine, Micros};
use super::world::World;
use crate::shard::role::Role;

const EVERY: Micros = 100 * MS;
/// A shard whose copy in sync can be reached is without an owner for less than
/// this, if nothing breaks meanwhile.
const OWNERLESS_MAX: Micros = 8_000 * MS;
/// Nothing has changed for so long: it is settled.
const REST: Micros = 3_000 * MS;
/// Assignments of one shard that one fault may lead to.
const ASSIGNED_MAX: u64 = 4;

/// What is watched over time.
#[derive(Debug, Default)]
pub(super) struct Watch {
    ownerless: std::collections::BTreeMap<tidegate_proto::v1::ShardId, Micros>,
    rest_since: Option<(Micros, u64)>,
    pub(super) longest_ownerless: Micros,
}

impl World {
    pub(super) fn observe(&mut self) {
        self.push(EVERY, Event::Observe);
        self.watch_owners();
        if self.now.is_multiple_of(1_000 * MS) {
            self.remove_leaving();
            if self.now > self.setting.heal_at {
                self.start_all();
                self.restore();
            }
        }
        self.watch_rest();
    }

    fn watch_owners(&mut self) {
        for id in self.shard_ids() {
            let Some(shard) = self.raft.truth.shard(id) else { continue };
            let could = shard.in_sync.iter().any(|node| self.is_ready(*node));
            // A node that stops gives its shards up one by one, and the last takes
            // as long as its sink does.
            let stops = self.machine_of(shard.reader).is_some_and(|machine| {
                self.nodes[machine].runs() && self.nodes[machine].memory.closing
            });
            if !could || stops || self.owner(shard).is_some() {
                self.watch.ownerless.remove(&id);
                continue;
            }
            let since = *self.watch.ownerless.entry(id).or_insert(self.now);
            let lasted = self.now - since.max(self.last_fault);
            self.watch.longest_ownerless = self.watch.longest_ownerless.max(lasted);
            if lasted > OWNERLESS_MAX {
                self.fail(format!("shard {id}: no owner for {} ms", lasted / MS));
            }
        }
    }

    /// The node could capture: it is up, in this run, and follows a leader.
    fn is_ready(&self, id: u64) -> bool {
        let Some(machine) = self.machine_of(id) else { return false };
        let (node, known) = (&self.nodes[machine], self.raft.truth.node(id));
        let known =
            known.is_some_and(|it| it.state() == NodeState::Up && it.run == node.memory.run);
        known && node.runs() && !node.torn && self.could_follow(machine)
    }

    /// Who captures the shard right now.
    fn owner(&self, shard: &Shard) -> Option<Machine> {
        let machine = self.machine_of(shard.reader)?;
        let (node, id) = (&self.nodes[machine], shard.id.unwrap_or_default());
        let log = node.disk.logs.get(&id)?;
        let owns = log.standing.owned_under(Epoch(shard.epoch));
        let runs = node.memory.actors.contains_key(&Role::Reader(id));
        (node.runs() && self.lease_held(machine) && owns && runs).then_some(machine)
    }

    fn watch_rest(&mut self) {
        if self.now < self.setting.heal_at + 3_000 * MS || self.unrest().is_some() {
            self.watch.rest_since = None;
            return;
        }
        let assigned = self.checks.assigned;
        let (since, then) = *self.watch.rest_since.get_or_insert((self.now, assigned));
        if then != assigned {
            self.watch.rest_since = None;
        } else if self.now - since > REST {
            self.end();
        }
    }

    fn end(&mut self) {
        self.settled = true;
        let most = u64::from(self.setting.shards) * (2 + ASSIGNED_MAX * self.checks.faults);
        let assigned = self.checks.assigned;
        if assigned > most {
            self.fail(format!("{assigned} assignments, {most} allowed: placement thrashes"));
        }
    }

    pub(super) fn why_unsettled(&self) -> String {
        self.unrest().unwrap_or_else(|| "assignments go on and on".to_owned())
    }

    /// What is not yet as it should be.
    fn unrest(&self) -> Option<String> {
        if let Some(id) = self.leaving.front() {
            return Some(format!("node {id} is not out yet"));
        }
        let may =
            |node: &&tidegate_proto::v1::Node| node.state() == NodeState::Up && !node.cordoned;
        let up = self.raft.truth.nodes().filter(may).count();
        let here = self.nodes.iter().filter(|node| !node.gone).count();
        if up != here {
            return Some(format!("{up} nodes of {here} are up"));
        }
        self.raft.truth.shards().find_map(|shard| self.unrest_of(shard, here))
    }

    /// Each region with a writer keeps a copy, beside the owner's.
    fn regions_of(&self, shard: &Shard) -> usize {
        let workers = shard.writers.values().chain([&shard.reader]);
        let regions = workers.filter_map(|id| Some(&self.raft.truth.node(*id)?.region));
        regions.collect::<BTreeSet<_>>().len()
    }

    fn unrest_of(&self, shard: &Shard, here: usize) -> Option<String> {
        let id = shard.id.unwrap_or_default();
        let Some(owner) = self.owner(shard) else {
            return Some(format!("shard {id} has no owner"));
        };
        let wanted = self.setting.copies.min(here).max(self.regions_of(shard));
        if shard.in_sync.len() != wanted || shard.copies.len() != wanted {
            let (copies, in_sync) = (&shard.copies, &shard.in_sync);
            return Some(format!(
                "shard {id}: {copies:?} keep it, {in_sync:?} in sync, not {wanted}"
            ));
        }
        let all = self.sources.get(&id)?.held(self.now);
        for sink in 0..self.setting.sinks {
            let name = format!("s{sink}");
            let there = self.checks.delivered(&(id, name.clone()));
            if there != all {
                return Some(format!("shard {id}, sink {name}: has {there:?} of {all:?}"));
            }
            let told = shard.delivered.get(&name).map_or(0, |at| at.sequence);
            let last = self.nodes[owner].disk.logs.get(&id)?.standing.head().last().0;
            let captured = shard.captured.as_ref().map_or(0, |at| at.sequence);
            if told != last || captured != last {
                return Some(format!("shard {id}: at {last}, captured {captured}, {name} {told}"));
            }
        }
        (self.nodes[owner].id == NodeId(0)).then(|| "node 0".to_owned())
    }
}
