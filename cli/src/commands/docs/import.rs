//! `tidegate docs import`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::commands::docs::ImportArgs;
use crate::commands::docs::lines::{Batch, Lines};
use crate::commands::docs::store::Store;
use crate::failure::{Failure, Result};
use crate::human;
use crate::output::{self, Format};
use crate::time;

#[derive(Debug, Serialize)]
struct ImportedView {
    documents: u64,
    bytes: u64,
    /// The highest revision written.
    revision: u64,
    elapsed_ms: u64,
}

/// What was written.
#[derive(Debug, Default, Clone, Copy)]
struct Written {
    documents: u64,
    bytes: u64,
    revision: u64,
}

impl Written {
    fn plus(self, other: Self) -> Self {
        Self {
            documents: self.documents + other.documents,
            bytes: self.bytes + other.bytes,
            revision: self.revision.max(other.revision),
        }
    }
}

/// Writes all lines; on a failure says how many documents were written before.
pub(super) async fn run(args: ImportArgs, store: Store, format: Format) -> Result<()> {
    let start = Instant::now();
    let (input, size) = open(&args.file)?;
    let bar = bar(size);
    let (mut lanes, senders) = lanes(usize::from(args.in_flight), &store, &bar);
    // Reading blocks, so it has a thread; a full lane holds it back.
    let reader = tokio::task::spawn_blocking(move || {
        let lines = Lines { collection: &args.collection, key: &args.key, lanes: senders.len() };
        lines.cut(input, |lane, batch| senders[lane].blocking_send(batch).is_ok())
    });
    let mut written = Written::default();
    let mut failure = None;
    while let Some(lane) = lanes.join_next().await {
        let (sum, outcome) =
            lane.map_err(|error| Failure::failed(format!("a lane ended: {error}")))?;
        written = written.plus(sum);
        failure = failure.or(outcome.err());
    }
    bar.finish_and_clear();
    // A lane that failed took no more: its failure is the cause. The reader may
    // still wait for standard input then, and is left alone.
    if failure.is_none() {
        let read =
            reader.await.map_err(|error| Failure::failed(format!("reading ended: {error}")))?;
        failure = read.err();
    }
    if let Some(failure) = failure {
        output::note(&format!(
            "{} documents were written before it; mend it and import the file again",
            human::count(written.documents)
        ));
        return Err(failure);
    }
    show(written, start.elapsed(), format)
}

fn show(written: Written, elapsed: Duration, format: Format) -> Result<()> {
    let document = ImportedView {
        documents: written.documents,
        bytes: written.bytes,
        revision: written.revision,
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
    };
    output::show(format, &document, |it| {
        let rate = it.documents as f64 / elapsed.as_secs_f64().max(0.001);
        format!(
            "{} documents ({}) in {}, {}, revision {}",
            human::count(it.documents),
            human::bytes(it.bytes),
            time::duration(elapsed),
            human::rate(Some(rate)),
            it.revision
        )
    })
}

type Lanes = JoinSet<(Written, Result<()>)>;

/// Writers that take batches, each one after the other.
fn lanes(count: usize, store: &Store, bar: &ProgressBar) -> (Lanes, Vec<mpsc::Sender<Batch>>) {
    let mut lanes = JoinSet::new();
    let mut senders = Vec::new();
    for _ in 0..count {
        let (sender, batches) = mpsc::channel(1);
        lanes.spawn(lane(batches, store.clone(), bar.clone()));
        senders.push(sender);
    }
    (lanes, senders)
}

async fn lane(
    mut batches: mpsc::Receiver<Batch>,
    mut store: Store,
    bar: ProgressBar,
) -> (Written, Result<()>) {
    let mut sum = Written::default();
    while let Some(batch) = batches.recv().await {
        let (documents, bytes) = (batch.writes.len() as u64, batch.bytes as u64);
        match store.write_patiently(batch.writes).await {
            Ok(revision) => sum = sum.plus(Written { documents, bytes, revision }),
            Err(failure) => return (sum, Err(failure)),
        }
        bar.inc(bytes);
    }
    (sum, Ok(()))
}

/// The input, and its size where it is known.
fn open(path: &Path) -> Result<(Box<dyn BufRead + Send>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(BufReader::new(std::io::stdin())), None));
    }
    let fail = |error| Failure::usage(format!("open {}: {error}", path.display()));
    let file = File::open(path).map_err(fail)?;
    let size = file.metadata().map_err(fail)?.len();
    Ok((Box::new(BufReader::with_capacity(256 << 10, file)), Some(size)))
}

fn bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (
            ProgressBar::new(size),
            "[{bar:30}] {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left",
        ),
        None => (ProgressBar::no_length(), "{binary_bytes}  {binary_bytes_per_sec}"),
    };
    let style = ProgressStyle::with_template(template);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "))
}
