//! `tidegate gap`.

use clap::Subcommand;
use serde::Serialize;

use crate::cluster::Cluster;
use crate::failure::Result;
use crate::output::{self, Format};
use crate::table::Rows;
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
}

#[derive(Debug, Serialize)]
struct GapsView {
    gaps: Vec<GapView>,
}

/// Does what was asked about gaps.
pub(crate) async fn run(command: GapCommand, mut cluster: Cluster, format: Format) -> Result<()> {
    match command {
        GapCommand::List { export } => {
            let gaps = cluster.gaps(export.as_deref().unwrap_or_default()).await?;
            let names = Names::from(&cluster.status().await?);
            let gaps = gaps.iter().map(|gap| GapView::new(gap, &names)).collect();
            output::show(format, &GapsView { gaps }, |it| table(&it.gaps))
        }
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
            if gap.repair.is_empty() { "open".to_owned() } else { gap.repair.clone() },
            gap.detail.clone(),
        ]);
    }
    rows.or("no gaps: nothing was lost")
}
