//! An export's changes, to whoever subscribes, from any node.
//!
//! One task per shard fetches batches (from this node's spool or another's),
//! filters them, and hands them to the call's one response stream as long as
//! there is credit. A batch no filter touches is sent as it is stored.

mod filter;
mod json;
mod lane;
mod service;
mod start;

pub use service::FeedService;
