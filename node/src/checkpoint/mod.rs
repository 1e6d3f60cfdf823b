//! How far each shard is safe, told to the cluster once per tick.
//!
//! Readers report what they captured, writers what a sink proved durable. All
//! reports of a node go out as one log entry per tick, so the number of shards
//! does not change the number of fsyncs.

mod headroom;
pub(crate) mod pending;
pub(crate) mod ticker;
mod window;

pub use headroom::{HEADROOM_MIN, headroom};
pub use ticker::{Checkpointer, Reporter};
pub use window::{Added, Window};
