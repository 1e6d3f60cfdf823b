//! The spool's database and the logs in it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use rocksdb::{
    BlockBasedOptions, Cache, DB, IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions,
};
use tidegate_proto::v1::{Progress, ShardId};
use tidegate_proto::{Epoch, Frame, Sequence};
use tidegate_raft_store::Stop;
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};
use crate::spool::begins::Begins;
use crate::spool::keys::{self, Key};
use crate::spool::log::{Head, ShardLog};

const FORMAT: u8 = 2;
const HEAD_VERSION: u8 = 2;
/// What to do about damage.
const HEAL: &str = "stop this node, delete that folder, start it again and say `tidegate export \
                    resume`: what was not delivered is then read again from the source";

/// How a spool is kept.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// Its folder.
    pub dir: PathBuf,
    /// Bytes of each shard's newest batches kept in memory.
    pub recent_bytes: usize,
    /// Free disk below which appends are refused.
    pub disk_free_bytes: u64,
}

/// All the shards' logs on this node, in one database, with one fsync for all.
#[derive(Debug)]
pub struct Spool {
    pub(super) db: DB,
    options: SpoolOptions,
    logs: Mutex<HashMap<ShardId, Arc<ShardLog>>>,
    /// Woken by every append.
    appended: Notify,
}

impl Spool {
    /// Opens the spool in `options.dir` after `stop`, making it if there is none, and
    /// checks what it finds. Refuses a folder that another process has open.
    pub fn open(options: SpoolOptions, stop: Stop) -> Result<Arc<Self>> {
        std::fs::create_dir_all(&options.dir).map_err(|error| {
            let why = format!("make the spool folder {}", options.dir.display());
            Error::new(ErrorKind::Config, why).because(error)
        })?;
        let db = DB::open(&settings(stop), &options.dir)
            .map_err(|error| cannot_open(&options.dir, error))?;
        check_format(&db, &options.dir)?;
        let spool = Arc::new(Self { db, options, logs: Mutex::default(), appended: Notify::new() });
        spool.load()?;
        Ok(spool)
    }

    /// The log of a shard, if this node holds one.
    #[must_use]
    pub fn log(&self, shard: ShardId) -> Option<Arc<ShardLog>> {
        self.logs().get(&shard).cloned()
    }

    /// The shards this node holds a log of.
    #[must_use]
    pub fn held(&self) -> Vec<ShardId> {
        self.logs().keys().copied().collect()
    }

    /// Starts a log anew, one begun under `epoch`: the next change gets `first`, and the
    /// shard stands at `progress`. What was held of the shard before is deleted.
    pub fn begin(
        self: &Arc<Self>,
        shard: ShardId,
        epoch: Epoch,
        first: Sequence,
        progress: Progress,
    ) -> Result<Arc<ShardLog>> {
        assert!(first > Sequence(0), "sequences start at 1");
        self.remove(shard)?;
        let head = Head::begun(epoch, first, progress);
        let mut batch = WriteBatch::default();
        batch.put(Key::Head(shard).encode(), head.encode());
        self.write(batch)?;
        Ok(self.adopt(shard, head))
    }

    /// Deletes a shard's log.
    pub fn remove(&self, shard: ShardId) -> Result<()> {
        let removed = self.logs().remove(&shard);
        if let Some(log) = removed {
            log.close();
        }
        let mut batch = WriteBatch::default();
        batch.delete(Key::Head(shard).encode());
        batch.delete(Key::Index(shard).encode());
        batch.delete(Key::Filling(shard).encode());
        let keys = [Key::all_touched(shard), Key::all_last(shard), Key::all_unknown(shard)];
        for (from, behind) in keys.into_iter().chain([Key::all_frames(shard)]) {
            batch.delete_range(from, behind);
        }
        self.write(batch)
    }

    /// Writes and syncs for as long as the node lives: after each round, all
    /// that was appended before it survives a power cut. A failed fsync ends
    /// the process: what a second try would say cannot be trusted (Rebello et
    /// al., "Can Applications Recover from fsync Failures?", 2020).
    pub async fn keep_synced(self: Arc<Self>) {
        loop {
            self.appended.notified().await;
            let logs: Vec<_> = self.logs().values().cloned().collect();
            let dirty: Vec<_> =
                logs.iter().filter_map(|log| Some((log, log.unsynced()?))).collect();
            if dirty.is_empty() {
                continue;
            }
            if let Err(error) = self.sync().await {
                tracing::error!(error = %error, "fsync of the spool did not succeed; ending the process");
                std::process::abort();
            }
            for (log, upto) in dirty {
                log.set_synced(upto);
            }
        }
    }

    /// What was written before is on disk afterwards; if that fails, the process
    /// must not go on with this spool.
    pub async fn sync(self: &Arc<Self>) -> Result<()> {
        let fail = |why: String| Error::new(ErrorKind::Corrupt, "sync the spool").because(why);
        let spool = Arc::clone(self);
        let synced = tokio::task::spawn_blocking(move || spool.db.flush_wal(true)).await;
        synced.map_err(|error| fail(error.to_string()))?.map_err(|error| fail(error.to_string()))
    }

    /// Bytes left on the spool's disk.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        free_bytes(&self.options.dir)
    }

    /// Less is left than twice what appends stop at: what is only kept for feeds goes.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.free_bytes() < self.options.disk_free_bytes.saturating_mul(2)
    }

    /// Fails with what to do when the disk is nearly full.
    pub fn check_room(&self) -> Result<()> {
        let free = self.free_bytes();
        if free < self.options.disk_free_bytes {
            let why = format!(
                "the disk of {} has {} MiB left and the spool stops at {}; all that is delivered is \
                 dropped already: free some, or mend the sinks; nothing is lost meanwhile",
                self.options.dir.display(),
                free >> 20,
                self.options.disk_free_bytes >> 20
            );
            return Err(Error::new(ErrorKind::Unavailable, why));
        }
        Ok(())
    }

    pub(super) fn notify_appended(&self) {
        self.appended.notify_one();
    }

    /// Writes without waiting for the disk; [`Spool::keep_synced`] waits.
    pub(super) fn write(&self, batch: WriteBatch) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(false);
        self.db.write_opt(batch, &options).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "write to the spool").because(error)
        })
    }

    fn load(self: &Arc<Self>) -> Result<()> {
        let (from, behind) = Key::all_heads();
        let mode = IteratorMode::From(&from, rocksdb::Direction::Forward);
        let mut found = Vec::new();
        for row in self.db.iterator(mode) {
            let (key, value) = row.map_err(|e| self.damaged("a head").because(e))?;
            if key[..] >= behind[..] {
                break;
            }
            let shard = keys::read_head_key(&key).ok_or_else(|| self.damaged("a head's key"))?;
            let head = Head::decode(&value)
                .ok_or_else(|| self.damaged(&format!("the head of shard {shard}")))?;
            found.push((shard, head));
        }
        for (shard, head) in found {
            self.adopt(shard, head);
        }
        Ok(())
    }

    fn adopt(self: &Arc<Self>, shard: ShardId, head: Head) -> Arc<ShardLog> {
        let log = ShardLog::new(Arc::downgrade(self), shard, head, self.options.recent_bytes);
        let log = Arc::new(log);
        self.logs().insert(shard, Arc::clone(&log));
        log
    }

    fn logs(&self) -> std::sync::MutexGuard<'_, HashMap<ShardId, Arc<ShardLog>>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The frames of `shard` from the one that holds `next` on, about
    /// `bytes_max` bytes of them, at least one; none above `upto`.
    pub(super) fn frames(
        &self,
        shard: ShardId,
        next: Sequence,
        upto: Sequence,
        bytes_max: usize,
    ) -> Result<Vec<Frame>> {
        let (mut frames, mut bytes, mut at) = (Vec::new(), 0, next);
        let batch = |at| self.damaged(&format!("the batch of shard {shard} with sequence {at}"));
        let mut options = ReadOptions::default();
        // A frame has a checksum of its own, and it is seen below that none is
        // left out: RocksDB need not sum up the same bytes.
        options.set_verify_checksums(false);
        let mut rows = self.db.raw_iterator_opt(options);
        rows.seek_for_prev(Key::Frame(shard, next).encode());
        // The second seek would forget it, and leave out the damaged batch.
        rows.status().map_err(|e| batch(at).because(e))?;
        let prefix = Key::frames(shard);
        if !rows.key().is_some_and(|key| key.starts_with(&prefix)) {
            rows.seek(Key::Frame(shard, next).encode());
        }
        while let (Some(key), Some(value)) = (rows.key(), rows.value()) {
            let Some((of, first)) = keys::read_frame_key(key) else { break };
            if of != shard || first > upto || bytes >= bytes_max {
                break;
            }
            let frame = Frame::parse(value.to_vec().into()).map_err(|e| batch(first).because(e))?;
            if frame.first() != first || first > at {
                return Err(batch(at));
            }
            at = at.max(frame.last().next());
            if frame.last() >= next && frame.last() <= upto {
                bytes += frame.bytes().len();
                frames.push(frame);
            }
            rows.next();
        }
        rows.status().map_err(|e| batch(at).because(e))?;
        Ok(frames)
    }

    fn damaged(&self, what: &str) -> Error {
        let why =
            format!("{what}, in the spool in {}, is damaged; {HEAL}", self.options.dir.display());
        Error::new(ErrorKind::Corrupt, why)
    }
}

/// Bits of a filter for each key: one in a hundred that is not there is looked for.
const KEY_FILTER_BITS: f64 = 10.0;
/// Of blocks read from the disk, for all shards of the node.
const BLOCK_CACHE_BYTES: usize = 64 << 20;

fn settings(stop: Stop) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    // Batches are written once and read in order: they need not be rewritten
    // by compaction, so large ones live in files of their own.
    options.set_enable_blob_files(true);
    options.set_min_blob_size(16 << 10);
    options.set_enable_blob_gc(true);
    options.set_blob_file_size(64 << 20);
    options.set_write_buffer_size(32 << 20);
    options.set_max_write_buffer_number(3);
    options.set_max_total_wal_size(256 << 20);
    options.set_bytes_per_sync(1 << 20);
    options.set_wal_bytes_per_sync(1 << 20);
    options.set_max_background_jobs(2);
    options.set_max_open_files(512);
    options.set_keep_log_file_num(2);
    options.set_paranoid_checks(true);
    let mut blocks = BlockBasedOptions::default();
    // Most keys that an index is asked for and does not have are told without a read.
    blocks.set_bloom_filter(KEY_FILTER_BITS, false);
    blocks.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    options.set_block_based_table_factory(&blocks);
    // A torn tail was never synced, so it was never stable.
    options.set_wal_recovery_mode(stop.into());
    options
}

fn cannot_open(dir: &Path, error: rocksdb::Error) -> Error {
    let dir = dir.display();
    if error.kind() == rocksdb::ErrorKind::Corruption {
        let why = format!("the spool in {dir} is damaged; {HEAL}");
        return Error::new(ErrorKind::Corrupt, why).because(error);
    }
    let why = format!("open the spool in {dir}; is another tidegated using it?");
    Error::new(ErrorKind::Config, why).because(error)
}

fn check_format(db: &DB, dir: &Path) -> Result<()> {
    let place = dir.display();
    let key = Key::Format.encode();
    let fail = |error| Error::new(ErrorKind::Corrupt, format!("read {place}")).because(error);
    match db.get(&key).map_err(fail)?.as_deref() {
        Some([FORMAT]) => Ok(()),
        None => db.put(&key, [FORMAT]).map_err(fail),
        Some(_) => {
            let why = format!(
                "the spool in {place} was written by another version; start that version, or \
                 empty the folder to read again from the delivered checkpoints"
            );
            Err(Error::new(ErrorKind::Config, why))
        }
    }
}

/// Bytes free where `dir` lies; as much as can be if the system does not tell.
fn free_bytes(dir: &Path) -> u64 {
    rustix::fs::statvfs(dir).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

impl Head {
    /// ```text
    ///   version (1)  crc32c (4, of the rest)  epoch  made  first  next
    ///   count (4) of begins, each: epoch  first    Progress (protobuf)
    /// ```
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for number in [self.epoch.0, self.made.0, self.first.0, self.next.0] {
            body.extend_from_slice(&number.to_be_bytes());
        }
        let begins: Vec<_> = self.begins.iter().collect();
        let count = u32::try_from(begins.len()).unwrap_or(u32::MAX);
        body.extend_from_slice(&count.to_be_bytes());
        for (epoch, first) in begins {
            body.extend_from_slice(&epoch.0.to_be_bytes());
            body.extend_from_slice(&first.0.to_be_bytes());
        }
        body.extend_from_slice(&self.progress.encode_to_vec());
        let mut out = vec![HEAD_VERSION];
        out.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
        out.extend_from_slice(&body);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (crc, body) = bytes.strip_prefix(&[HEAD_VERSION])?.split_first_chunk::<4>()?;
        if u32::from_be_bytes(*crc) != crc32c::crc32c(body) {
            return None;
        }
        let mut rest = body;
        let [epoch, made, first, next] = [(); 4].map(|()| number(&mut rest));
        let (count, mut rest) = rest.split_first_chunk::<4>()?;
        let mut begins = Vec::new();
        for _ in 0..u32::from_be_bytes(*count) {
            begins.push((Epoch(number(&mut rest)?), Sequence(number(&mut rest)?)));
        }
        Some(Self {
            epoch: Epoch(epoch?),
            made: Epoch(made?),
            first: Sequence(first?),
            next: Sequence(next?),
            progress: Progress::decode(rest).ok()?,
            begins: Begins::new(begins)?,
        })
    }
}

/// Takes the next number off `bytes`.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_be_bytes(*number))
}
