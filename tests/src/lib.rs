//! What tests of more than one process share: the real servers they start, the
//! world they run in, what is done to it, and who judges what comes out.

pub mod cluster;
pub mod documents;
pub mod dynamodb_local;
pub mod faketime;
pub mod faults;
pub mod feed;
pub mod figures;
pub mod lake;
pub mod latest;
pub mod oracle;
pub mod place;
pub mod ports;
pub mod postgres;
pub mod redis_data;
pub mod redis_server;
pub mod world;

/// A result, or why there is none.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
