//! The last documents beside a log on a real disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use tidegate_proto::v1::Progress;
use tidegate_proto::{BatchBuilder, Codec, Draft, Epoch, Stamp};
use tidegate_raft_store::Stop;

use super::*;
use crate::sources::Last;
use crate::spool::store::SpoolOptions;

pub(in crate::spool::log) const SHARD: ShardId = ShardId { export_id: 7, index: 3 };

pub(in crate::spool::log) fn open(dir: &std::path::Path) -> Arc<Spool> {
    let options = SpoolOptions { dir: dir.to_owned(), recent_bytes: 0, disk_free_bytes: 0 };
    Spool::open(options, Stop::Process).unwrap()
}

pub(in crate::spool::log) const DOCUMENTS: Keeps =
    Keeps { kept: Kept::Documents, novelty: false, continues: false };

/// A batch that sets each key to its value, or deletes it.
pub(in crate::spool::log) fn frame(
    epoch: u64,
    first: Sequence,
    changes: &[(u8, Option<u8>)],
) -> Frame {
    let stamp = Stamp { epoch: Epoch(epoch), first, ..Stamp::default() };
    gathered(changes).encode(stamp, Codec::Zstd)
}

pub(in crate::spool::log) fn gathered(changes: &[(u8, Option<u8>)]) -> BatchBuilder {
    let mut builder = BatchBuilder::default();
    for (key, value) in changes {
        builder.push(&Draft {
            operation: if value.is_some() { Operation::Upsert } else { Operation::Delete },
            collection: if *key < 5 { "db0" } else { "db10" },
            key: &[*key],
            document: value.as_ref().map(|value| (&b"names"[..], std::slice::from_ref(value))),
            before: None,
            committed_ms: 0,
        });
    }
    builder
}

pub(in crate::spool::log) fn own(spool: &Arc<Spool>, first: u64) -> Arc<ShardLog> {
    let log = spool.begin(SHARD, Epoch(1), Sequence(first), Progress::default()).unwrap();
    log.take_over(Epoch(1), (log.next(), Progress::default()), BTreeSet::new()).unwrap();
    log
}

pub(in crate::spool::log) fn kept(log: &ShardLog) -> BTreeMap<u8, Option<u8>> {
    let keys = log.keys_after("", &[], 1000).unwrap();
    let value = |(collection, key): (String, Vec<u8>)| match log.last_document(&collection, &key) {
        Ok(Some(Last::Document { dictionary, value })) => {
            assert_eq!(dictionary, b"names"[..]);
            (key[0], Some(value[0]))
        }
        other => {
            assert_eq!(other.unwrap(), Some(Last::Unknown));
            (key[0], None)
        }
    };
    keys.into_iter().map(value).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_last_documents_are_the_fold_of_the_log_whenever_they_are_asked_for(
        batches in prop::collection::vec(prop::collection::vec((0..9_u8, any::<Option<u8>>()), 1..9), 1..9),
        asked: prop::sample::Index,
        cut: prop::sample::Index,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path());
        let log = own(&spool, 1);
        let (asked, cut) = (asked.index(batches.len()), cut.index(batches.len()));
        let (mut fold, mut behind, mut keep) = (BTreeMap::new(), BTreeSet::new(), Sequence(0));
        for (number, batch) in batches.iter().enumerate() {
            if number == asked {
                log.keep_index(DOCUMENTS).unwrap();
            }
            if number == cut {
                keep = log.last();
            }
            // As an owner does it, and as who has nothing but the frame.
            let (out, progress) = (gathered(batch), Progress::default());
            let at_hand = Gathered { out: &out, progress: &progress, touch: false };
            let gathered = (number % 2 == 0).then_some(at_hand);
            log.append(&frame(1, log.next(), batch), &progress, gathered).unwrap();
            for (key, value) in batch {
                if number >= cut {
                    behind.insert(*key);
                }
                match value {
                    Some(_) => fold.insert(*key, *value),
                    None => fold.remove(key),
                };
            }
        }
        prop_assert_eq!(kept(&log), fold.clone());
        prop_assert_eq!(log.known(), Known { whole: true, exact: true });

        // Another owner has less: what came behind is unknown, the rest is kept.
        log.follow(Epoch(2), (log.last(), keep)).unwrap();
        fold.extend(behind.into_iter().map(|key| (key, None)));
        prop_assert_eq!(kept(&log), fold.clone());
        prop_assert_eq!(log.known(), Known { whole: true, exact: false });
        let next = frame(2, log.next(), &[(1, Some(99))]);
        log.append_copy(&next, Epoch(2)).unwrap();
        fold.insert(1, Some(99));

        // It is there after a start, too, and stays away with the log.
        drop(log);
        drop(spool);
        let spool = open(dir.path());
        let log = spool.log(SHARD).unwrap();
        log.keep_index(DOCUMENTS).unwrap();
        prop_assert_eq!(kept(&log), fold);
        prop_assert_eq!(log.known(), Known { whole: true, exact: false });
        spool.remove(SHARD).unwrap();
        let log = own(&spool, 1);
        log.keep_index(DOCUMENTS).unwrap();
        prop_assert!(kept(&log).is_empty() && log.known().exact);
    }
}

#[test]
fn a_log_that_began_later_does_not_claim_to_know_all_keys() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let log = own(&spool, 50);
    log.keep_index(DOCUMENTS).unwrap();
    assert_eq!(log.known(), Known { whole: false, exact: true });
    log.append(&frame(1, Sequence(50), &[(1, Some(1))]), &Progress::default(), None).unwrap();
    log.settle_index().unwrap();
    assert_eq!(log.known(), Known { whole: true, exact: true });
    drop((log, spool));
    let spool = open(dir.path());
    let log = spool.log(SHARD).unwrap();
    log.keep_index(DOCUMENTS).unwrap();
    assert_eq!((kept(&log).len(), log.known().whole), (1, true));
}

#[test]
fn keys_come_in_pages_and_other_shards_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let log = own(&spool, 1);
    log.keep_index(DOCUMENTS).unwrap();
    let changes: Vec<_> = (0..9).map(|key| (key, Some(key))).collect();
    log.append(&frame(1, Sequence(1), &changes), &Progress::default(), None).unwrap();
    let (mut all, mut at) = (Vec::new(), (String::new(), Vec::new()));
    loop {
        let page = log.keys_after(&at.0, &at.1, 2).unwrap();
        let Some(last) = page.last() else { break };
        at = last.clone();
        all.extend(page.into_iter().map(|(_, key)| key[0]));
    }
    assert_eq!(all, (0..9).collect::<Vec<u8>>());
    assert_eq!(log.keys_after("db1", &[], 9).unwrap()[0].1, [5], "db10 follows db1");
}
