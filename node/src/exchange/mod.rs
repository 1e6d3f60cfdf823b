//! Spooled batches, brought to where they are needed.
//!
//! A [`Fetch`] gives a shard's stable batches in order, from its owner's spool:
//! in the same process if the owner is this node, over gRPC if not, the same
//! bytes either way. The receiver's credit bounds what is in flight.

mod fetch;
mod local;
mod remote;
mod service;

pub use fetch::{Exchange, Fetch, Fetched};
pub use service::ExchangeService;
