//! The serving end of a stream: an owner to a copy, or any holder to a writer.

use tidegate_proto::v1::{CopyOpen, FetchOpen, ShardId};
use tidegate_proto::{Epoch, NodeId, Sequence};

use super::event::{Machine, Said, Topic};
use super::spool::Batch;
use super::streams::Connection;
use super::world::World;
use crate::error::ErrorKind;
use crate::exchange::copy::meet;
use crate::exchange::local::place;

/// Batches on their way to a copy: few, so that catching up takes its time.
const COPY_BATCHES: usize = 1;

/// What is sent on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Serves {
    /// Which log of the shard it is.
    pub(super) log: u64,
    /// All up to here was sent.
    pub(super) after: Sequence,
    pub(super) stable: Sequence,
    /// Of a copy: its number at the owner, which it gets all from.
    pub(super) copy: Option<u64>,
}

impl World {
    pub(super) fn open_copy(
        &mut self,
        number: u64,
        machine: Machine,
        open: &CopyOpen,
        after: Sequence,
    ) {
        let now = self.instant(machine);
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let Topic { shard, epoch } = connection.topic;
        let log = self.nodes[machine].disk.logs.get_mut(&shard);
        let Some(log) = log.filter(|log| log.standing.owned_under(epoch)) else {
            self.say(number, false, Said::Closed(ErrorKind::Unavailable));
            return;
        };
        let asked = FetchOpen { after: after.0, epoch: epoch.0, ..FetchOpen::default() };
        let start = match meet(&log.extent(), &asked, open) {
            Ok(start) => start,
            Err(error) => {
                let kind = error.kind();
                self.say(number, false, Said::Closed(kind));
                return;
            }
        };
        let keep = Sequence(start.keep);
        let copy = (NodeId(open.node), open.run);
        let copy = log.standing.with_copies(|copies| copies.open(copy, keep, now));
        let stable = Sequence(0);
        connection.serves = Some(Serves { log: log.number, after: keep, stable, copy: Some(copy) });
        let (anew, made) = (start.anew, Epoch(start.made));
        self.say(number, false, Said::Start { keep, anew, made });
        self.after_log(machine, shard);
    }

    pub(super) fn open_fetch(&mut self, number: u64, machine: Machine, after: Sequence) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let Topic { shard, epoch } = connection.topic;
        let log = self.nodes[machine].disk.logs.get(&shard);
        let opened = match log.filter(|log| log.standing.head().epoch == epoch) {
            None => Err(ErrorKind::Unavailable),
            Some(log) => {
                let head = log.standing.head();
                let after = place(shard, (head.first, head.last()), after);
                after.map(|after| (after, log.number)).map_err(|error| error.kind())
            }
        };
        match opened {
            Err(kind) => self.say(number, false, Said::Closed(kind)),
            Ok((after, log)) => {
                let stable = Sequence(0);
                connection.serves = Some(Serves { log, after, stable, copy: None });
                self.say(number, false, Said::Start { keep: after, anew: false, made: epoch });
                self.pump(number);
            }
        }
    }

    /// Sends what there is on every stream that serves this log.
    pub(super) fn pump_all(&mut self, machine: Machine, shard: ShardId) {
        let here = self.nodes[machine].process(machine);
        let serving = |it: &Connection| it.server == here && it.topic.shard == shard;
        let numbers: Vec<_> = self.connections.iter().filter(|(_, it)| serving(it)).collect();
        let numbers: Vec<_> = numbers.into_iter().map(|(number, _)| *number).collect();
        for number in numbers {
            self.pump(number);
        }
    }

    pub(super) fn pump(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let Some(serves) = &mut connection.serves else { return };
        let client = self.nodes[connection.client.machine].id;
        let (machine, Topic { shard, epoch }) = (connection.server.machine, connection.topic);
        let log = self.nodes[machine].disk.logs.get(&shard).filter(|log| {
            let standing = &log.standing;
            let held = match serves.copy {
                Some(copy) => {
                    standing.owned_under(epoch) && standing.copies().is_newest(client, copy)
                }
                None => standing.head().epoch == epoch,
            };
            log.number == serves.log && held
        });
        let Some(log) = log else {
            connection.serves = None;
            self.say(number, false, Said::Closed(ErrorKind::Unavailable));
            return;
        };
        let marks = log.standing.marks();
        let upto = if serves.copy.is_some() { marks.appended } else { marks.stable };
        if serves.after.next() < log.standing.head().first {
            connection.serves = None;
            self.say(number, false, Said::Closed(ErrorKind::Gone));
            return;
        }
        let mut batches = log.read(serves.after, upto);
        let is_copy = serves.copy.is_some();
        if is_copy {
            // It has credit for so much, and gets more when it says that it has that.
            batches.truncate(COPY_BATCHES);
        }
        let told = is_copy && marks.stable > serves.stable;
        if batches.is_empty() && !told {
            return;
        }
        serves.after = batches.last().map_or(serves.after, Batch::last);
        serves.stable = marks.stable;
        if !is_copy {
            self.served(machine, shard, &batches);
        }
        let more = !batches.is_empty();
        self.say(number, false, Said::Batches(batches, marks.stable));
        if more && !is_copy {
            self.pump(number);
        }
    }

    pub(super) fn server_forgets(&mut self, number: u64) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let (topic, server, serves) =
            (connection.topic, connection.server, connection.serves.take());
        let (node, now) = (self.nodes[connection.client.machine].id, self.instant(server.machine));
        let Some(Serves { log, copy: Some(copy), .. }) = serves else { return };
        let holder = &mut self.nodes[server.machine];
        if holder.life == server.life
            && let Some(held) = holder.disk.logs.get_mut(&topic.shard)
            && held.number == log
        {
            held.standing.with_copies(|copies| copies.close(node, copy, now));
        }
    }
}
