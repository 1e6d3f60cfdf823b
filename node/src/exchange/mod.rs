//! Spooled batches, brought to where they are needed.
//!
//! A [`Fetch`] gives a shard's stable batches in order, from the nearest spool
//! that is in sync: in the same process if this node keeps one, over gRPC if not,
//! the same bytes either way. It goes over to another when the cluster's decisions
//! make that one the nearest, also while it waits. A [`CopyFetch`] keeps a copy: it
//! gets what is not stable yet as well, from the owner. The receiver's credit bounds
//! what is in flight.

pub(crate) mod copy;
pub(crate) mod fetch;
pub(crate) mod local;
pub(crate) mod nearest;
mod pack;
mod pages;
mod remote;
mod service;

pub use copy::CopyFetch;
pub use fetch::{Exchange, Fetch, Fetched};
pub use service::ExchangeService;
