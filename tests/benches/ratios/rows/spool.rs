//! SPOOL: appending batches, against plain RocksDB writes of the same bytes.
//!
//! METHOD The same frames, appended one after the other while another task
//! syncs the log for all that was written since its last round, until the last
//! is on disk. The other side is RocksDB as it comes, with two puts per batch,
//! and the same syncing.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use rocksdb::{DB, Options, WriteBatch};
use tidegate_node::spool::{Spool, SpoolOptions, Stop};
use tidegate_proto::v1::{Progress, ShardId};
use tidegate_proto::{Epoch, Sequence};
use tokio::sync::{Notify, watch};

use crate::bench::{Bench, Better, Goal, Outcome, float, require, timed};
use crate::stock::{Stock, Tiling};

const GOAL: Goal = Goal {
    id: "SPOOL",
    what: "spool append to plain RocksDB batch writes of the same bytes",
    goal: 0.8,
    better: Better::Higher,
    unit: "MB/s",
};
const SHARD: ShardId = ShardId { export_id: 1, index: 0 };
const CHANGES: u64 = 600_000;

pub(crate) async fn run(bench: &mut Bench) -> Outcome<()> {
    let stock = Arc::new(Stock::make(1024, CHANGES).await?);
    let bytes: usize = stock.frames.iter().map(|frame| frame.bytes().len()).sum();
    let megabytes = float(bytes) / 1e6;
    let folder = bench.folder()?;
    let (mut ours, mut theirs) = (0, 0);
    let a = async || {
        ours += 1;
        let dir = folder.join(format!("a{ours}"));
        let seconds = append(Arc::clone(&stock), dir.clone()).await?;
        std::fs::remove_dir_all(dir)?;
        Ok(megabytes / seconds)
    };
    let b = async || {
        theirs += 1;
        let dir = folder.join(format!("b{theirs}"));
        let seconds = put(Arc::clone(&stock), dir.clone()).await?;
        std::fs::remove_dir_all(dir)?;
        Ok(megabytes / seconds)
    };
    bench.pair(&GOAL, a, b).await
}

async fn append(stock: Arc<Stock>, dir: PathBuf) -> Outcome<f64> {
    let options = SpoolOptions { dir, recent_bytes: 2 << 20, disk_free_bytes: 256 << 20 };
    let spool = Spool::open(options, Stop::Process)?;
    let log = spool.begin(SHARD, Epoch(1), Sequence(1), Progress::default())?;
    log.take_over(Epoch(1), (log.next(), Progress::default()), BTreeSet::new())?;
    let syncing = tokio::spawn(Arc::clone(&spool).keep_synced());
    let mut synced = log.synced();
    let (frames, appending) = (Arc::clone(&stock), Arc::clone(&log));
    let work = async {
        tokio::task::spawn_blocking(move || {
            for frame in &frames.frames {
                let stream = frame.first().0.to_be_bytes().to_vec().into();
                let delta = Progress { stream, ..Progress::default() };
                appending.append(frame, &delta, None)?;
            }
            Ok::<_, tidegate_node::error::Error>(())
        })
        .await??;
        synced.reached(Sequence(stock.changes)).await?;
        Ok(())
    };
    let (seconds, ()) = timed(work).await?;
    syncing.abort();
    drop(syncing.await);
    check(&stock, &log)?;
    Ok(seconds)
}

/// Every frame comes back as it was.
fn check(stock: &Stock, log: &tidegate_node::spool::ShardLog) -> Outcome<()> {
    log.set_stable(Sequence(stock.changes));
    let (mut found, mut wanted) = (Tiling::default(), Tiling::default());
    while found.last < stock.changes {
        let frames = log.read(Sequence(found.last), 8 << 20)?;
        require(!frames.is_empty(), "the spool gives back all it took")?;
        frames.iter().try_for_each(|frame| found.take(frame))?;
    }
    stock.frames.iter().try_for_each(|frame| wanted.take(frame))?;
    require(found == wanted, "the spool gives back what it took")
}

async fn put(stock: Arc<Stock>, dir: PathBuf) -> Outcome<f64> {
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = Arc::new(DB::open(&options, dir)?);
    let (written, appended) = (watch::Sender::new(0), Arc::new(Notify::new()));
    let (sender, mut synced) = watch::channel(0);
    let syncing = (written.subscribe(), Arc::clone(&appended));
    tokio::spawn(keep_synced(Arc::clone(&db), syncing, sender));
    let (frames, writing) = (Arc::clone(&stock), Arc::clone(&db));
    let work = async {
        tokio::task::spawn_blocking(move || {
            for frame in &frames.frames {
                let mut batch = WriteBatch::default();
                batch.put(b"head", [0; 48]);
                batch.put(frame.first().0.to_be_bytes(), frame.bytes());
                writing.write(batch)?;
                written.send_replace(frame.last().0);
                appended.notify_one();
            }
            Ok::<_, rocksdb::Error>(())
        })
        .await??;
        synced.wait_for(|synced| *synced == stock.changes).await?;
        Ok(())
    };
    let (seconds, ()) = timed(work).await?;
    for frame in &stock.frames {
        let found = db.get_pinned(frame.first().0.to_be_bytes())?;
        require(found.is_some_and(|found| found[..] == frame.bytes()[..]), "RocksDB kept a batch")?;
    }
    Ok(seconds)
}

/// Syncs after writes, as the spool does, and tells up to where.
async fn keep_synced(
    db: Arc<DB>,
    (mut written, appended): (watch::Receiver<u64>, Arc<Notify>),
    synced: watch::Sender<u64>,
) {
    loop {
        appended.notified().await;
        let (upto, db) = (*written.borrow_and_update(), Arc::clone(&db));
        let flushed = tokio::task::spawn_blocking(move || db.flush_wal(true)).await;
        if !matches!(flushed, Ok(Ok(()))) || synced.send(upto).is_err() {
            return;
        }
    }
}
