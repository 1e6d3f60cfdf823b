//! What an operator can see and do; the `Admin` service. Any node answers.

mod balance;
mod doctor;
mod moves;
mod names;
mod outlook;
mod plan;
mod position;
mod service;
mod snapshots;
mod split;
mod steps;

pub use service::AdminService;
