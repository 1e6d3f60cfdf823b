//! A lake: Parquet files in a folder or a bucket, exactly once.
//!
//! Data files first, then one manifest that names them, written only if no
//! other has its place: that is the commit. Readers follow the manifests, so a
//! file without one does not exist. [`chain`] keeps owners apart and [`claim`]
//! exports of one name, [`gather`] and [`encode`] make the files out of [`rows`], [`shred`] says which fields of
//! documents get columns and [`columns`] fills them, [`sweep`] deletes what was
//! never committed.
//!
//! Memory: the rows of one row group and the packed bytes of those before it,
//! for each collection; all of it together below `target-file-bytes`.

mod chain;
mod claim;
mod client;
mod columns;
mod config;
mod encode;
mod gather;
mod manifest;
mod names;
mod rows;
mod shred;
mod sweep;

use futures::{StreamExt as _, TryStreamExt as _};
use tidegate_proto::Sequence;
use tidegate_proto::v1::Check;
use tonic::async_trait;

use self::chain::Chain;
pub(in crate::sinks) use self::client::meaning_of;
use self::client::{Created, Store};
pub use self::config::{Compression, LakeConfig};
use self::encode::FileSettings;
pub(in crate::sinks) use self::gather::operation_name;
use self::gather::{Gathering, Sealed};
pub(in crate::sinks) use self::names::safe;
use self::sweep::Sweeper;
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::sinks::{Durable, Guarantee, Opened, Sink, SinkBatch, SinkShard, SinkTraits, Written};

/// Files written at the same time.
const UPLOADS_MAX: usize = 4;

/// Opens the lake for a shard, and shuts out owners before this one.
pub(super) async fn open(config: &LakeConfig, shard: &SinkShard) -> Result<Opened> {
    let store = Store::open(config)?;
    let chain = Chain::open(store.clone(), shard.clone()).await?;
    let committed = chain.committed()?;
    let sweeper = Sweeper::start(store.clone(), shard.clone(), chain.length(), clock::now_ms);
    let mut sink = LakeSink {
        store,
        chain,
        shard: shard.clone(),
        settings: FileSettings { compression: config.compression, shred: config.shred },
        target_bytes: config.target_file_bytes,
        delay_ms: config.delay_ms,
        gathering: None,
        sealed: None,
        idle: false,
        fresh: true,
        _sweeper: sweeper,
    };
    sink.start_over();
    Ok(Opened { sink: Box::new(sink), committed })
}

/// Whether the lake can be written to, and keeps owners apart.
pub(super) async fn check(config: &LakeConfig) -> Vec<Check> {
    let made = async {
        let store = Store::open(config)?;
        let path = format!(".tidegate-check-{}", clock::now_ms());
        store.create(&path, "check".into()).await?;
        let twice = store.create(&path, "check".into()).await?;
        store.delete(&path).await?;
        Ok::<_, Error>(twice)
    };
    let (passed, detail, remedy) = match made.await {
        Ok(Created::Taken) => (true, "writes, and refuses a second owner".to_owned(), ""),
        Ok(Created::Made) => {
            (false, "ignores conditional writes".to_owned(), "use a store that has them")
        }
        Err(error) => (false, error.to_string(), "mend what the detail names"),
    };
    vec![Check { name: "lake".to_owned(), passed, detail, remedy: remedy.to_owned() }]
}

/// The lake, open for one shard.
///
/// A commit that could not be written stays sealed, and the next call tries it
/// again before anything else: its files and manifest stay the same, so a
/// repeat has no second effect.
struct LakeSink {
    store: Store,
    chain: Chain,
    shard: SinkShard,
    settings: FileSettings,
    target_bytes: u64,
    delay_ms: u64,
    /// `None` while a call works on it; stays so if that call fails or is dropped.
    gathering: Option<Gathering>,
    sealed: Option<Sealed>,
    /// A batch without changes was accepted since the last flush.
    idle: bool,
    /// No changes were taken since it was opened.
    fresh: bool,
    _sweeper: Sweeper,
}

#[async_trait]
impl Sink for LakeSink {
    fn traits(&self) -> SinkTraits {
        SinkTraits {
            kind: "lake",
            guarantee: Guarantee::ExactlyOnce,
            flush_after_ms: self.delay_ms,
        }
    }

    async fn write(&mut self, batch: &SinkBatch) -> Result<Written> {
        if self.sealed.is_some() {
            self.commit().await?;
        }
        let (committed, _) = self.chain.counts();
        let next = self.gathering()?.next();
        if batch.batch.changes.is_empty() {
            self.gathering()?.progress(&batch.progress);
            self.idle = true;
            return Ok(Written::Accepted);
        }
        if batch.last().0 < next {
            let durable = batch.last().0 <= committed;
            let everything = Durable::vouch(Sequence(committed));
            return Ok(if durable { Written::Durable(everything) } else { Written::Accepted });
        }
        if batch.first.0 > next {
            self.skip(batch).await?;
        }
        self.take(batch).await?;
        if self.gathering()?.bytes() >= self.target_bytes {
            return Ok(Written::Durable(self.commit().await?));
        }
        Ok(Written::Accepted)
    }

    /// When nothing but progress is waiting, nothing is written: no change is
    /// covered, so to lose it costs no more than to read that stretch of the
    /// source again and find nothing in it.
    async fn flush(&mut self) -> Result<Option<Durable>> {
        if self.sealed.is_some() || !self.gathering()?.is_empty() {
            return Ok(Some(self.commit().await?));
        }
        let idle = std::mem::take(&mut self.idle);
        Ok(idle.then(|| Durable::vouch(Sequence(self.chain.counts().0))))
    }
}

impl LakeSink {
    fn gathering(&mut self) -> Result<&mut Gathering> {
        self.gathering.as_mut().ok_or_else(lost_track)
    }

    fn start_over(&mut self) {
        let (committed, records) = self.chain.counts();
        let (shard, settings) = (self.shard.clone(), self.settings);
        self.gathering = Some(Gathering::behind(shard, settings, committed, records));
        self.idle = false;
    }

    /// Leaves out the sequences before `batch`, if they are a recorded loss.
    async fn skip(&mut self, batch: &SinkBatch) -> Result<()> {
        if batch.batch.rewound.is_none() && !self.fresh {
            let next = self.gathering()?.next();
            let what = format!("changes {next} to {} never came to the lake", batch.first.0 - 1);
            return Err(Error::new(ErrorKind::Corrupt, what));
        }
        if !self.gathering()?.is_empty() {
            self.commit().await?;
        }
        self.gathering()?.skip_to(batch.first.0);
        Ok(())
    }

    async fn take(&mut self, batch: &SinkBatch) -> Result<()> {
        let mut gathering = self.gathering.take().ok_or_else(lost_track)?;
        let batch = batch.clone();
        let taken = tokio::task::spawn_blocking(move || {
            gathering.take(&batch)?;
            Ok::<_, Error>(gathering)
        });
        self.gathering = Some(taken.await.map_err(|_| lost_track())??);
        self.fresh = false;
        Ok(())
    }

    /// Writes what was gathered, or what is sealed from a try before.
    async fn commit(&mut self) -> Result<Durable> {
        if self.sealed.is_none() {
            let gathering = self.gathering.take().ok_or_else(lost_track)?;
            let sealed = tokio::task::spawn_blocking(move || gathering.seal());
            self.sealed = Some(sealed.await.map_err(|_| lost_track())??);
        }
        let Self { store, chain, sealed: Some(sealed), .. } = self else {
            return Err(lost_track());
        };
        chain.claim().await?;
        // Cheap: the bytes are shared.
        let uploads = futures::stream::iter(sealed.files.clone()).map(|(path, bytes)| {
            let store = store.clone();
            async move { store.put(&path, bytes).await }
        });
        uploads.buffer_unordered(UPLOADS_MAX).try_collect::<()>().await?;
        chain.append(&sealed.manifest).await?;
        self.sealed = None;
        self.start_over();
        Ok(Durable::vouch(Sequence(self.chain.counts().0)))
    }
}

fn lost_track() -> Error {
    Error::new(ErrorKind::Unknown, "a call to the lake did not end; open it anew")
}

#[cfg(test)]
mod tests;
