//! Which node runs what.
//!
//! [`place`] is arithmetic over small integers; [`run`] is the leader's loop
//! that feeds it the replicated state and proposes the differences. What is
//! wanted of it:
//!
//! 1. every shard is placed, if any node may take work;
//! 2. what runs on a node that may keep it stays there;
//! 3. what has to move goes to a node in sync, among those to one near its source,
//!    among those to the one with least work by what its shards capture, heaviest
//!    first; without one in sync it waits a while, and is then read again elsewhere;
//! 4. a writer goes near its sink, or to its reader's node, unless it may stay;
//! 5. what runs away from its region goes home once a node there has settled and,
//!    for a reader, its copy is in sync: a node that flaps draws nothing;
//! 6. a spool has as many copies as wanted and as there are nodes, one in each region
//!    with a writer; a copy in sync is given up only when enough others are;
//! 7. a move ends: its shard goes there, or it is given up and says why;
//! 8. the same problem gives the same answer.

mod arithmetic;
mod moves;
pub(crate) mod planner;
pub(crate) mod rates;

pub use arithmetic::{Life, Now, Problem, Shift, Site, Wanted, Writer, balance, place};
pub use planner::{Uneven, run};
