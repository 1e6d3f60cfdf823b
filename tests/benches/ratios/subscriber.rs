//! A feed subscriber that takes what it gets as fast as it can.

use tidegate_proto::Frame;
use tidegate_proto::v1::feed_client::FeedClient;
use tidegate_proto::v1::subscribe_request::Kind;
use tidegate_proto::v1::subscribe_start::From;
use tidegate_proto::v1::{FeedFormat, SubscribeRequest, SubscribeResponse, SubscribeStart};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use crate::bench::Outcome;
use crate::node::channel;
use crate::stock::Tiling;
use tidegate_tests::latest::{State, fold};

/// Bytes that may be on their way to it.
const CREDIT: u64 = 64 << 20;
/// The largest message taken.
const MESSAGE_BYTES: usize = 64 << 20;

/// What a subscriber does with a batch besides checking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Nothing.
    Take,
    /// Decodes it into its changes.
    Decode,
    /// Decodes it and keeps the latest document's hash of each key.
    Fold,
}

/// What a subscriber has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) bytes: u64,
    pub(crate) changes: u64,
    pub(crate) tiling: Tiling,
    pub(crate) state: State,
}

/// What to subscribe to, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) address: String,
    pub(crate) export: String,
    pub(crate) effort: Effort,
    /// Ends with what is there now; otherwise at this many changes.
    pub(crate) upto: Option<u64>,
}

/// Subscribes from the oldest change on, and takes all of one shard.
pub(crate) async fn drain(wish: Wish) -> Outcome<Seen> {
    follow(wish, |_| Ok(())).await
}

/// As [`drain`]; shows each batch as it comes.
pub(crate) async fn follow(
    wish: Wish,
    mut show: impl FnMut(&Frame) -> Outcome<()>,
) -> Outcome<Seen> {
    let start = SubscribeStart {
        export: wish.export,
        from: Some(From::Earliest(true)),
        format: FeedFormat::Frames.into(),
        until_now: wish.upto.is_none(),
        credit_bytes: CREDIT,
        ..SubscribeStart::default()
    };
    let (requests, outbound) = tokio::sync::mpsc::channel(64);
    requests.send(SubscribeRequest { kind: Some(Kind::Start(start)) }).await?;
    let mut client =
        FeedClient::new(channel(&wish.address)?).max_decoding_message_size(MESSAGE_BYTES);
    let mut responses = client.subscribe(ReceiverStream::new(outbound)).await?.into_inner();
    let (mut seen, mut owed) = (Seen::default(), 0);
    while wish.upto.is_none_or(|upto| seen.changes < upto) {
        let Some(response) = responses.next().await else { break };
        let bytes = take(&mut seen, response?, wish.effort, &mut show)?;
        owed += bytes;
        if owed >= CREDIT / 4 {
            let credit = SubscribeRequest { kind: Some(Kind::CreditBytes(owed)) };
            // A server that has sent all there is takes no more.
            drop(requests.send(credit).await);
            owed = 0;
        }
    }
    Ok(seen)
}

fn take(
    seen: &mut Seen,
    response: SubscribeResponse,
    effort: Effort,
    show: &mut impl FnMut(&Frame) -> Outcome<()>,
) -> Outcome<u64> {
    let mut bytes = 0;
    for frame in response.frames {
        // Its checksum too: that is part of taking a batch.
        let frame = Frame::parse(frame)?;
        seen.tiling.take(&frame)?;
        bytes += u64::try_from(frame.bytes().len())?;
        seen.changes += u64::from(frame.count());
        show(&frame)?;
        match effort {
            Effort::Take => {}
            Effort::Decode => drop(std::hint::black_box(frame.decode()?)),
            Effort::Fold => fold(&mut seen.state, &frame.decode()?)?,
        }
    }
    seen.bytes += bytes;
    Ok(bytes)
}
