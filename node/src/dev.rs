//! Everything in one process, with nothing to configure.

use std::net::SocketAddr;
use std::path::PathBuf;

use metrics_exporter_prometheus::PrometheusHandle;

use crate::config::NodeConfig;
use crate::documents;
use crate::error::Result;
use crate::node;

/// Runs a cluster of one node and a document store at `listen`, all of it in
/// `data`, until `stop` ends.
pub async fn run(
    data: PathBuf,
    listen: SocketAddr,
    metrics_listen: SocketAddr,
    metrics: PrometheusHandle,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let config = NodeConfig {
        name: "dev".to_owned(),
        data: data.join("node"),
        listen,
        metrics_listen,
        bootstrap: true,
        ..NodeConfig::default()
    };
    let documents = documents::routes(data.join("documents"), &config.limits)?;
    tracing::info!("documents are served at the same address: endpoint = \"http://{listen}\"");
    node::run(config, metrics, Some(documents), stop).await
}
