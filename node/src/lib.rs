//! A node of the change-export cluster: the crate behind `tidegated`.
#![doc = include_str!("../ARCHITECTURE.md")]

pub mod admin;
#[cfg(test)]
mod asked;
pub mod checkpoint;
pub mod clock;
pub mod config;
pub mod control;
pub mod dev;
pub mod documents;
pub mod error;
pub mod exchange;
#[cfg(test)]
#[path = "../../tests/src/faketime.rs"]
#[allow(dead_code, unreachable_pub, reason = "a file of the tests' crate too")]
mod faketime;
pub mod feed;
pub mod node;
pub mod placement;
#[cfg(test)]
#[path = "../../tests/src/ports.rs"]
#[allow(dead_code, unreachable_pub, reason = "a file of the tests' crate too")]
mod ports;
pub mod retry;
pub mod server;
pub mod shard;
#[cfg(test)]
mod simulation;
pub mod sinks;
pub mod sources;
pub mod spool;
pub mod task;
pub mod telemetry;
pub mod tls;
pub mod watchdog;
