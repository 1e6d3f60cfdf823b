//! A node's logs: the product's standing, with batches in memory and a disk that
//! forgets what was not synced.

use std::collections::VecDeque;
use std::rc::Rc;

use rand::Rng as _;
use rand::rngs::StdRng;
use tidegate_proto::v1::{Progress, Rewound};
use tidegate_proto::{Epoch, Sequence};

use super::source::Item;
use crate::exchange::copy::Extent;
use crate::spool::retention::Marks;
use crate::spool::{Head, Piece, Standing};

/// Captured changes as they travel.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) epoch: Epoch,
    pub(super) first: Sequence,
    pub(super) items: Rc<[Item]>,
    pub(super) progress: Progress,
    pub(super) rewound: Option<Rewound>,
}

impl Batch {
    pub(super) fn piece(&self) -> Piece {
        let count = u32::try_from(self.items.len()).unwrap();
        Piece { epoch: self.epoch, first: self.first, count }
    }

    pub(super) fn last(&self) -> Sequence {
        Sequence(self.first.0 + self.items.len() as u64 - 1)
    }

    /// Its changes and their sequences.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Sequence, Item)> + '_ {
        let sequences = (self.first.0..).map(Sequence);
        sequences.zip(self.items.iter().copied())
    }
}

/// How to take a write back that a power cut undoes.
#[derive(Debug)]
struct Undo {
    head: Head,
    /// The batch that was appended goes.
    append: bool,
    /// These come back at the end.
    removed: Vec<Batch>,
    /// The log before was another.
    begun: Option<VecDeque<Batch>>,
}

/// One shard's log on one node.
#[derive(Debug)]
pub(super) struct Log {
    /// Tells the logs of a shard apart.
    pub(super) number: u64,
    pub(super) standing: Standing,
    batches: VecDeque<Batch>,
    unsynced: Vec<Undo>,
    /// For retention.
    pub(super) marks: Marks,
}

impl Log {
    /// Takes the place of `old`, whose end a power cut may bring back.
    pub(super) fn begin(number: u64, head: Head, old: Option<Self>) -> Self {
        let mut unsynced = Vec::new();
        if let Some(old) = old {
            unsynced = old.unsynced;
            let head = old.standing.head().clone();
            unsynced.push(Undo {
                head,
                append: false,
                removed: Vec::new(),
                begun: Some(old.batches),
            });
        }
        Self {
            number,
            standing: Standing::new(head),
            batches: VecDeque::new(),
            unsynced,
            marks: Marks::default(),
        }
    }

    pub(super) fn extent(&self) -> Extent {
        Extent::of(self.standing.head().clone())
    }

    pub(super) fn append(&mut self, head: Head, batch: Batch) {
        self.note(true, Vec::new());
        self.standing.appended(head);
        self.batches.push_back(batch);
    }

    /// A head was written that is not the last one's, as by `take`.
    pub(super) fn write_head(&mut self, take: impl FnOnce(&mut Standing)) {
        self.note(false, Vec::new());
        take(&mut self.standing);
    }

    /// As [`Log::write_head`], and what lies behind `keep` goes.
    pub(super) fn cut_back(&mut self, head: Head) {
        let keep = head.last();
        let from = self.batches.partition_point(|batch| batch.last() <= keep);
        let removed = self.batches.split_off(from).into();
        self.note(false, removed);
        self.standing.follow(head);
    }

    /// Drops whole batches up to `upto` from the front.
    pub(super) fn cut_front(&mut self, upto: Sequence) {
        while self.batches.front().is_some_and(|batch| batch.last() <= upto) {
            self.batches.pop_front();
        }
        let next = self.standing.head().next;
        let first = self.batches.front().map_or(next, |batch| batch.first);
        if first > self.standing.head().first {
            self.standing.cut_front(first);
        }
    }

    /// Batches that begin behind `after` or hold the next, up to `upto`.
    pub(super) fn read(&self, after: Sequence, upto: Sequence) -> Vec<Batch> {
        let from = self.batches.partition_point(|batch| batch.last() <= after);
        let wanted = self.batches.range(from..).take_while(|batch| batch.last() <= upto);
        wanted.take(64).cloned().collect()
    }

    /// All there is behind `after`.
    pub(super) fn read_all(&self, after: Sequence) -> impl Iterator<Item = &Batch> {
        self.batches.iter().filter(move |batch| batch.first > after)
    }

    /// How many writes a group commit that begins now covers.
    pub(super) fn writes(&self) -> usize {
        self.unsynced.len()
    }

    /// That group commit ended.
    pub(super) fn set_synced(&mut self, asked: (Sequence, u64), writes: usize) {
        self.unsynced.drain(..writes.min(self.unsynced.len()));
        self.standing.set_synced(asked);
    }

    /// Found on disk by the next process; after a power cut, some of the last
    /// writes are not. False if there is no log then.
    pub(super) fn restart(&mut self, power_cut: Option<&mut StdRng>) {
        let lost = power_cut.map_or(0, |rng| rng.random_range(0..=self.unsynced.len()));
        let mut head = self.standing.head().clone();
        for _ in 0..lost {
            let Some(undo) = self.unsynced.pop() else { break };
            head = Head { first: head.first.max(undo.head.first), ..undo.head };
            if let Some(batches) = undo.begun {
                head.first = batches.front().map_or(head.next, |batch| batch.first);
                self.batches = batches;
            }
            if undo.append {
                self.batches.pop_back();
            }
            self.batches.extend(undo.removed);
        }
        self.unsynced.clear();
        head.first = head.first.min(head.next);
        head.begins.cut_front(head.first);
        self.standing = Standing::new(head);
    }

    fn note(&mut self, append: bool, removed: Vec<Batch>) {
        let head = self.standing.head().clone();
        self.unsynced.push(Undo { head, append, removed, begun: None });
    }
}
