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
}

impl Added {
    /// Puts what `later` adds behind what this adds.
    pub fn absorb(&mut self, later: &Self) {
        absorb(&mut self.progress, &later.progress);
        self.records += later.records;
        self.bytes += later.bytes;
        self.committed_ms = self.committed_ms.max(later.committed_ms);
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

    proptest! {
        #[test]
        fn what_went_in_comes_out_once_and_in_order(
            sizes in proptest::collection::vec(0..9u64, 1..50),
            proofs in proptest::collection::vec(0..300u64, 1..50),
        ) {
            let mut window = Window::default();
            let mut last = 0;
            for size in &sizes {
                last += size;
                window.push(Sequence(last), added(*size));
            }
            let (mut records, mut at) = (0, Sequence(0));
            for proof in proofs.into_iter().chain([last]) {
                if let Some((moved, sum)) = window.durable(Sequence(proof)) {
                    prop_assert!(moved >= at && moved.0 <= proof.max(moved.0));
                    at = moved;
                    records += sum.records;
                }
            }
            prop_assert_eq!(records, last);
            prop_assert!(window.is_empty());
        }
    }
}
