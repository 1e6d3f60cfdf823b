//! A subscription as the protocol has it, for who looks after nothing else.

use std::time::Duration;

use tidegate_proto::v1::feed_client::FeedClient;
use tidegate_proto::v1::subscribe_request::Kind;
use tidegate_proto::v1::subscribe_start::From;
use tidegate_proto::v1::{FeedFormat, SubscribeRequest, SubscribeResponse, SubscribeStart};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

use crate::Outcome;

/// What an answer may take.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// An open subscription, and what keeps it open.
pub type Open = (mpsc::Sender<SubscribeRequest>, Streaming<SubscribeResponse>);

/// Follows an export at the node at `address`; gets `credit_bytes`, and no more than the
/// caller gives back.
///
/// # Errors
///
/// If the node does not answer, or refuses: then a [`tonic::Status`].
pub async fn open(address: &str, export: &str, from: From, credit_bytes: u64) -> Outcome<Open> {
    let (requests, outbound) = mpsc::channel(64);
    let start = SubscribeStart {
        export: export.to_owned(),
        from: Some(from),
        format: FeedFormat::Frames.into(),
        credit_bytes,
        ..SubscribeStart::default()
    };
    requests.send(SubscribeRequest { kind: Some(Kind::Start(start)) }).await?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let channel = endpoint.tcp_nodelay(true).connect().await?;
    let mut client = FeedClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let answer = timeout(ANSWER, client.subscribe(ReceiverStream::new(outbound))).await;
    let answer =
        answer.map_err(|_| format!("{address} did not answer a subscription in {ANSWER:?}"))?;
    Ok((requests, answer?.into_inner()))
}
