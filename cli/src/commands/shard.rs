//! `tidegate shard`.

use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;
use tidegate_proto::v1::{MoveShardRequest, SplitShardRequest};

use crate::cluster::Cluster;
use crate::commands::rebalance;
use crate::commands::receipt::Receipt;
use crate::failure::{Failure, Result};
use crate::human;
use crate::output::{self, Format};
use crate::table::{self, Rows};
use crate::time;
use crate::views::{DeliveryView, Names, ShardView};

#[derive(Debug, Subcommand)]
pub(crate) enum ShardCommand {
    /// List shards: who reads them, how far they are, how far sinks are behind
    #[command(after_help = "Examples:\n  tidegate shard list\n  tidegate shard list orders")]
    List {
        /// Only those of this export
        export: Option<String>,
    },
    /// Show one shard
    #[command(
        after_help = "Examples:\n  tidegate shard show orders 0-1023\n  tidegate shard show orders 7/0"
    )]
    Show {
        /// Name of the export
        export: String,
        /// Name of the shard, or its number EXPORT/INDEX
        shard: String,
    },
    /// Move a shard's reader, its writers, or both
    ///
    /// The new reader's node gets a copy of the spool first, while the shard goes on
    /// where it is; then it takes over. Every step is an entry of the log, printed
    /// with the time since the start. If the new node fails on the way, the shard
    /// stays where it is.
    #[command(after_help = "Examples:
  tidegate shard move orders/0-1023 --reader node2
  tidegate shard move orders/0-1023 --writer lake=node3")]
    Move {
        /// The shard: EXPORT/SHARD
        #[arg(value_parser = export_and_shard)]
        shard: (String, String),
        /// Node that shall read it
        #[arg(long, required_unless_present = "writers")]
        reader: Option<String>,
        /// Node that shall write to a sink; may be repeated
        #[arg(long = "writer", value_name = "SINK=NODE", value_parser = sink_and_node)]
        writers: Vec<(String, String)>,
    },
    /// Split a shard in two
    ///
    /// Its reader ends it at a change; two new shards, each with half of its keys, go
    /// on from there. A key's changes keep their order, at sinks and in feeds. Only for
    /// sources whose shards are ranges, and after the snapshot.
    #[command(after_help = "Example:\n  tidegate shard split orders/slots-00-31")]
    Split {
        /// The shard: EXPORT/SHARD
        #[arg(value_parser = export_and_shard)]
        shard: (String, String),
    },
    /// Even out the work of the nodes
    ///
    /// Looks for a second how much each shard captures, and moves readers from nodes
    /// with much to nodes with little, one after the other, each as `shard move` does.
    /// Shards stay in their source's region, and nothing goes to a cordoned node.
    #[command(after_help = "Examples:
  tidegate shard rebalance --dry-run
  tidegate shard rebalance")]
    Rebalance {
        /// Only show what would be moved
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) fn export_and_shard(text: &str) -> std::result::Result<(String, String), String> {
    let (export, shard) = text.split_once('/').ok_or("write it as EXPORT/SHARD")?;
    Ok((export.to_owned(), shard.to_owned()))
}

fn sink_and_node(text: &str) -> std::result::Result<(String, String), String> {
    let (sink, node) = text.split_once('=').ok_or("write it as SINK=NODE")?;
    Ok((sink.to_owned(), node.to_owned()))
}

#[derive(Debug, Serialize)]
struct ShardsView {
    /// The clock of the node that answered: milliseconds since 1970.
    now_ms: i64,
    shards: Vec<ShardView>,
}

/// Does what was asked about shards.
pub(crate) async fn run(command: ShardCommand, mut cluster: Cluster, format: Format) -> Result<()> {
    match command {
        ShardCommand::List { export } => {
            let view = view(&mut cluster, export.as_deref().unwrap_or_default()).await?;
            output::show(format, &view, |it| table(&it.shards))
        }
        ShardCommand::Show { export, shard } => {
            let (found, now_ms) = find(&mut cluster, &export, &shard).await?;
            output::show(format, &found, |it| detail(it, now_ms))
        }
        ShardCommand::Move { shard: (export, shard), reader, writers } => {
            let reader = reader.unwrap_or_default();
            let writers = writers.into_iter().collect();
            let request = MoveShardRequest { export, shard, reader, writers };
            move_shard(&mut cluster, request, format).await?.show(format)
        }
        ShardCommand::Split { shard: (export, shard) } => {
            split_shard(&mut cluster, export, shard, format).await?.show(format)
        }
        ShardCommand::Rebalance { dry_run } => rebalance::run(&mut cluster, dry_run, format).await,
    }
}

/// Moves a shard; for people, prints each step as it happens.
pub(super) async fn move_shard(
    cluster: &mut Cluster,
    request: MoveShardRequest,
    format: Format,
) -> Result<Receipt> {
    let shard = format!("{}/{}", request.export, request.shard);
    let answers = cluster.move_shard(request).await?;
    Receipt::take(shard, answers, format).await
}

async fn split_shard(
    cluster: &mut Cluster,
    export: String,
    shard: String,
    format: Format,
) -> Result<Receipt> {
    let named = format!("{export}/{shard}");
    let answers = cluster.split_shard(SplitShardRequest { export, shard }).await?;
    Receipt::take(named, answers, format).await
}

/// A shard by its name or number, and when the node that answered looked.
pub(super) async fn find(
    cluster: &mut Cluster,
    export: &str,
    shard: &str,
) -> Result<(ShardView, i64)> {
    let view = view(cluster, export).await?;
    let found = view.shards.into_iter().find(|it| it.name == shard || it.id == shard);
    let found = found.ok_or_else(|| {
        Failure::refused(format!(
            "export \"{export}\" has no shard \"{shard}\"; see: tidegate shard list {export}"
        ))
    })?;
    Ok((found, view.now_ms))
}

async fn view(cluster: &mut Cluster, export: &str) -> Result<ShardsView> {
    let answer = cluster.shards(export).await?;
    let names = Names::from(&cluster.status().await?);
    let now_ms = answer.now_ms;
    let shards = answer.shards.iter().map(|it| ShardView::new(it, &names, now_ms)).collect();
    Ok(ShardsView { now_ms, shards })
}

/// Shards as a table, the reasons of those that failed below it.
pub(super) fn table(shards: &[ShardView]) -> String {
    let heads =
        ["EXPORT", "SHARD", "STATE", ">EPOCH", "READER", ">CAPTURED", ">BYTES", "SINKS BEHIND"];
    let mut rows = Rows::new(&heads);
    for shard in shards {
        rows.row([
            shard.export.clone(),
            shard.name.clone(),
            state(shard),
            shard.epoch.to_string(),
            if shard.reader.is_empty() { "-".to_owned() } else { shard.reader.clone() },
            human::count(shard.captured.sequence),
            human::bytes(shard.captured.bytes),
            shard.sinks.iter().map(behind).collect::<Vec<_>>().join(", "),
        ]);
    }
    let mut text = rows.or("no shards yet: an export's shards are discovered after it is applied");
    for shard in shards.iter().filter(|it| !it.failure.is_empty()) {
        text.push_str(&format!("\n{} {} failed: {}", shard.export, shard.name, shard.failure));
    }
    text
}

fn state(shard: &ShardView) -> String {
    match shard.state {
        "snapshot" => format!("snapshot {}", human::percent(shard.snapshot.share)),
        other => other.to_owned(),
    }
}

/// `lake 0`, `lake 1,200 (3.4 s)`.
fn behind(sink: &DeliveryView) -> String {
    match (sink.behind, sink.lag_ms) {
        (0, _) | (_, None) => format!("{} {}", sink.sink, human::count(sink.behind)),
        (behind, Some(lag_ms)) => {
            let lag = time::duration(Duration::from_millis(lag_ms));
            format!("{} {} ({lag})", sink.sink, human::count(behind))
        }
    }
}

/// Empty where the source forgets nothing.
fn headroom(shard: &ShardView) -> String {
    let Some(left_ms) = shard.headroom_ms else { return String::new() };
    let left = time::duration(Duration::from_millis(left_ms));
    format!("{left} until the source forgets what is read next, if it is read no more")
}

fn detail(shard: &ShardView, now_ms: i64) -> String {
    let copy = |node: &String| match shard.in_sync.contains(node) {
        true => node.clone(),
        false => format!("{node} (catching up)"),
    };
    let snapshot = &shard.snapshot;
    let captured = &shard.captured;
    let facts = table::facts(&[
        ("shard", format!("{} ({}) of {}", shard.name, shard.id, shard.export)),
        ("state", state(shard)),
        ("failure", shard.failure.clone()),
        ("reader", format!("{} (epoch {})", shard.reader, shard.epoch)),
        ("out of reach", shard.out_of_reach.join(", ")),
        ("moving to", shard.moving_to.clone()),
        ("move given up", shard.move_given_up.clone()),
        ("copies", shard.copies.iter().map(copy).collect::<Vec<_>>().join(", ")),
        (
            "snapshot",
            format!("{}, {} of {} chunks", snapshot.state, snapshot.chunks_done, snapshot.chunks),
        ),
        (
            "captured",
            format!(
                "sequence {}, {}, checkpoint {}",
                human::count(captured.sequence),
                human::bytes(captured.bytes),
                time::age(captured.at_ms, now_ms)
            ),
        ),
        ("headroom", headroom(shard)),
        ("gaps", shard.gaps.to_string()),
    ]);
    let mut rows = Rows::new(&["SINK", "WRITER", ">DELIVERED", ">BEHIND", ">LAG", "CHECKPOINT"]);
    for sink in &shard.sinks {
        rows.row([
            sink.sink.clone(),
            sink.writer.clone(),
            human::count(sink.delivered.sequence),
            human::count(sink.behind),
            time::duration_or_dash(sink.lag_ms.map(Duration::from_millis)),
            time::age(sink.delivered.at_ms, now_ms),
        ]);
    }
    format!("{facts}\n\n{}", rows.or("no sinks: only feeds read this export"))
}
