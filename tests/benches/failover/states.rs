//! What a subscriber's changes come to.

use std::collections::BTreeMap;

use tidegate_node::sources::datagen::{DatagenConfig, state_after};
use tidegate_proto::Frame;
use tidegate_proto::v1::ChangeBatch;
use tidegate_tests::feed::{Judge, Seen};
use tidegate_tests::latest::{State, fold};

use crate::Outcome;

/// Each shard's documents, folded from its changes.
#[derive(Debug, Default)]
pub(crate) struct States(BTreeMap<String, State>);

impl Judge for States {
    fn take(&mut self, shard: &str, _: &Frame, batch: &ChangeBatch) -> Outcome<()> {
        if !self.0.contains_key(shard) {
            self.0.insert(shard.to_owned(), State::new());
        }
        self.0.get_mut(shard).map_or(Ok(()), |state| fold(state, batch))
    }
}

/// Fails unless what came, folded, is what the generator must have made by then.
/// Returns how many changes that were.
pub(crate) fn verify(seen: &Seen<States>, config: &DatagenConfig) -> Outcome<u64> {
    let sequences = seen.sequences();
    let mut changes = 0;
    for number in 0..config.shards {
        let name = format!("datagen-{number}");
        let came = sequences.get(&name).zip(seen.judge.0.get(&name));
        let (last, state) = came.ok_or_else(|| format!("{name}: nothing came"))?;
        if *state != state_after(config, number, *last)? {
            return Err(format!("{name}: another state than after {last} changes").into());
        }
        changes += last;
    }
    Ok(changes)
}
