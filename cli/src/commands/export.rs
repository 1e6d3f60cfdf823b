//! `tidegate export`.

use clap::Subcommand;
use serde::Serialize;
use tidegate_proto::v1::{ExportState, Rate};

use crate::args::Common;
use crate::cluster::Cluster;
use crate::commands::shard;
use crate::failure::Result;
use crate::human;
use crate::output::{self, Format};
use crate::progress::{self, SnapshotProgress};
use crate::table::{self, Rows};
use crate::time;
use crate::views::{ExportView, Names, RateView, ShardView};

#[derive(Debug, Subcommand)]
pub(crate) enum ExportCommand {
    /// List the exports
    #[command(after_help = "Example:\n  tidegate export list")]
    List,
    /// Show an export: its file, its shards, its sinks
    #[command(after_help = "Example:\n  tidegate export show orders")]
    Show {
        /// Name of the export
        export: String,
    },
    /// Stop writing to sinks and reading rows; the stream is still captured, so nothing is lost
    #[command(after_help = "Example:\n  tidegate export pause orders

The spool keeps what is not written; see `tidegate export show` for how much that is. When its disk
limit is reached, capture stands still, and the source may forget what was not captured.")]
    Pause {
        /// Name of the export
        export: String,
    },
    /// Go on where it was paused, or where shards of it failed
    #[command(after_help = "Example:\n  tidegate export resume orders

A failed shard says in `tidegate shard list` what to mend first.")]
    Resume {
        /// Name of the export
        export: String,
    },
    /// Limit how fast an export is captured, or take the limit back
    #[command(after_help = "Examples:
  tidegate export rate orders --rows 500       go easy on the source while the snapshot is read
  tidegate export rate orders --changes 10000
  tidegate export rate orders --reset          as the export's file says

Limits are per shard and second, and hold until they are set otherwise, through
failovers too. A source that forgets its log goes on forgetting it.")]
    Rate {
        /// Name of the export
        export: String,
        /// Changes of the stream; 0 for any number
        #[arg(long, required_unless_present_any = ["rows", "reset"])]
        changes: Option<u32>,
        /// Rows of the snapshot; 0 for any number
        #[arg(long)]
        rows: Option<u32>,
        /// Follow the export's file again
        #[arg(long, conflicts_with_all = ["changes", "rows"])]
        reset: bool,
    },
    /// Remove an export, its spool and its checkpoints; what sinks have stays
    #[command(after_help = "Example:\n  tidegate export delete orders --yes")]
    Delete {
        /// Name of the export
        export: String,
    },
}

#[derive(Debug, Serialize)]
struct ExportsView {
    exports: Vec<ExportView>,
}

#[derive(Debug, Serialize)]
struct ExportDetailView {
    #[serde(flatten)]
    export: ExportView,
    snapshot: SnapshotProgress,
    shards_of: Vec<ShardView>,
    /// The export file as it was applied.
    spec: String,
}

#[derive(Debug, Serialize)]
struct DoneView {
    export: String,
    /// `active`, `paused`, `deleted`, or what became of its rate.
    state: &'static str,
}

/// Does what was asked about exports.
pub(crate) async fn run(
    command: ExportCommand,
    mut cluster: Cluster,
    common: &Common,
) -> Result<()> {
    let format = common.output;
    match command {
        ExportCommand::List => {
            let exports = cluster.exports().await?.iter().map(ExportView::from).collect();
            let document = ExportsView { exports };
            output::show(format, &document, |it| table(&it.exports, time::now_ms()))
        }
        ExportCommand::Show { export } => show(cluster, &export, format).await,
        ExportCommand::Pause { export } => {
            cluster.set_export_state(&export, ExportState::Paused).await?;
            done(export, "paused", format)
        }
        ExportCommand::Resume { export } => {
            cluster.set_export_state(&export, ExportState::Active).await?;
            done(export, "active", format)
        }
        ExportCommand::Rate { export, changes, rows, reset } => {
            let rate =
                (!reset).then(|| Rate { changes: changes.unwrap_or(0), rows: rows.unwrap_or(0) });
            cluster.set_export_rate(&export, rate).await?;
            done(export, if reset { "as fast as its file says" } else { "limited" }, format)
        }
        ExportCommand::Delete { export } => delete(cluster, export, common).await,
    }
}

async fn show(mut cluster: Cluster, name: &str, format: Format) -> Result<()> {
    let export = cluster.export(name).await?;
    let answer = cluster.shards(name).await?;
    let names = Names::from(&cluster.status().await?);
    let shards = answer.shards.iter().map(|it| ShardView::new(it, &names, answer.now_ms));
    let document = ExportDetailView {
        snapshot: progress::of(&answer.shards),
        shards_of: shards.collect(),
        export: ExportView::from(&export),
        spec: export.spec,
    };
    output::show(format, &document, detail)
}

async fn delete(mut cluster: Cluster, name: String, common: &Common) -> Result<()> {
    let export = cluster.export(&name).await?;
    let question = format!(
        "Delete export {name} (version {}, {}) with its spool and checkpoints?",
        export.version,
        human::plural(export.shards as usize, "shard")
    );
    if !output::confirm(&question, common.yes, common.output)? {
        output::note("nothing was changed");
        return Ok(());
    }
    cluster.delete_export(&name).await?;
    done(name, "deleted", common.output)
}

fn done(export: String, state: &'static str, format: Format) -> Result<()> {
    let document = DoneView { export, state };
    output::show(format, &document, |it| format!("export {} is {}", it.export, it.state))
}

/// Exports as a table.
pub(super) fn table(exports: &[ExportView], now_ms: i64) -> String {
    let mut rows =
        Rows::new(&["EXPORT", "STATE", "SOURCE", "SINKS", ">SHARDS", ">VERSION", "CREATED"]);
    for export in exports {
        rows.row([
            export.name.clone(),
            export.state.to_owned(),
            export.source.clone(),
            export.sinks.join(", "),
            export.shards.to_string(),
            export.version.to_string(),
            time::age(export.created_ms, now_ms),
        ]);
    }
    rows.or("no exports yet; create one: tidegate apply -f FILE")
}

fn detail(view: &ExportDetailView) -> String {
    let export = &view.export;
    let snapshot = &view.snapshot;
    let records: u64 = view.shards_of.iter().map(|it| it.captured.records).sum();
    let facts = table::facts(&[
        ("export", format!("{} (version {})", export.name, export.version)),
        ("state", export.state.to_owned()),
        ("source", export.source.clone()),
        ("sinks", export.sinks.join(", ")),
        ("rate", export.rate.map_or_else(String::new, RateView::text)),
        ("created", time::age(export.created_ms, time::now_ms())),
        ("snapshot", format!("{} ({})", snapshot.state, human::percent(snapshot.share))),
        ("captured", format!("{} changes", human::count(records))),
    ]);
    let shards = shard::table(&view.shards_of);
    let spec = view.spec.trim_end();
    format!("{facts}\n\n{shards}\n\n{spec}")
}
