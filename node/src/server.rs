//! The node's listeners: gRPC, and HTTP for metrics and health.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tidegate_proto::v1::DESCRIPTORS;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::config::Limits;
use crate::error::{Error, ErrorKind, Result};

/// Bytes in flight per stream, and per connection.
const WINDOW_BYTES: u32 = 8 << 20;
/// Bytes of an HTTP/2 frame: a batch goes in one, not in pieces of 16 KiB.
const FRAME_BYTES: u32 = 1 << 20;

/// Takes the address, or says who may have it.
pub async fn bind(what: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let why = format!(
            "{what} = {address} cannot be listened on; is another node running there? \
             choose another address"
        );
        Error::new(ErrorKind::Config, why).because(error)
    })
}

/// Serves gRPC `services`, with reflection, until `stop` ends.
pub async fn serve_grpc(
    listener: TcpListener,
    services: Routes,
    limits: &Limits,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| Error::new(ErrorKind::Corrupt, "serve reflection").because(error))?;
    Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES * 2)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(limits.streams_per_connection)
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .add_routes(services.add_service(reflection))
        // Without it, each answer waits 40 ms for the other side's acknowledgement.
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stop)
        .await
        .map_err(|error| Error::new(ErrorKind::Unavailable, "serve gRPC").because(error))
}

/// What `/readyz` asks: what to look at although it is ready, or why it is not.
pub type Readiness = Arc<dyn Fn() -> std::result::Result<Vec<String>, String> + Send + Sync>;

#[derive(Clone)]
struct Pages {
    metrics: PrometheusHandle,
    ready: Readiness,
}

/// Serves `/metrics`, `/livez` and `/readyz`.
pub async fn serve_http(
    listener: TcpListener,
    metrics: PrometheusHandle,
    ready: Readiness,
) -> Result<()> {
    let pages = axum::Router::new()
        .route("/metrics", get(|State(pages): State<Pages>| async move { pages.metrics.render() }))
        .route("/livez", get(|| async { "live\n" }))
        .route("/readyz", get(readyz))
        .with_state(Pages { metrics, ready });
    axum::serve(listener, pages)
        .await
        .map_err(|error| Error::new(ErrorKind::Unavailable, "serve metrics").because(error))
}

async fn readyz(State(pages): State<Pages>) -> (StatusCode, String) {
    match (pages.ready)() {
        Ok(warnings) => {
            let warned: String = warnings.iter().map(|it| format!("warning: {it}\n")).collect();
            (StatusCode::OK, format!("ready\n{warned}"))
        }
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}
