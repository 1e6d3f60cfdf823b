//! `tidegate snapshot`.

use std::time::Duration;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tidegate_proto::v1::Shard;
use tokio::time::Instant;

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
    format: Format,
) -> Result<()> {
    let SnapshotCommand::Show { export, watch } = command;
    if watch {
        self::watch(&mut cluster, &export).await?;
    }
    let shards = cluster.shards(&export).await?.shards;
    output::show(format, &view(export, &shards), table)
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
        rows.row([
            part.shard.clone(),
            it.state.to_owned(),
            human::percent(it.share),
            format!("{}/{}", it.chunks_done, it.chunks),
            human::count(it.rows),
            estimate,
            human::bytes(it.bytes),
        ]);
    }
    format!("{facts}\n\n{}", rows.or("no shards yet"))
}
