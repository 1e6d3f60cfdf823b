//! The promises, looked at after everything that could break them.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_proto::v1::{Shard, ShardId};
use tidegate_proto::{Epoch, NodeId, Sequence};

use super::event::{Machine, Micros};
use super::sink::SinkId;
use super::source::{Item, Place};
use super::spool::Batch;
use super::world::World;

/// What was seen to happen.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) faults: u64,
    pub(super) assigned: u64,
    /// What writers and feeds were given.
    seen: BTreeMap<ShardId, BTreeMap<Sequence, Item>>,
    /// What owners appended, and when.
    appended: BTreeMap<(ShardId, Epoch, Sequence), (Item, Micros)>,
    /// Who captured under each epoch, since when.
    pub(super) owners: BTreeMap<(ShardId, Epoch), (Machine, Micros, Sequence)>,
    pub(super) sinks: BTreeMap<SinkId, Delivered>,
    /// Runs that a firewall, or the machine, once said are gone, or whose leadership
    /// another took over: they may be declared down before their lease ends.
    pub(super) refused: BTreeSet<(NodeId, u64)>,
    /// As they were before the command at hand.
    pub(super) before: Option<Shard>,
}

/// What a sink has, as its readers see it.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    pub(super) epoch: u64,
    pub(super) last: Sequence,
    pub(super) place: Place,
}

impl Checks {
    pub(super) fn was_refused(&mut self, id: NodeId, run: u64) {
        self.refused.insert((id, run));
    }

    pub(super) fn delivered(&self, sink: &SinkId) -> Place {
        self.sinks.get(sink).map_or_else(Place::default, |it| it.place)
    }
}

impl World {
    /// An owner appended a batch, or a copy took it: under one epoch, a sequence
    /// is one change.
    pub(super) fn appended(&mut self, shard: ShardId, batch: &Batch) {
        for (at, item) in batch.rows() {
            let entry = (item, self.now);
            let known = *self.checks.appended.entry((shard, batch.epoch, at)).or_insert(entry);
            if known.0 != item {
                let epoch = batch.epoch;
                self.fail(format!("shard {shard}: two logs differ at {at} under epoch {epoch}"));
            }
        }
    }

    /// A reader begins to capture; its log ends at `last`.
    pub(super) fn took_over(
        &mut self,
        machine: Machine,
        shard: ShardId,
        epoch: Epoch,
        last: Sequence,
    ) {
        self.trace.note(
            self.now,
            "takes over",
            &[machine as u64, u64::from(shard.index), epoch.0, last.0],
        );
        let owner = *self.checks.owners.entry((shard, epoch)).or_insert((machine, self.now, last));
        if owner.0 != machine {
            self.fail(format!("shard {shard}: two owners under epoch {epoch}"));
        }
        let Some(seen) = self.checks.seen.get(&shard) else { return };
        let most = seen.last_key_value().map_or(Sequence(0), |(at, _)| *at);
        let log = self.nodes[machine].disk.logs.get(&shard);
        let rows = log.iter().flat_map(|log| log.read_all(Sequence(0))).flat_map(Batch::rows);
        let replaced =
            rows.into_iter().find(|(at, item)| seen.get(at).is_some_and(|it| it != item));
        if let Some((at, _)) = replaced {
            self.fail(format!("shard {shard}: {at} was seen and is another at epoch {epoch}"));
        }
        if most > last {
            self.fail(format!("shard {shard}: {most} was seen, epoch {epoch} begins at {last}"));
        }
    }

    /// A writer or a feed is given batches.
    pub(super) fn served(&mut self, machine: Machine, shard: ShardId, batches: &[Batch]) {
        for batch in batches {
            let seen = self.checks.seen.entry(shard).or_default();
            let other = batch.rows().find(|(at, item)| *seen.entry(*at).or_insert(*item) != *item);
            if let Some((at, _)) = other {
                self.fail(format!("shard {shard}: {at} is seen as two changes at m{machine}"));
            }
            self.check_late(shard, batch);
        }
    }

    /// What an owner appends after another took over is never seen, unless a third owner's
    /// log holds it: a copy may not have heard of the second yet, of whose log nothing
    /// was seen then ([`Self::served`] looks after that).
    fn check_late(&mut self, shard: ShardId, batch: &Batch) {
        let newer = (shard, batch.epoch.next())..=(shard, Epoch(u64::MAX));
        let mut newer = self.checks.owners.range(newer).map(|(_, owner)| owner);
        let made = self.checks.appended.get(&(shard, batch.epoch, batch.first));
        if let (Some((_, since, _)), Some((_, made))) = (newer.next(), made)
            && made > since
            && !newer.any(|(_, _, last)| *last >= batch.first)
        {
            let at = batch.first;
            self.fail(format!("shard {shard}: {at} of an old owner is seen beside a new one's"));
        }
    }
}
