//! The embedded document store as a process of its own: a source that outlives
//! every node of a test.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tidegate_proto::v1::documents_client::DocumentsClient;
use tidegate_proto::v1::{DocumentWrite, WriteRequest, WriteResponse, document_write};
use tokio::process::Child;
use tonic::Status;
use tonic::transport::Channel;

use crate::cluster::{binaries, cli};
use crate::place::Place;

/// How often a connection is tried, 100 ms apart.
const TRIES: usize = 300;
/// Room for what the store refuses, so that it is the store that does.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A store with no documents, on a free port, ended when it is dropped.
#[derive(Debug)]
pub struct Documents {
    endpoint: String,
    client: DocumentsClient<Channel>,
    server: Child,
    _folder: tempfile::TempDir,
}

impl Documents {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    ///
    /// If the binary is not built, or the port does not open within half a minute.
    pub async fn start() -> Self {
        Self::start_at(&binaries(), &Place::on_loopback()).await
    }

    /// As [`Documents::start`], with the binaries of a folder, at a place.
    ///
    /// # Panics
    ///
    /// As [`Documents::start`].
    pub async fn start_at(binaries: &Path, place: &Place) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = &place.address;
        let server = place
            .command(&binaries.join("tidegated"))
            .args(["documents", "--listen", address, "--data"])
            .arg(folder.path())
            .args(&place.flags)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tidegated is built: cargo build --workspace --bins");
        let endpoint = format!("http://{address}");
        for _ in 0..TRIES {
            if let Ok(client) = DocumentsClient::connect(endpoint.clone()).await {
                let client = client
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX);
                return Self { endpoint, client, server, _folder: folder };
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the document store did not open {address} within half a minute");
    }

    /// Ends it; its documents are gone.
    pub async fn end(mut self) {
        drop(self.server.kill().await);
    }

    /// For `endpoint` in a `[source]` table.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Writes documents, JSON by key, into a collection.
    ///
    /// # Errors
    ///
    /// What the store answers.
    pub async fn write(
        &self,
        collection: &str,
        documents: impl IntoIterator<Item = (String, String)>,
    ) -> Result<WriteResponse, Status> {
        let write = |(key, json): (String, String)| DocumentWrite {
            collection: collection.to_owned(),
            key,
            kind: Some(document_write::Kind::Json(json.into())),
            if_revision: None,
        };
        let writes = documents.into_iter().map(write).collect();
        let answer = self.client.clone().write(WriteRequest { writes }).await;
        answer.map(tonic::Response::into_inner)
    }

    /// Runs the CLI against the store, with the file `input` as its input.
    ///
    /// # Panics
    ///
    /// If the file or the binary is missing.
    #[must_use]
    pub fn cli(&self, arguments: &[&str], input: &Path) -> Output {
        let input = std::fs::File::open(input).expect("the input");
        cli(&self.endpoint, arguments, input)
    }
}
