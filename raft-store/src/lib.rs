//! What the cluster agreed on, and how one node keeps it.
//!
//! A command meets these stages in this order:
//!
//! 1. [`Proposal`] and [`Answer`] carry it through Raft (`types`).
//! 2. [`LogStore`] keeps the log and the vote (`log`), synced before anybody
//!    hears of it.
//! 3. [`StateMachine`] applies what is committed (`machine`): it folds it into
//!    [`State`] (`state`), which alone knows the rules, and writes the rows that
//!    changed.
//! 4. [`StateHandle`] lets the rest of the node read and wait (`handle`).
//! 5. Snapshots spare a new member the old log (`snapshot`).
//!
//! Below all of them lie one database (`db`), the list of its keys (`keys`) and
//! the form of its values (`codec`). Nothing here has a clock.

mod codec; // values on disk
mod db; // one RocksDB
mod error; // what can go wrong
mod handle; // the state, shared
mod keys; // every key on disk
mod log; // log, vote, committed
mod machine; // committed entries into state
mod progress; // how progress adds up
mod snapshot; // the state in a file
mod state; // the fold
mod store; // opens it all
mod types; // what Raft is made of here

pub use db::Stop;
pub use error::{StoreError, StoreErrorKind};
pub use handle::StateHandle;
pub use log::LogStore;
pub use machine::{SnapshotBuilder, StateMachine};
pub use progress::absorb;
pub use state::{LEVEL, State, gathers};
pub use store::RaftStore;
pub use types::{Answer, COMMAND_VERSION, Peer, Proposal, TypeConfig};
