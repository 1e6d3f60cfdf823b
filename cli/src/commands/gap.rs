//! `tidegate gap`.

use clap::Subcommand;
use serde::Serialize;
use tidegate_proto::v1::RepairGapRequest;

use crate::cluster::Cluster;
use crate::commands::shard::{export_and_shard, find};
use crate::failure::{Failure, Result};
use crate::output::{self, Format};
use crate::table::{self, Rows};
use crate::time;
use crate::views::{GapView, Names};

#[derive(Debug, Subcommand)]
pub(crate) enum GapCommand {
    /// List recorded losses and how they were mended
    #[command(after_help = "Examples:\n  tidegate gap list\n  tidegate gap list orders")]
    List {
        /// Only those of this export
        export: Option<String>,
    },
    /// Show one gap
    #[command(after_help = "Example:\n  tidegate gap show orders/5/0 2")]
    Show {
        /// The shard: EXPORT/SHARD
        #[arg(value_parser = export_and_shard)]
        shard: (String, String),
        /// Number of the gap
        number: u64,
    },
    /// Decide about a gap that nothing mends yet; lets a shard that waits go on
    #[command(after_help = "Examples:
  tidegate gap repair orders/5/0 2 --resnapshot     read the shard's rows again
  tidegate gap repair orders/5/0 2 --accept \"the table was emptied that day anyway\"

What disappeared from the source while its history was lost is found by reading rows
again only if the export's file says `sweep = true` under [snapshot].")]
    Repair {
        /// The shard: EXPORT/SHARD
        #[arg(value_parser = export_and_shard)]
        shard: (String, String),
        /// Number of the gap
        number: u64,
        /// Read the shard's rows again, while its stream goes on
        #[arg(long, required_unless_present = "accept")]
        resnapshot: bool,
        /// Go on without what was lost; the reason is kept with the gap
        #[arg(long, value_name = "REASON", conflicts_with = "resnapshot")]
        accept: Option<String>,
    },
}

#[derive(Debug, Serialize)]
struct GapsView {
    gaps: Vec<GapView>,
}

/// Does what was asked about gaps.
pub(crate) async fn run(command: GapCommand, mut cluster: Cluster, format: Format) -> Result<()> {
    match command {
        GapCommand::List { export } => {
            let gaps = views(&mut cluster, export.as_deref().unwrap_or_default()).await?;
            output::show(format, &GapsView { gaps }, |it| table(&it.gaps))
        }
        GapCommand::Show { shard, number } => {
            let gap = one(&mut cluster, shard, number).await?;
            output::show(format, &gap, detail)
        }
        GapCommand::Repair { shard, number, accept, resnapshot: _ } => {
            let (export, name) = shard.clone();
            let accepted = accept.unwrap_or_default();
            let request = RepairGapRequest { export, shard: name, number, accepted };
            cluster.repair_gap(request).await?;
            let gap = one(&mut cluster, shard, number).await?;
            output::show(format, &gap, detail)
        }
    }
}

async fn one(
    cluster: &mut Cluster,
    (export, shard): (String, String),
    number: u64,
) -> Result<GapView> {
    let (found, _) = find(cluster, &export, &shard).await?;
    let gaps = views(cluster, &export).await?;
    let gap = gaps.into_iter().find(|it| it.shard == found.id && it.number == number);
    gap.ok_or_else(|| {
        Failure::refused(format!(
            "shard \"{shard}\" of export \"{export}\" has no gap {number}; see: tidegate gap list \
             {export}"
        ))
    })
}

async fn views(cluster: &mut Cluster, export: &str) -> Result<Vec<GapView>> {
    let gaps = cluster.gaps(export).await?;
    let names = Names::from(&cluster.status().await?);
    Ok(gaps.iter().map(|gap| GapView::new(gap, &names)).collect())
}

fn detail(gap: &GapView) -> String {
    let lost = (gap.after < gap.upto).then(|| format!("{} to {}", gap.after + 1, gap.upto));
    table::facts(&[
        ("gap", format!("{} of shard {} of {}", gap.number, gap.shard, gap.export)),
        ("kind", gap.kind.to_owned()),
        ("found", time::age(gap.at_ms, time::now_ms())),
        ("behind", format!("sequence {}", gap.after)),
        ("lost", lost.unwrap_or_default()),
        ("from", gap.from.clone()),
        ("to", gap.to.clone()),
        ("detail", gap.detail.clone()),
        ("repair", repair(gap)),
    ])
}

fn repair(gap: &GapView) -> String {
    match (&gap.repair[..], gap.round) {
        ("", 0) if !gap.awaits.is_empty() => format!("under way; then {}", gap.awaits),
        ("", 0) => "open: decide with `tidegate gap repair`".to_owned(),
        ("", round) => format!("under way: all rows are read again, by snapshot {round}"),
        (repair, _) => repair.to_owned(),
    }
}

fn table(gaps: &[GapView]) -> String {
    let now_ms = time::now_ms();
    let mut rows = Rows::new(&["EXPORT", "SHARD", ">GAP", "KIND", "FOUND", "REPAIR", "DETAIL"]);
    for gap in gaps {
        rows.row([
            gap.export.clone(),
            gap.shard.clone(),
            gap.number.to_string(),
            gap.kind.to_owned(),
            time::age(gap.at_ms, now_ms),
            repair(gap),
            gap.detail.clone(),
        ]);
    }
    rows.or("no gaps: nothing was lost")
}
