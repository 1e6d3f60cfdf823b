//! `tidegate snapshot`.

use std::time::Duration;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tidegate_proto::v1::{Scope, Shard, StartSnapshotRequest};
use tokio::time::Instant;

use crate::args::Common;
use crate::cluster::Cluster;
use crate::failure::{Failure, FailureKind, Result};
use crate::human;
use crate::output::{self, Format};
use crate::progress::{self, Meter, SnapshotProgress};
use crate::table::{self, Rows};
use crate::time;

/// How often a watched snapshot is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Show how far an export's snapshot is
    #[command(after_help = "Examples:
  tidegate snapshot show orders
  tidegate snapshot show orders --watch      # until it is complete")]
    Show {
        /// Name of the export
        export: String,
        /// Go on until the snapshot is complete; rate and time left are known then
        #[arg(long, short)]
        watch: bool,
    },
    /// Read an export's rows again, while its stream goes on
    ///
    /// Every row that is read reaches sinks and feeds as a snapshot row, in order with
    /// the changes of its key. What is gone from the source is deleted if the export's
    /// file says `sweep = true`. The snapshot before must be complete.
    #[command(after_help = "Examples:
  tidegate snapshot start orders
  tidegate snapshot start orders --shard orders/0 --keys order-17
  tidegate snapshot show orders --watch")]
    Start {
        /// Name of the export
        export: String,
        /// Only this shard: its name, or its number EXPORT/INDEX
        #[arg(long)]
        shard: Option<String>,
        /// Only rows of this collection
        #[arg(long)]
        collection: Option<String>,
        /// Only rows whose key begins with this; the first part of keys that have several
        #[arg(long, value_name = "PREFIX")]
        keys: Option<String>,
    },
    /// Let the snapshots of an export stand still; its stream goes on
    #[command(after_help = "Example:\n  tidegate snapshot pause orders")]
    Pause {
        /// Name of the export
        export: String,
    },
    /// Go on with the snapshots of an export, where each chunk was
    #[command(after_help = "Example:\n  tidegate snapshot resume orders")]
    Resume {
        /// Name of the export
        export: String,
    },
    /// End the snapshots of an export; rows not read by now are not read
    ///
    /// Gaps that the snapshot was to mend are open again.
    #[command(after_help = "Example:\n  tidegate snapshot cancel orders --yes")]
    Cancel {
        /// Name of the export
        export: String,
    },
}

#[derive(Debug, Serialize)]
struct DoneView {
    export: String,
    /// What became of its snapshot.
    snapshot: &'static str,
}

#[derive(Debug, Serialize)]
struct SnapshotView {
    export: String,
    #[serde(flatten)]
    progress: SnapshotProgress,
    shards: Vec<PartView>,
}

#[derive(Debug, Serialize)]
struct PartView {
    shard: String,
    #[serde(flatten)]
    progress: SnapshotProgress,
}

/// Does what was asked about snapshots.
pub(crate) async fn run(
    command: SnapshotCommand,
    mut cluster: Cluster,
    common: &Common,
) -> Result<()> {
    let format = common.output;
    match command {
        SnapshotCommand::Show { export, watch } => {
            if watch {
                self::watch(&mut cluster, &export).await?;
            }
            let shards = cluster.shards(&export).await?.shards;
            output::show(format, &view(export, &shards), table)
        }
        SnapshotCommand::Start { export, shard, collection, keys } => {
            let (shard, collection) = (shard.unwrap_or_default(), collection.unwrap_or_default());
            let scope = Scope { collection, key_prefix: keys.unwrap_or_default() };
            let scope = (scope != Scope::default()).then_some(scope);
            let request = StartSnapshotRequest { export: export.clone(), shard, scope };
            cluster.start_snapshot(request).await?;
            done(export, "started", format)
        }
        SnapshotCommand::Pause { export } => {
            cluster.pause_snapshot(&export, true).await?;
            done(export, "paused", format)
        }
        SnapshotCommand::Resume { export } => {
            cluster.pause_snapshot(&export, false).await?;
            done(export, "going on", format)
        }
        SnapshotCommand::Cancel { export } => {
            let question = format!("End the snapshot of {export} where it is?");
            if !output::confirm(&question, common.yes, format)? {
                output::note("nothing was changed");
                return Ok(());
            }
            cluster.cancel_snapshot(&export).await?;
            done(export, "canceled", format)
        }
    }
}

fn done(export: String, snapshot: &'static str, format: Format) -> Result<()> {
    let document = DoneView { export, snapshot };
    output::show(format, &document, |it| {
        format!("the snapshot of {} is {}", it.export, it.snapshot)
    })
}

fn view(export: String, shards: &[Shard]) -> SnapshotView {
    let name = |it: &Shard| it.spec.as_ref().map_or_else(String::new, |spec| spec.name.clone());
    let part = |it| PartView { shard: name(it), progress: progress::of([it]) };
    SnapshotView {
        export,
        progress: progress::of(shards),
        shards: shards.iter().map(part).collect(),
    }
}

/// Shows a bar until the snapshot is complete; a node that falls silent is
/// waited for.
async fn watch(cluster: &mut Cluster, export: &str) -> Result<()> {
    let bar = ProgressBar::new(1);
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.set_prefix(export.to_owned());
    let mut meter = Meter::default();
    loop {
        match cluster.shards(export).await {
            Ok(answer) => {
                let now = progress::of(&answer.shards);
                let (part, whole) = now.parts();
                bar.set_length(whole.max(1));
                bar.set_position(part.min(whole));
                bar.set_message(message(&now, meter.see(Instant::now(), now.rows)));
                if now.is_over() {
                    break;
                }
                if let Some(failed) = answer.shards.iter().find(|it| !it.failure.is_empty()) {
                    bar.abandon();
                    return Err(Failure::failed(format!("a shard failed: {}", failed.failure)));
                }
            }
            Err(failure) if failure.kind() == FailureKind::Unreachable => {
                bar.set_message("nobody answers; waiting");
            }
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bar.finish_and_clear();
    Ok(())
}

fn message(progress: &SnapshotProgress, rate: Option<f64>) -> String {
    let left = progress::time_left(progress, rate);
    format!(
        "{}  {} rows  {}  {} left",
        human::percent(progress.share),
        human::count(progress.rows),
        human::rate(rate),
        time::duration_or_dash(left)
    )
}

fn table(view: &SnapshotView) -> String {
    let all = &view.progress;
    let facts = table::facts(&[
        ("export", view.export.clone()),
        ("snapshot", format!("{} ({})", all.state, human::percent(all.share))),
    ]);
    let mut rows =
        Rows::new(&["SHARD", "STATE", ">DONE", ">CHUNKS", ">ROWS", ">ESTIMATED", ">BYTES"]);
    for part in &view.shards {
        let it = &part.progress;
        let estimate = match it.rows_estimated {
            0 => "-".to_owned(),
            rows => human::count(rows),
        };
        // What each chunk read is forgotten once the whole is complete.
        let (rows_read, bytes_read) = if it.is_over() {
            ("-".to_owned(), "-".to_owned())
        } else {
            (human::count(it.rows), human::bytes(it.bytes))
        };
        rows.row([
            part.shard.clone(),
            it.state.to_owned(),
            human::percent(it.share),
            format!("{}/{}", it.chunks_done, it.chunks),
            rows_read,
            estimate,
            bytes_read,
        ]);
    }
    format!("{facts}\n\n{}", rows.or("no shards yet"))
}
