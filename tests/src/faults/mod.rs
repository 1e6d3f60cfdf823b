//! What goes wrong, on purpose: drawn from a seed, done to a cluster under load,
//! taken back, and shown to have happened.
//!
//! Each fault is a small type with three steps: `inject`, `heal` and `proof`. A run
//! whose fault cannot be shown to have happened has failed as much as one that
//! loses a change.
//!
//! Kinds are numbered as in the matrix they came from; F34 is ours. Of its first 33 these are not
//! here: F21, damage on a majority, after which an operator has to act, is
//! `end_to_end/majority.rs`; F27 to F29 are faults of sources, each in its connector's own tests.
//! F26, versions that differ, comes only to who brings the binaries of another commit.

mod arena;
mod before;
mod clock;
mod disk;
mod doubt;
mod kind;
mod late;
mod member;
mod network;
mod pest;
mod process;
mod report;
mod run;
mod sink;
mod torn;
mod verdict;
mod versions;
mod zombie;

use std::time::Duration;

use tonic::async_trait;

use crate::Outcome;
pub use arena::{Arena, Scene};
pub use before::Before;
pub use kind::{Goal, Kind};
pub use report::{Run, Runs};
pub use run::{Done, Plan, Round, Violation, run};
pub use verdict::Verdict;

/// One fault, with everything about it drawn but whom it meets.
#[async_trait]
pub trait Fault: Send {
    /// How long it lasts before it is healed.
    fn lasts(&self) -> Duration;

    /// Makes it happen. Returns what and to whom, for the history.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String>;

    /// Takes it back.
    ///
    /// # Errors
    ///
    /// If that cannot be done.
    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()>;

    /// What shows that it happened; asked when all is well again.
    ///
    /// # Errors
    ///
    /// If nothing shows it, or it did what this fault must not do.
    async fn proof(&self, arena: &Arena) -> Outcome<String>;

    /// All copies of a spool may be lost by it: what follows may be read again.
    fn may_rewind(&self) -> bool {
        false
    }
}
