//! The document store that comes with Tidegate, and the source that reads it.
//!
//! The store (`store.rs`) runs in a node or alone; the source reaches it over
//! gRPC either way, so it can outlive any node. Its shards are hash ranges of
//! the store's slots; a position is the store's revision, one number for all
//! shards.

mod client;
mod config;
mod keys;
mod scan;
mod service;
mod store;
mod stream;
mod tail;
mod writes;

pub use client::Embedded;
pub use config::EmbeddedConfig;
pub use service::DocumentsService;
pub use store::{Store, StoreOptions};
