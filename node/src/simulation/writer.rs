//! A shard's way to one sink, as `shard/writer.rs` goes it; where it starts and
//! what it skips is decided there.

use std::collections::VecDeque;

use tidegate_proto::Sequence;
use tidegate_proto::v1::{Progress, Shard};
use tidegate_raft_store::absorb;

use super::event::{Event, MS, Machine, Micros, Said, Timer, Topic};
use super::sink::{Attempt, Opened, Opening, SinkId};
use super::spool::Batch;
use super::tasks::Work;
use super::world::World;
use crate::checkpoint::{Added, Window};
use crate::error::ErrorKind;
use crate::exchange::nearest::places;
use crate::shard::role::{Role, Terms, under};
use crate::shard::writer::{Aim, continues, start};

/// How often a shard whose owner is not there yet is asked for.
const OWNER_WAIT: Micros = 50 * MS;
/// How long what a sink accepted may wait.
const FLUSH_AFTER: Micros = 60 * MS;
/// Batches of one commit.
const HELD_MAX: usize = 12;

/// A writer's task.
#[derive(Debug)]
pub(super) struct Writing {
    sink: SinkId,
    terms: Terms,
    stage: Stage,
    /// As it was when the writer began.
    shard: Shard,
    progress: Progress,
    /// The last sequence handed on, and the last committed.
    last: Sequence,
    committed: Sequence,
    /// The sink's number as this writer knows it.
    number: u64,
    window: Window,
    inbox: VecDeque<Batch>,
    held: Vec<Batch>,
    committing: bool,
    flush_due: bool,
}

#[derive(Debug)]
enum Stage {
    Begin,
    Opening,
    /// Asks for the shard behind some sequence, or waits for the answer.
    Asking(Aim, Option<Sequence>),
    Delivering,
}

impl Writing {
    pub(super) fn new(sink: SinkId, terms: Terms) -> Self {
        Self {
            sink,
            terms,
            stage: Stage::Begin,
            shard: Shard::default(),
            progress: Progress::default(),
            last: Sequence(0),
            committed: Sequence(0),
            number: 0,
            window: Window::default(),
            inbox: VecDeque::new(),
            held: Vec::new(),
            committing: false,
            flush_due: false,
        }
    }

    /// Hands on what came, until the sink holds enough.
    fn hand_on(&mut self) -> Result<(), ErrorKind> {
        while self.held.len() < HELD_MAX {
            let Some(batch) = self.inbox.pop_front() else { break };
            let first = continues(batch.first, self.last, batch.rewound.is_some());
            let first = first.ok_or(ErrorKind::Corrupt)?;
            absorb(&mut self.progress, &batch.progress);
            let records = (batch.last().0 + 1).saturating_sub(first.0);
            let progress = batch.progress.clone();
            self.last = batch.last();
            self.window.push(self.last, Added { progress, records, ..Added::default() });
            self.held.push(batch);
        }
        Ok(())
    }
}

/// What a writer's step leads to; an error ends its task.
type Next = Result<(), Option<ErrorKind>>;

impl World {
    pub(super) fn write_on(&mut self, machine: Machine, role: &Role, task: u64) {
        self.with_writer(machine, role, |world, it| {
            let draining = world.draining(machine, role);
            match &it.stage {
                Stage::Begin => world.open_sink(machine, it, task),
                Stage::Opening => Ok(()),
                Stage::Asking(..) if draining => Err(None),
                Stage::Asking(_, None) => world.ask(machine, role, it, task),
                Stage::Asking(_, Some(_)) => Ok(()),
                Stage::Delivering => {
                    it.flush_due = true;
                    world.deliver(machine, role, it)
                }
            }
        });
    }

    /// Lets `step` work on a writer, and ends its task if that says so.
    fn with_writer(
        &mut self,
        machine: Machine,
        role: &Role,
        step: impl FnOnce(&mut Self, &mut Writing) -> Next,
    ) {
        let Some(actor) = self.nodes[machine].memory.actors.get(role) else { return };
        let task = actor.task;
        let mut it = match self.take_work(machine, role, task) {
            Some(Work::Writer(it)) => it,
            Some(other) => return self.put_work(machine, role, task, other),
            None => return,
        };
        let next = step(self, &mut it);
        self.put_work(machine, role, task, Work::Writer(it));
        match next {
            Ok(()) => {}
            Err(None) => self.task_ended(machine, role, Ok(())),
            Err(Some(kind)) => self.task_ended(machine, role, Err(kind)),
        }
    }

    fn open_sink(&mut self, machine: Machine, it: &mut Writing, task: u64) -> Next {
        let state = &self.nodes[machine].disk.state;
        let shard = under(state, it.sink.0, it.terms.epoch);
        it.shard = shard.map_err(|error| Some(error.kind()))?;
        it.stage = Stage::Opening;
        let from = self.nodes[machine].process(machine);
        let opening = Opening { sink: it.sink.clone(), epoch: it.terms.epoch.0, from, task };
        let delay = self.sink_delay();
        self.push(delay, Event::SinkOpen(opening));
        Ok(())
    }

    pub(super) fn on_sink_opened(&mut self, machine: Machine, task: u64, opened: &Opened) {
        let Some(role) = self.role_of(machine, task) else { return };
        self.with_writer(machine, &role, |world, it| {
            it.number = opened.number.map_err(Some)?;
            let name = &it.sink.1;
            let recorded = it.shard.delivered.get(name).cloned().unwrap_or_default();
            let start = start(&it.shard, &recorded, opened.committed.as_ref());
            let (id, epoch) = (it.sink.0, it.terms.epoch);
            world.delivered(machine, (id, name), epoch, (start.sequence, start.report));
            it.progress = start.progress;
            let mut aim = Aim::new(epoch, start.sequence);
            it.last = aim.begin(world.nodes[machine].disk.state.gaps_of(id));
            it.committed = it.last;
            it.stage = Stage::Asking(aim, None);
            if world.draining(machine, &role) {
                return Err(None);
            }
            world.ask(machine, &role, it, task)
        });
    }

    fn role_of(&self, machine: Machine, task: u64) -> Option<Role> {
        let mut actors = self.nodes[machine].memory.actors.iter();
        actors.find(|(_, actor)| actor.task == task).map(|(role, _)| role.clone())
    }

    /// Asks the nearest copy for what comes next.
    fn ask(&mut self, machine: Machine, role: &Role, it: &mut Writing, task: u64) -> Next {
        let Stage::Asking(aim, asked) = &mut it.stage else { return Ok(()) };
        if it.terms.tells {
            return Ok(());
        }
        let node = &self.nodes[machine];
        let from = aim.from(node.disk.state.gaps_of(it.sink.0));
        *asked = Some(from);
        let found = places(&node.disk.state, it.sink.0, node.id).into_iter().next();
        let server = found.and_then(|it| Some((it.epoch, self.machine_of(it.node.0)?)));
        match server {
            None => self.missed(machine, role, it, ErrorKind::Unavailable),
            Some((epoch, server)) => {
                let topic = Topic { shard: it.sink.0, epoch };
                self.connect((machine, role, task), server, topic, Said::OpenFetch(from));
                Ok(())
            }
        }
    }

    fn missed(&mut self, machine: Machine, role: &Role, it: &mut Writing, kind: ErrorKind) -> Next {
        let Stage::Asking(aim, asked) = &mut it.stage else { return Ok(()) };
        let from = asked.take().unwrap_or_default();
        let state = &self.nodes[machine].disk.state;
        let gaps: Vec<_> = state.gaps_of(it.sink.0).cloned().collect();
        if !aim.missed(kind, from, gaps.iter()) {
            return Err(Some(kind));
        }
        under(state, it.sink.0, it.terms.epoch).map_err(|error| Some(error.kind()))?;
        let Some(actor) = self.nodes[machine].memory.actors.get(role) else { return Ok(()) };
        let task = actor.task;
        self.timer(machine, OWNER_WAIT, Timer::Task(role.clone(), task));
        Ok(())
    }

    pub(super) fn writer_told(
        &mut self,
        machine: Machine,
        role: &Role,
        connection: u64,
        said: Said,
    ) {
        self.with_writer(machine, role, |world, it| match said {
            Said::Start { .. } => {
                it.stage = Stage::Delivering;
                if world.draining(machine, role) { Err(None) } else { Ok(()) }
            }
            Said::Batches(batches, _) => {
                if let Some(last) = batches.last() {
                    world.say(connection, true, Said::Acknowledged(last.last()));
                }
                it.inbox.extend(batches);
                world.deliver(machine, role, it)
            }
            Said::Closed(kind) if matches!(it.stage, Stage::Delivering) => Err(Some(kind)),
            Said::Closed(kind) => world.missed(machine, role, it, kind),
            Said::OpenCopy(..) | Said::OpenFetch(_) | Said::Acknowledged(_) => Ok(()),
        });
    }

    fn deliver(&mut self, machine: Machine, role: &Role, it: &mut Writing) -> Next {
        if it.committing {
            return Ok(());
        }
        let draining = self.draining(machine, role);
        let waited = it.held.is_empty();
        if !draining {
            it.hand_on().map_err(Some)?;
        }
        let Some(actor) = self.nodes[machine].memory.actors.get(role) else { return Ok(()) };
        let task = actor.task;
        if it.held.is_empty() {
            return if draining { Err(None) } else { Ok(()) };
        }
        if !(it.flush_due || draining || it.held.len() >= HELD_MAX) {
            if waited {
                self.timer(machine, FLUSH_AFTER, Timer::Task(role.clone(), task));
            }
            return Ok(());
        }
        (it.committing, it.flush_due) = (true, false);
        let attempt = Attempt {
            sink: it.sink.clone(),
            epoch: it.terms.epoch.0,
            number: it.number,
            batches: std::mem::take(&mut it.held),
            after: it.committed,
            progress: it.progress.clone(),
            from: self.nodes[machine].process(machine),
            task,
        };
        let delay = self.sink_delay();
        self.push(delay, Event::SinkCommit(attempt));
        Ok(())
    }

    pub(super) fn on_sink_committed(
        &mut self,
        machine: Machine,
        task: u64,
        committed: Result<u64, ErrorKind>,
    ) {
        let Some(role) = self.role_of(machine, task) else { return };
        self.with_writer(machine, &role, |world, it| {
            it.number = committed.map_err(Some)?;
            it.committing = false;
            it.committed = it.last;
            if let Some(done) = it.window.durable(it.committed) {
                let (id, name) = &it.sink;
                world.delivered(machine, (*id, name), it.terms.epoch, done);
            }
            world.deliver(machine, &role, it)
        });
    }
}
