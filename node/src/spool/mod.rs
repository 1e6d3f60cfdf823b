//! What was captured and must not be forgotten: one log of batches per shard.
//!
//! The owner appends, and other nodes keep copies; one fsync covers all shards that
//! appended since the last ([`Spool::keep_synced`]). A batch is *stable*, and visible
//! to writers and feeds, once every copy in sync has it; until then a new owner may
//! number it anew. Retention takes batches away from the front when
//! nobody needs them and they are old or many.

mod begins;
mod copies;
mod keys;
mod log;
pub(crate) mod retention;
mod store;
#[cfg(test)]
mod tests;

pub use begins::Begins;
pub use copies::Copy;
pub(crate) use log::Head;
pub use log::{AHEAD_MAX, Gathered, Gone, Keeps, Kept, MarkWatch, ShardLog, Tail};
#[cfg(test)]
pub(crate) use log::{Piece, Refusal, Standing};
pub use retention::{Keep, not_needed, run as run_retention};
pub use store::{Spool, SpoolOptions};
pub use tidegate_raft_store::Stop;
