//! What the operator wrote: plain data, checked once, defaults in the doc.

mod export;
mod limits;
mod node;
mod reference;
mod secret;
mod table;

pub use export::{ExportSpec, OnGap, RetentionConfig, SinkSpec, SnapshotConfig, SnapshotMode};
pub use limits::Limits;
pub use node::{ClusterConfig, NodeConfig, NodeFlags};
pub use reference::resolve;
pub use secret::Secret;
pub use table::parse;
