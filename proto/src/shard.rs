//! What the row of a shard alone tells of it.

use crate::v1::Shard;

impl Shard {
    /// All copies of its spool are lost, and its reader goes on once this sink, beside all
    /// others, has told what it has (under the shard's epoch). False for a sink that has told,
    /// and for a shard of which nothing was captured.
    #[must_use]
    pub fn waits_for(&self, sink: &str) -> bool {
        let told = self.delivered.get(sink).is_some_and(|at| at.epoch == self.epoch);
        let begun = self.copied || self.captured.as_ref().is_some_and(|at| at.sequence > 0);
        begun && self.anew == self.epoch && !told
    }

    /// Its source is not read, since [`Shard::waits_for`] a sink.
    #[must_use]
    pub fn waits_for_sinks(&self) -> bool {
        let goes_on = self.captured.as_ref().is_some_and(|at| at.epoch == self.epoch);
        !goes_on && self.writers.keys().any(|sink| self.waits_for(sink))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::v1::Checkpoint;

    fn under(epoch: u64) -> Checkpoint {
        Checkpoint { epoch, ..Checkpoint::default() }
    }

    fn lost() -> Shard {
        let writers = BTreeMap::from([("lake".to_owned(), 1)]);
        Shard { epoch: 3, anew: 3, copied: true, writers, ..Shard::default() }
    }

    #[test]
    fn a_shard_whose_spool_is_lost_waits_until_each_sink_has_told() {
        let by = |epoch| BTreeMap::from([("lake".to_owned(), under(epoch))]);
        for (shard, waits) in [
            (lost(), true),
            (Shard { delivered: by(2), ..lost() }, true),
            (Shard { delivered: by(3), ..lost() }, false),
            (Shard { anew: 2, ..lost() }, false),
            (Shard { copied: false, ..lost() }, false),
        ] {
            assert_eq!((shard.waits_for("lake"), shard.waits_for_sinks()), (waits, waits));
        }
    }

    #[test]
    fn one_that_goes_on_waits_for_no_sink_that_came_later() {
        let shard = Shard { captured: Some(under(3)), ..lost() };
        assert!(shard.waits_for("lake") && !shard.waits_for_sinks());
    }
}
