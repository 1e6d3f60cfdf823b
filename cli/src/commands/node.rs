//! `tidegate node`.

use clap::Subcommand;
use serde::Serialize;

use crate::cluster::Cluster;
use crate::failure::Result;
use crate::output::{self, Format};
use crate::table::Rows;
use crate::time;
use crate::views::NodeView;

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List the nodes
    #[command(after_help = "Example:\n  tidegate node list")]
    List,
}

#[derive(Debug, Serialize)]
struct NodesView {
    nodes: Vec<NodeView>,
}

/// Does what was asked about nodes.
pub(crate) async fn run(command: NodeCommand, mut cluster: Cluster, format: Format) -> Result<()> {
    match command {
        NodeCommand::List => {
            let answer = cluster.nodes().await?;
            let nodes = NodeView::all(&answer.nodes, answer.leader, &answer.voters);
            let document = NodesView { nodes };
            output::show(format, &document, |it| table(&it.nodes, time::now_ms()))
        }
    }
}

/// Nodes as a table.
pub(super) fn table(nodes: &[NodeView], now_ms: i64) -> String {
    let mut rows = Rows::new(&["NODE", ">ID", "STATE", "SINCE", "ROLE", "REGION", "ADDRESS"]);
    for node in nodes {
        let cordoned = if node.cordoned { ", cordoned" } else { "" };
        rows.row([
            node.name.clone(),
            node.id.to_string(),
            format!("{}{cordoned}", node.state),
            time::age(node.since_ms, now_ms),
            node.role.to_owned(),
            node.region.clone(),
            node.address.clone(),
        ]);
    }
    rows.or("no nodes yet")
}
