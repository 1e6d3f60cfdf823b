//! Batches from another node's spool.

use std::collections::VecDeque;

use tidegate_proto::v1::{FetchOpen, FetchRequest, FetchResponse, ShardId, fetch_request};
use tidegate_proto::{Epoch, Frame, Sequence};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, async_trait};

use crate::control::Control;
use crate::control::explain;
use crate::error::{Error, ErrorKind, Result};
use crate::exchange::fetch::{Fetch, Fetched};

/// Acknowledgements on their way; more would only repeat what the last says.
const REQUESTS_MAX: usize = 16;

/// A fetch over gRPC.
#[derive(Debug)]
pub(super) struct RemoteFetch {
    address: String,
    requests: mpsc::Sender<FetchRequest>,
    responses: Streaming<FetchResponse>,
    /// What was received and not acknowledged: last sequence and size.
    held: VecDeque<(Sequence, u64)>,
    /// Bytes acknowledged and not yet given back as credit.
    owed: u64,
}

impl RemoteFetch {
    /// Opens a fetch at the node at `address`.
    pub(super) async fn open(
        control: &Control,
        address: &str,
        shard: ShardId,
        epoch: Epoch,
        after: Sequence,
        credit_bytes: u64,
    ) -> Result<Self> {
        let open = FetchOpen {
            cluster_id: control.identity().cluster_id.clone(),
            shard: Some(shard),
            epoch: epoch.0,
            after: after.0,
            credit_bytes,
        };
        let (requests, outbound) = mpsc::channel(REQUESTS_MAX);
        let first = FetchRequest { kind: Some(fetch_request::Kind::Open(open)) };
        requests.try_send(first).map_err(|_| gone(address))?;
        let mut client = control.peers().exchange(address)?;
        let responses = client.fetch(ReceiverStream::new(outbound)).await;
        let responses =
            responses.map_err(|status| retryable(explain(address, "fetch", &status)))?;
        Ok(Self {
            address: address.to_owned(),
            requests,
            responses: responses.into_inner(),
            held: VecDeque::new(),
            owed: 0,
        })
    }
}

#[async_trait]
impl Fetch for RemoteFetch {
    async fn next(&mut self) -> Result<Fetched> {
        let message = self.responses.message().await;
        let message =
            message.map_err(|status| retryable(explain(&self.address, "fetch", &status)))?;
        let message = message.ok_or_else(|| gone(&self.address))?;
        let mut frames = Vec::with_capacity(message.frames.len());
        for bytes in message.frames {
            // A damaged frame is fetched again.
            let frame = Frame::parse(bytes).map_err(|error| {
                let why = format!("a batch from {} arrived damaged", self.address);
                Error::new(ErrorKind::Unavailable, why).because(error)
            })?;
            self.held.push_back((frame.last(), frame.bytes().len() as u64));
            frames.push(frame);
        }
        Ok(Fetched { frames, stable: Sequence(message.stable) })
    }

    fn acknowledge(&mut self, upto: Sequence) {
        while self.held.front().is_some_and(|(last, _)| *last <= upto) {
            if let Some((_, bytes)) = self.held.pop_front() {
                self.owed += bytes;
            }
        }
        let credit = fetch_request::Kind::CreditBytes(self.owed);
        // With no room now, the debt is paid with the next acknowledgement.
        if self.owed > 0 && self.requests.try_send(FetchRequest { kind: Some(credit) }).is_ok() {
            self.owed = 0;
        }
    }
}

/// Reading changes nothing, so an unknown outcome is as good as none.
fn retryable(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Unknown => Error::new(ErrorKind::Unavailable, error.to_string()),
        _ => error,
    }
}

fn gone(address: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the fetch at {address} ended"))
}
