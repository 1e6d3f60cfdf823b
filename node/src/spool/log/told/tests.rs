//! What is told of changes, against a fold of all that was captured.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use tidegate_proto::v1::Progress;
use tidegate_proto::{Codec, Draft, Epoch, Frame, Stamp};

use super::super::index::tests::{gathered, open, own};
use super::super::{Gathered, Keeps, Kept};
use super::*;

const TELLS: Keeps = Keeps { kept: Kept::Rounds, novelty: true, continues: false };

type Changes = Vec<(u8, Option<u8>)>;

/// What each key holds, and by which change.
type Fold = BTreeMap<u8, (u8, u64)>;

/// Appends a batch as its owner does; gives what was told of it.
fn append(log: &Arc<ShardLog>, changes: &[(u8, Option<u8>)]) -> Vec<Told> {
    let (out, progress) = (gathered(changes), Progress::default());
    let told = log.told(&out).unwrap();
    let stamp =
        Stamp { epoch: Epoch(1), first: log.next(), told: told.clone(), ..Stamp::default() };
    let frame = out.encode(stamp, Codec::Zstd);
    let at_hand = Gathered { out: &out, progress: &progress, touch: false };
    // Half of them as who has nothing but the frame.
    let gathered = (frame.first().0 % 2 == 0).then_some(at_hand);
    log.append(&frame, &progress, gathered).unwrap();
    told
}

fn wanted(fold: &mut Fold, changes: &[(u8, Option<u8>)], first: u64) -> Vec<(Novelty, u64)> {
    let told = |((key, value), sequence): (&(u8, Option<u8>), u64)| {
        let before = match value {
            Some(value) => fold.insert(*key, (*value, sequence)),
            None => fold.remove(key),
        };
        let novelty = match (before, value) {
            (None, Some(_)) => Novelty::New,
            (None, None) => Novelty::Duplicate,
            (Some((before, _)), Some(value)) if before == *value => Novelty::Duplicate,
            (Some(_), _) => Novelty::Update,
        };
        (novelty, before.map_or(0, |(_, by)| by))
    };
    changes.iter().zip(first..).map(told).collect()
}

fn pairs(told: &[Told]) -> Vec<(Novelty, u64)> {
    told.iter().map(|told| (told.novelty, told.previous.0)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_change_is_told_against_all_that_came_before(
        batches in prop::collection::vec(
            prop::collection::vec((0..4_u8, prop::option::weighted(0.8, 0..3_u8)), 1..9),
            1..9,
        ),
        documents: bool,
        asked: prop::sample::Index,
        starts: prop::sample::Index,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path());
        let mut log = own(&spool, 1);
        let kept = if documents { Kept::Documents } else { Kept::Rounds };
        let keeps = Keeps { kept, ..TELLS };
        let (asked, starts) = (asked.index(batches.len()), starts.index(batches.len()));
        let mut fold = Fold::new();
        for (number, batch) in batches.iter().enumerate() {
            if number == starts {
                drop((log, spool));
                spool = open(dir.path());
                log = spool.log(super::super::index::tests::SHARD).unwrap();
                log.take_over(Epoch(1), (log.next(), Progress::default()), [].into()).unwrap();
            }
            // Whenever it begins: it counts what is there already.
            if number >= asked {
                log.keep_index(keeps).unwrap();
            }
            let first = log.next().0;
            let told = append(&log, batch);
            let wanted = wanted(&mut fold, batch, first);
            prop_assert_eq!(pairs(&told), if number < asked { Vec::new() } else { wanted });
        }
    }
}

fn told_of(log: &Arc<ShardLog>, changes: &Changes) -> Vec<(Novelty, u64)> {
    pairs(&append(log, changes))
}

#[test]
fn what_is_not_known_is_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let untold = (Novelty::Unspecified, 0);
    // What came before 50 is not here.
    let log = own(&spool, 50);
    log.keep_index(TELLS).unwrap();
    assert_eq!(told_of(&log, &vec![(1, Some(1)), (2, None)]), [untold; 2]);
    assert_eq!(told_of(&log, &vec![(1, Some(1))]), [(Novelty::Duplicate, 50)]);

    // A shard that goes on for another has no keys of that one.
    spool.remove(log.shard()).unwrap();
    let log = own(&spool, 1);
    log.keep_index(Keeps { continues: true, ..TELLS }).unwrap();
    assert_eq!(told_of(&log, &vec![(1, Some(1))]), [untold]);

    // Keys that were kept before this was wanted have neither content nor change.
    spool.remove(log.shard()).unwrap();
    let log = own(&spool, 1);
    log.keep_index(Keeps { novelty: false, ..TELLS }).unwrap();
    assert_eq!(told_of(&log, &vec![(1, Some(1))]), []);
    log.keep_index(TELLS).unwrap();
    assert_eq!(
        told_of(&log, &vec![(1, Some(1)), (2, Some(1))]),
        [untold, (Novelty::New, 0)],
        "that there was no other is known"
    );
    assert_eq!(told_of(&log, &vec![(1, Some(2))]), [(Novelty::Update, 2)]);
}

#[test]
fn a_mark_is_of_no_key_and_a_frame_carries_what_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let log = own(&spool, 1);
    log.keep_index(TELLS).unwrap();
    append(&log, &[(1, Some(1))]);
    let mut out = gathered(&[(1, Some(1))]);
    out.push_front(&Draft {
        operation: Operation::Gap,
        collection: "",
        key: &[],
        document: Some((b"names", b"gap")),
        before: None,
        committed_ms: 0,
    });
    assert_eq!(
        pairs(&log.told(&out).unwrap()),
        [(Novelty::Unspecified, 0), (Novelty::Duplicate, 1)]
    );
    let frames: Vec<Frame> = log.read_appended(Sequence(0), usize::MAX).unwrap();
    assert_eq!(frames[0].decode().unwrap().changes[0].novelty(), Novelty::New);
}
