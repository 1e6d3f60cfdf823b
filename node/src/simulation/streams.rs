//! Streams between two processes: in order, nothing lost, until one of them ends or
//! the network between them stays cut for too long.

use std::collections::VecDeque;

use super::Broken;
use super::event::{Event, MS, Machine, Micros, Process, Said, Topic};
use super::serve::Serves;
use super::world::World;
use crate::error::ErrorKind;
use crate::shard::role::Role;

/// A connection whose messages do not pass for this long is given up by both.
const GIVE_UP: Micros = 5_000 * MS;

/// One stream, and what the server keeps of it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Process,
    role: Role,
    task: u64,
    pub(super) server: Process,
    pub(super) topic: Topic,
    to_server: VecDeque<Said>,
    to_client: VecDeque<Said>,
    last_at: [Micros; 2],
    stalled: Option<Micros>,
    pub(super) serves: Option<Serves>,
}

impl World {
    /// Opens a stream for a task and says the first word; its number.
    pub(super) fn connect(
        &mut self,
        (machine, role, task): (Machine, &Role, u64),
        server: Machine,
        topic: Topic,
        first: Said,
    ) -> u64 {
        let number = self.next_number();
        let connection = Connection {
            client: self.nodes[machine].process(machine),
            role: role.clone(),
            task,
            server: self.nodes[server].process(server),
            topic,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            last_at: [0; 2],
            stalled: None,
            serves: None,
        };
        self.connections.insert(number, connection);
        if self.nodes[server].alive && !self.network.refuses(server) {
            self.say(number, true, first);
        } else {
            self.say(number, false, Said::Closed(ErrorKind::Unavailable));
        }
        number
    }

    pub(super) fn say(&mut self, number: u64, to_server: bool, said: Said) {
        let delay = self.network.delay(&mut self.rng);
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let local = connection.client.machine == connection.server.machine;
        let at = self.now + if local { 20 } else { delay };
        let last = &mut connection.last_at[usize::from(to_server)];
        *last = at.max(*last);
        let after = *last - self.now;
        let queue = if to_server { &mut connection.to_server } else { &mut connection.to_client };
        queue.push_back(said);
        self.push(after, Event::Stream { connection: number, to_server });
    }

    pub(super) fn on_stream(&mut self, number: u64, to_server: bool) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let (client, server) = (connection.client, connection.server);
        let (from, to) = if to_server { (client, server) } else { (server, client) };
        if !self.network.passes(from.machine, to.machine) {
            let since = *connection.stalled.get_or_insert(self.now);
            if self.now - since > GIVE_UP {
                self.break_connection(number);
            } else {
                self.push(50 * MS, Event::Stream { connection: number, to_server });
            }
            return;
        }
        let node = &mut self.nodes[to.machine];
        if node.frozen && node.life == to.life {
            node.deferred.push(Event::Stream { connection: number, to_server });
            return;
        }
        connection.stalled = None;
        let queue = if to_server { &mut connection.to_server } else { &mut connection.to_client };
        let Some(said) = queue.pop_front() else { return };
        if !node.alive || node.life != to.life {
            return;
        }
        if to_server {
            self.on_asked(number, server.machine, said);
        } else {
            self.on_told(number, client.machine, said);
        }
    }

    /// At the server.
    fn on_asked(&mut self, number: u64, machine: Machine, said: Said) {
        match said {
            Said::OpenCopy(open, after) => self.open_copy(number, machine, &open, after),
            Said::OpenFetch(after) => self.open_fetch(number, machine, after),
            Said::Acknowledged(upto) => {
                let Some(connection) = self.connections.get(&number) else { return };
                let (topic, node) = (connection.topic, self.nodes[connection.client.machine].id);
                let (serves, now) = (connection.serves, self.instant(machine));
                let Some(Serves { log, copy: Some(copy), .. }) = serves else { return };
                if let Some(held) = self.nodes[machine].disk.logs.get_mut(&topic.shard)
                    && held.number == log
                {
                    held.standing.with_copies(|copies| copies.ack(node, copy, upto, now));
                    self.after_log(machine, topic.shard);
                }
            }
            Said::Closed(_) => self.forget(number),
            Said::Start { .. } | Said::Batches(..) => {}
        }
    }

    /// At the client.
    fn on_told(&mut self, number: u64, machine: Machine, said: Said) {
        let Some(connection) = self.connections.get(&number) else { return };
        let (role, task) = (connection.role.clone(), connection.task);
        let current = self.nodes[machine].memory.actors.get(&role).map(|actor| actor.task);
        if current != Some(task) {
            // With that rule broken, a copy goes on with the owner of an older epoch.
            if let (Said::Batches(batches, _), true) =
                (&said, self.is_broken(Broken::CopyIgnoresEpochs))
                && let Some(last) = batches.last()
            {
                self.say(number, true, Said::Acknowledged(last.last()));
            }
            return;
        }
        if matches!(said, Said::Closed(_)) {
            self.connections.remove(&number);
        }
        match role {
            Role::Copy(_) => self.copy_told(machine, &role, number, said),
            Role::Writer(..) => self.writer_told(machine, &role, number, said),
            Role::Reader(_) => {}
        }
    }

    /// A task ends its streams.
    pub(super) fn hang_up(&mut self, machine: Machine, role: &Role) {
        let here = self.nodes[machine].process(machine);
        let mine = |it: &Connection| it.client == here && it.role == *role;
        let numbers: Vec<_> = self.connections.iter().filter(|(_, it)| mine(it)).collect();
        let numbers: Vec<_> = numbers.into_iter().map(|(number, _)| *number).collect();
        let zombies = self.is_broken(Broken::CopyIgnoresEpochs) && matches!(role, Role::Copy(_));
        for number in numbers {
            if !zombies {
                self.say(number, true, Said::Closed(ErrorKind::Unavailable));
            }
        }
    }

    /// A process has ended: those it spoke to hear so.
    pub(super) fn end_streams(&mut self, process: Process) {
        let its = |it: &&Connection| it.client == process || it.server == process;
        let numbers: Vec<_> =
            self.connections.iter().filter(|(_, it)| its(it)).map(|(number, _)| *number).collect();
        for number in numbers {
            let to_server = self.connections[&number].client == process;
            self.say(number, to_server, Said::Closed(ErrorKind::Unavailable));
        }
    }

    /// Neither side hears the other any more.
    fn break_connection(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        connection.to_client.clear();
        connection.to_server.clear();
        let client = connection.client;
        let told =
            self.nodes[client.machine].alive && self.nodes[client.machine].life == client.life;
        self.server_forgets(number);
        if told {
            self.on_told(number, client.machine, Said::Closed(ErrorKind::Unavailable));
        }
        self.connections.remove(&number);
    }

    fn forget(&mut self, number: u64) {
        self.server_forgets(number);
        self.connections.remove(&number);
    }
}
