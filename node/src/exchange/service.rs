//! Batches for the other nodes.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tidegate_proto::v1::exchange_server::Exchange;
use tidegate_proto::v1::{
    CopyOpen, CopyStart, FetchOpen, FetchRequest, FetchResponse, IndexPage, ShardId, fetch_request,
};
use tidegate_proto::{Epoch, NodeId, Sequence};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::control::Control;
use crate::control::status;
use crate::error::Error;
use crate::exchange::copy::{Extent, meet};
use crate::exchange::fetch::Fetched;
use crate::exchange::local::{CopyFeed, Lacks, LocalFetch, Outflow, not_held};
use crate::exchange::pack::Packer;
use crate::exchange::pages;
use crate::spool::Spool;

/// Responses made before the transport has taken the one before.
const RESPONSES_MAX: usize = 2;
/// What comes within so long goes to a receiver far away in one message: that is fewer
/// packets, and they shrink better. Little against the way there.
const GATHER: Duration = Duration::from_millis(20);
/// Who has as much to send as this is not held up: the receiver is behind.
const GATHER_BYTES: i128 = 64 << 10;

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

    fn shard_of(&self, open: &FetchOpen) -> Result<ShardId, Status> {
        if open.cluster_id != self.control.identity().cluster_id {
            return Err(Status::permission_denied("the caller belongs to another cluster"));
        }
        open.shard.ok_or_else(|| Status::invalid_argument("open names no shard"))
    }

    fn open_copy(
        &self,
        open: &FetchOpen,
        copy: &CopyOpen,
    ) -> Result<(CopyFeed, CopyStart), Status> {
        let (shard, epoch) = (self.shard_of(open)?, Epoch(open.epoch));
        let log = self.spool.log(shard).filter(|log| log.owned_under(epoch));
        let log = log.ok_or_else(|| status(&not_held(shard, epoch)))?;
        let start = meet(&Extent::of(log.head()), open, copy).map_err(|error| status(&error))?;
        let (node, keep) = ((NodeId(copy.node), copy.run), Sequence(start.keep));
        let feed = CopyFeed::open(log, epoch, node, keep, open.credit_bytes);
        let feed = feed.map_err(|error| status(&error))?;
        Ok((feed.lacking(lacks(copy, &start)), start))
    }

    fn open(&self, open: &FetchOpen) -> Result<LocalFetch, Status> {
        let shard = self.shard_of(open)?;
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
        let (responses, stream) = mpsc::channel(RESPONSES_MAX);
        let outflow: Box<dyn Outflow> = match &open.copy {
            Some(copy) => {
                let (feed, start) = self.open_copy(&open, copy)?;
                let first = FetchResponse { start: Some(start), ..FetchResponse::default() };
                responses.try_send(Ok(first)).map_err(|_| Status::internal("the fetch ended"))?;
                Box::new(feed)
            }
            None => Box::new(self.open(&open)?),
        };
        let packer = open.packed.then(Packer::new).transpose().map_err(|error| status(&error))?;
        let (credit, not_before) = (i128::from(open.credit_bytes), Instant::now());
        let way = Way { packer, credit, not_before, responses };
        tokio::spawn(async move {
            let responses = way.responses.clone();
            if let Err(error) = way.pump(outflow, requests).await {
                // The receiver may be gone already; then nobody needs to know.
                drop(responses.send(Err(status(&error))).await);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// What a copy lacks of the key index, by what it said when it opened its fetch.
fn lacks(copy: &CopyOpen, start: &CopyStart) -> Lacks {
    match &copy.index {
        // It gets all batches there ever were.
        Some(_) if start.keep == 0 => Lacks::Nothing,
        Some(_) if start.anew => Lacks::Behind(Bytes::new()),
        Some(index) if !index.whole => Lacks::Behind(index.after.clone()),
        Some(index) if !index.unknown.is_empty() => Lacks::Places(index.unknown.clone()),
        Some(_) | None => Lacks::Nothing,
    }
}

/// What goes out to the receiver of one fetch.
struct Way {
    /// Set if the receiver is far away.
    packer: Option<Packer>,
    credit: i128,
    /// The next message is not sent earlier.
    not_before: Instant,
    responses: mpsc::Sender<Result<FetchResponse, Status>>,
}

impl Way {
    /// Sends what there is, batches only while there is credit, until either side ends.
    async fn pump(
        mut self,
        mut outflow: Box<dyn Outflow>,
        mut requests: Streaming<FetchRequest>,
    ) -> Result<(), Error> {
        loop {
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => match request.kind {
                        Some(fetch_request::Kind::CreditBytes(bytes)) => {
                            self.credit += i128::from(bytes);
                        }
                        Some(fetch_request::Kind::Acknowledged(upto)) => {
                            outflow.acked(Sequence(upto));
                        }
                        Some(fetch_request::Kind::Indexed(_)) => outflow.indexed(),
                        Some(fetch_request::Kind::Open(_)) | None => {}
                    },
                    Ok(None) | Err(_) => return Ok(()),
                },
                fetched = gathered(&mut *outflow, self.not_before, self.credit > 0) => {
                    if !self.send(&fetched?).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// False if nobody receives any more.
    async fn send(&mut self, fetched: &Fetched) -> Result<bool, Error> {
        let index = fetched.index.as_ref().map(pages::pack).transpose()?;
        let rows = index.as_ref().map_or(0, |page| page.rows.len() as i128);
        let bytes = bytes_of(fetched) + rows;
        self.credit -= bytes;
        if self.packer.is_some() && bytes < GATHER_BYTES {
            self.not_before = Instant::now() + GATHER;
        }
        for response in self.responses_of(fetched, index)? {
            if self.responses.send(Ok(response)).await.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// At least one, the rows in the last.
    fn responses_of(
        &mut self,
        fetched: &Fetched,
        index: Option<IndexPage>,
    ) -> Result<Vec<FetchResponse>, Error> {
        let stable = fetched.stable.0;
        let packer = self.packer.as_mut().filter(|_| !fetched.frames.is_empty());
        let mut responses = match packer {
            Some(packer) => {
                let of = |packed| FetchResponse {
                    packed: Some(packed),
                    stable,
                    ..FetchResponse::default()
                };
                packer.pack(&fetched.frames)?.into_iter().map(of).collect()
            }
            None => {
                let frames = fetched.frames.iter().map(|frame| frame.bytes().clone()).collect();
                vec![FetchResponse { frames, stable, ..FetchResponse::default() }]
            }
        };
        if let Some(last) = responses.last_mut() {
            last.index = index;
        }
        Ok(responses)
    }
}

/// What there is to send at `not_before`, or as soon as there is something thereafter.
async fn gathered(
    outflow: &mut dyn Outflow,
    not_before: Instant,
    room: bool,
) -> Result<Fetched, Error> {
    sleep_until(not_before).await;
    outflow.next(room).await
}

fn bytes_of(fetched: &Fetched) -> i128 {
    fetched.frames.iter().map(|frame| frame.bytes().len() as i128).sum()
}
