//! What every sink must do, as functions over a target that can be opened and
//! read back. A sink's tests call [`keeps_the_contract`] with its own target.

use std::sync::Arc;

use prost::Message as _;
use tidegate_proto::v1::{ChunkProgress, Novelty, Operation, Progress, Rewound};
use tidegate_proto::{BatchBuilder, Codec, Draft, Epoch, Frame, Sequence, Stamp, Told, Value};
use tonic::async_trait;

use crate::error::{ErrorKind, Result};
use crate::sinks::{Opened, SinkBatch, SinkShard, Written};

/// A target, empty when it is made, that outlives the sinks opened on it.
#[async_trait]
pub(super) trait Target {
    /// Opens it for `shard`.
    async fn open(&self, shard: &SinkShard) -> Result<Opened>;

    /// The sequences that a reader finds in it, in the order it finds them.
    async fn read(&self, shard: &SinkShard) -> Vec<u64>;
}

/// Judges a sink. `fresh` makes an empty target.
pub(super) async fn keeps_the_contract<T: Target>(fresh: impl Fn() -> T) {
    a_flush_covers_all_writes(&fresh()).await;
    reopening_says_what_was_committed(&fresh()).await;
    a_batch_written_again_has_no_second_effect(&fresh()).await;
    an_older_epoch_is_refused(&fresh()).await;
    an_older_epoch_is_refused_with_a_batch_in_hand(&fresh()).await;
    another_export_of_the_name_is_refused(&fresh()).await;
    an_export_that_delivered_nothing_is_replaced(&fresh()).await;
    a_sink_dropped_midway_says_on_reopen_what_it_has(&fresh()).await;
    progress_alone_is_not_a_change(&fresh()).await;
    only_a_recorded_loss_may_be_left_out(&fresh()).await;
    a_mark_of_a_gap_is_no_change_of_a_key(&fresh()).await;
    shards_do_not_meet(&fresh()).await;
}

/// The shard of the suite, owned under `epoch`.
pub(super) fn shard(epoch: u64) -> SinkShard {
    let [export, uid, shard, sink] = ["orders", "c/1", "table/0", "out"].map(str::to_owned);
    SinkShard { export, uid, shard, sink, epoch: Epoch(epoch) }
}

/// A batch of the changes from `first` to `last`, captured under epoch 1, with
/// a progress that tells where it ends. None if `last` is before `first`.
pub(super) fn batch(first: u64, last: u64) -> SinkBatch {
    let mut builder = BatchBuilder::default();
    for sequence in first..=last {
        push(&mut builder, sequence);
    }
    batch_of(&builder, first)
}

/// What is in `builder`, as a batch that begins at `first`.
pub(super) fn batch_of(builder: &BatchBuilder, first: u64) -> SinkBatch {
    let stamp = Stamp {
        epoch: Epoch(1),
        first: Sequence(first),
        captured_ms: 1_700_000_000_000,
        clock: 1 << 40,
        told: builder.pending().zip(first - 1..).map(|(_, before)| told(before)).collect(),
        ..Stamp::default()
    };
    let frame = Frame::parse(builder.encode(stamp, Codec::Zstd).bytes().clone()).unwrap();
    let decoded = Arc::new(frame.decode().unwrap());
    let progress = Arc::new(progress_at(frame.last().0));
    SinkBatch { frame, batch: decoded, first: Sequence(first), progress }
}

/// Of every change, that the one before it was the same.
fn told(before: u64) -> Told {
    Told { novelty: Novelty::Duplicate, previous: Sequence(before) }
}

/// A progress with all there is in one, told apart by `sequence`.
pub(super) fn progress_at(sequence: u64) -> Progress {
    let chunk = ChunkProgress { cursor: "c\u{0}".into(), done: true, rows: sequence, bytes: 9 };
    Progress {
        stream: format!("position {sequence}").into(),
        chunks: [(7, chunk)].into(),
        snapshot: 1,
        ..Progress::default()
    }
}

fn push(builder: &mut BatchBuilder, sequence: u64) {
    let value = Value::Object(vec![
        ("id".into(), Value::Int(sequence.cast_signed())),
        ("name".into(), Value::String(format!("row {sequence}"))),
    ]);
    let document = tidegate_proto::document::encode(&value).unwrap();
    let key = tidegate_proto::Key::encode(&[tidegate_proto::KeyPart::String(sequence.to_string())]);
    builder.push(&Draft {
        operation: Operation::Upsert,
        collection: "orders",
        key: key.unwrap().as_bytes(),
        document: Some((&document.dictionary, &document.value)),
        before: None,
        committed_ms: 1_700_000_000_000,
    });
}

/// The last sequence of the proof that `sink` gives for what it accepted.
async fn flush(opened: &mut Opened) -> Option<u64> {
    opened.sink.flush().await.unwrap().map(|durable| durable.upto().0)
}

/// A flush vouches for everything written before it, and a reader sees it.
async fn a_flush_covers_all_writes(target: &impl Target) {
    let mut opened = target.open(&shard(1)).await.unwrap();
    assert!(opened.committed.is_none(), "nothing was written yet");
    assert_eq!(flush(&mut opened).await, None, "nothing is waiting");
    opened.sink.write(&batch(1, 3)).await.unwrap();
    opened.sink.write(&batch(4, 5)).await.unwrap();
    assert_eq!(flush(&mut opened).await, Some(5));
    assert_eq!(target.read(&shard(1)).await, [1, 2, 3, 4, 5]);
    assert_eq!(flush(&mut opened).await, None, "nothing is waiting any more");
}

/// What was flushed is told on reopen, with its progress as it was.
async fn reopening_says_what_was_committed(target: &impl Target) {
    let mut opened = target.open(&shard(1)).await.unwrap();
    opened.sink.write(&batch(1, 3)).await.unwrap();
    flush(&mut opened).await;
    opened.sink.write(&batch(4, 6)).await.unwrap();
    flush(&mut opened).await;
    for epoch in [1, 2, 2, 9] {
        let committed = target.open(&shard(epoch)).await.unwrap().committed.unwrap();
        assert_eq!((committed.sequence, committed.records), (Sequence(6), 6), "epoch {epoch}");
        assert_eq!(committed.progress.encode_to_vec(), progress_at(6).encode_to_vec());
    }
}

/// A repeat changes nothing, whether it is all or part of what is there.
async fn a_batch_written_again_has_no_second_effect(target: &impl Target) {
    let mut opened = target.open(&shard(1)).await.unwrap();
    opened.sink.write(&batch(1, 4)).await.unwrap();
    flush(&mut opened).await;
    let mut opened = target.open(&shard(1)).await.unwrap();
    opened.sink.write(&batch(1, 4)).await.unwrap();
    opened.sink.write(&batch(3, 6)).await.unwrap();
    opened.sink.write(&batch(5, 6)).await.unwrap();
    assert_eq!(flush(&mut opened).await, Some(6));
    assert_eq!(target.read(&shard(1)).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(target.open(&shard(2)).await.unwrap().committed.unwrap().records, 6);
}

/// Once a newer owner was here, an older one cannot come back.
async fn an_older_epoch_is_refused(target: &impl Target) {
    drop(target.open(&shard(5)).await.unwrap());
    let Err(error) = target.open(&shard(4)).await else { panic!("epoch 4 was let in") };
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
}

/// An export that was deleted and made again, or of another cluster: its sequences
/// are others, and it must not take what is there for its own.
async fn another_export_of_the_name_is_refused(target: &impl Target) {
    let mut opened = target.open(&shard(5)).await.unwrap();
    opened.sink.write(&batch(1, 3)).await.unwrap();
    flush(&mut opened).await;
    opened.sink.write(&batch(4, 5)).await.unwrap();
    for epoch in [1, 5, 9] {
        let Err(error) = target.open(&another(epoch)).await else { panic!("it was let in") };
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("To begin anew"), "{error}");
    }
    // Nor is the owner disturbed.
    assert_eq!(flush(&mut opened).await, Some(5));
    assert_eq!(target.read(&shard(5)).await, [1, 2, 3, 4, 5]);
}

/// What never delivered anything is in nobody's way, whatever its epoch.
async fn an_export_that_delivered_nothing_is_replaced(target: &impl Target) {
    let mut old = target.open(&shard(5)).await.unwrap();
    old.sink.write(&batch(1, 2)).await.unwrap();
    let mut opened = target.open(&another(1)).await.unwrap();
    assert!(opened.committed.is_none());
    opened.sink.write(&batch(1, 3)).await.unwrap();
    assert_eq!(flush(&mut opened).await, Some(3));
    assert!(old.sink.flush().await.is_err(), "it was replaced");
    assert_eq!(target.open(&shard(6)).await.err().unwrap().kind(), ErrorKind::Config);
    assert_eq!(target.read(&another(1)).await, [1, 2, 3]);
}

fn another(epoch: u64) -> SinkShard {
    SinkShard { uid: "c/2".to_owned(), ..shard(epoch) }
}

/// An owner that was replaced while it held a batch cannot commit it.
async fn an_older_epoch_is_refused_with_a_batch_in_hand(target: &impl Target) {
    let mut old = target.open(&shard(1)).await.unwrap();
    old.sink.write(&batch(1, 2)).await.unwrap();
    flush(&mut old).await;
    old.sink.write(&batch(3, 4)).await.unwrap();
    let mut new = target.open(&shard(2)).await.unwrap();
    assert_eq!(new.committed.as_ref().map(|committed| committed.sequence), Some(Sequence(2)));
    assert_eq!(old.sink.flush().await.unwrap_err().kind(), ErrorKind::Fenced);
    new.sink.write(&batch(3, 5)).await.unwrap();
    flush(&mut new).await;
    assert_eq!(old.sink.flush().await.unwrap_err().kind(), ErrorKind::Fenced, "still");
    assert_eq!(target.read(&shard(2)).await, [1, 2, 3, 4, 5]);
}

/// Whatever became of a flush that was dropped, reopening tells, and going on
/// from there loses and doubles nothing.
async fn a_sink_dropped_midway_says_on_reopen_what_it_has(target: &impl Target) {
    let mut upto = 0;
    // Up to the end of a flush of many steps; dense where most sinks work.
    for polls in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 18, 24, 32, 48, 96, 500] {
        let mut opened = target.open(&shard(1)).await.unwrap();
        let there = opened.committed.as_ref().map_or(0, |committed| committed.sequence.0);
        assert!(there == upto || there == upto + 2, "{there} after {upto}: whole batches only");
        upto = there;
        assert!(matches!(
            opened.sink.write(&batch(there + 1, there + 2)).await.unwrap(),
            Written::Accepted
        ));
        let mut flush = opened.sink.flush();
        for _ in 0..polls {
            let over = futures::poll!(&mut flush).is_ready();
            if over {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
    // The last drop's outcome may still be under way.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let there = target.open(&shard(2)).await.unwrap().committed;
    let there = there.map_or(0, |committed| committed.sequence.0);
    assert!(there >= 2, "some flush ended");
    assert_eq!(target.read(&shard(2)).await, (1..=there).collect::<Vec<_>>());
}

/// A batch without changes is covered by a flush, and is not seen by readers.
async fn progress_alone_is_not_a_change(target: &impl Target) {
    let mut opened = target.open(&shard(1)).await.unwrap();
    opened.sink.write(&batch(1, 2)).await.unwrap();
    flush(&mut opened).await;
    opened.sink.write(&batch(3, 2)).await.unwrap();
    assert_eq!(flush(&mut opened).await, Some(2));
    assert_eq!(target.read(&shard(1)).await, [1, 2]);
    opened.sink.write(&batch(9, 8)).await.unwrap();
    assert_eq!(flush(&mut opened).await, Some(2), "changes 3 to 8 are not there");
    opened.sink.write(&batch(3, 3)).await.unwrap();
    assert_eq!(flush(&mut opened).await, Some(3));
}

/// Missing changes are refused, unless the batch behind them says they are lost.
async fn only_a_recorded_loss_may_be_left_out(target: &impl Target) {
    let mut opened = target.open(&shard(1)).await.unwrap();
    opened.sink.write(&batch(1, 2)).await.unwrap();
    let mut behind = batch(5, 6);
    assert_eq!(opened.sink.write(&behind).await.unwrap_err().kind(), ErrorKind::Corrupt);
    Arc::make_mut(&mut behind.batch).rewound = Some(Rewound { after: 2, upto: 4 });
    opened.sink.write(&behind).await.unwrap();
    assert_eq!(flush(&mut opened).await, Some(6));
    assert_eq!(target.read(&shard(1)).await, [1, 2, 5, 6]);
}

/// A mark takes its place in the order, and whether readers see it or not, it is no
/// document of theirs.
async fn a_mark_of_a_gap_is_no_change_of_a_key(target: &impl Target) {
    let mut opened = target.open(&shard(1)).await.unwrap();
    let mut builder = BatchBuilder::default();
    push(&mut builder, 2);
    let told = Value::Object(vec![("gap".into(), Value::Int(1))]);
    let told = tidegate_proto::document::encode(&told).unwrap();
    builder.push_front(&Draft {
        operation: Operation::Gap,
        collection: "",
        key: &[],
        document: Some((&told.dictionary, &told.value)),
        before: None,
        committed_ms: 0,
    });
    opened.sink.write(&batch_of(&builder, 1)).await.unwrap();
    assert_eq!(flush(&mut opened).await, Some(2));
    builder.retain(|change| change.operation == Operation::Gap);
    opened.sink.write(&batch_of(&builder, 3)).await.unwrap();
    assert_eq!(flush(&mut opened).await, Some(3), "a mark alone");
    opened.sink.write(&batch(4, 4)).await.unwrap();
    assert_eq!(flush(&mut opened).await, Some(4));
    let mut seen = target.read(&shard(1)).await;
    seen.retain(|sequence| ![1, 3].contains(sequence));
    assert_eq!(seen, [2, 4]);
    let there = target.open(&shard(2)).await.unwrap().committed.unwrap();
    assert_eq!((there.sequence, there.records), (Sequence(4), 4));
}

/// Shards of one export share a target and nothing else.
async fn shards_do_not_meet(target: &impl Target) {
    let other = SinkShard { shard: "table/0-1".into(), ..shard(7) };
    let mut first = target.open(&shard(1)).await.unwrap();
    let mut second = target.open(&other).await.unwrap();
    first.sink.write(&batch(1, 2)).await.unwrap();
    second.sink.write(&batch(1, 5)).await.unwrap();
    assert_eq!((flush(&mut first).await, flush(&mut second).await), (Some(2), Some(5)));
    assert_eq!(target.read(&shard(1)).await, [1, 2]);
    assert_eq!(target.read(&other).await, [1, 2, 3, 4, 5]);
}
