//! Rows read again, against a model of a store whose log loses writes.
//!
//! METHOD: a drawn plan mixes writes, changes that the stream brings later, losses (what
//! is on its way and some writes never come; all rows are read again), chunks, sweeps
//! and restarts of the reader. Then everything is read to its end: what the log folds to
//! is what the store holds, deletes included.

use super::*;
use crate::spool::{Keeps, Kept};

const ID: ShardId = ShardId { export_id: 2, index: 0 };

#[derive(Clone, Debug)]
enum Step {
    Write(Write),
    Deliver(usize),
    /// These writes, and what was not delivered by then, never come.
    Lose(Vec<Write>),
    Chunk(u32),
    Sweep,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let write = || (0..KEYS, any::<bool>()).prop_map(|(key, delete)| Write { key, delete });
    prop_oneof![
        6 => write().prop_map(Step::Write),
        3 => (1..4_usize).prop_map(Step::Deliver),
        1 => prop::collection::vec(write(), 0..5).prop_map(Step::Lose),
        4 => (0..CHUNKS).prop_map(Step::Chunk),
        2 => Just(Step::Sweep),
        1 => Just(Step::Restart),
    ]
}

struct World {
    store: BTreeMap<u8, u64>,
    /// Written, and not brought by the stream yet.
    coming: Vec<Seen>,
    revision: u64,
    round: u32,
    log: Arc<ShardLog>,
    merge: Merge,
}

impl World {
    fn start(spool: &Arc<Spool>) -> Self {
        let progress = Progress { snapshot: SnapshotState::Running.into(), ..Progress::default() };
        let log = own(spool, ID, Epoch(1), Sequence(1), progress);
        let merge = reader(&log, 0, None);
        Self { store: BTreeMap::new(), coming: Vec::new(), revision: 0, round: 0, log, merge }
    }

    fn write(&mut self, write: Write) -> Seen {
        self.revision += 1;
        let operation = if write.delete { Operation::Delete } else { Operation::Upsert };
        if write.delete {
            self.store.remove(&write.key);
        } else {
            self.store.insert(write.key, self.revision);
        }
        Seen { key: write.key, revision: self.revision, operation }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Write(write) => {
                let seen = self.write(*write);
                self.coming.push(seen);
            }
            Step::Deliver(count) => self.deliver(*count),
            Step::Lose(writes) => {
                self.coming.clear();
                for write in writes {
                    self.write(*write);
                }
                self.round += 1;
                self.merge = reader(&self.log, self.round, Some(self.round));
            }
            Step::Chunk(chunk) => self.chunk(*chunk),
            Step::Sweep => self.merge.sweep().unwrap(),
            Step::Restart => self.merge = reader(&self.log, self.round, None),
        }
    }

    fn deliver(&mut self, count: usize) {
        let count = count.min(self.coming.len());
        let mut out = BatchBuilder::default();
        self.coming.drain(..count).for_each(|seen| push(&mut out, seen));
        let position = place(self.revision - self.coming.len() as u64);
        let read = Read { position, ..Read::default() };
        self.merge.take_stream(&out, read, Vec::new()).unwrap();
    }

    fn chunk(&mut self, chunk: u32) {
        let done = |at: &Progress| at.chunks.get(&chunk).is_some_and(|it| it.done);
        if !self.merge.copying() || done(self.merge.progress()) {
            return;
        }
        let mut rows = BatchBuilder::default();
        for (key, revision) in
            self.store.iter().filter(|(key, _)| u32::from(**key) % CHUNKS == chunk)
        {
            push(
                &mut rows,
                Seen { key: *key, revision: *revision, operation: Operation::Snapshot },
            );
        }
        let page = Page { done: true, ..Page::default() };
        self.merge.hold(ReadPage { chunk, rows, page });
        self.merge.release(|_| true).unwrap();
    }

    fn finish(&mut self) {
        (0..CHUNKS).for_each(|chunk| self.chunk(chunk));
        while self.merge.is_sweeping() {
            self.merge.sweep().unwrap();
        }
        self.deliver(usize::MAX);
    }

    fn captured(&self) -> BTreeMap<u8, u64> {
        let frames = self.log.read_appended(Sequence(0), usize::MAX).unwrap();
        let changes = frames.iter().flat_map(|frame| frame.decode().unwrap().changes);
        let mut rows = BTreeMap::new();
        for change in changes {
            if change.operation() == Operation::Delete {
                rows.remove(&change.key[0]);
            } else {
                rows.insert(change.key[0], change.committed_ms.cast_unsigned());
            }
        }
        rows
    }
}

const ROUNDS: Keeps = Keeps { kept: Kept::Rounds, novelty: false, continues: false };

/// A reader that begins this round, or goes on in it.
fn reader(log: &Arc<ShardLog>, round: u32, begins: Option<u32>) -> Merge {
    log.keep_index(ROUNDS).unwrap();
    let owner = Owner { begins, sweeps: round > 0, ..owner(Epoch(1), CHUNKS) };
    Merge::begin(begun(Arc::clone(log), None), owner, Arc::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_lost_is_found_and_what_is_gone_is_deleted(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path());
        let mut world = World::start(&spool);
        for step in &steps {
            world.take(step);
        }
        world.finish();
        prop_assert!(!world.merge.copying());
        prop_assert_eq!(world.captured(), world.store);
    }
}

#[test]
fn a_canceled_snapshot_takes_no_more_rows_and_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let mut world = World::start(&spool);
    for step in [Step::Write(Write { key: 1, delete: false }), Step::Deliver(1)] {
        world.take(&step);
    }
    world.finish();
    world.take(&Step::Lose(vec![Write { key: 1, delete: true }, Write { key: 2, delete: false }]));
    world.merge.cancel(1).unwrap();
    assert_eq!(world.merge.progress().snapshot(), SnapshotState::Canceled);
    world.finish();
    assert_eq!(world.captured().into_keys().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_log_that_was_begun_late_does_not_know_what_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let log = own(&spool, ID, Epoch(1), Sequence(50), Progress::default());
    log.keep_index(ROUNDS).unwrap();
    assert!(!log.known().whole);
}
