//! What happens next: one queue, ordered by time and by who came first.

use std::collections::BTreeMap;

use tidegate_proto::v1::{Command, CopyOpen, HeartbeatResponse, Outcome, ShardId};
use tidegate_proto::{Epoch, Sequence};
use tokio::time::Instant;

use super::faults::Fault;
use super::sink::{Attempt, Opening};
use crate::error::ErrorKind;
use crate::shard::role::Role;

/// Microseconds since the world began.
pub(super) type Micros = u64;
/// A machine: its place in the world's list. Its id in the cluster is another.
pub(super) type Machine = usize;

pub(super) const MS: Micros = 1_000;

/// What was said to a proposal.
pub(super) type Answer = Result<Outcome, ErrorKind>;

/// A process of a machine; the next one on it is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Process {
    pub(super) machine: Machine,
    pub(super) life: u32,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// Within a process; nothing if that has ended.
    Timer(Process, Timer),
    /// A message arrives at a machine, whatever runs there by now.
    Arrive(Machine, Message),
    /// The next message of a connection arrives at its server, or at its client.
    Stream { connection: u64, to_server: bool },
    /// A majority may have the log's next entries.
    Commit { proposal: u64 },
    /// A sink has been asked to let a writer in.
    SinkOpen(Opening),
    /// A sink has been asked to commit; nobody can take that back.
    SinkCommit(Attempt),
    /// Something breaks, or an operator does something.
    Fault(Fault),
    /// The world is looked at.
    Observe,
}

/// What a process does by itself.
#[derive(Clone, Debug)]
pub(super) enum Timer {
    /// Tells the leader that it lives.
    Heartbeat,
    /// That went unanswered.
    HeartbeatLate(u64),
    /// Raft's own beat, pings, and the leader's look at who is silent.
    Duty,
    /// Stands for election because this machine's process is gone.
    Stand { gone: Machine, tries: u32 },
    /// The leader's placement round; `true` for the periodic one.
    Place(bool),
    /// The supervisor's look; `true` for the periodic one.
    Look(bool),
    /// Checkpoints are gathered.
    Tick,
    /// The spool's group commit ends.
    Synced(Vec<(ShardId, (Sequence, u64), usize)>),
    /// What is delivered may go.
    Retain,
    /// A task goes on.
    Task(Role, u64),
    /// An owner looks at its copies.
    Copies(ShardId, u64),
    /// A proposal was not answered in time.
    ProposalLate(u64),
    /// A stop that was asked for is over, drained or not.
    Exit,
}

/// What processes say to each other outside of streams.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Heartbeat { from: Process, run: u64, number: u64 },
    HeartbeatAnswer { to: Process, number: u64, heard: Option<HeartbeatResponse> },
    Propose { from: Process, number: u64, command: Command },
    Proposed { to: Process, number: u64, answer: Answer },
    Append { leader: Machine, term: u64, commit: usize, sent: Micros },
    Pong { to: Process, from: Machine, run: u64 },
    Refused { to: Process, from: Machine },
    SinkOpened { to: Process, task: u64, opened: super::sink::Opened },
    SinkCommitted { to: Process, task: u64, committed: Result<u64, ErrorKind> },
}

/// What is said on a stream.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// Client: be my copy's owner.
    OpenCopy(CopyOpen, Sequence),
    /// Client: give me what is stable behind this.
    OpenFetch(Sequence),
    /// Client: I have all up to here.
    Acknowledged(Sequence),
    /// Either: it is over.
    Closed(ErrorKind),
    /// Server: drop all behind this, or begin anew behind it.
    Start { keep: Sequence, anew: bool, made: Epoch },
    /// Server: batches, and what is stable.
    Batches(Vec<super::spool::Batch>, Sequence),
}

/// Under which epoch a stream serves a shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Topic {
    pub(super) shard: ShardId,
    pub(super) epoch: Epoch,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    events: BTreeMap<(Micros, u64), Event>,
    number: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at: Micros, event: Event) {
        self.number += 1;
        self.events.insert((at, self.number), event);
    }

    pub(super) fn pop(&mut self) -> Option<(Micros, Event)> {
        self.events.pop_first().map(|((at, _), event)| (at, event))
    }
}

/// When the world began, as an instant: only what lies between two counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin(Instant);

impl Origin {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    pub(super) fn after(self, local: Micros) -> Instant {
        self.0 + std::time::Duration::from_micros(local)
    }
}
