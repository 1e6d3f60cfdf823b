//! The document store alone: a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate_proto::v1::documents_server::DocumentsServer;
use tonic::service::Routes;

use crate::clock;
use crate::config::Limits;
use crate::error::{Error, ErrorKind, Result};
use crate::server;
use crate::sources::embedded::{DocumentsService, Store, StoreOptions};

/// The `Documents` service over the store in `data`, as a route to serve.
pub fn routes(data: PathBuf, limits: &Limits) -> Result<Routes> {
    let store = Store::open(StoreOptions::new(data, clock::now_ms))
        .map_err(|error| Error::new(ErrorKind::Config, "open the document store").because(error))?;
    let store = Arc::new(store);
    let service = DocumentsServer::new(DocumentsService::new(store))
        .max_decoding_message_size(limits.message_bytes)
        .max_encoding_message_size(limits.message_bytes);
    Ok(Routes::default().add_service(service))
}

/// Serves the store in `data` at `listen` until `stop` ends.
pub async fn run(
    data: PathBuf,
    listen: SocketAddr,
    insecure: bool,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    if !listen.ip().is_loopback() && !insecure {
        let why = format!(
            "listen = {listen} is not a loopback address and nothing is encrypted yet; \
             use 127.0.0.1, or say --insecure if the network is yours alone"
        );
        return Err(Error::new(ErrorKind::Config, why));
    }
    let limits = Limits::default();
    let routes = routes(data, &limits)?;
    let listener = server::bind("listen", listen).await?;
    tracing::info!(%listen, "documents served");
    server::serve_grpc(listener, routes, &limits, stop).await
}
