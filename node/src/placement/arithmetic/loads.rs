//! How much each node has to do.

use crate::placement::arithmetic::{Problem, site, weight};

/// Per node, the work it has and the copies it keeps.
pub(super) struct Loads {
    pub(super) work: Vec<u64>,
    pub(super) copies: Vec<u64>,
}

impl Loads {
    /// What stays where it is.
    pub(super) fn new(problem: &Problem) -> Self {
        let nodes = problem.nodes.len();
        let mut loads = Self { work: vec![0; nodes], copies: vec![0; nodes] };
        for now in &problem.shards {
            if let Some(node) = now.reader.filter(|node| site(&problem.nodes, *node).may()) {
                loads.work[node] += weight(now);
            }
            for node in now.copies.iter().filter(|node| **node < nodes) {
                loads.copies[*node] += 1;
            }
        }
        loads
    }
}
