//! Where a log stands and what may be done to it: a pure core.

use std::collections::BTreeSet;

use tidegate_proto::v1::Progress;
use tidegate_proto::{Epoch, NodeId, Sequence};
use tidegate_raft_store::absorb;

use crate::spool::begins::Begins;
use crate::spool::copies::Copies;

/// How far beyond the captured checkpoint changes may be seen that other copies
/// have: some seconds of a fast source, as an election takes. When all copies
/// are lost, so many sequences are left out, so that none is used again.
pub const AHEAD_MAX: u64 = 1 << 20;

/// What is stored about a log besides its batches.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    /// The owner's epoch at the last append.
    pub(crate) epoch: Epoch,
    /// The epoch under which the log was begun.
    pub(crate) made: Epoch,
    /// The oldest sequence still there; `next` if there is none.
    pub(crate) first: Sequence,
    /// What the next change gets.
    pub(crate) next: Sequence,
    /// How far the shard is in its source after the last append, by its owner.
    pub(crate) progress: Progress,
    pub(crate) begins: Begins,
}

impl Head {
    /// A log of no batches, begun under `epoch`; the next change gets `first`.
    pub(crate) fn begun(epoch: Epoch, first: Sequence, progress: Progress) -> Self {
        Self { epoch, made: epoch, first, next: first, progress, begins: Begins::default() }
    }

    /// The last sequence there is.
    pub(crate) fn last(&self) -> Sequence {
        Sequence(self.next.0 - 1)
    }
}

/// A batch, as far as a log cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The epoch of the owner that captured it.
    pub(crate) epoch: Epoch,
    pub(crate) first: Sequence,
    /// May be 0: it only moves progress.
    pub(crate) count: u32,
}

/// Why a log did not take what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another owner is known here by now.
    Fenced,
    /// The batch does not follow the last.
    Hole,
    /// Everything up to here was seen, and would have to go.
    Seen(Sequence),
}

/// How far a log is; see [`super::ShardLog`] for the drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) appended: Sequence,
    pub(crate) synced: Sequence,
    pub(crate) safe: Sequence,
    pub(crate) stable: Sequence,
}

/// A log without its batches: whose it is, and how far.
///
/// What changes the head comes in two steps: the first gives the new head or a
/// refusal, the second takes it, once it is written.
#[derive(Debug)]
pub(crate) struct Standing {
    head: Head,
    marks: Marks,
    /// This node captures the shard; if not, it keeps a copy.
    owned: bool,
    closed: bool,
    /// How often the end was cut off.
    cuts: u64,
    copies: Copies,
    /// The last sequence the cluster recorded as captured.
    recorded: Sequence,
    /// What there was when this node took the log over: the owner before may have shown
    /// all of it.
    inherited: Sequence,
}

/// Whose turn it is: see [`Standing::turn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn((Epoch, bool, bool, u64));

impl Standing {
    /// As it is found on disk: what lies there was synced, or is what survived.
    pub(crate) fn new(head: Head) -> Self {
        let (last, before) = (head.last(), Sequence(head.first.0 - 1));
        let marks = Marks { appended: last, synced: last, safe: before, stable: before };
        let (recorded, inherited) = (Sequence(0), Sequence(0));
        let copies = Copies::default();
        Self { head, marks, owned: false, closed: false, cuts: 0, copies, recorded, inherited }
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    pub(crate) fn marks(&self) -> Marks {
        self.marks
    }

    pub(crate) fn copies(&self) -> &Copies {
        &self.copies
    }

    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// This node captures the shard under `epoch`.
    pub(crate) fn owned_under(&self, epoch: Epoch) -> bool {
        self.owned && !self.closed && self.head.epoch == epoch
    }

    /// This node owns the shard, or did when it was last told.
    pub(crate) fn owned(&self) -> bool {
        self.owned
    }

    /// Differs once another owns the log, its end was cut off, or it was closed.
    pub(crate) fn turn(&self) -> Turn {
        Turn((self.head.epoch, self.owned, self.closed, self.cuts))
    }

    /// It is a copy of what the owner of `epoch` has.
    pub(crate) fn follows(&self, epoch: Epoch) -> bool {
        !self.owned && !self.closed && self.head.epoch == epoch
    }

    /// The head behind a batch that the owner has just encoded.
    pub(crate) fn with(&self, piece: Piece, delta: &Progress) -> Result<Head, Refusal> {
        if !self.owned_under(piece.epoch) {
            return Err(Refusal::Fenced);
        }
        if piece.first != self.head.next {
            return Err(Refusal::Hole);
        }
        let mut head = self.behind(piece);
        absorb(&mut head.progress, delta);
        Ok(head)
    }

    /// The head behind a batch that the owner of `under` sent to this copy.
    pub(crate) fn with_copied(&self, piece: Piece, under: Epoch) -> Result<Head, Refusal> {
        if !self.follows(under) {
            return Err(Refusal::Fenced);
        }
        if piece.first != self.head.next || piece.count == 0 {
            return Err(Refusal::Hole);
        }
        Ok(self.behind(piece))
    }

    fn behind(&self, piece: Piece) -> Head {
        let mut head = self.head.clone();
        head.next = piece.first.plus(u64::from(piece.count));
        if piece.count > 0 {
            head.begins.note(piece.epoch, piece.first);
        }
        head
    }

    /// A batch was written with this head.
    pub(crate) fn appended(&mut self, head: Head) {
        self.marks.appended = head.last();
        self.head = head;
        self.settle();
    }

    /// The head for the owner of `epoch`, who stands at `progress`.
    pub(crate) fn taken_over(
        &self,
        epoch: Epoch,
        (next, progress): (Sequence, Progress),
    ) -> Result<Head, Refusal> {
        if epoch < self.head.epoch {
            return Err(Refusal::Fenced);
        }
        if next != self.head.next {
            return Err(Refusal::Hole);
        }
        Ok(Head { epoch, progress, ..self.head.clone() })
    }

    /// This node is the owner as `head` says; beside it, `others` are recorded
    /// as in sync.
    pub(crate) fn take_over(&mut self, head: Head, others: BTreeSet<NodeId>) {
        // A reader that starts again under its epoch keeps the copies' connections.
        if !self.owned || self.head.epoch != head.epoch {
            self.copies.forget();
        }
        self.head = head;
        self.owned = true;
        // As a copy it took the owner's word for it.
        self.recorded = Sequence(0);
        self.inherited = self.head.last();
        self.copies.set_in_sync(others);
        self.settle();
    }

    /// What a copy must have to be in sync: all that may have been shown or reported,
    /// under this owner or before.
    pub(crate) fn needed(&self) -> Sequence {
        self.marks.safe.max(self.inherited)
    }

    /// The head of a copy of the log that the owner of `epoch` has, which has
    /// nothing of this one behind `keep`. The owner was asked when this log ended at `at`:
    /// what a reader that had not ended yet appended since, it does not know of.
    pub(crate) fn following(
        &self,
        epoch: Epoch,
        (at, keep): (Sequence, Sequence),
    ) -> Result<Head, Refusal> {
        if epoch < self.head.epoch || self.closed {
            return Err(Refusal::Fenced);
        }
        if at != self.head.last() {
            return Err(Refusal::Hole);
        }
        let mut head = Head { epoch, ..self.head.clone() };
        if keep.next() < head.next {
            if keep < self.marks.stable {
                return Err(Refusal::Seen(self.marks.stable));
            }
            head.next = keep.next();
            head.begins.cut_back(keep);
        }
        Ok(head)
    }

    /// This node keeps a copy as `head` says.
    pub(crate) fn follow(&mut self, head: Head) {
        self.cuts += u64::from(head.next < self.head.next);
        self.head = head;
        self.owned = false;
        self.copies.forget();
        let last = self.head.last();
        for mark in [&mut self.marks.appended, &mut self.marks.synced, &mut self.marks.safe] {
            *mark = last.min(*mark);
        }
    }

    /// The source was read further without a change.
    pub(crate) fn advance(&mut self, delta: &Progress) {
        absorb(&mut self.head.progress, delta);
    }

    /// Nothing below `first` is there any more.
    pub(crate) fn cut_front(&mut self, first: Sequence) {
        self.head.first = first;
        self.head.begins.cut_front(first);
    }

    /// The cluster has recorded that everything up to `upto` was captured; on a
    /// copy, the owner says that it is stable.
    pub(crate) fn set_stable(&mut self, upto: Sequence) {
        self.recorded = upto.max(self.recorded);
        self.settle();
    }

    /// Does something to what is known of the copies.
    pub(crate) fn with_copies<T>(&mut self, change: impl FnOnce(&mut Copies) -> T) -> T {
        let result = change(&mut self.copies);
        self.settle();
        result
    }

    /// The last sequence not yet known to be on disk, and how often the end has
    /// been cut off; `None` if all are.
    pub(crate) fn unsynced(&self) -> Option<(Sequence, u64)> {
        let last = self.head.last();
        (last > self.marks.synced).then_some((last, self.cuts))
    }

    /// Everything up to `upto` is on disk, unless the end was cut off since
    /// that was asked: then these are other changes.
    pub(crate) fn set_synced(&mut self, (upto, cuts): (Sequence, u64)) {
        if self.cuts == cuts {
            self.marks.synced = upto;
            self.settle();
        }
    }

    /// Moves the marks that follow from others; they only rise.
    fn settle(&mut self) {
        let last = self.head.last();
        let mut stable = self.recorded;
        if self.owned {
            let safe = self.copies.safe(last, self.marks.synced);
            self.marks.safe = safe.max(self.marks.safe);
            let ahead = Sequence(self.recorded.0.saturating_add(AHEAD_MAX));
            if self.copies.shared() {
                stable = stable.max(safe.min(ahead));
            }
        }
        self.marks.stable = stable.min(last).max(self.marks.stable);
    }
}
