//! What an operator can see and do; the `Admin` service. Any node answers.

mod moves;
mod plan;
mod service;

pub use service::AdminService;
