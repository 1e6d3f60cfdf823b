//! `tidegate status`.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tidegate_proto::v1::{NodeState, StatusResponse};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::commands::{export, node};
use crate::failure::{Failure, FailureKind, Result};
use crate::output::{self, Format};
use crate::table;
use crate::time;
use crate::views::{ExportView, NodeView};

/// Shown at the end of `--help`.
pub(crate) const EXAMPLE: &str = "\
Examples:
  tidegate status
  tidegate --endpoint http://a:7400,http://b:7400 status --output json
  tidegate status --wait 30      # a script that has just started the nodes";

/// How often a waiting `status` looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Wait up to so many seconds for a leader and for every known node to be up
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
}

#[derive(Debug, Serialize)]
struct StatusView {
    cluster_id: String,
    version: String,
    /// The node that answered.
    node: u64,
    /// 0 while there is none.
    leader: u64,
    term: u64,
    applied: u64,
    /// How old the answer may be; absent when the leader was never heard.
    age_ms: Option<u64>,
    voters: Vec<u64>,
    nodes: Vec<NodeView>,
    exports: Vec<ExportView>,
    shards: u64,
    shards_failed: u64,
}

impl From<StatusResponse> for StatusView {
    fn from(status: StatusResponse) -> Self {
        Self {
            nodes: NodeView::all(&status.nodes, status.leader, &status.voters),
            exports: status.exports.iter().map(ExportView::from).collect(),
            cluster_id: status.cluster_id,
            version: status.version,
            node: status.node,
            leader: status.leader,
            term: status.term,
            applied: status.applied,
            age_ms: (status.age_ms != u64::MAX).then_some(status.age_ms),
            voters: status.voters,
            shards: status.shards,
            shards_failed: status.shards_failed,
        }
    }
}

/// Shows the cluster, after waiting for it if asked to.
pub(crate) async fn run(args: &StatusArgs, mut cluster: Cluster, format: Format) -> Result<()> {
    let status = match args.wait {
        None => cluster.status().await?,
        Some(seconds) => settled(&mut cluster, Duration::from_secs(seconds)).await?,
    };
    output::show(format, &StatusView::from(status), table)
}

async fn settled(cluster: &mut Cluster, wait: Duration) -> Result<StatusResponse> {
    let start = Instant::now();
    loop {
        let unsettled = match cluster.status().await {
            Ok(status) => match trouble(&status) {
                None => return Ok(status),
                Some(trouble) => Failure::failed(trouble),
            },
            Err(failure) if failure.kind() == FailureKind::Unreachable => failure,
            Err(failure) => return Err(failure),
        };
        if start.elapsed() >= wait {
            return Err(unsettled);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Why the cluster is not yet as it should be.
fn trouble(status: &StatusResponse) -> Option<String> {
    if status.leader == 0 {
        return Some("the cluster has no leader; start enough nodes for a majority".to_owned());
    }
    let absent = status.nodes.iter().find(|node| node.state() != NodeState::Up)?;
    Some(format!("node {} is not up; start it, or see its log", absent.name))
}

fn table(status: &StatusView) -> String {
    let leader = status.nodes.iter().find(|it| it.id == status.leader);
    let answered = status.nodes.iter().find(|it| it.id == status.node);
    let name =
        |node: Option<&NodeView>| node.map_or_else(|| "none".to_owned(), |it| it.name.clone());
    let up = status.nodes.iter().filter(|it| it.state == "up").count();
    let failed = match status.shards_failed {
        0 => String::new(),
        failed => format!(", {failed} failed: see `tidegate shard list`"),
    };
    let age = status.age_ms.map(Duration::from_millis);
    let facts = table::facts(&[
        ("cluster", status.cluster_id.clone()),
        ("leader", format!("{} (term {}, applied {})", name(leader), status.term, status.applied)),
        ("answered by", format!("{} {}", name(answered), status.version)),
        ("as of", format!("{} ago", time::duration_or_dash(age))),
        ("nodes", format!("{up} of {} up", status.nodes.len())),
        ("shards", format!("{}{failed}", status.shards)),
    ]);
    let now_ms = time::now_ms();
    let nodes = node::table(&status.nodes, now_ms);
    let exports = export::table(&status.exports, now_ms);
    format!("{facts}\n\n{nodes}\n\n{exports}")
}

#[cfg(test)]
mod tests {
    use tidegate_proto::v1::Node;

    use super::*;

    #[test]
    fn a_cluster_is_settled_when_it_has_a_leader_and_all_nodes_are_up() {
        let node = |state: NodeState| Node { state: state.into(), ..Node::default() };
        let mut status = StatusResponse { nodes: vec![node(NodeState::Up)], ..Default::default() };
        assert!(trouble(&status).is_some_and(|it| it.contains("no leader")));
        status.leader = 1;
        assert_eq!(trouble(&status), None);
        status.nodes.push(Node { name: "b".to_owned(), ..node(NodeState::Joining) });
        assert!(trouble(&status).is_some_and(|it| it.contains("node b")));
    }

    #[test]
    fn a_leader_never_heard_has_no_age() {
        let status = StatusResponse { age_ms: u64::MAX, ..StatusResponse::default() };
        assert_eq!(StatusView::from(status).age_ms, None);
    }
}
