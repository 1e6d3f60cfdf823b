//! The other sides of feeds: the same bytes without Tidegate, from a process
//! of their own.
//!
//! METHOD The server is this program started again with `--serve KIND`; it
//! prints its address and serves until it is killed. Blobs come from memory.

use std::io::{BufRead as _, BufReader};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use futures::Stream;
use tidegate_proto::v1::documents_client::DocumentsClient;
use tidegate_proto::v1::documents_server::{Documents, DocumentsServer};
use tidegate_proto::v1::feed_client::FeedClient;
use tidegate_proto::v1::feed_server::{Feed, FeedServer};
use tidegate_proto::v1::subscribe_request::Kind;
use tidegate_proto::v1::{
    ChangesRequest, ChangesResponse, CountRequest, CountResponse, DescribeRequest,
    DescribeResponse, EncodedDocument, GetRequest, GetResponse, ScanRequest, ScanResponse,
    StoredDocument, SubscribeRequest, SubscribeResponse, WriteRequest, WriteResponse,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::bench::{Outcome, float, require, timed};
use crate::machine::pinned;
use crate::node::channel;

/// Bytes of an opaque blob.
const BLOB_BYTES: usize = 64 << 10;
/// Changes in a typed message.
const TYPED: usize = 1000;
/// Bytes written to a raw connection at once.
const WRITE_BYTES: usize = 1 << 20;
const WINDOW_BYTES: u32 = 8 << 20;
/// Bytes of an HTTP/2 frame: a batch goes in one, not in pieces of 16 KiB.
const FRAME_BYTES: u32 = 1 << 20;
const MESSAGE_BYTES: usize = 64 << 20;

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A bare server in a process of its own; dropping it kills it.
pub(crate) struct Bare {
    process: Child,
    pub(crate) address: String,
}

impl Bare {
    /// Starts one of `kind` (`tcp` or `grpc`) on `cores`.
    pub(crate) fn start(kind: &str, cores: &str) -> Outcome<Self> {
        let mut process = Command::new("taskset")
            .args(["-c", cores])
            .arg(std::env::current_exe()?)
            .args(["--serve", kind])
            .stdout(Stdio::piped())
            .spawn()?;
        let out = process.stdout.take().ok_or("a server says its address")?;
        let mut address = String::new();
        BufReader::new(out).read_line(&mut address)?;
        Ok(Self { process, address: address.trim().to_owned() })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Serves until killed. Prints the address first.
#[expect(clippy::print_stdout, reason = "who started this process reads it")]
pub(crate) async fn serve(kind: &str) -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    if kind == "tcp" {
        let block: Bytes = vec![7; WRITE_BYTES].into();
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(write(stream, block.clone()));
        }
    }
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(2 * WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .add_service(FeedServer::new(Blobs))
        .add_service(DocumentsServer::new(Typed).max_encoding_message_size(MESSAGE_BYTES))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await?;
    Ok(())
}

/// Sends as many bytes as the client asks for, in its first eight.
async fn write(mut stream: TcpStream, block: Bytes) -> Outcome<()> {
    stream.set_nodelay(true)?;
    let mut left = stream.read_u64().await?;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        stream.write_all(&block[..most]).await?;
        left -= u64::try_from(most)?;
    }
    Ok(())
}

/// Takes `bytes` over a raw connection.
pub(crate) async fn read_raw(address: &str, bytes: u64) -> Outcome<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_u64(bytes).await?;
    let (mut buffer, mut read) = (vec![0; WRITE_BYTES], 0);
    while read < bytes {
        let taken = stream.read(&mut buffer).await?;
        require(taken > 0, "a raw connection brings all it was asked for")?;
        read += u64::try_from(taken)?;
    }
    require(read == bytes, "a raw connection brings no more")
}

/// Megabytes per second of a raw connection, read on `core`.
pub(crate) async fn raw_rate(core: u32, address: &str, bytes: u64) -> Outcome<f64> {
    let address = address.to_owned();
    let read = move || timed(async move { read_raw(&address, bytes).await });
    Ok(float(bytes) / 1e6 / pinned(core, read).await?.0)
}

/// Takes at least `bytes` in opaque blobs over gRPC.
pub(crate) async fn read_blobs(address: &str, bytes: u64) -> Outcome<()> {
    let mut client = FeedClient::new(channel(address)?);
    // The wish is told as a credit; a blob more than needed is sent.
    let wish = SubscribeRequest { kind: Some(Kind::CreditBytes(bytes)) };
    let mut blobs = client.subscribe(tokio_stream::once(wish)).await?.into_inner();
    let mut read = 0;
    while let Some(blob) = blobs.next().await {
        read += blob?.frames.iter().map(Bytes::len).sum::<usize>();
    }
    require(u64::try_from(read)? >= bytes, "all blobs arrive")
}

/// Takes `changes` changes with documents of `document_bytes`, in typed messages.
pub(crate) async fn read_typed(address: &str, changes: u64, document_bytes: u64) -> Outcome<()> {
    let mut client =
        DocumentsClient::new(channel(address)?).max_decoding_message_size(MESSAGE_BYTES);
    let after = changes.to_be_bytes().to_vec().into();
    let wish = ScanRequest { limit_bytes: document_bytes, after, ..ScanRequest::default() };
    let mut messages = client.scan(wish).await?.into_inner();
    let mut read = 0;
    while let Some(message) = messages.next().await {
        read += std::hint::black_box(message?).documents.len();
    }
    require(u64::try_from(read)? >= changes, "all typed changes arrive")
}

struct Blobs;

#[async_trait]
impl Feed for Blobs {
    type SubscribeStream = Responses<SubscribeResponse>;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let wish = request.into_inner().message().await?.and_then(|wish| wish.kind);
        let Some(Kind::CreditBytes(bytes)) = wish else {
            return Err(Status::invalid_argument("say how many bytes"));
        };
        let blob = SubscribeResponse {
            frames: vec![vec![7; BLOB_BYTES].into()],
            ..SubscribeResponse::default()
        };
        let count = usize::try_from(bytes).unwrap_or(usize::MAX).div_ceil(BLOB_BYTES);
        let blobs = std::iter::repeat_with(move || Ok(blob.clone())).take(count);
        Ok(Response::new(Box::pin(tokio_stream::iter(blobs))))
    }
}

/// Only `scan` is served: the stored document is a typed change's likeness.
struct Typed;

fn not_served<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("only scans are served here"))
}

#[async_trait]
impl Documents for Typed {
    type ScanStream = Responses<ScanResponse>;
    type ChangesStream = Responses<ChangesResponse>;

    async fn scan(&self, wish: Request<ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let wish = wish.into_inner();
        let bytes = usize::try_from(wish.limit_bytes).unwrap_or(usize::MAX);
        let changes = wish.after[..].try_into().map(u64::from_be_bytes);
        let changes = changes.map_err(|_| Status::invalid_argument("say how many changes"))?;
        let document = EncodedDocument { dictionary: Bytes::new(), value: vec![7; bytes].into() };
        let stored = StoredDocument {
            collection: "orders".to_owned(),
            key: "order-0000000001".to_owned(),
            revision: 1,
            document: Some(document),
            ..StoredDocument::default()
        };
        let message = ScanResponse { documents: vec![stored; TYPED], ..ScanResponse::default() };
        let count = usize::try_from(changes).unwrap_or(usize::MAX).div_ceil(TYPED);
        let messages = std::iter::repeat_with(move || Ok(message.clone())).take(count);
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn write(&self, _: Request<WriteRequest>) -> Result<Response<WriteResponse>, Status> {
        not_served()
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        not_served()
    }

    async fn count(&self, _: Request<CountRequest>) -> Result<Response<CountResponse>, Status> {
        not_served()
    }

    async fn changes(
        &self,
        _: Request<ChangesRequest>,
    ) -> Result<Response<Self::ChangesStream>, Status> {
        not_served()
    }

    async fn describe(
        &self,
        _: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        not_served()
    }
}
