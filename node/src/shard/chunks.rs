//! Tasks that read a snapshot's chunks, a few at a time.

use std::sync::{Arc, Mutex, PoisonError};

use tidegate_proto::BatchBuilder;
use tidegate_proto::v1::{Progress, Shard, ShardSpec};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::{Result, Verdict};
use crate::retry::Backoff;
use crate::shard::exports::Job;
use crate::shard::held::ReadPage;
use crate::shard::pace::Pace;
use crate::sources::Source;

/// Reads the chunks that are not done, and hands over their pages. Dropping it
/// ends the reading.
#[derive(Debug)]
pub(super) struct Chunks {
    pages: mpsc::Receiver<Result<ReadPage>>,
    _tasks: JoinSet<()>,
}

/// Chunks not begun, the first last, with where each goes on.
type Todo = Vec<(u32, bytes::Bytes)>;

/// What all chunk tasks of one shard share.
#[derive(Clone)]
struct Work {
    source: Arc<dyn Source>,
    spec: ShardSpec,
    page_bytes: usize,
    pace: Arc<Pace>,
}

impl Chunks {
    /// Starts each chunk of the shard where `progress` says it is.
    ///
    /// Together they read at the pace given.
    pub(super) fn start(
        (job, shard): (&Job, &Shard),
        progress: &Progress,
        pace: Pace,
        page_bytes: usize,
    ) -> Self {
        let settings = &job.spec.snapshot;
        let mut todo = Vec::new();
        for chunk in (0..shard.chunks).rev() {
            let at = progress.chunks.get(&chunk).cloned().unwrap_or_default();
            if !at.done {
                todo.push((chunk, at.cursor));
            }
        }
        let lanes = settings.chunks_in_flight.min(todo.len());
        let (sender, pages) = mpsc::channel(lanes.max(1));
        let todo = Arc::new(Mutex::new(todo));
        let pace = Arc::new(pace);
        let work = Work {
            source: Arc::clone(&job.source),
            spec: shard.spec.clone().unwrap_or_default(),
            page_bytes,
            pace,
        };
        let mut tasks = JoinSet::new();
        for _ in 0..lanes {
            tasks.spawn(read_all(work.clone(), Arc::clone(&todo), sender.clone()));
        }
        Self { pages, _tasks: tasks }
    }

    /// The next page of any chunk; `None` when all are done.
    pub(super) async fn next(&mut self) -> Option<Result<ReadPage>> {
        self.pages.recv().await
    }
}

/// Reads chunks until none is left to do.
async fn read_all(work: Work, todo: Arc<Mutex<Todo>>, pages: mpsc::Sender<Result<ReadPage>>) {
    let next = || todo.lock().unwrap_or_else(PoisonError::into_inner).pop();
    while let Some((chunk, cursor)) = next() {
        if !read(&work, chunk, cursor, &pages).await {
            return;
        }
    }
}

/// Reads one chunk to its end, through failures that pass; false if the reader
/// has gone or must be told of one that does not.
async fn read(
    work: &Work,
    chunk: u32,
    mut cursor: bytes::Bytes,
    pages: &mpsc::Sender<Result<ReadPage>>,
) -> bool {
    let mut backoff = Backoff::default();
    loop {
        let before = cursor.clone();
        let error = match read_from(work, chunk, &mut cursor, pages).await {
            Ok(ended) => return ended,
            Err(error) => error,
        };
        if cursor != before {
            backoff.reset();
        }
        if !matches!(error.verdict(), Verdict::Retry | Verdict::Reopen) {
            drop(pages.send(Err(error)).await);
            return false;
        }
        let wait = backoff.wait();
        let retry_in_ms = wait.as_millis();
        tracing::warn!(error = %error, chunk, retry_in_ms, "read a chunk of the snapshot");
        tokio::time::sleep(wait).await;
    }
}

async fn read_from(
    work: &Work,
    chunk: u32,
    cursor: &mut bytes::Bytes,
    pages: &mpsc::Sender<Result<ReadPage>>,
) -> Result<bool> {
    let mut reader = work.source.chunk(&work.spec, chunk, cursor).await?;
    loop {
        let mut rows = BatchBuilder::default();
        let page = reader.page(&mut rows, work.page_bytes).await?;
        let (done, count) = (page.done, rows.len());
        *cursor = page.cursor.clone();
        if pages.send(Ok(ReadPage { chunk, rows, page })).await.is_err() {
            return Ok(false);
        }
        work.pace.after(count).await;
        if done {
            return Ok(true);
        }
    }
}

#[cfg(test)]
#[path = "chunks/tests.rs"]
mod tests;
