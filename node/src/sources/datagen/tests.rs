//! The stream, the snapshot and the oracle agree.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::sources::contract::{
    Capture, any_position_resumes, capture, pages_give_each_row_once, seen,
    writes_after_the_anchor_are_streamed,
};

fn source(config: &DatagenConfig) -> Datagen {
    Datagen::new(config, || 1_700_000_000_000).unwrap()
}

fn small() -> DatagenConfig {
    let documents = DatagenConfig { document_bytes: 320, keys: 500, ..DatagenConfig::default() };
    DatagenConfig { changes: 2_000, snapshot_rows: 300, shards: 2, skew_percent: 50, ..documents }
}

async fn shard(source: &Datagen, number: usize) -> ShardSpec {
    source.discover().await.unwrap().swap_remove(number)
}

async fn captured(source: &Datagen, spec: &ShardSpec, from: u64, upto: usize) -> Capture {
    let mut stream = source.stream(spec, &place_of(from)).await.unwrap();
    capture(&mut *stream, upto).await.unwrap()
}

/// Folds changes over rows, as a sink does.
fn fold(rows: &mut BTreeMap<Vec<u8>, Vec<u8>>, capture: Capture) {
    for change in capture.changes {
        match change.hash.is_empty() {
            true => drop(rows.remove(&change.key)),
            false => drop(rows.insert(change.key, change.hash)),
        }
    }
}

#[tokio::test]
async fn the_contract_holds() {
    let source = source(&small());
    let spec = shard(&source, 0).await;
    any_position_resumes(&source, &spec, &place_of(0)).await;
    let anchor = source.anchor(&spec).await.unwrap();
    let rows = pages_give_each_row_once(&source, &spec, anchor.chunks).await;
    assert!(!rows.is_empty());
    let first = change(&source.config, 0, 0).row;
    let key = source.shards[0].key(first).unwrap().as_bytes().to_vec();
    writes_after_the_anchor_are_streamed(&source, &spec, || async {}, &[key].into()).await;
}

#[tokio::test]
async fn snapshot_and_stream_end_where_the_oracle_says() {
    let source = source(&small());
    for number in 0..2 {
        let spec = shard(&source, usize::try_from(number).unwrap()).await;
        let anchor = source.anchor(&spec).await.unwrap();
        source.stream(&spec, &anchor.position).await.unwrap();
        let mut rows = pages_give_each_row_once(&source, &spec, anchor.chunks).await;
        assert_eq!(rows.len(), 300);
        fold(&mut rows, captured(&source, &spec, 0, 5_000).await);
        let wanted = state_after(&source.config, number, 2_000).unwrap();
        let wanted: BTreeMap<_, _> = wanted.into_iter().map(|(k, h)| (k, h.to_vec())).collect();
        assert_eq!(rows, wanted);
    }
}

#[tokio::test]
async fn rows_are_as_new_as_the_place_where_the_stream_was_opened() {
    let source = source(&small());
    let spec = shard(&source, 0).await;
    source.stream(&spec, &place_of(1_500)).await.unwrap();
    let rows = pages_give_each_row_once(&source, &spec, 1).await;
    let state = state_after(&source.config, 0, 1_500).unwrap();
    assert!(rows.len() < 300, "some of the first rows were deleted");
    for (key, hash) in rows {
        assert_eq!(state.get(&key).map(|hash| hash.to_vec()), Some(hash));
    }
}

#[tokio::test]
async fn no_page_is_read_before_a_stream_was_opened() {
    let source = source(&small());
    let spec = shard(&source, 0).await;
    let mut out = BatchBuilder::default();
    let mut reader = source.chunk(&spec, 0, &[]).await.unwrap();
    let page = reader.page(&mut out, 1 << 20).await.unwrap();
    assert!(!page.done && out.is_empty());
    source.stream(&spec, &place_of(0)).await.unwrap();
    assert!(reader.page(&mut out, 1 << 20).await.unwrap().done);
    assert_eq!(seen(&out).len(), 300);
}

#[tokio::test]
async fn the_rate_is_kept() {
    let source = source(&DatagenConfig { rate_per_second: 1_000, ..DatagenConfig::default() });
    let spec = shard(&source, 0).await;
    let mut stream = source.stream(&spec, &place_of(0)).await.unwrap();
    let (mut out, mut count) = (BatchBuilder::default(), 0);
    let started = tokio::time::Instant::now();
    while started.elapsed() < Duration::from_millis(300) {
        out.clear();
        stream.read(&mut out, 1 << 20, Duration::from_millis(100)).await.unwrap();
        count += out.len() as u128;
    }
    let due = started.elapsed().as_millis();
    assert!(count <= due && count + 100 >= due, "{count} changes in {due} ms at 1000/s");
}

#[tokio::test]
async fn a_shard_ends_after_its_changes() {
    let source = source(&DatagenConfig { changes: 7, ..small_without_rows() });
    let spec = shard(&source, 0).await;
    let mut stream = source.stream(&spec, &place_of(0)).await.unwrap();
    let mut out = BatchBuilder::default();
    let read = stream.read(&mut out, 1 << 20, Duration::ZERO).await.unwrap();
    assert_eq!((out.len(), read.ended, read.position), (7, true, place_of(7)));
}

fn small_without_rows() -> DatagenConfig {
    DatagenConfig { snapshot_rows: 0, ..small() }
}

#[tokio::test]
async fn a_position_that_is_none_is_refused() {
    let source = source(&small());
    let spec = shard(&source, 0).await;
    let error = source.stream(&spec, b"x").await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn reading_from_anywhere_gives_the_same(from in 0_u64..1_900, seed in any::<u64>()) {
        let source = source(&DatagenConfig { seed, ..small() });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let spec = shard(&source, 1).await;
            let all = captured(&source, &spec, 0, 5_000).await.changes;
            let rest = captured(&source, &spec, from, 5_000).await.changes;
            assert_eq!(all.len(), 2_000);
            assert_eq!(rest, all[usize::try_from(from).unwrap()..]);
        });
    }
}
