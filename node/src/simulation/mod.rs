//! A whole cluster in one thread, under faults drawn from a seed.
//!
//! ```text
//!   faults ─► world ── queue of events, one clock, one random number generator
//!               │
//!        ┌──────┼────────────┐
//!      nodes  network       raft          what decides is the product's own:
//!        │   (delay, loss,  (a list of    placement, liveness, leases, the fold,
//!        │    cuts)          commands)    in-sync rounds, log standings, restarts
//!   reader, copy, writer ─► sinks         what carries it out is a model
//!        │
//!      checks ─ after everything that happens
//! ```
//!
//! No task, thread, disk or clock takes part, so a seed replays to the letter:
//! `SEED=n make simulate` prints what happened. A broken rule ([`Broken`]) shows
//! that the checks see it.

mod capture;
mod check_log;
mod check_sink;
mod checkpoints;
mod checks;
mod copy;
mod election;
mod event;
mod faults;
mod members;
mod network;
mod node;
mod operator;
mod placing;
mod process;
mod raft;
mod reader;
mod serve;
mod settle;
mod sink;
mod source;
mod spool;
mod streams;
mod tasks;
mod tests;
mod trace;
mod world;
mod writer;

use world::World;

/// A rule that is left out, to see that it is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Sinks take what an old owner brings.
    SinkIgnoresEpochs,
    /// Copies go on taking what an old owner sends, and say so.
    CopyIgnoresEpochs,
    /// The leader does not wait until a silent node's lease has run out, and
    /// sinks do not look at epochs.
    StartBeforeStop,
    /// Any node that is up may be a shard's next owner.
    OwnerNotInSync,
    /// A lease lasts as long as the leader's patience.
    LongLease,
    /// Nobody says that a machine lost its power: a copy that is left alone goes on at
    /// the end of what it has, although others had made more of it visible.
    TornTails,
}

/// How a run went.
#[derive(Debug)]
pub(crate) struct Report {
    /// Equal for equal runs.
    pub(crate) hash: u64,
    /// The first broken promise.
    pub(crate) violation: Option<String>,
    /// What happened, if asked for.
    pub(crate) lines: Vec<String>,
    pub(crate) faults: u64,
    pub(crate) assigned: u64,
    pub(crate) simulated_us: u64,
    pub(crate) longest_ownerless_us: u64,
}

/// Runs one seed.
pub(crate) fn run(seed: u64, broken: Option<Broken>, text: bool) -> Report {
    let mut world = World::new(seed, broken, text);
    world.run();
    let (faults, assigned) = (world.checks.faults, world.checks.assigned);
    let (hash, lines) = world.trace.end();
    Report {
        hash,
        violation: world.violation,
        lines,
        faults,
        assigned,
        simulated_us: world.now,
        longest_ownerless_us: world.watch.longest_ownerless,
    }
}
