//! What was so before a fault.

use std::collections::BTreeMap;

use crate::Outcome;

/// How the names of the bank's shards begin.
pub(super) const SLOTS: &str = "slots";

/// What was so before a fault, to tell what it changed.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// By shard, its epoch and the number of the node that reads it.
    pub shards: BTreeMap<String, (u64, Option<usize>)>,
    /// By shard and sink, or an empty name for the source: the last epoch that began
    /// because it was out of reach.
    pub rescued: BTreeMap<(String, String), u64>,
    /// Raft's term.
    pub term: u64,
}

impl Before {
    /// How often a node has taken over since what another did not see: the source, or
    /// a sink.
    pub fn rescued(&self, now: &Self, source: bool) -> usize {
        let of = now.rescued.iter().filter(|((_, sink), _)| sink.is_empty() == source);
        of.filter(|(what, epoch)| self.rescued.get(*what) != Some(*epoch)).count()
    }

    /// How many shards that such a node read have another epoch now.
    ///
    /// # Errors
    ///
    /// If one of them has not.
    pub fn moved(&self, now: &Self, whose: impl Fn(usize) -> bool) -> Outcome<usize> {
        let theirs = self.shards.iter().filter(|(_, (_, reader))| reader.is_some_and(&whose));
        let mut moved = 0;
        for (name, (epoch, reader)) in theirs {
            let after = now.shards.get(name).map_or(0, |(epoch, _)| *epoch);
            if after <= *epoch {
                return Err(
                    format!("{name} is at epoch {epoch} still, as read by {reader:?}").into()
                );
            }
            moved += 1;
        }
        Ok(moved)
    }
}
