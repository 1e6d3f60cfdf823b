//! A copy that begins late beside its owner, each on a real disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use tempfile::TempDir;
use tidegate_proto::v1::Progress;

use super::super::index::tests::{DOCUMENTS, SHARD, frame, kept, open};
use super::*;
use crate::sources::Known;

const ALL: Known = Known { whole: true, exact: true };

/// What a batch brings: keys with their values, or deleted.
type Changes = Vec<(u8, Option<u8>)>;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// The owner captures a batch.
    Append(Changes),
    /// So many batches come to the copy.
    Batches(usize),
    /// The next rows do, about so many bytes of them.
    Rows(usize),
    /// The copy's process ends and starts.
    Restart,
    /// Another owner lacks what the copy lacks, and so many batches more.
    Replace(usize),
}

fn changes() -> impl Strategy<Value = Changes> {
    prop::collection::vec((0..9_u8, any::<Option<u8>>()), 1..5)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => changes().prop_map(Step::Append),
        4 => (1..4_usize).prop_map(Step::Batches),
        4 => (1..90_usize).prop_map(Step::Rows),
        1 => Just(Step::Restart),
        1 => (0..3_usize).prop_map(Step::Replace),
    ]
}

/// An owner with a log of all there ever was, and a copy that began behind some of it.
struct Pair {
    history: Vec<Changes>,
    late: usize,
    epoch: Epoch,
    owner: Arc<ShardLog>,
    copy: Option<Arc<ShardLog>>,
    /// What the copy said when it opened its fetch, and has been sent since.
    open: IndexOpen,
    owner_spool: Arc<Spool>,
    copy_spool: Option<Arc<Spool>>,
    dirs: [TempDir; 2],
}

impl Pair {
    fn new(before: Vec<Changes>) -> Self {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [owner_spool, copy_spool] = [0, 1].map(|at| open(dirs[at].path()));
        let owner = owner_spool.begin(SHARD, Epoch(1), Sequence(1), Progress::default()).unwrap();
        let late = before.len();
        let mut pair = Self {
            history: Vec::new(),
            late,
            epoch: Epoch(1),
            owner,
            copy: None,
            open: IndexOpen::default(),
            owner_spool,
            copy_spool: Some(copy_spool),
            dirs,
        };
        pair.own();
        before.into_iter().for_each(|changes| pair.append(changes));
        let keep = pair.owner.last();
        let spool = pair.copy_spool.as_ref().unwrap();
        pair.copy = Some(spool.begin(SHARD, Epoch(1), keep.next(), Progress::default()).unwrap());
        pair.follow(keep);
        pair
    }

    fn copy(&self) -> &ShardLog {
        self.copy.as_ref().unwrap()
    }

    fn own(&self) {
        let at = (self.owner.next(), Progress::default());
        self.owner.take_over(self.epoch, at, BTreeSet::new()).unwrap();
        self.owner.keep_index(DOCUMENTS).unwrap();
    }

    fn append(&mut self, changes: Changes) {
        let next = frame(self.epoch.0, self.owner.next(), &changes);
        self.owner.append(&next, &Progress::default(), None).unwrap();
        self.history.push(changes);
    }

    /// The copy opens a fetch, as a node does it.
    fn follow(&mut self, keep: Sequence) {
        let at = self.copy().last();
        self.copy().keep_index(DOCUMENTS).unwrap();
        self.open = self.copy().index_open(self.epoch).unwrap();
        self.copy().follow(self.epoch, (at, keep)).unwrap();
        self.copy().keep_index(DOCUMENTS).unwrap();
        if keep < at {
            self.follow(keep);
        }
    }

    fn batches(&self, most: usize) {
        let due = self.owner.read_appended(self.copy().last(), 1 << 20).unwrap();
        for frame in due.iter().take(most) {
            self.copy().append_copy(frame, self.epoch).unwrap();
        }
    }

    /// Some rows for a copy that lacks them.
    fn rows(&mut self, bytes_max: usize) {
        let page = match &self.open {
            open if !open.whole => self.owner.index_rows(&open.after, bytes_max),
            open if !open.unknown.is_empty() => self.owner.rows_of(&open.unknown, bytes_max),
            _ => return,
        };
        let page = page.unwrap().unwrap();
        let last = page.rows.last().map_or(&page.after, |row| &row.place);
        self.open.after = last.clone();
        self.open.whole |= page.told == 0 && page.until > 0;
        self.open.unknown.drain(..page.told as usize);
        self.copy().take_rows(&page, self.epoch).unwrap();
    }

    /// All that is due comes; what was cut off while rows came is asked for anew.
    fn settle(&mut self) {
        for _ in 0..3 {
            while !self.open.whole || !self.open.unknown.is_empty() {
                self.rows(1 << 20);
            }
            self.batches(usize::MAX);
            self.follow(self.copy().last());
        }
    }

    fn restart(&mut self) {
        (self.copy, self.copy_spool) = (None, None);
        let spool = open(self.dirs[1].path());
        self.copy = spool.log(SHARD);
        self.copy_spool = Some(spool);
        self.follow(self.copy().last());
    }

    fn replace(&mut self, fewer: usize) {
        let frames = self.owner.read_appended(Sequence(0), 1 << 20).unwrap();
        let there = frames.iter().filter(|frame| frame.last() <= self.copy().last()).count();
        let mut history = std::mem::take(&mut self.history);
        history.truncate(there.saturating_sub(fewer).max(self.late));
        let spool = &self.owner_spool;
        self.owner = spool.begin(SHARD, Epoch(1), Sequence(1), Progress::default()).unwrap();
        self.own();
        history.into_iter().for_each(|changes| self.append(changes));
        self.epoch = self.epoch.next();
        self.own();
        self.follow(self.owner.last());
    }

    /// What there is of each key where the copy's log ends.
    fn fold(&self) -> BTreeMap<u8, Option<u8>> {
        let frames = self.owner.read_appended(Sequence(0), 1 << 20).unwrap();
        let there = frames.iter().filter(|frame| frame.last() <= self.copy().last()).count();
        let mut fold = BTreeMap::new();
        for (key, value) in self.history[..there].iter().flatten() {
            match value {
                Some(_) => fold.insert(*key, *value),
                None => fold.remove(key),
            };
        }
        fold
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_copy_knows_all_keys_exactly_or_says_that_it_does_not(
        before in prop::collection::vec(changes(), 1..6),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut pair = Pair::new(before);
        prop_assert!(!pair.copy().known().whole);
        for step in steps {
            match step {
                Step::Append(changes) => pair.append(changes),
                Step::Batches(most) => pair.batches(most),
                Step::Rows(bytes_max) => pair.rows(bytes_max),
                Step::Restart => pair.restart(),
                Step::Replace(fewer) => pair.replace(fewer),
            }
            if pair.copy().known() == ALL {
                prop_assert_eq!(kept(pair.copy()), pair.fold());
            }
        }
        pair.settle();
        prop_assert_eq!(pair.copy().known(), ALL);
        prop_assert_eq!(kept(pair.copy()), pair.fold());
    }
}

#[test]
fn rows_that_do_not_follow_are_refused_and_those_of_another_owner_too() {
    let all: Changes = (0..9).map(|key| (key, Some(key))).collect();
    let mut pair = Pair::new(vec![all]);
    let first = pair.owner.index_rows(&[], 1).unwrap().unwrap();
    assert_eq!((first.rows.len(), first.until), (1, 0));
    let second = pair.owner.index_rows(&first.rows[0].place, 1).unwrap().unwrap();
    let refused = pair.copy().take_rows(&second, Epoch(1)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    pair.copy().take_rows(&first, Epoch(1)).unwrap();
    assert_eq!(pair.copy().index_open(Epoch(1)).unwrap().after, first.rows[0].place);
    assert!(pair.copy().index_open(Epoch(2)).unwrap().after.is_empty());
    pair.replace(0);
    let refused = pair.copy().take_rows(&first, Epoch(1)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Fenced, "{refused}");
    assert!(kept(pair.copy()).is_empty(), "what the owner before sent is dropped");
}

#[test]
fn who_becomes_the_owner_before_all_rows_are_here_has_what_its_log_has() {
    let all: Changes = (0..9).map(|key| (key, Some(key))).collect();
    let mut pair = Pair::new(vec![all]);
    pair.append(vec![(1, Some(50))]);
    // It holds a row that its log does not know of yet.
    pair.rows(300);
    assert!(!kept(pair.copy()).is_empty() && !pair.copy().known().whole);
    let at = (pair.copy().next(), Progress::default());
    pair.copy().take_over(Epoch(2), at, BTreeSet::new()).unwrap();
    pair.copy().keep_index(DOCUMENTS).unwrap();
    assert_eq!((kept(pair.copy()).len(), pair.copy().known().whole), (0, false));
    assert_eq!(pair.copy().index_rows(&[], 1).unwrap(), None, "it has none to give");
}

#[test]
fn an_owner_without_a_change_has_one_page_and_it_is_the_last() {
    let mut pair = Pair::new(Vec::new());
    assert_eq!(pair.copy().known(), ALL, "it has all there ever was");
    let page = pair.owner.index_rows(&[], 1).unwrap().unwrap();
    assert!(page.rows.is_empty() && page.until > 0);
    pair.append(vec![(1, Some(1))]);
    pair.settle();
    assert_eq!(kept(pair.copy()).len(), 1);
}

#[test]
fn what_a_version_without_lists_left_unknown_is_never_taken_for_known() {
    let mut pair = Pair::new(vec![vec![(1, Some(1))]]);
    pair.settle();
    pair.append(vec![(2, Some(2))]);
    pair.batches(1);
    // Cut off by a version that wrote no list, and said no by zero.
    let index = Key::Index(SHARD).encode();
    let spool = pair.copy_spool.as_ref().unwrap();
    let mut bytes = spool.db.get(&index).unwrap().unwrap();
    bytes[2] = 0;
    spool.db.put(&index, bytes).unwrap();
    pair.restart();
    pair.append(vec![(3, Some(3))]);
    pair.batches(1);
    pair.replace(1);
    pair.settle();
    assert_eq!(pair.copy().known(), Known { whole: true, exact: false });
}
