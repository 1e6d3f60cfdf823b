//! A copy of a shard's spool, as `shard/copy.rs` keeps it.

use tidegate_proto::v1::{CopyOpen, EpochBegin, Progress, ShardId};
use tidegate_proto::{Epoch, Sequence};

use super::event::{MS, Machine, Micros, Said, Timer, Topic};
use super::spool::Log;
use super::tasks::Work;
use super::world::World;
use crate::error::ErrorKind;
use crate::shard::copy::asks_again;
use crate::shard::role::{Role, Terms};
use crate::spool::{Head, Refusal};

/// How often an owner that is not there yet is asked.
const OWNER_WAIT: Micros = 30 * MS;

/// A copy's task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copying {
    shard: ShardId,
    terms: Terms,
    /// Where its log ended when the owner was asked.
    asked: Sequence,
}

impl Copying {
    pub(super) fn new(shard: ShardId, terms: Terms) -> Self {
        Self { shard, terms, asked: Sequence(0) }
    }
}

impl World {
    /// Asks the owner to be followed.
    pub(super) fn copy_on(&mut self, machine: Machine, role: &Role, task: u64) {
        let Some(Copying { shard: id, terms, .. }) = self.copying(machine, role) else { return };
        let epoch = terms.epoch;
        let node = &self.nodes[machine];
        let Some(shard) = node.disk.state.shard(id).filter(|shard| shard.epoch == epoch.0) else {
            self.task_ended(machine, role, Err(ErrorKind::Fenced));
            return;
        };
        let known = node.disk.state.node(shard.reader).map(|owner| owner.id);
        let Some(owner) = known.and_then(|owner| self.machine_of(owner)) else {
            self.timer(machine, OWNER_WAIT, Timer::Task(role.clone(), task));
            return;
        };
        let head = node.disk.logs.get(&id).map(|log| log.standing.head().clone());
        let begins = head.iter().flat_map(|head| head.begins.iter().collect::<Vec<_>>());
        let begins = begins.map(|(epoch, at)| EpochBegin { epoch: epoch.0, first: at.0 });
        let copy = CopyOpen {
            node: node.id.0,
            run: node.memory.run,
            first: head.as_ref().map_or(1, |head| head.first.0),
            begins: begins.collect(),
            made: head.as_ref().map_or(0, |head| head.made.0),
            index: None,
        };
        let after = head.map_or(Sequence(0), |head| head.last());
        let topic = Topic { shard: id, epoch };
        if let Some(actor) = self.nodes[machine].memory.actors.get_mut(role)
            && let Work::Copy(copying) = &mut actor.work
        {
            copying.asked = after;
        }
        self.connect((machine, role, task), owner, topic, Said::OpenCopy(copy, after));
    }

    fn copying(&self, machine: Machine, role: &Role) -> Option<Copying> {
        match &self.nodes[machine].memory.actors.get(role)?.work {
            Work::Copy(copying) => Some(*copying),
            Work::Waiting | Work::Reader(_) | Work::Writer(_) => None,
        }
    }

    pub(super) fn copy_told(&mut self, machine: Machine, role: &Role, connection: u64, said: Said) {
        let outcome = match said {
            Said::Start { keep, anew, made } => self.follow(machine, role, keep, (anew, made)),
            Said::Batches(batches, stable) => {
                self.take(machine, role, connection, (batches, stable))
            }
            Said::Closed(kind) => Err(kind),
            Said::OpenCopy(..) | Said::OpenFetch(_) | Said::Acknowledged(_) => Ok(()),
        };
        let Err(kind) = outcome else { return };
        if asks_again(kind) {
            self.hang_up(machine, role);
            let Some(actor) = self.nodes[machine].memory.actors.get(role) else { return };
            let task = actor.task;
            self.timer(machine, OWNER_WAIT, Timer::Task(role.clone(), task));
        } else {
            self.task_ended(machine, role, Err(kind));
        }
    }

    fn follow(
        &mut self,
        machine: Machine,
        role: &Role,
        keep: Sequence,
        (anew, made): (bool, Epoch),
    ) -> Result<(), ErrorKind> {
        let Some(copying) = self.copying(machine, role) else { return Ok(()) };
        let Copying { shard: id, terms, asked: mut at } = copying;
        let epoch = terms.epoch;
        let number = self.next_number();
        let logs = &mut self.nodes[machine].disk.logs;
        if anew || !logs.contains_key(&id) {
            let head = Head::begun(made, keep.next(), Progress::default());
            let old = logs.remove(&id);
            logs.insert(id, Log::begin(number, head, old));
            at = keep;
        }
        let Some(log) = logs.get_mut(&id) else { return Ok(()) };
        let head = log.standing.following(epoch, (at, keep)).map_err(|why| match why {
            Refusal::Fenced => ErrorKind::Fenced,
            Refusal::Hole => ErrorKind::Unavailable,
            Refusal::Seen(_) => ErrorKind::Corrupt,
        })?;
        log.cut_back(head);
        self.trace.note(self.now, "follows", &[machine as u64, epoch.0, keep.0]);
        self.after_log(machine, id);
        Ok(())
    }

    fn take(
        &mut self,
        machine: Machine,
        role: &Role,
        connection: u64,
        (batches, stable): (Vec<super::spool::Batch>, Sequence),
    ) -> Result<(), ErrorKind> {
        let Some(Copying { shard: id, terms, .. }) = self.copying(machine, role) else {
            return Ok(());
        };
        let epoch = terms.epoch;
        let last = batches.last().map(super::spool::Batch::last);
        for batch in batches {
            let Some(log) = self.nodes[machine].disk.logs.get_mut(&id) else { return Ok(()) };
            let head = log.standing.with_copied(batch.piece(), epoch).map_err(|why| match why {
                Refusal::Fenced | Refusal::Seen(_) => ErrorKind::Fenced,
                Refusal::Hole => ErrorKind::Unavailable,
            })?;
            self.appended(id, &batch);
            let Some(log) = self.nodes[machine].disk.logs.get_mut(&id) else { return Ok(()) };
            log.append(head, batch);
        }
        if let Some(log) = self.nodes[machine].disk.logs.get_mut(&id) {
            log.standing.set_stable(stable);
        }
        self.after_log(machine, id);
        if let Some(last) = last {
            self.say(connection, true, Said::Acknowledged(last));
        }
        Ok(())
    }
}
