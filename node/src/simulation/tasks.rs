//! What a node's supervisor starts and stops, and what becomes of a task that ends.

use rand::Rng as _;

use super::copy::Copying;
use super::event::{MS, Machine, Micros, Timer};
use super::reader::Reading;
use super::world::World;
use super::writer::Writing;
use crate::error::{ErrorKind, Verdict};
use crate::shard::in_sync::Keeper;
use crate::shard::role::{Act, Role, Step, Terms, act, is_stale};

const LOOK_EVERY: Micros = 1_000 * MS;
/// How long a task may take until it looks at its shard.
const CONNECT_MAX: Micros = 300 * MS;
/// Between the tries of a task, as `retry.rs` has it.
const BACKOFF: (Micros, Micros) = (100 * MS, 30_000 * MS);

/// One role at work.
#[derive(Debug)]
pub(super) struct Actor {
    /// Tells its tasks apart; what is meant for an earlier one is dropped.
    pub(super) task: u64,
    backoff: Micros,
    pub(super) work: Work,
}

/// What a role's task is doing.
#[derive(Debug, Default)]
pub(super) enum Work {
    /// Waits before it tries again.
    #[default]
    Waiting,
    Reader(Box<Reading>),
    Copy(Copying),
    Writer(Box<Writing>),
}

impl World {
    /// Compares what runs here with what should.
    pub(super) fn look(&mut self, machine: Machine, periodic: bool) {
        if periodic {
            self.timer(machine, LOOK_EVERY, Timer::Look(true));
        }
        let held = self.lease_held(machine);
        let node = &self.nodes[machine];
        if node.memory.closing {
            return;
        }
        let me = (node.id, node.memory.run);
        match act(&node.disk.state, me, held, &node.memory.roles) {
            Act::Wait => {}
            Act::StopOwners => self.stop_owners(machine),
            Act::Steps(steps) => {
                for step in steps {
                    match step {
                        Step::Stop(role) => self.drain(machine, &role),
                        Step::Start(role, terms) => self.start_role(machine, &role, terms),
                    }
                }
                self.sweep(machine);
            }
        }
    }

    /// What each task is at, for who reads the trace.
    pub(super) fn tell_tasks(&mut self) {
        for (machine, node) in self.nodes.iter().enumerate() {
            for (role, actor) in &node.memory.actors {
                self.trace.tell(self.now, || format!("  m{machine} {role}: {actor:?}"));
            }
        }
        for (number, connection) in &self.connections {
            self.trace.tell(self.now, || format!("  stream {number}: {connection:?}"));
        }
    }

    fn stop_owners(&mut self, machine: Machine) {
        let owners = |role: &&Role| !matches!(role, Role::Copy(_));
        let roles: Vec<_> =
            self.nodes[machine].memory.actors.keys().filter(owners).cloned().collect();
        for role in roles {
            self.trace.note(self.now, "lease lost", &[machine as u64]);
            self.role_gone(machine, &role);
        }
    }

    fn start_role(&mut self, machine: Machine, role: &Role, terms: Terms) {
        self.nodes[machine].memory.roles.insert(role.clone(), terms);
        let actor = Actor { task: 0, backoff: BACKOFF.0, work: Work::Waiting };
        self.nodes[machine].memory.actors.insert(role.clone(), actor);
        self.start_task(machine, role);
    }

    /// Asks a role to end at the end of what it holds.
    pub(super) fn drain(&mut self, machine: Machine, role: &Role) {
        let memory = &mut self.nodes[machine].memory;
        if !memory.draining.insert(role.clone()) {
            return;
        }
        let Some(actor) = memory.actors.get(role) else { return };
        let task = actor.task;
        match actor.work {
            Work::Waiting => self.role_gone(machine, role),
            Work::Copy(_) => self.task_ended(machine, role, Ok(())),
            Work::Reader(_) | Work::Writer(_) => {
                self.timer(machine, 10, Timer::Task(role.clone(), task));
            }
        }
    }

    pub(super) fn draining(&self, machine: Machine, role: &Role) -> bool {
        self.nodes[machine].memory.draining.contains(role)
    }

    pub(super) fn role_gone(&mut self, machine: Machine, role: &Role) {
        self.hang_up(machine, role);
        let memory = &mut self.nodes[machine].memory;
        memory.roles.remove(role);
        memory.actors.remove(role);
        memory.draining.remove(role);
        if memory.closing && memory.actors.is_empty() {
            self.flush_and_exit(machine);
        }
        self.timer(machine, 10, Timer::Look(false));
    }

    fn start_task(&mut self, machine: Machine, role: &Role) {
        let (task, local) = (self.next_number(), self.nodes[machine].local(self.now));
        let lag_max = self.times.lag();
        let memory = &mut self.nodes[machine].memory;
        let (Some(actor), Some(terms)) = (memory.actors.get_mut(role), memory.roles.get(role))
        else {
            return;
        };
        actor.task = task;
        actor.work = match role {
            Role::Reader(id) => {
                let keeper = Keeper::new(lag_max);
                Work::Reader(Box::new(Reading::new(*id, *terms, local, keeper)))
            }
            Role::Copy(id) => Work::Copy(Copying::new(*id, *terms)),
            Role::Writer(id, sink) => {
                Work::Writer(Box::new(Writing::new((*id, sink.clone()), *terms)))
            }
        };
        // What a task asks of its source or sink before it looks at its shard.
        let most = if self.rng.random_bool(0.1) { CONNECT_MAX } else { MS };
        let delay = self.rng.random_range(20..most);
        self.timer(machine, delay, Timer::Task(role.clone(), task));
    }

    /// The task goes on, or is tried again.
    pub(super) fn on_task(&mut self, machine: Machine, role: &Role, task: u64) {
        let Some(actor) = self.nodes[machine].memory.actors.get(role) else { return };
        if actor.task != task {
            return;
        }
        match (&actor.work, role) {
            (Work::Waiting, _) => self.start_task(machine, role),
            (Work::Reader(_), _) => self.read_on(machine, role, task),
            (Work::Copy(_), _) => self.copy_on(machine, role, task),
            (Work::Writer(_), _) => self.write_on(machine, role, task),
        }
    }

    /// A role's task ended, as `shard/actor.rs` takes it.
    pub(super) fn task_ended(&mut self, machine: Machine, role: &Role, end: Result<(), ErrorKind>) {
        self.hang_up(machine, role);
        let Err(kind) = end else {
            self.role_gone(machine, role);
            return;
        };
        self.trace.tell(self.now, || format!("  m{machine} {role} ended: {kind:?}"));
        match kind.verdict() {
            Verdict::Leave => self.role_gone(machine, role),
            Verdict::Fail | Verdict::Gap | Verdict::Park => {
                self.fail(format!("m{machine}: {role} cannot go on: {kind:?}"));
            }
            Verdict::Retry | Verdict::Reopen => {
                if self.draining(machine, role) {
                    self.role_gone(machine, role);
                    return;
                }
                let task = self.next_number();
                let Some(actor) = self.nodes[machine].memory.actors.get_mut(role) else { return };
                let step = actor.backoff;
                actor.backoff = (step * 2).min(BACKOFF.1);
                (actor.task, actor.work) = (task, Work::Waiting);
                let wait = self.rng.random_range(step / 2..=step);
                self.timer(machine, wait, Timer::Task(role.clone(), task));
            }
        }
    }

    /// Its task's work, to be put back; `None` if another task runs by now.
    pub(super) fn take_work(&mut self, machine: Machine, role: &Role, task: u64) -> Option<Work> {
        let actor = self.nodes[machine].memory.actors.get_mut(role)?;
        (actor.task == task).then(|| std::mem::take(&mut actor.work))
    }

    pub(super) fn put_work(&mut self, machine: Machine, role: &Role, task: u64, work: Work) {
        if let Some(actor) = self.nodes[machine].memory.actors.get_mut(role)
            && actor.task == task
        {
            actor.work = work;
        }
    }

    /// Deletes logs that are other nodes' to keep.
    fn sweep(&mut self, machine: Machine) {
        let node = &mut self.nodes[machine];
        let (state, id) = (&node.disk.state, node.id);
        let stale = node.disk.logs.keys().filter(|shard| is_stale(state, **shard, id));
        let stale: Vec<_> = stale.copied().collect();
        for shard in stale {
            self.nodes[machine].disk.logs.remove(&shard);
            // Whoever was served from it hears so.
            self.pump_all(machine, shard);
        }
    }
}
