//! Changes as lines of JSON, in files of a folder or on standard output.
//!
//! At least once. Behind each flush the folder's position file says how far the
//! files count; what a crash left behind it is cut off on open, so files at
//! rest hold each change once. Who reads while lines are added may see some
//! that are cut off and written again. Standard output cannot be asked what it
//! has: after a restart, what was not yet checkpointed comes again.

mod desk;
mod files;
mod line;

use std::io::Write as _;

use serde::Deserialize;
use tidegate_proto::Sequence;
use tidegate_proto::v1::Check;
use tonic::async_trait;

use self::files::Files;
use crate::error::{Error, ErrorKind, Result};
use crate::sinks::{Durable, Guarantee, Opened, Sink, SinkBatch, SinkShard, SinkTraits, Written};

/// Lines are written once they have this many bytes, flushed or not.
const HELD_BYTES_MAX: usize = 4 << 20;
/// How long accepted changes may wait.
const FLUSH_AFTER_MS: u64 = 1_000;

/// Keys of a `[[sink]]` of kind `jsonl`. Either `path` or `stdout = true`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct JsonlConfig {
    /// The folder, on the disk of the node that writes.
    path: Option<String>,
    /// Whether lines go to the node's standard output instead. Default false.
    #[serde(default)]
    stdout: bool,
    /// Bytes after which the next file is begun. Default 256 MiB.
    #[serde(default = "rotate_bytes")]
    rotate_bytes: u64,
}

impl JsonlConfig {
    /// Says what cannot work, without touching the disk.
    pub(super) fn validate(&self) -> Result<()> {
        let refuse =
            |why: &str| Error::new(ErrorKind::Config, format!("[[sink]] of kind \"jsonl\": {why}"));
        match &self.path {
            Some(_) if self.stdout => Err(refuse("set `path` or `stdout`, not both")),
            None if !self.stdout => Err(refuse("set `path`, or `stdout = true`")),
            Some(path) if !path.starts_with('/') => Err(refuse("path must be absolute")),
            _ if self.rotate_bytes < 1 << 10 => Err(refuse("rotate-bytes must be 1024 or more")),
            _ => Ok(()),
        }
    }
}

/// Opens the sink for a shard.
pub(super) async fn open(config: &JsonlConfig, shard: &SinkShard) -> Result<Opened> {
    let (target, committed) = match &config.path {
        None => (Target::Stdout, None),
        Some(path) => {
            let (path, shard, rotate) = (path.into(), shard.clone(), config.rotate_bytes);
            let files = blocking(move || Files::open(path, &shard, rotate)).await?;
            let committed = files.committed()?;
            (Target::Files(Some(Box::new(files))), committed)
        }
    };
    let upto = committed.as_ref().map_or(Sequence(0), |committed| committed.sequence);
    let held = Held { from: upto.0, upto: upto.0, ..Held::default() };
    let shard = shard.clone();
    let sink = JsonlSink { shard, target, held, waiting: false, fresh: true };
    Ok(Opened { sink: Box::new(sink), committed })
}

/// Whether the folder can be written to.
pub(super) fn check(config: &JsonlConfig) -> Vec<Check> {
    let Some(path) = &config.path else { return Vec::new() };
    let tried = std::fs::create_dir_all(path).and_then(|()| {
        let probe = std::path::Path::new(path).join(".tidegate-check");
        std::fs::write(&probe, b"check")?;
        std::fs::remove_file(&probe)
    });
    let (passed, detail, remedy) = match tried {
        Ok(()) => (true, "the folder can be written to".to_owned(), ""),
        Err(error) => (false, error.to_string(), "make the folder writable for the node"),
    };
    vec![Check { name: "jsonl".to_owned(), passed, detail, remedy: remedy.to_owned() }]
}

/// Where lines go.
enum Target {
    Stdout,
    /// `None` while a call works on it; stays so if that call fails or is dropped.
    Files(Option<Box<Files>>),
}

/// Lines not written yet.
#[derive(Clone, Debug, Default)]
struct Held {
    lines: Vec<u8>,
    count: u64,
    /// The sequences before the first line and of the last one.
    from: u64,
    upto: u64,
    /// Protobuf of the shard's progress after the last line.
    progress: Vec<u8>,
}

struct JsonlSink {
    shard: SinkShard,
    target: Target,
    held: Held,
    /// Something was accepted since the last flush.
    waiting: bool,
    /// No changes were taken since it was opened.
    fresh: bool,
}

#[async_trait]
impl Sink for JsonlSink {
    fn traits(&self) -> SinkTraits {
        SinkTraits {
            kind: "jsonl",
            guarantee: Guarantee::AtLeastOnce,
            flush_after_ms: FLUSH_AFTER_MS,
        }
    }

    async fn write(&mut self, batch: &SinkBatch) -> Result<Written> {
        if self.held.lines.len() >= HELD_BYTES_MAX {
            self.flush_held().await?;
        }
        let hole = batch.first.0 > self.held.upto + 1 && !batch.batch.changes.is_empty();
        if hole && !self.fresh && batch.batch.rewound.is_none() {
            let what = format!("changes before {} never came to the jsonl sink", batch.first);
            return Err(Error::new(ErrorKind::Corrupt, what));
        }
        self.fresh &= batch.batch.changes.is_empty();
        let mut held = std::mem::take(&mut self.held);
        let (shard, taken) = (self.shard.clone(), batch.clone());
        self.held = blocking(move || held.take(&shard, &taken).map(|()| held)).await?;
        self.waiting = true;
        if self.held.lines.len() >= HELD_BYTES_MAX {
            return Ok(Written::Durable(self.flush_held().await?));
        }
        Ok(Written::Accepted)
    }

    async fn flush(&mut self) -> Result<Option<Durable>> {
        if !self.waiting {
            return Ok(None);
        }
        self.flush_held().await.map(Some)
    }
}

impl Held {
    fn take(&mut self, shard: &SinkShard, batch: &SinkBatch) -> Result<()> {
        for (change, sequence) in batch.batch.changes.iter().zip(batch.first.0..) {
            if sequence <= self.upto {
                continue;
            }
            if self.count == 0 {
                self.from = sequence - 1;
            }
            line::write(shard, batch, change, sequence, &mut self.lines)?;
            self.upto = sequence;
            self.count += 1;
        }
        self.progress = prost::Message::encode_to_vec(&*batch.progress);
        Ok(())
    }
}

impl JsonlSink {
    /// Writes all lines held. A batch of progress alone makes no line and
    /// moves no position: it covers no change.
    async fn flush_held(&mut self) -> Result<Durable> {
        let upto = self.held.upto;
        if self.held.count > 0 {
            let held = self.held.clone();
            match &mut self.target {
                Target::Stdout => blocking(move || to_stdout(&held.lines)).await?,
                Target::Files(slot) => append(slot, held).await?,
            }
            self.held = Held { from: upto, upto, ..Held::default() };
        }
        self.waiting = false;
        Ok(Durable::vouch(Sequence(upto)))
    }
}

async fn append(slot: &mut Option<Box<Files>>, held: Held) -> Result<()> {
    let mut files = slot.take().ok_or_else(lost_track)?;
    let appended = blocking(move || Ok((files.append(&held), files)));
    let (done, files) = appended.await?;
    *slot = Some(files);
    done
}

fn to_stdout(lines: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(lines).and_then(|()| stdout.flush());
    // Part of it may be out: what reads it sees those lines again.
    written.map_err(|error| {
        Error::new(ErrorKind::Unavailable, "write to standard output").because(error)
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| lost_track())?
}

fn lost_track() -> Error {
    Error::new(ErrorKind::Unknown, "a call to the jsonl sink did not end; open it anew")
}

fn rotate_bytes() -> u64 {
    256 << 20
}

#[cfg(test)]
mod tests;
