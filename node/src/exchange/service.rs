//! Batches for the other nodes.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tidegate_proto::v1::exchange_server::Exchange;
use tidegate_proto::v1::{FetchOpen, FetchRequest, FetchResponse, fetch_request};
use tidegate_proto::{Epoch, Frame, Sequence};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::control::Control;
use crate::control::status;
use crate::error::Error;
use crate::exchange::fetch::Fetch;
use crate::exchange::local::LocalFetch;
use crate::spool::Spool;

/// Responses made before the transport has taken the one before.
const RESPONSES_MAX: usize = 2;

/// The `Exchange` service of one node.
#[derive(Clone, Debug)]
pub struct ExchangeService {
    spool: Arc<Spool>,
    control: Control,
}

impl ExchangeService {
    /// Serves what `spool` holds.
    #[must_use]
    pub fn new(spool: Arc<Spool>, control: Control) -> Self {
        Self { spool, control }
    }

    fn open(&self, open: &FetchOpen) -> Result<LocalFetch, Status> {
        if open.cluster_id != self.control.identity().cluster_id {
            return Err(Status::permission_denied("the caller belongs to another cluster"));
        }
        let shard = open.shard.ok_or_else(|| Status::invalid_argument("open names no shard"))?;
        let (epoch, after) = (Epoch(open.epoch), Sequence(open.after));
        LocalFetch::open(&self.spool, shard, epoch, after, open.credit_bytes)
            .map_err(|error| status(&error))
    }
}

#[async_trait]
impl Exchange for ExchangeService {
    type FetchStream = Pin<Box<dyn Stream<Item = Result<FetchResponse, Status>> + Send>>;

    async fn fetch(
        &self,
        request: Request<Streaming<FetchRequest>>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.kind);
        let Some(fetch_request::Kind::Open(open)) = first else {
            return Err(Status::invalid_argument("a fetch starts with `open`"));
        };
        let fetch = self.open(&open)?;
        let (responses, stream) = mpsc::channel(RESPONSES_MAX);
        tokio::spawn(async move {
            if let Err(error) = pump(fetch, requests, open.credit_bytes, &responses).await {
                // The receiver may be gone already; then nobody needs to know.
                drop(responses.send(Err(status(&error))).await);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// Sends batches while there is credit, until either side ends.
async fn pump(
    mut fetch: LocalFetch,
    mut requests: Streaming<FetchRequest>,
    credit_bytes: u64,
    responses: &mpsc::Sender<Result<FetchResponse, Status>>,
) -> Result<(), Error> {
    let mut credit = i128::from(credit_bytes);
    loop {
        tokio::select! {
            request = requests.message() => match request {
                Ok(Some(request)) => credit += granted(&request),
                Ok(None) | Err(_) => return Ok(()),
            },
            fetched = fetch.next(), if credit > 0 => {
                let fetched = fetched?;
                credit -= fetched.frames.iter().map(|f| f.bytes().len() as i128).sum::<i128>();
                let frames = fetched.frames.iter().map(|f: &Frame| f.bytes().clone()).collect();
                let response = FetchResponse { frames, stable: fetched.stable.0 };
                if responses.send(Ok(response)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

fn granted(request: &FetchRequest) -> i128 {
    match request.kind {
        Some(fetch_request::Kind::CreditBytes(bytes)) => i128::from(bytes),
        Some(fetch_request::Kind::Acknowledged(_) | fetch_request::Kind::Open(_)) | None => 0,
    }
}
