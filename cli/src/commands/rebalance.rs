//! `tidegate shard rebalance`.

use serde::Serialize;
use tidegate_proto::v1::{MoveShardRequest, PlannedMove};

use crate::cluster::Cluster;
use crate::commands::receipt::Receipt;
use crate::commands::shard;
use crate::failure::Result;
use crate::human;
use crate::output::{self, Format};
use crate::table::Rows;

#[derive(Debug, Serialize)]
struct RebalanceView {
    moves: Vec<MoveView>,
    /// What became of them; empty for a dry run.
    receipts: Vec<Receipt>,
}

#[derive(Debug, Serialize)]
struct MoveView {
    export: String,
    shard: String,
    from: String,
    to: String,
    bytes_per_second: u64,
}

impl From<&PlannedMove> for MoveView {
    fn from(planned: &PlannedMove) -> Self {
        let PlannedMove { export, shard, from, to, bytes_per_second } = planned.clone();
        Self { export, shard, from, to, bytes_per_second }
    }
}

/// Plans moves that even out the nodes' work, and makes them, unless it is a dry run.
pub(super) async fn run(cluster: &mut Cluster, dry_run: bool, format: Format) -> Result<()> {
    let planned = cluster.plan_rebalance().await?;
    let moves: Vec<_> = planned.iter().map(MoveView::from).collect();
    if format == Format::Table {
        output::line(&table(&moves))?;
    }
    let mut receipts = Vec::new();
    for (at, planned) in planned.iter().enumerate().filter(|_| !dry_run) {
        if format == Format::Table {
            let (number, of) = (at + 1, moves.len());
            output::line(&format!("\n{number} of {of}: {}/{}", planned.export, planned.shard))?;
        }
        let request = MoveShardRequest {
            export: planned.export.clone(),
            shard: planned.shard.clone(),
            reader: planned.to.clone(),
            ..MoveShardRequest::default()
        };
        receipts.push(shard::move_shard(cluster, request, format).await?);
    }
    match format {
        Format::Table => Ok(()),
        Format::Json => output::show(format, &RebalanceView { moves, receipts }, |_| String::new()),
    }
}

fn table(moves: &[MoveView]) -> String {
    let mut rows = Rows::new(&["EXPORT", "SHARD", "FROM", "TO", ">CAPTURES"]);
    for it in moves {
        rows.row([
            it.export.clone(),
            it.shard.clone(),
            it.from.clone(),
            it.to.clone(),
            format!("{}/s", human::bytes(it.bytes_per_second)),
        ]);
    }
    rows.or("the nodes are even: nothing to move")
}
