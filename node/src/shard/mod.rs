//! The work: reading a shard, merging snapshot and stream, writing to sinks.
//!
//! The supervisor compares what the cluster wants of this node with what runs
//! here, and starts and stops one actor per role: a reader per shard, a writer
//! per shard and sink, a copy per shard that others read. Actors decide; the tasks they own move the bytes:
//!
//! ```text
//!   source stream ─┐
//!                  ├─ merge ─ spool ~~ exchange ~~ writer ─ sink
//!   chunk tasks ───┘            │                     │
//!                               └──── checkpoints ────┘
//! ```

mod actor;
mod alone;
mod chunks;
pub(crate) mod copy;
mod discover;
mod exports;
mod give_way;
mod held;
pub(crate) mod in_sync;
mod index;
pub(crate) mod losses;
mod mark;
pub(crate) mod merge;
mod pace;
mod position;
mod reach;
mod reader;
pub(crate) mod restart;
pub(crate) mod role;
mod room;
mod rounds;
mod sink_watch;
mod supervisor;
mod sweep;
pub(crate) mod writer;

pub use alone::Alone;
pub use discover::run as run_discovery;
pub use exports::Exports;
pub use reach::run as run_reach;
pub use supervisor::{Supervisor, SupervisorHandle};

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::checkpoint::Checkpointer;
use crate::clock::Hybrid;
use crate::config::Limits;
use crate::control::Control;
use crate::exchange::Exchange;
use crate::spool::Spool;

/// What every shard's work needs of the node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Means {
    /// Consensus and state.
    pub control: Control,
    /// This node's logs.
    pub spool: Arc<Spool>,
    /// The other nodes' logs.
    pub exchange: Exchange,
    /// Where progress is reported.
    pub checkpointer: Arc<Checkpointer>,
    /// The exports' parsed files and open sources.
    pub exports: Arc<Exports>,
    /// Keeps tasks of one log apart.
    pub alone: Arc<Alone>,
    /// Stamps changes.
    pub clock: Arc<Hybrid>,
    /// Bounds.
    pub limits: Arc<Limits>,
    /// Where the work runs, apart from what keeps the node in the cluster.
    pub work: Handle,
}
