//! The document store that comes with Tidegate: the source of the demo and of
//! tests, and good for a few million documents on one machine.
//!
//! [`Store`] keeps documents and the log of their changes in one RocksDB;
//! [`DocumentsService`] is its gRPC face. Every change has a revision: they are
//! dense over the whole store, start at 1, and can be seen only in their order.
//! A document belongs to one of [`SLOTS`] slots by the hash of its key, for
//! ever, so that readers can share the store between them.
//!
//! [`Embedded`] is the source that reads it, over gRPC wherever the store runs:
//! a shard is a range of slots, a position the store's revision.

mod changes;
mod chunk;
mod client;
mod commit;
mod config;
mod error;
mod keys;
mod rows;
mod scan;
mod service;
mod store;
mod stream;
mod writer;

pub use client::Embedded;
pub use config::EmbeddedConfig;
pub use error::StoreError;
pub use keys::{Revision, SLOTS, Slots};
pub use scan::ScanQuery;
pub use service::DocumentsService;
pub use store::{Store, StoreOptions, Write};

#[cfg(test)]
mod tests;
