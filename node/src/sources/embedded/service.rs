//! The `Documents` service.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tidegate_proto::document;
use tidegate_proto::v1::documents_server::Documents;
use tidegate_proto::v1::{
    ChangesRequest, ChangesResponse, CountRequest, CountResponse, DescribeRequest,
    DescribeResponse, GetRequest, GetResponse, ScanRequest, ScanResponse, SlotRange,
    StoredDocument, WriteRequest, WriteResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait};

use crate::sources::embedded::keys::SLOTS;
use crate::sources::embedded::store::Store;
use crate::sources::embedded::tail;

/// Responses made before the transport has taken the one before.
const RESPONSES_MAX: usize = 2;
/// Most writes of one call.
const WRITES_MAX: usize = 10_000;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves one store.
#[derive(Clone, Debug)]
pub struct DocumentsService(Arc<Store>);

impl DocumentsService {
    /// Serves `store`.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self(store)
    }
}

#[async_trait]
impl Documents for DocumentsService {
    type ScanStream = Answers<ScanResponse>;
    type ChangesStream = Answers<ChangesResponse>;

    async fn write(
        &self,
        request: Request<WriteRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let writes = request.into_inner().writes;
        if writes.is_empty() || writes.len() > WRITES_MAX {
            return Err(Status::invalid_argument(format!(
                "a call has 1 to {WRITES_MAX} writes; this has {}",
                writes.len()
            )));
        }
        let revision = self.0.write(writes).await?;
        Ok(Response::new(WriteResponse { revision }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let GetRequest { collection, key, as_json } = request.into_inner();
        let mut found = self.0.get(&collection, &key)?;
        if let Some(document) = found.as_mut().filter(|_| as_json) {
            to_json(document)?;
        }
        Ok(Response::new(GetResponse { found: found.is_some(), document: found }))
    }

    async fn scan(
        &self,
        request: Request<ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        let request = request.into_inner();
        let slots = check_slots(request.slots)?;
        let (responses, stream) = mpsc::channel(RESPONSES_MAX);
        let store = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = tail::scan(&store, slots, &request, &responses) {
                // The caller may have gone.
                drop(responses.blocking_send(Err(error)));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn count(
        &self,
        request: Request<CountRequest>,
    ) -> Result<Response<CountResponse>, Status> {
        let documents = self.0.count(&request.into_inner().collection);
        let revision = *self.0.committed().borrow();
        Ok(Response::new(CountResponse { documents, revision }))
    }

    async fn changes(
        &self,
        request: Request<ChangesRequest>,
    ) -> Result<Response<Self::ChangesStream>, Status> {
        let request = request.into_inner();
        let slots = check_slots(request.slots)?;
        let (oldest, last) = (self.0.oldest(), *self.0.committed().borrow());
        if request.after + 1 < oldest || request.after > last {
            return Err(Status::out_of_range(format!(
                "there are changes from revision {oldest} to {last}; after {} is outside",
                request.after
            )));
        }
        let (responses, stream) = mpsc::channel(RESPONSES_MAX);
        let store = Arc::clone(&self.0);
        tokio::spawn(async move {
            if let Err(error) = tail::follow(store, slots, request.after, &responses).await {
                // The caller may have gone.
                drop(responses.send(Err(error)).await);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn describe(
        &self,
        _: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        Ok(Response::new(self.0.describe()))
    }
}

fn check_slots(slots: Option<SlotRange>) -> Result<SlotRange, Status> {
    let slots = slots.unwrap_or(SlotRange { from: 0, upto: SLOTS });
    if slots.from >= slots.upto || slots.upto > SLOTS {
        return Err(Status::invalid_argument(format!("slots go from 0 to {SLOTS}, exclusive")));
    }
    Ok(slots)
}

/// Puts JSON in the place of the encoded document.
pub(super) fn to_json(stored: &mut StoredDocument) -> Result<(), Status> {
    let Some(encoded) = stored.document.take() else { return Ok(()) };
    let mut json = Vec::with_capacity(encoded.value.len() * 2);
    document::write_json(&encoded.dictionary, &encoded.value, &mut json)
        .map_err(|error| Status::data_loss(error.to_string()))?;
    stored.json = json.into();
    Ok(())
}
