//! Batches on their way to being durable: a pure core.

use std::collections::VecDeque;

use tidegate_proto::Sequence;
use tidegate_proto::v1::{Checkpoint, Progress};
use tidegate_raft_store::absorb;

/// What one batch adds to a checkpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Added {
    /// What it adds to the shard's progress.
    pub progress: Progress,
    /// Its changes.
    pub records: u64,
    /// Its bytes.
    pub bytes: u64,
    /// When its newest change was committed at the source; 0 if untold.
    pub committed_ms: i64,
    /// Until when the source keeps what follows; 0 if untold.
    pub kept_until_ms: i64,
}

impl Added {
    /// Puts what `later` adds behind what this adds.
    pub fn absorb(&mut self, later: &Self) {
        absorb(&mut self.progress, &later.progress);
        self.records += later.records;
        self.bytes += later.bytes;
        self.committed_ms = self.committed_ms.max(later.committed_ms);
        if later.kept_until_ms != 0 {
            self.kept_until_ms = later.kept_until_ms;
        }
    }

    /// Its progress is all there is, and takes the place of what was known.
    #[must_use]
    pub fn whole(mut self) -> Self {
        self.progress.whole = true;
        self
    }
}

/// Batches handed on and not yet proved durable, oldest first.
///
/// ```text
///   durable ...... | batch | batch | batch | <- push
///          durable(upto) takes from the left
/// ```
#[derive(Debug, Default)]
pub struct Window(VecDeque<(Sequence, Added)>);

impl Window {
    /// A batch that ends at `last` was handed on. Batches come in order; one
    /// without changes ends where the one before did.
    pub fn push(&mut self, last: Sequence, added: Added) {
        if let Some((before, waiting)) = self.0.back_mut() {
            assert!(*before <= last, "batches are handed on in order");
            if *before == last {
                waiting.absorb(&added);
                return;
            }
        }
        self.0.push_back((last, added));
    }

    /// Everything up to and including `upto` is durable: what the checkpoint
    /// moves by, or `None` if that ends no batch.
    pub fn durable(&mut self, upto: Sequence) -> Option<(Sequence, Added)> {
        let mut moved: Option<(Sequence, Added)> = None;
        while self.0.front().is_some_and(|(last, _)| *last <= upto) {
            let (last, added) = self.0.pop_front()?;
            match &mut moved {
                Some((at, sum)) => {
                    *at = last;
                    sum.absorb(&added);
                }
                None => moved = Some((last, added)),
            }
        }
        moved
    }

    /// How many batches wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A checkpoint as a report: what was added, up to `sequence`.
pub(super) fn checkpoint(sequence: Sequence, added: Added, at_ms: i64) -> Checkpoint {
    Checkpoint {
        sequence: sequence.0,
        progress: Some(added.progress),
        records: added.records,
        bytes: added.bytes,
        committed_ms: added.committed_ms,
        at_ms,
        epoch: 0,
        kept_until_ms: added.kept_until_ms,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn added(records: u64) -> Added {
        Added { records, bytes: records * 10, ..Added::default() }
    }

    #[test]
    fn only_whole_batches_move_a_checkpoint() {
        let mut window = Window::default();
        window.push(Sequence(10), added(10));
        window.push(Sequence(15), added(5));
        assert_eq!(window.durable(Sequence(9)), None);
        assert_eq!(window.durable(Sequence(14)), Some((Sequence(10), added(10))));
        assert_eq!(window.durable(Sequence(15)), Some((Sequence(15), added(5))));
        assert!(window.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A batch of so many changes, or none.
        Push(u64),
        /// A proof of so many sequences, or so many beyond the last.
        Durable(u64),
    }

    proptest! {
        /// METHOD: the model is the list of all batches; a proof covers those
        /// that end at or before it and that no earlier one covered.
        #[test]
        fn every_batch_moves_the_checkpoint_once_and_whole(
            steps in proptest::collection::vec(
                prop_oneof![(0..5u64).prop_map(Step::Push), (0..60u64).prop_map(Step::Durable)],
                0..60,
            ),
        ) {
            let mut window = Window::default();
            let (mut waiting, mut last) = (Vec::new(), 0);
            for (place, step) in steps.into_iter().chain([Step::Durable(u64::MAX)]).enumerate() {
                let upto = match step {
                    Step::Push(changes) => {
                        last += changes;
                        let progress = Progress { stream: place.to_string().into(), ..Default::default() };
                        let added = Added { progress, committed_ms: -1, ..added(changes) };
                        waiting.push((last, added.clone()));
                        window.push(Sequence(last), added);
                        continue;
                    }
                    Step::Durable(upto) => upto,
                };
                let covered = waiting.iter().take_while(|(last, _)| *last <= upto).count();
                let covered: Vec<_> = waiting.drain(..covered).collect();
                let wanted = covered.last().map(|(last, newest)| {
                    let records = covered.iter().map(|(_, added)| added.records).sum::<u64>();
                    let progress = newest.progress.clone();
                    let committed_ms = newest.committed_ms;
                    (Sequence(*last), Added { progress, committed_ms, ..added(records) })
                });
                prop_assert_eq!(window.durable(Sequence(upto)), wanted);
                prop_assert_eq!(window.is_empty(), waiting.is_empty());
            }
        }
    }
}
