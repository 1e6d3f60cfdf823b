//! An owner's batches, on their way into a copy.

use tidegate_proto::v1::{CopyOpen, CopyStart, EpochBegin, FetchOpen, IndexOpen, ShardId};
use tidegate_proto::{Epoch, Sequence};

use crate::error::{Error, ErrorKind, Result};
use crate::exchange::fetch::{Exchange, Fetched};
use crate::exchange::remote::RemoteFetch;
use crate::spool::{Begins, Head, ShardLog};

/// A copy's fetch: also what is not stable yet.
#[derive(Debug)]
pub struct CopyFetch {
    fetch: RemoteFetch,
    start: CopyStart,
    asked: Sequence,
}

impl CopyFetch {
    /// What has to be done to the copy before it takes the first batch.
    #[must_use]
    pub fn start(&self) -> &CopyStart {
        &self.start
    }

    /// Where the log ended of which `start` speaks.
    #[must_use]
    pub fn asked(&self) -> Sequence {
        self.asked
    }

    /// What came since, which may be no batch at all, only a higher stable mark.
    /// Dropping the call loses nothing.
    pub async fn next(&mut self) -> Result<Fetched> {
        self.fetch.receive().await
    }

    /// Everything up to and including `upto` is in the copy.
    pub fn acknowledge(&mut self, upto: Sequence) {
        self.fetch.confirm(upto);
    }

    /// Tells the owner that no rows of the key index are missing any more.
    pub fn indexed(&mut self) {
        self.fetch.say_indexed();
    }
}

impl Exchange {
    /// Fetches for this node's copy of `shard` from the owner of `epoch` at
    /// `address`. `log` is what this node has of it, and `index` of its key index, if it
    /// keeps the last documents in one.
    pub async fn fetch_copy(
        &self,
        (shard, epoch): (ShardId, Epoch),
        address: &str,
        log: Option<&ShardLog>,
        index: Option<IndexOpen>,
    ) -> Result<CopyFetch> {
        let ours = log.map(|log| Extent::of(log.head()));
        let asked = ours.as_ref().map_or(Sequence(0), |it| it.last);
        let begins = ours.iter().flat_map(|it| it.begins.iter());
        let begins = begins.map(|(epoch, at)| EpochBegin { epoch: epoch.0, first: at.0 });
        let control = self.control();
        let copy = CopyOpen {
            node: control.node().0,
            run: control.run(),
            first: ours.as_ref().map_or(1, |it| it.first.0),
            begins: begins.collect(),
            made: ours.as_ref().map_or(0, |it| it.made.0),
            index,
        };
        let open = FetchOpen {
            cluster_id: control.identity().cluster_id.clone(),
            shard: Some(shard),
            epoch: epoch.0,
            after: asked.0,
            credit_bytes: self.credit_bytes(),
            copy: Some(copy),
            ..FetchOpen::default()
        };
        let mut fetch = RemoteFetch::open(control, address, open).await?;
        let start = fetch.start().await?;
        Ok(CopyFetch { fetch, start, asked })
    }
}

/// What there is of a log.
#[derive(Debug)]
pub(crate) struct Extent {
    /// The oldest sequence still there.
    pub(crate) first: Sequence,
    /// The last sequence there is.
    pub(crate) last: Sequence,
    /// Where each epoch began.
    pub(crate) begins: Begins,
    /// The epoch under which it was begun.
    pub(crate) made: Epoch,
}

impl Extent {
    /// Of a log that stands at `head`.
    pub(crate) fn of(head: Head) -> Self {
        Self { first: head.first, last: head.last(), begins: head.begins, made: head.made }
    }
}

/// What a copy that stands at `open` has to do to become one of the owner's log.
pub(crate) fn meet(ours: &Extent, open: &FetchOpen, copy: &CopyOpen) -> Result<CopyStart> {
    let begins = copy.begins.iter().map(|it| (Epoch(it.epoch), Sequence(it.first))).collect();
    let theirs = Begins::new(begins).ok_or_else(|| {
        Error::new(ErrorKind::Config, "the epochs of a copy must rise, and so must their begins")
    })?;
    let (first, last) = (ours.first, ours.last);
    let from = first.max(Sequence(copy.first));
    let upto = last.min(Sequence(open.after));
    let made = ours.made.0;
    let anew = CopyStart { keep: first.0 - 1, anew: true, made };
    // One from before all copies were lost may end where this one begins, and would
    // not count as one of it.
    let before = Epoch(copy.made) < ours.made;
    if before || upto.next() < first || upto.next() < Sequence(copy.first) {
        return Ok(anew);
    }
    // What both had there is retained no more, and was not the same.
    let parted = theirs.at(upto).zip(ours.begins.at(upto)).is_some_and(|(a, b)| a != b);
    if upto < from && parted {
        return Ok(anew);
    }
    let keep = ours.begins.common(&theirs, from, upto);
    // Nothing of its own is left: what lies before may be another log's.
    if keep < from && open.after >= from.0 {
        return Ok(anew);
    }
    Ok(CopyStart { keep: keep.0, anew: false, made })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(made: u64, after: u64, begins: &[(u64, u64)]) -> CopyStart {
        let epochs = [(Epoch(2), Sequence(5)), (Epoch(3), Sequence(20))];
        let begins_here = Begins::new(epochs.to_vec()).unwrap();
        let (first, last) = (Sequence(5), Sequence(30));
        let ours = Extent { first, last, begins: begins_here, made: Epoch(2) };
        let begins =
            begins.iter().map(|(epoch, first)| EpochBegin { epoch: *epoch, first: *first });
        let copy = CopyOpen { first: 1, begins: begins.collect(), made, ..CopyOpen::default() };
        meet(&ours, &FetchOpen { after, ..FetchOpen::default() }, &copy).unwrap()
    }

    #[test]
    fn a_copy_goes_on_at_the_last_change_both_have() {
        assert_eq!(start(2, 25, &[(2, 5), (3, 20)]), CopyStart { keep: 25, anew: false, made: 2 });
        assert_eq!(start(2, 25, &[(2, 5)]), CopyStart { keep: 19, anew: false, made: 2 });
    }

    #[test]
    fn a_copy_of_another_past_begins_anew_though_that_past_is_retained_no_more() {
        let mut begins =
            Begins::new(vec![(Epoch(1), Sequence(1)), (Epoch(2), Sequence(3))]).unwrap();
        begins.note(Epoch(3), Sequence(5));
        begins.cut_front(Sequence(5));
        let (first, last) = (Sequence(5), Sequence(30));
        let ours = Extent { first, last, begins, made: Epoch(1) };
        let open = FetchOpen { after: 4, ..FetchOpen::default() };
        let with = |epoch| {
            let begins = vec![EpochBegin { epoch, first: 1 }];
            meet(&ours, &open, &CopyOpen { first: 1, begins, made: 1, ..CopyOpen::default() })
        };
        let keep = CopyStart { keep: 4, anew: false, made: 1 };
        assert_eq!(with(2).unwrap(), keep);
        assert_eq!(with(1).unwrap(), CopyStart { anew: true, ..keep });
    }

    #[test]
    fn a_copy_from_before_all_copies_were_lost_begins_anew() {
        assert_eq!(start(1, 4, &[(1, 1)]), CopyStart { keep: 4, anew: true, made: 2 });
        assert!(!start(2, 4, &[]).anew);
    }
}
