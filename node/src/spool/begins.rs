//! Where each epoch began in a log: a pure core.

use tidegate_proto::{Epoch, Sequence};

/// Where each owner's batches began, oldest first.
///
/// An epoch has one owner, so batches of two logs with the same epoch and the
/// same sequence are the same; where the epochs differ, the logs have parted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begins(Vec<(Epoch, Sequence)>);

impl Begins {
    /// As another node told them; out of order they are refused.
    pub fn new(begins: Vec<(Epoch, Sequence)>) -> Option<Self> {
        let rising = begins.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 < two[1].1);
        rising.then_some(Self(begins))
    }

    /// A batch of `epoch` that begins at `first` was appended.
    pub(crate) fn note(&mut self, epoch: Epoch, first: Sequence) {
        if self.0.last().is_none_or(|(last, _)| *last < epoch) {
            self.0.push((epoch, first));
        }
    }

    /// Nothing below `first` is there any more, but for the epoch of what came just before.
    pub(crate) fn cut_front(&mut self, first: Sequence) {
        let behind = self.0.partition_point(|(_, begin)| *begin < first);
        self.0.drain(..behind.saturating_sub(1));
    }

    /// Nothing above `last` is there any more.
    pub(crate) fn cut_back(&mut self, last: Sequence) {
        self.0.retain(|(_, begin)| *begin <= last);
    }

    /// The epochs and their first sequences, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Epoch, Sequence)> {
        self.0.iter().copied()
    }

    /// The epoch of a change, as far as it is known.
    pub(crate) fn at(&self, sequence: Sequence) -> Option<Epoch> {
        let behind = self.0.partition_point(|(_, begin)| *begin <= sequence);
        self.0.get(behind.checked_sub(1)?).map(|(epoch, _)| *epoch)
    }

    /// The last sequence of `from..=upto` up to which both logs are the same;
    /// the one before `from` if they differ there already.
    pub fn common(&self, other: &Self, from: Sequence, upto: Sequence) -> Sequence {
        let mut steps: Vec<Sequence> = self.iter().chain(other.iter()).map(|(_, at)| at).collect();
        steps.retain(|at| (from..=upto).contains(at));
        steps.push(from);
        steps.sort_unstable();
        for at in steps {
            let ours = self.at(at);
            if ours.is_none() || ours != other.at(at) {
                return Sequence(at.0 - 1);
            }
        }
        upto
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A log, change by change: the epoch of each.
    fn begins(epochs: &[u64]) -> Begins {
        let mut begins = Begins::default();
        for (at, epoch) in epochs.iter().enumerate() {
            begins.note(Epoch(*epoch), Sequence(at as u64 + 1));
        }
        begins
    }

    fn epochs() -> impl Strategy<Value = Vec<u64>> {
        proptest::collection::vec(0..3u64, 1..30).prop_map(|steps| {
            steps
                .iter()
                .scan(1, |epoch, step| {
                    *epoch += step / 2;
                    Some(*epoch)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn logs_are_the_same_up_to_their_first_difference(
            a in epochs(), b in epochs(), skip in 0..8u64,
        ) {
            let from = 1 + skip.min(a.len().min(b.len()) as u64 - 1);
            let upto = a.len().min(b.len()) as u64;
            let mut ours = begins(&a);
            ours.cut_front(Sequence(from));
            let pairs = (1u64..).zip(a.iter().zip(&b)).skip_while(|(at, _)| *at < from);
            let same = pairs.take_while(|(_, (a, b))| a == b).last();
            let expected = same.map_or(from - 1, |(at, _)| at);
            let found = ours.common(&begins(&b), Sequence(from), Sequence(upto));
            prop_assert_eq!(found, Sequence(expected));
        }

        #[test]
        fn what_was_cut_back_grows_again_as_if_nothing_had_been(a in epochs(), keep in 1..29usize) {
            let keep = keep.min(a.len());
            let mut cut = begins(&a);
            cut.cut_back(Sequence(keep as u64));
            prop_assert_eq!(cut, begins(&a[..keep]));
        }
    }
}
