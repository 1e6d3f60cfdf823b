//! A node of the change-export cluster.

pub mod clock;
pub mod config;
pub mod error;
pub mod retry;
pub mod sinks;
pub mod sources;
