//! What was captured and must not be forgotten: one log of batches per shard.
//!
//! The owner appends; one fsync covers all shards that appended since the last
//! ([`Spool::keep_synced`]). A batch is *stable*, and visible to writers, copies and
//! feeds, once the cluster has recorded that it was captured; until then a new
//! owner may number it anew. Retention takes batches away from the front when
//! nobody needs them and they are old or many.

mod keys;
mod log;
mod retention;
mod store;
#[cfg(test)]
mod tests;

pub use log::{ShardLog, Tail};
pub use retention::{Keep, run as run_retention};
pub use store::{Spool, SpoolOptions};
