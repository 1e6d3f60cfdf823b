//! The `Documents` service, a method per question.

use tidegate_proto::v1::documents_client::DocumentsClient;
use tidegate_proto::v1::{
    CountRequest, CountResponse, DescribeRequest, DocumentWrite, GetRequest, ScanRequest,
    ScanResponse, StoredDocument, WriteRequest,
};
use tonic::Streaming;
use tonic::transport::Channel;

use crate::connect::{Endpoints, MESSAGE_BYTES_MAX};
use crate::failure::{Failure, Result};

/// A document store, by whichever of its endpoints answers.
#[derive(Debug, Clone)]
pub(super) struct Store {
    endpoints: Endpoints,
}

impl Store {
    /// Connects to nothing yet.
    pub(super) fn new(urls: &[String]) -> Result<Self> {
        Ok(Self { endpoints: Endpoints::new(urls)? })
    }

    /// Writes all or none; gives the revision of the last.
    pub(super) async fn write(&mut self, writes: Vec<DocumentWrite>) -> Result<u64> {
        let request = || WriteRequest { writes: writes.clone() };
        let answer = self.endpoints.ask(|it| async { client(it).write(request()).await }).await?;
        Ok(answer.revision)
    }

    /// [`Store::write`] without conditions, which a repeat does not hurt: tried
    /// again while the store does not answer.
    pub(super) async fn write_patiently(&mut self, writes: Vec<DocumentWrite>) -> Result<u64> {
        let request = || WriteRequest { writes: writes.clone() };
        let call = |it| async { client(it).write(request()).await };
        Ok(self.endpoints.ask_patiently(call).await?.revision)
    }

    /// The document, as JSON; `None` if there is none.
    pub(super) async fn get(
        &mut self,
        collection: &str,
        key: &str,
    ) -> Result<Option<StoredDocument>> {
        let request =
            || GetRequest { collection: collection.to_owned(), key: key.to_owned(), as_json: true };
        let answer = self.endpoints.ask(|it| async { client(it).get(request()).await }).await?;
        Ok(answer.document.filter(|_| answer.found))
    }

    /// How many documents a collection has, or all when it is empty.
    pub(super) async fn count(&mut self, collection: &str) -> Result<CountResponse> {
        let request = || CountRequest { collection: collection.to_owned() };
        self.endpoints.ask(|it| async { client(it).count(request()).await }).await
    }

    /// How many slots the store has.
    pub(super) async fn slots(&mut self) -> Result<u32> {
        let answer =
            self.endpoints.ask(|it| async { client(it).describe(DescribeRequest {}).await });
        Ok(answer.await?.slots)
    }

    /// Documents as JSON from `request.after` on.
    pub(super) async fn scan(&mut self, request: &ScanRequest) -> Result<Streaming<ScanResponse>> {
        self.endpoints.ask(|it| async { client(it).scan(request.clone()).await }).await
    }

    /// What a broken scan ends with.
    pub(super) fn failure(&self, status: &tonic::Status) -> Failure {
        Failure::of_status(self.endpoints.current(), status)
    }
}

fn client(channel: Channel) -> DocumentsClient<Channel> {
    DocumentsClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}
