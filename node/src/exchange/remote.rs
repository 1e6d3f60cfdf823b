//! Batches from another node's spool.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message as _;
use tidegate_proto::v1::{CopyStart, FetchOpen, FetchRequest, FetchResponse, fetch_request};
use tidegate_proto::{Frame, Sequence};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, async_trait};

use crate::control::Control;
use crate::control::explain;
use crate::error::{Error, ErrorKind, Result};
use crate::exchange::fetch::{Fetch, Fetched};
use crate::exchange::pack::Unpacker;
use crate::exchange::pages;
use crate::telemetry;

/// Acknowledgements on their way; more would only repeat what the last says.
const REQUESTS_MAX: usize = 16;

/// A fetch over gRPC.
#[derive(Debug)]
pub(super) struct RemoteFetch {
    address: String,
    /// The region it fetches from, if that is another.
    abroad: Option<String>,
    requests: mpsc::Sender<FetchRequest>,
    responses: Streaming<FetchResponse>,
    /// What was received and not acknowledged: last sequence and size.
    held: VecDeque<(Sequence, u64)>,
    /// Bytes acknowledged and not yet given back as credit.
    owed: u64,
    /// What a copy has and has not told the owner yet.
    unsaid: Option<Sequence>,
    /// It has all rows of the key index, and has not told the owner yet.
    unsaid_indexed: bool,
    /// Made when it is first needed.
    unpacker: Option<Unpacker>,
}

impl RemoteFetch {
    /// Opens a fetch at the node at `address`.
    pub(super) async fn open(
        control: &Control,
        address: &str,
        mut open: FetchOpen,
    ) -> Result<Self> {
        let abroad = abroad(control, address);
        open.packed = abroad.is_some();
        let (requests, outbound) = mpsc::channel(REQUESTS_MAX);
        let first = FetchRequest { kind: Some(fetch_request::Kind::Open(open)) };
        requests.try_send(first).map_err(|_| gone(address))?;
        let mut client = control.peers().exchange(address)?;
        let responses = client.fetch(ReceiverStream::new(outbound)).await;
        let responses =
            responses.map_err(|status| retryable(explain(address, "fetch", &status)))?;
        Ok(Self {
            address: address.to_owned(),
            abroad,
            requests,
            responses: responses.into_inner(),
            held: VecDeque::new(),
            owed: 0,
            unsaid: None,
            unsaid_indexed: false,
            unpacker: None,
        })
    }

    /// The next response. What is still to be said goes out meanwhile.
    async fn message(&mut self) -> Result<FetchResponse> {
        loop {
            let waits = self.due().is_some();
            let message = tokio::select! {
                permit = self.requests.clone().reserve_owned(), if waits => {
                    let permit = permit.map_err(|_| gone(&self.address))?;
                    if let Some(request) = self.take_due() {
                        permit.send(request);
                    }
                    continue;
                }
                message = self.responses.message() => message,
            };
            let message =
                message.map_err(|status| retryable(explain(&self.address, "fetch", &status)))?;
            return message.ok_or_else(|| gone(&self.address));
        }
    }

    fn due(&self) -> Option<fetch_request::Kind> {
        let said = self.unsaid.map(|upto| fetch_request::Kind::Acknowledged(upto.0));
        let indexed = || self.unsaid_indexed.then_some(fetch_request::Kind::Indexed(true));
        let owed = || (self.owed > 0).then_some(fetch_request::Kind::CreditBytes(self.owed));
        said.or_else(indexed).or_else(owed)
    }

    fn take_due(&mut self) -> Option<FetchRequest> {
        let kind = self.due()?;
        match &kind {
            fetch_request::Kind::Acknowledged(_) => self.unsaid = None,
            fetch_request::Kind::Indexed(_) => self.unsaid_indexed = false,
            fetch_request::Kind::CreditBytes(_) | fetch_request::Kind::Open(_) => self.owed = 0,
        }
        Some(FetchRequest { kind: Some(kind) })
    }

    fn say_what_fits(&mut self) {
        while self.due().is_some() {
            // With no room now, it goes out while the next response is waited for.
            let Ok(permit) = self.requests.clone().try_reserve_owned() else { return };
            if let Some(request) = self.take_due() {
                permit.send(request);
            }
        }
    }

    /// What the owner tells a copy before all else.
    pub(super) async fn start(&mut self) -> Result<CopyStart> {
        let start = self.message().await?.start;
        start.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the owner did not say where to start")
        })
    }

    pub(super) async fn receive(&mut self) -> Result<Fetched> {
        let message = self.message().await?;
        let mut sent = message.frames.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
        let frames = match &message.packed {
            Some(packed) => {
                sent = packed.bytes.len() as u64;
                let unpacker = match &mut self.unpacker {
                    Some(unpacker) => unpacker,
                    none => none.insert(Unpacker::new()?),
                };
                unpacker.unpack(packed)?
            }
            None => self.parse(message.frames)?,
        };
        for (frame, size) in &frames {
            self.held.push_back((frame.last(), u64::from(*size)));
        }
        let frames: Vec<_> = frames.into_iter().map(|(frame, _)| frame).collect();
        let mut raw = frames.iter().map(|it| u64::from(it.raw_bytes())).sum::<u64>();
        let index = message.index.as_ref().map(pages::unpack).transpose()?;
        if let (Some(page), Some(rows)) = (&message.index, &index) {
            // Whoever takes them does so before the next is asked for.
            self.owed += page.rows.len() as u64;
            sent += page.rows.len() as u64;
            raw += rows.encoded_len() as u64;
        }
        if let Some(from) = self.abroad.as_ref().filter(|_| sent > 0) {
            telemetry::crossed(from, sent, raw);
        }
        Ok(Fetched { frames, stable: Sequence(message.stable), index })
    }

    /// Each with its size. A damaged one is fetched again.
    fn parse(&self, frames: Vec<Bytes>) -> Result<Vec<(Frame, u32)>> {
        let parse = |bytes: Bytes| {
            let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let frame = Frame::parse(bytes).map_err(|error| {
                let why = format!("a batch from {} arrived damaged", self.address);
                Error::new(ErrorKind::Unavailable, why).because(error)
            })?;
            Ok((frame, size))
        };
        frames.into_iter().map(parse).collect()
    }

    /// Tells the owner that no rows of the key index are missing any more.
    pub(super) fn say_indexed(&mut self) {
        self.unsaid_indexed = true;
        self.say_what_fits();
    }

    /// As `acknowledge`, and tells the owner up to where.
    pub(super) fn confirm(&mut self, upto: Sequence) {
        self.unsaid = Some(upto);
        self.acknowledge(upto);
    }
}

#[async_trait]
impl Fetch for RemoteFetch {
    async fn next(&mut self) -> Result<Fetched> {
        self.receive().await
    }

    fn acknowledge(&mut self, upto: Sequence) {
        while self.held.front().is_some_and(|(last, _)| *last <= upto) {
            if let Some((_, bytes)) = self.held.pop_front() {
                self.owed += bytes;
            }
        }
        self.say_what_fits();
    }
}

fn abroad(control: &Control, address: &str) -> Option<String> {
    control.read(|state| {
        let here = &state.node(control.node().0)?.region;
        let there = &state.nodes().find(|node| node.address == address)?.region;
        (here != there).then(|| there.clone())
    })
}

/// Reading changes nothing, so an unknown outcome is as good as none.
fn retryable(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Unknown => Error::new(ErrorKind::Unavailable, error.to_string()),
        ErrorKind::Unavailable
        | ErrorKind::Fenced
        | ErrorKind::Rejected
        | ErrorKind::Gone
        | ErrorKind::Config
        | ErrorKind::Corrupt => error,
    }
}

fn gone(address: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the fetch at {address} ended"))
}
