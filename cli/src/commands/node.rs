//! `tidegate node`.

use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;
use tidegate_proto::v1::NodeState;
use tokio::time::Instant;

use crate::args::Common;
use crate::cluster::Cluster;
use crate::failure::{Failure, Result};
use crate::output::{self, Format};
use crate::table::Rows;
use crate::time;
use crate::views::NodeView;

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List the nodes
    #[command(after_help = "Example:\n  tidegate node list")]
    List,
    /// Keep new work off a node; what it has goes elsewhere
    #[command(after_help = "Example:\n  tidegate node cordon node2")]
    Cordon {
        /// Name of the node
        node: String,
    },
    /// Let a cordoned node have work again
    #[command(after_help = "Example:\n  tidegate node uncordon node2")]
    Uncordon {
        /// Name of the node
        node: String,
    },
    /// Cordon a node and wait until it has no work: before its machine is stopped
    #[command(after_help = "Example:\n  tidegate node drain node2 && systemctl stop tidegated")]
    Drain {
        /// Name of the node
        node: String,
        /// Give up after so many seconds; the node stays cordoned
        #[arg(long, default_value_t = 600)]
        wait: u64,
    },
    /// Let a node that joined with --learner vote, as soon as it has caught up
    ///
    /// A majority of those that vote must be up: three survive the loss of one, as do four.
    #[command(after_help = "Example:\n  tidegate node promote node4")]
    Promote {
        /// Name of the node
        node: String,
    },
    /// Take a node out of the cluster for good
    ///
    /// It must be down or cordoned, and have no work.
    #[command(after_help = "Example:\n  tidegate node drain node2 && tidegate node remove node2")]
    Remove {
        /// Name of the node
        node: String,
    },
}

/// How often a draining node is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Serialize)]
struct DoneView {
    node: String,
    /// `cordoned`, `schedulable`, `drained`, `promoted` or `removed`.
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct NodesView {
    nodes: Vec<NodeView>,
}

/// Does what was asked about nodes.
pub(crate) async fn run(command: NodeCommand, mut cluster: Cluster, common: &Common) -> Result<()> {
    let format = common.output;
    match command {
        NodeCommand::Cordon { node } => {
            cluster.cordon(&node, true).await?;
            done(node, "cordoned", format)
        }
        NodeCommand::Uncordon { node } => {
            cluster.cordon(&node, false).await?;
            done(node, "schedulable", format)
        }
        NodeCommand::Drain { node, wait } => {
            drain(&mut cluster, &node, Duration::from_secs(wait)).await?;
            done(node, "drained", format)
        }
        NodeCommand::Promote { node } => {
            cluster.promote(&node).await?;
            done(node, "promoted", format)
        }
        NodeCommand::Remove { node } => remove(&mut cluster, node, common).await,
        NodeCommand::List => {
            let answer = cluster.nodes().await?;
            let nodes = NodeView::all(&answer.nodes, answer.leader, &answer.voters);
            let document = NodesView { nodes };
            output::show(format, &document, |it| table(&it.nodes, time::now_ms()))
        }
    }
}

/// Cordons the node and waits until nothing is left on it.
async fn drain(cluster: &mut Cluster, node: &str, wait: Duration) -> Result<()> {
    cluster.cordon(node, true).await?;
    let started = Instant::now();
    let mut told = None;
    loop {
        let left = work_of(cluster, node).await?;
        if left == 0 {
            return Ok(());
        }
        if started.elapsed() > wait {
            return Err(Failure::failed(format!(
                "node {node} still has {left} roles after {} s and stays cordoned; is there \
                 another node to take them? see `tidegate shard list`",
                wait.as_secs()
            )));
        }
        if told != Some(left) {
            output::note(&format!("{left} roles left on {node}"));
            told = Some(left);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How many readers, writers and copies the node has.
async fn work_of(cluster: &mut Cluster, node: &str) -> Result<usize> {
    let id = id_of(cluster, node).await?;
    let shards = cluster.shards("").await?.shards;
    let roles = shards.iter().map(|shard| {
        let writers = shard.writers.values().filter(|writer| **writer == id).count();
        let copies = shard.copies.iter().filter(|copy| **copy == id).count();
        writers + copies + usize::from(shard.reader == id)
    });
    Ok(roles.sum())
}

async fn id_of(cluster: &mut Cluster, name: &str) -> Result<u64> {
    let nodes = cluster.nodes().await?.nodes;
    let node = nodes.iter().find(|node| node.name == name).map(|node| node.id);
    let names = || nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>().join(", ");
    node.ok_or_else(|| {
        Failure::refused(format!("there is no node \"{name}\"; there are: {}", names()))
    })
}

/// Asks first, and warns when fewer nodes could be lost afterwards.
async fn remove(cluster: &mut Cluster, node: String, common: &Common) -> Result<()> {
    let id = id_of(cluster, &node).await?;
    let answer = cluster.nodes().await?;
    let voters = answer.voters.len();
    let spare = |voters: usize| voters.saturating_sub(1) / 2;
    let up = |id: &u64| answer.nodes.iter().any(|it| it.id == *id && it.state() == NodeState::Up);
    let left = answer.voters.iter().filter(|voter| **voter != id);
    let (left_up, left) = (left.clone().filter(|id| up(id)).count(), left.count());
    if left > 0 && left_up < left / 2 + 1 {
        return Err(Failure::refused(format!(
            "without {node}, {left_up} of {left} voting nodes would be up: no majority. Start \
             the others first"
        )));
    }
    let warning = if spare(left) < spare(voters) {
        format!(" Then {} of {left} nodes may be lost, not {}.", spare(left), spare(voters))
    } else {
        String::new()
    };
    let question = format!("Remove node {node} from the cluster for good?{warning}");
    if !output::confirm(&question, common.yes, common.output)? {
        output::note("nothing was changed");
        return Ok(());
    }
    cluster.remove_node(&node).await?;
    done(node, "removed", common.output)
}

fn done(node: String, state: &'static str, format: Format) -> Result<()> {
    output::show(format, &DoneView { node, state }, |it| {
        format!("node {} is {}", it.node, it.state)
    })
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
