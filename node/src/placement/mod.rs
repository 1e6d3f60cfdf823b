//! Which node runs what.
//!
//! [`place`] is arithmetic over small integers; [`run`] is the leader's loop
//! that feeds it the replicated state and proposes the differences. What is
//! wanted of it:
//!
//! 1. every shard is placed, if any node may take work;
//! 2. what runs on a node that may keep it stays there;
//! 3. what has to move goes to a node in sync, among those to the one with least
//!    work, heaviest first; without one in sync it waits a while, and is then read
//!    again elsewhere;
//! 4. a writer goes to its reader's node, unless it may stay where it is;
//! 5. a spool has as many copies as wanted and as there are nodes; a copy in sync
//!    is given up only when enough others are;
//! 6. the same problem gives the same answer.

mod arithmetic;
pub(crate) mod planner;

pub use arithmetic::{Life, Now, Problem, Site, Wanted, place};
pub use planner::run;
