//! The merge against a model of a store, in whatever order things happen.
//!
//! METHOD: a model keeps every write to a few keys. A drawn plan mixes writes,
//! steps of the stream, pages (each row read at a moment of its own), releases,
//! syncs, restarts of the reader and losses of the spool; then everything is
//! read to its end. Two targets follow, each as fast as it likes; when the spool
//! is lost, the one that has less decides where it is read again. What they hold
//! is checked against the model. The merge, the log, the window and the choice of where to
//! go on are the product's own; a failing plan is shrunk and printed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;
use tidegate_proto::Draft;
use tidegate_proto::v1::{Checkpoint, Gap, GapKind, Operation, Shard, ShardId};
use tidegate_raft_store::Stop;

use super::*;
use crate::shard::restart::{read_on, recorded, unrecorded, unsaid};
use crate::sources::Page;
use crate::spool::{Spool, SpoolOptions};

#[path = "tests/rounds.rs"]
mod rounds;

/// Few, so that they meet. Key `k` lies in chunk `k % CHUNKS`.
const KEYS: u8 = 9;
const CHUNKS: u32 = 3;
const COLLECTION: &str = "c";

#[derive(Clone, Copy, Debug)]
struct Write {
    key: u8,
    delete: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Write(Write),
    /// The stream brings so many changes, or as many as there are.
    Stream(usize),
    /// A chunk's task reads a page; after each row somebody writes.
    Page(u32, Vec<Option<Write>>),
    /// The reader spools the pages that wait for nothing more.
    Release,
    /// The disk has everything, and the cluster knows.
    Sync,
    /// The reader goes on from its own log, under the next epoch.
    Restart,
    /// The log is gone; each target has some of the batches it was sent.
    Lose([Index; 2]),
}

#[derive(Clone, Debug)]
struct Plan {
    /// What is in the store before the anchor.
    before: Vec<Write>,
    /// The stream starts so many writes before the anchor.
    early: usize,
    /// Pages say at which position they were read (rule B, and most of rule A).
    told: bool,
    /// The stream ends, before the rows that are missing are read.
    ends: bool,
    steps: Vec<Step>,
}

fn write() -> impl Strategy<Value = Write> {
    let delete = prop::bool::weighted(0.3);
    (0..KEYS, delete).prop_map(|(key, delete)| Write { key, delete })
}

fn step() -> impl Strategy<Value = Step> {
    let rows = prop::collection::vec(prop::option::weighted(0.3, write()), 1..4);
    prop_oneof![
        8 => write().prop_map(Step::Write),
        6 => (0..5usize).prop_map(Step::Stream),
        6 => (0..CHUNKS, rows).prop_map(|(chunk, rows)| Step::Page(chunk, rows)),
        5 => Just(Step::Release),
        4 => Just(Step::Sync),
        1 => Just(Step::Restart),
        2 => any::<[Index; 2]>().prop_map(Step::Lose),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let before = prop::collection::vec(write(), 0..20);
    let steps = prop::collection::vec(step(), 0..80);
    (before, 0..4usize, any::<bool>(), any::<bool>(), steps)
        .prop_map(|(before, early, told, ends, steps)| Plan { before, early, told, ends, steps })
}

/// Every write there was; the place of one, from 1, is its revision.
#[derive(Default)]
struct Store {
    history: Vec<Write>,
    rows: BTreeMap<u8, u64>,
}

impl Store {
    fn write(&mut self, write: Write) {
        let there = self.rows.contains_key(&write.key);
        if write.delete && !there {
            return;
        }
        self.history.push(write);
        match write.delete {
            true => drop(self.rows.remove(&write.key)),
            false => drop(self.rows.insert(write.key, self.revision())),
        }
    }

    fn revision(&self) -> u64 {
        self.history.len() as u64
    }

    /// The first row of a chunk behind a key.
    fn row(&self, chunk: u32, after: Option<u8>) -> Option<(u8, u64)> {
        let of_chunk = |key: u8| u32::from(key) % CHUNKS == chunk;
        let mut rows = self.rows.iter().map(|(key, revision)| (*key, *revision));
        rows.find(|(key, _)| of_chunk(*key) && after.is_none_or(|after| *key > after))
    }
}

/// A change as a target sees it; `revision` is that of the write behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    key: u8,
    revision: u64,
    operation: Operation,
}

/// What one sink has.
#[derive(Default)]
struct Target {
    batches: Vec<Batch>,
    /// So many of them it had when a spool was lost: they stay.
    durable: usize,
    /// Another had less when a spool was lost: changes came again.
    repeated: bool,
}

impl Target {
    /// Has some of the batches up to `captured`, and says how far that is.
    fn stop(&mut self, captured: u64, delivered: &Index) -> Checkpoint {
        self.batches.retain(|batch| batch.last <= captured);
        let more = self.batches.len() - self.durable;
        self.durable += delivered.index(more + 1);
        self.batches.truncate(self.durable);
        let Some(last) = self.batches.last() else { return Checkpoint::default() };
        let mut progress = Progress::default();
        for batch in &self.batches {
            absorb(&mut progress, &batch.progress);
        }
        Checkpoint { sequence: last.last, progress: Some(progress), ..Checkpoint::default() }
    }
}

/// A batch as a target keeps it.
#[derive(Clone, Debug)]
struct Batch {
    first: u64,
    last: u64,
    progress: Progress,
    rewound: Option<Rewound>,
    changes: Vec<Seen>,
}

struct World<'a> {
    spool: &'a Arc<Spool>,
    store: Store,
    shard: Shard,
    gaps: Vec<Gap>,
    captured: Checkpoint,
    told: bool,
    ends: bool,
    merge: Merge,
    epoch: Epoch,
    /// Where the stream is.
    at: u64,
    /// Per chunk: where its task is, and whether it has read everything.
    tasks: Vec<(Option<u8>, bool)>,
    /// Collected from the log up to here.
    collected: Sequence,
    targets: [Target; 2],
}

impl<'a> World<'a> {
    fn start(spool: &'a Arc<Spool>, id: ShardId, plan: &Plan) -> Self {
        let mut store = Store::default();
        for write in &plan.before {
            store.write(*write);
        }
        let anchor = store.revision().saturating_sub(plan.early as u64);
        let mut progress = Progress { stream: place(anchor), ..Progress::default() };
        progress.set_snapshot(SnapshotState::Running);
        let captured = Checkpoint { progress: Some(progress.clone()), ..Checkpoint::default() };
        let log = own(spool, id, Epoch(1), Sequence(1), progress.clone());
        let shard = Shard { id: Some(id), anchor: Some(progress), ..Shard::default() };
        let mut world = Self {
            merge: merge(begun(log, None), Epoch(1)),
            epoch: Epoch(1),
            told: plan.told,
            ends: plan.ends,
            gaps: Vec::new(),
            at: 0,
            tasks: Vec::new(),
            collected: Sequence(0),
            targets: Default::default(),
            spool,
            store,
            shard,
            captured,
        };
        world.open();
        world
    }

    /// Opens stream and chunks where the merge is, as a reader does.
    fn open(&mut self) {
        let progress = self.merge.progress();
        self.at = number(&progress.stream);
        let task = |chunk| {
            let at = progress.chunks.get(&chunk).cloned().unwrap_or_default();
            (at.cursor.first().copied(), at.done || !self.merge.copying())
        };
        self.tasks = (0..CHUNKS).map(task).collect();
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Write(write) => self.store.write(*write),
            Step::Stream(changes) => self.stream(*changes, false),
            Step::Page(chunk, rows) => self.page(*chunk, rows),
            Step::Release => self.release(),
            Step::Sync => self.sync(),
            Step::Restart => self.restart(),
            Step::Lose(delivered) => self.lose(delivered),
        }
        self.collect();
    }

    fn stream(&mut self, changes: usize, ends: bool) {
        let mut out = BatchBuilder::default();
        let from = usize::try_from(self.at).unwrap();
        let mut kept = BTreeMap::new();
        for (place, write) in (1..).zip(&self.store.history) {
            let inserts = !kept.insert(write.key, !write.delete).unwrap_or(false);
            if place <= self.at || place > self.at + changes as u64 {
                continue;
            }
            let operation = match (write.delete, inserts) {
                (true, _) => Operation::Delete,
                (false, true) => Operation::Insert,
                (false, false) => Operation::Update,
            };
            push(&mut out, Seen { key: write.key, revision: place, operation });
        }
        self.at = self.store.revision().min((from + changes) as u64);
        let read = Read { position: place(self.at), ended: ends, losses: Vec::new() };
        self.merge.take_stream(&out, read, Vec::new()).unwrap();
    }

    fn page(&mut self, chunk: u32, rows: &[Option<Write>]) {
        let (mut after, done) = self.tasks[chunk as usize];
        if done {
            return;
        }
        let mut out = BatchBuilder::default();
        for meanwhile in rows {
            let Some((key, revision)) = self.store.row(chunk, after) else { break };
            push(&mut out, Seen { key, revision, operation: Operation::Snapshot });
            after = Some(key);
            if let Some(write) = meanwhile {
                self.store.write(*write);
            }
        }
        let done = self.store.row(chunk, after).is_none();
        let seen = if self.told { place(self.store.revision()) } else { Bytes::new() };
        let cursor = after.map_or_else(Bytes::new, |key| vec![key].into());
        self.tasks[chunk as usize] = (after, done);
        self.merge.hold(ReadPage { chunk, rows: out, page: Page { cursor, done, seen } });
    }

    fn release(&mut self) {
        let at = self.at;
        self.merge.release(|seen| at >= number(seen)).unwrap();
    }

    fn sync(&mut self) {
        let captured = &mut self.captured;
        let epoch = self.epoch.0;
        self.merge.pending().settle(self.merge.last(), |sequence, added| {
            captured.epoch = epoch;
            captured.sequence = sequence.0;
            absorb(captured.progress.get_or_insert_default(), &added.progress);
        });
    }

    fn restart(&mut self) {
        // The next owner's log may end behind what was recorded as captured.
        self.epoch = Epoch(self.epoch.0 + 1);
        let log = self.spool.log(self.shard.id.unwrap()).unwrap();
        let known = recorded(self.gaps.iter(), &self.captured);
        let unrecorded = unrecorded(&log, &known).unwrap();
        log.take_over(self.epoch, (log.next(), unrecorded.progress.clone()), BTreeSet::new())
            .unwrap();
        let rewound = unsaid(self.gaps.iter(), log.tail().next);
        self.merge = merge(Restart { log, rewound, unrecorded }, self.epoch);
        self.open();
    }

    fn lose(&mut self, delivered: &[Index; 2]) {
        self.collect();
        let captured = self.captured.sequence;
        let [one, other] = &mut self.targets;
        let have = [one.stop(captured, &delivered[0]), other.stop(captured, &delivered[1])];
        let from = read_on(have.to_vec(), &self.gaps, &self.captured, &self.shard);
        for (target, at) in self.targets.iter_mut().zip(&have) {
            target.repeated |= at.sequence > from.sequence;
        }
        let rewound =
            (from.sequence < captured).then_some(Rewound { after: from.sequence, upto: captured });
        if let Some(Rewound { after, upto }) = rewound {
            let (kind, progress) = (GapKind::SpoolLost.into(), from.progress.clone());
            let epoch = self.epoch.0 + 1;
            self.gaps.push(Gap { kind, after, upto, progress, epoch, ..Gap::default() });
        }
        self.epoch = Epoch(self.epoch.0 + 1);
        let first = Sequence(captured).next();
        let id = self.shard.id.unwrap();
        let log = own(self.spool, id, self.epoch, first, from.progress.unwrap());
        self.collected = Sequence(captured);
        self.merge = merge(begun(log, rewound), self.epoch);
        self.open();
    }

    /// Hands what the log has got to both targets.
    fn collect(&mut self) {
        let log = self.spool.log(self.shard.id.unwrap()).unwrap();
        log.set_stable(self.merge.last());
        for frame in log.read(self.collected, usize::MAX).unwrap() {
            self.collected = frame.last();
            let batch = frame.decode().unwrap();
            let changes = batch.changes.iter().map(|change| Seen {
                key: change.key[0],
                revision: change.committed_ms.cast_unsigned(),
                operation: change.operation(),
            });
            let batch = Batch {
                first: frame.first().0,
                last: frame.last().0,
                changes: changes.collect(),
                progress: batch.progress.clone().unwrap_or_default(),
                rewound: batch.rewound,
            };
            for target in &mut self.targets {
                target.batches.push(batch.clone());
            }
        }
    }

    /// Everything is read: stream, chunks, and the stream again.
    fn finish(&mut self) {
        self.stream(usize::MAX >> 8, self.ends);
        for chunk in 0..CHUNKS {
            self.page(chunk, &[None; KEYS as usize]);
            self.release();
        }
        if !self.ends {
            self.stream(usize::MAX >> 8, false);
        }
        self.release();
        self.sync();
        self.collect();
    }
}

fn open(dir: &std::path::Path) -> Arc<Spool> {
    let dir = dir.to_owned();
    Spool::open(SpoolOptions { dir, recent_bytes: 1 << 20, disk_free_bytes: 0 }, Stop::Process)
        .unwrap()
}

fn owner(epoch: Epoch, chunks: u32) -> Owner {
    let scope = Scope::default();
    Owner { export: "model".to_owned(), epoch, chunks, scope, begins: None, sweeps: false }
}

fn merge(restarted: Restart, epoch: Epoch) -> Merge {
    Merge::begin(restarted, owner(epoch, CHUNKS), Arc::default()).unwrap()
}

fn push(out: &mut BatchBuilder, seen: Seen) {
    let document = (seen.operation != Operation::Delete).then_some((&b"d"[..], &b"v"[..]));
    out.push(&Draft {
        operation: seen.operation,
        collection: COLLECTION,
        key: &[seen.key],
        document,
        before: None,
        committed_ms: seen.revision.cast_signed(),
    });
}

fn place(revision: u64) -> Bytes {
    revision.to_be_bytes().to_vec().into()
}

fn number(place: &[u8]) -> u64 {
    u64::from_be_bytes(place.try_into().unwrap())
}

fn changes(batches: &[Batch]) -> impl Iterator<Item = Seen> {
    batches.iter().flat_map(|batch| batch.changes.iter().copied())
}

/// A target ends with the rows of the store, each as it was last written.
fn ends_as_the_store(world: &World<'_>, batches: &[Batch]) -> Result<(), TestCaseError> {
    let mut rows = BTreeMap::new();
    for change in changes(batches) {
        if change.operation == Operation::Delete {
            rows.remove(&change.key);
        } else {
            rows.insert(change.key, change.revision);
        }
    }
    prop_assert_eq!(&rows, &world.store.rows);
    Ok(())
}

/// A row never follows a newer change of its key.
fn no_row_goes_back(batches: &[Batch]) -> Result<(), TestCaseError> {
    let mut newest = [0; KEYS as usize];
    for change in changes(batches) {
        let newest = &mut newest[usize::from(change.key)];
        let row = change.operation == Operation::Snapshot;
        prop_assert!(!row || change.revision >= *newest, "{change:?} behind {newest}");
        *newest = change.revision.max(*newest);
    }
    Ok(())
}

/// Every change came once and in order, unless another target had less; rows
/// that waited for the stream do not go before what they already show.
fn every_change_came_once(
    world: &World<'_>,
    target: &Target,
    anchor: u64,
) -> Result<(), TestCaseError> {
    if target.repeated {
        return Ok(());
    }
    let all = || changes(&target.batches);
    let streamed = all().filter(|seen| seen.operation != Operation::Snapshot);
    let streamed: Vec<_> = streamed.map(|seen| seen.revision).collect();
    prop_assert_eq!(streamed, (anchor + 1..=world.store.revision()).collect::<Vec<_>>());
    let mut shown = [0; KEYS as usize];
    for change in all().filter(|_| world.told) {
        let shown = &mut shown[usize::from(change.key)];
        prop_assert!(change.revision >= *shown, "{change:?} behind a row of {shown}");
        *shown = change.revision;
    }
    Ok(())
}

/// Sequences are dense but for losses that the batch behind them tells.
fn every_hole_is_told(batches: &[Batch]) -> Result<(), TestCaseError> {
    let mut last = 0;
    for batch in batches {
        let hole = batch.first != last + 1;
        prop_assert!(!hole || batch.rewound.is_some(), "a hole before {}", batch.first);
        last = batch.last;
    }
    Ok(())
}

#[test]
fn targets_end_as_the_store_whatever_meets_whatever() {
    for _ in 0..10 {
        // A spool for a hundred: each leaves deleted ranges that others read through.
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path());
        let index = std::cell::Cell::new(0);
        proptest!(ProptestConfig::with_cases(100), |(plan in plan())| {
            index.set(index.get() + 1);
            let id = ShardId { export_id: 1, index: index.get() };
            let mut world = World::start(&spool, id, &plan);
            let anchor = world.at;
            for step in &plan.steps {
                world.take(step);
            }
            world.finish();
            prop_assert!(!world.merge.copying(), "the snapshot is complete");
            prop_assert_eq!(world.merge.held(), 0);
            for target in &world.targets {
                ends_as_the_store(&world, &target.batches)?;
                no_row_goes_back(&target.batches)?;
                every_hole_is_told(&target.batches)?;
                every_change_came_once(&world, target, anchor)?;
            }
            spool.remove(id).unwrap();
        });
    }
}

/// What an owner has that began a log.
fn begun(log: Arc<ShardLog>, rewound: Option<Rewound>) -> Restart {
    let progress = log.tail().progress;
    Restart { log, rewound, unrecorded: Added { progress, ..Added::default() } }
}

/// A log begun by its owner, alone in sync.
fn own(
    spool: &Arc<Spool>,
    id: ShardId,
    epoch: Epoch,
    first: Sequence,
    progress: Progress,
) -> Arc<ShardLog> {
    let log = spool.begin(id, epoch, first, progress.clone()).unwrap();
    log.take_over(epoch, (log.next(), progress), BTreeSet::new()).unwrap();
    log
}

#[test]
fn a_shard_without_chunks_is_complete_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let mut progress = Progress::default();
    progress.set_snapshot(SnapshotState::Running);
    let id = ShardId { export_id: 1, index: 0 };
    let log = own(&spool, id, Epoch(1), Sequence(1), progress);
    let merge = Merge::begin(begun(log, None), owner(Epoch(1), 0), Arc::default()).unwrap();
    assert!(!merge.copying());
    let mut told = None;
    merge.pending().settle(Sequence(0), |_, added| told = Some(added.progress.snapshot()));
    assert_eq!(told, Some(SnapshotState::Complete));
}
