//! A shard's owner at work: it captures, reports, and looks after its copies.

use std::collections::BTreeSet;

use rand::Rng as _;
use tidegate_proto::NodeId;
use tidegate_proto::v1::{Rewound, SetInSync, ShardId, command};

use super::event::{MS, Machine, Micros, Timer};
use super::node::{Node, Purpose};
use super::reader::{Next, POLL, Reading, Stage};
use super::source::Place;
use super::spool::Batch;
use super::tasks::Work;
use super::world::World;
use crate::checkpoint::Added;
use crate::error::ErrorKind;
use crate::shard::in_sync::{Known, ROUND, Sight};
use crate::shard::merge::Carry;
use crate::shard::role::Role;

/// Batches on their way to the copies before the reader waits for them.
const UNSAFE_MAX: usize = 256;
/// How long a planned stop waits for the copies.
const FINISH: Micros = 5_000 * MS;

impl World {
    pub(super) fn begin_capture(
        &mut self,
        machine: Machine,
        it: &mut Reading,
        (rewound, unrecorded): (Option<Rewound>, Added),
    ) {
        let Some(log) = self.nodes[machine].disk.logs.get(&it.id) else { return };
        let head = log.standing.head();
        it.carry = Some(Carry::new(head.progress.clone(), rewound));
        it.window.push(head.last(), unrecorded.whole());
        it.stage = Stage::Capture;
        let last = head.last();
        self.took_over(machine, it.id, it.terms.epoch, last);
        let Some(actor) = self.nodes[machine].memory.actors.get(&Role::Reader(it.id)) else {
            return;
        };
        let task = actor.task;
        self.timer(machine, 0, Timer::Copies(it.id, task));
    }

    pub(super) fn capture(&mut self, machine: Machine, it: &mut Reading) -> Next {
        let wait = self.rng.random_range(5 * MS..45 * MS);
        if it.window.len() > UNSAFE_MAX {
            return Ok(Some(wait));
        }
        let (Some(carry), Some(source)) = (&mut it.carry, self.sources.get(&it.id)) else {
            return Ok(Some(wait));
        };
        let mut place = Place::of(carry.progress());
        let items = source.read(&mut place, self.now, 4, &mut self.rng);
        let Some(log) = self.nodes[machine].disk.logs.get_mut(&it.id) else {
            return Err(Some(ErrorKind::Fenced));
        };
        if items.is_empty() {
            return Ok(Some(wait));
        }
        let delta = place.progress();
        let (progress, rewound) = carry.take(&delta);
        let first = log.standing.head().next;
        let records = items.len() as u64;
        let batch = Batch { epoch: it.terms.epoch, first, items: items.into(), progress, rewound };
        let head = log.standing.with(batch.piece(), &delta).map_err(|_| Some(ErrorKind::Fenced))?;
        let added = Added { progress: batch.progress.clone(), records, ..Added::default() };
        it.window.push(batch.last(), added);
        log.append(head, batch.clone());
        self.trace.note(self.now, "appends", &[machine as u64, first.0, records]);
        self.appended(it.id, &batch);
        Ok(Some(wait))
    }

    /// A planned stop: waits until the rest is safe.
    pub(super) fn finish(&mut self, machine: Machine, it: &mut Reading) -> Next {
        let now = self.nodes[machine].local(self.now);
        let by = *it.finish_by.get_or_insert(now + FINISH);
        let current = self.nodes[machine].disk.state.shard(it.id).map(|shard| shard.epoch);
        let log = self.nodes[machine].disk.logs.get(&it.id);
        let safe = log.is_none_or(|log| log.standing.marks().safe >= log.standing.head().last());
        if current != Some(it.terms.epoch.0) || safe || now >= by {
            return Err(None);
        }
        Ok(Some(POLL))
    }

    /// Reports what has become safe, if this node captures the shard.
    pub(super) fn report_captured(&mut self, machine: Machine, id: ShardId) {
        let Node { memory, disk, .. } = &mut self.nodes[machine];
        let Some(actor) = memory.actors.get_mut(&Role::Reader(id)) else { return };
        let Work::Reader(it) = &mut actor.work else { return };
        let Some(log) = disk.logs.get(&id) else { return };
        if it.carry.is_none() {
            return;
        }
        if let Some((upto, added)) = it.window.durable(log.standing.marks().safe) {
            let epoch = it.terms.epoch;
            self.captured(machine, id, epoch, (upto, added));
        }
    }

    /// The owner's look at its copies.
    pub(super) fn look_at_copies(&mut self, machine: Machine, id: ShardId, task: u64) {
        let role = Role::Reader(id);
        let (me, now) = (self.nodes[machine].id, self.instant(machine));
        let Some(Work::Reader(mut it)) = self.take_work(machine, &role, task) else { return };
        let (started, epoch) = (self.instant_of(it.started), it.terms.epoch);
        let disk = &mut self.nodes[machine].disk;
        let known = Known::of(&disk.state, id, epoch, me);
        let (Some(known), Some(log)) = (known, disk.logs.get_mut(&id)) else {
            self.put_work(machine, &role, task, Work::Reader(it));
            return;
        };
        let standing = &mut log.standing;
        standing.with_copies(|copies| copies.set_in_sync(known.in_sync.clone()));
        let sight = Sight {
            now,
            started,
            joining: standing.copies().joining().clone(),
            proposed: standing.copies().proposed().clone(),
            copies: known.copies.clone(),
            in_sync: known.in_sync.clone(),
            down: known.down.clone(),
            seen: standing.copies().seen(),
            needed: standing.needed(),
            appended: standing.marks().appended,
        };
        let round = it.keeper.round(&sight);
        for node in &round.join {
            standing.with_copies(|copies| copies.join(*node));
        }
        for node in &round.leave {
            standing.with_copies(|copies| copies.leave(*node));
        }
        if let Some(in_sync) = &round.record {
            standing.with_copies(|copies| copies.propose(in_sync));
        }
        self.put_work(machine, &role, task, Work::Reader(it));
        self.after_log(machine, id);
        let Some(in_sync) = round.record else {
            self.copies_recorded(machine, id, task, None);
            return;
        };
        let copies = known.in_runs(&in_sync, me, &sight.seen);
        let command = SetInSync { shard: Some(id), epoch: epoch.0, copies };
        let purpose = Purpose::Copies(id, task, in_sync);
        self.propose(machine, command::Kind::SetInSync(command), purpose);
    }

    /// That round is over; the next comes.
    pub(super) fn copies_recorded(
        &mut self,
        machine: Machine,
        id: ShardId,
        task: u64,
        refused: Option<&BTreeSet<NodeId>>,
    ) {
        let node = &mut self.nodes[machine];
        let runs = node.memory.actors.get(&Role::Reader(id)).is_some_and(|it| it.task == task);
        if let (true, Some(refused), Some(log)) = (runs, refused, node.disk.logs.get_mut(&id)) {
            log.standing.with_copies(|copies| copies.refused(refused));
        }
        let round = u64::try_from(ROUND.as_micros()).unwrap();
        self.timer(machine, round, Timer::Copies(id, task));
    }
}
