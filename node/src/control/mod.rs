//! What the cluster agreed on, and who is alive.
//!
//! [`Control`] is the node's one door to consensus: it proposes commands (by
//! way of the leader), reads the replicated state, and holds this node's
//! [`Lease`]. No other module knows openraft.

mod boot;
mod broken;
pub(crate) mod contacts;
pub(crate) mod elections;
mod gather;
pub(crate) mod handle;
mod identity;
mod join;
mod leader;
pub(crate) mod lease;
pub(crate) mod liveness;
pub(crate) mod members;
mod network;
mod peers;
mod probe;
#[cfg(test)]
pub(crate) mod sample;
mod service;
mod until;

pub use boot::Boot;
pub(crate) use handle::done_or_there;
pub use handle::{Control, Leadership};
pub use identity::Identity;
pub use lease::Lease;
pub use peers::Peers;
pub(crate) use peers::explain;
pub use service::RaftService;
pub(crate) use service::status;
