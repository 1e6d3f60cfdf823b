//! One export's feed across lost connections.

use std::time::Duration;

use futures::SinkExt as _;
use futures::channel::mpsc;
use tidegate_proto::v1::feed_client::FeedClient;
use tidegate_proto::v1::{
    SubscribeRequest, SubscribeResponse, SubscribeStart, subscribe_request, subscribe_start,
};
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

use crate::connect::{Endpoints, MESSAGE_BYTES_MAX};
use crate::failure::{Failure, FailureKind, Result};
use crate::output;

/// Bytes the server may send ahead of what was printed.
const CREDIT_BYTES: u64 = 4 << 20;
/// How long a feed looks for somebody who serves it before it gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first and the longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Responses in order, each once; a lost connection is resumed behind the last
/// response that was handed out.
pub(super) struct Subscription {
    endpoints: Endpoints,
    start: SubscribeStart,
    open: Option<Open>,
    /// `start` holds a token that a response brought.
    resuming: bool,
}

struct Open {
    responses: Streaming<SubscribeResponse>,
    credit: mpsc::Sender<SubscribeRequest>,
}

impl Subscription {
    /// Connects to nothing yet.
    pub(super) fn new(endpoints: Endpoints, start: SubscribeStart) -> Self {
        let start = SubscribeStart { credit_bytes: CREDIT_BYTES, ..start };
        Self { endpoints, start, open: None, resuming: false }
    }

    /// The next response; `None` when the feed has ended as asked. Calling it
    /// says that the response before was taken care of.
    pub(super) async fn next(&mut self) -> Result<Option<SubscribeResponse>> {
        let mut outage = Outage::default();
        loop {
            let failure = match self.step().await {
                Ok(Some(response)) => {
                    self.start.from = Some(subscribe_start::From::Token(response.token.clone()));
                    self.resuming = true;
                    return Ok(Some(response));
                }
                Ok(None) => return Ok(None),
                Err(Lost::ForGood(failure)) => return Err(failure),
                Err(Lost::ForNow(failure)) => failure,
            };
            self.open = None;
            self.endpoints.move_on();
            let Some(pause) = outage.pause(Instant::now()) else { return Err(failure) };
            if outage.is_news() {
                output::note(&format!("feed interrupted: {failure}; resuming"));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Gives back the credit that `response` used.
    pub(super) async fn done(&mut self, response: &SubscribeResponse) {
        let sizes = response.json.iter().chain(&response.frames).map(|it| it.len() as u64);
        let request = request(subscribe_request::Kind::CreditBytes(sizes.sum()));
        if let Some(open) = &mut self.open {
            // A connection that takes no more is noticed by the next read.
            drop(open.credit.send(request).await);
        }
    }

    async fn step(&mut self) -> Result<Option<SubscribeResponse>, Lost> {
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let open = open(&mut self.endpoints, &self.start, self.resuming).await?;
                self.open.insert(open)
            }
        };
        let response = open.responses.message().await;
        response.map_err(|status| Lost::new(self.endpoints.current(), &status, false))
    }
}

async fn open(
    endpoints: &mut Endpoints,
    start: &SubscribeStart,
    resuming: bool,
) -> Result<Open, Lost> {
    let channel = endpoints.channel().await.map_err(Lost::ForNow)?;
    let (mut credit, requests) = mpsc::channel(4);
    let first = request(subscribe_request::Kind::Start(start.clone()));
    // The queue is empty and its reader is here.
    drop(credit.send(first).await);
    let mut client = FeedClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let answer = client.subscribe(requests).await;
    let answer = answer.map_err(|status| Lost::new(endpoints.current(), &status, resuming))?;
    Ok(Open { responses: answer.into_inner(), credit })
}

fn request(kind: subscribe_request::Kind) -> SubscribeRequest {
    SubscribeRequest { kind: Some(kind) }
}

/// Why there is no next response.
#[derive(Debug, PartialEq, Eq)]
enum Lost {
    /// Another try, perhaps elsewhere, may give it.
    ForNow(Failure),
    /// It will be the same next time.
    ForGood(Failure),
}

impl Lost {
    /// `resuming`: a node that has not caught up with the cluster may hold a
    /// token that another gave us for one from the future. One that the user
    /// gave is refused: the node has waited for it already.
    fn new(endpoint: &str, status: &Status, resuming: bool) -> Self {
        let failure = Failure::of_status(endpoint, status);
        let passing = matches!(
            status.code(),
            Code::Unknown | Code::Internal | Code::Aborted | Code::ResourceExhausted
        );
        let early = resuming && status.code() == Code::OutOfRange;
        if passing || early || failure.kind() == FailureKind::Unreachable {
            Self::ForNow(failure)
        } else {
            Self::ForGood(failure)
        }
    }
}

/// How long nothing has come, and how long to wait before the next try.
#[derive(Debug, Default)]
struct Outage {
    since: Option<Instant>,
    tries: u32,
}

impl Outage {
    /// The pause before the next try; `None` when patience has run out.
    fn pause(&mut self, now: Instant) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        let (shortest, longest) = PAUSES;
        let pause = shortest.saturating_mul(1 << self.tries.min(16)).min(longest);
        self.tries += 1;
        (now.saturating_duration_since(since) < PATIENCE).then_some(pause)
    }

    /// Worth telling: quick recoveries are not.
    fn is_news(&self) -> bool {
        self.tries == 3
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::pin::Pin;

    use futures::{Stream, stream};
    use tidegate_proto::v1::feed_server::{Feed, FeedServer};
    use tonic::transport::Server;
    use tonic::transport::server::TcpIncoming;
    use tonic::{Request, Response};

    use super::*;

    /// Serves the numbers behind the token, `each` per call, then breaks off;
    /// ends in order at `last`. A token is one number in one byte.
    struct Counting {
        each: u8,
        last: u8,
    }

    #[tonic::async_trait]
    impl Feed for Counting {
        type SubscribeStream =
            Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>>;

        async fn subscribe(
            &self,
            request: Request<Streaming<SubscribeRequest>>,
        ) -> Result<Response<Self::SubscribeStream>, Status> {
            let first = request.into_inner().message().await?.and_then(|it| it.kind);
            let Some(subscribe_request::Kind::Start(start)) = first else {
                return Err(Status::invalid_argument("no start"));
            };
            let after = match start.from {
                Some(subscribe_start::From::Token(token)) => token[0],
                _ => 0,
            };
            let upto = self.last.min(after + self.each);
            let number = |n: u8| {
                Ok(SubscribeResponse {
                    token: vec![n].into(),
                    json: vec![n.to_string().into()],
                    ..SubscribeResponse::default()
                })
            };
            let broken = (upto < self.last).then(|| Err(Status::unavailable("the node is going")));
            let answers: Vec<_> = (after + 1..=upto).map(number).chain(broken).collect();
            Ok(Response::new(Box::pin(stream::iter(answers))))
        }
    }

    fn serve(feed: Counting) -> String {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let incoming = TcpIncoming::bind(address).unwrap();
        let url = format!("http://{}", incoming.local_addr().unwrap());
        let server = Server::builder().add_service(FeedServer::new(feed));
        tokio::spawn(server.serve_with_incoming(incoming));
        url
    }

    fn subscription(urls: &[String]) -> Subscription {
        Subscription::new(Endpoints::new(urls).unwrap(), SubscribeStart::default())
    }

    #[tokio::test]
    async fn a_broken_feed_goes_on_elsewhere_without_a_hole_or_a_repeat() {
        let nobody = "http://127.0.0.1:1".to_owned();
        let urls =
            [serve(Counting { each: 3, last: 9 }), nobody, serve(Counting { each: 2, last: 9 })];
        let mut subscription = subscription(&urls);
        let mut seen = Vec::new();
        while let Some(response) = subscription.next().await.unwrap() {
            seen.push(response.token[0]);
            subscription.done(&response).await;
        }
        assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_lost_connection_is_tried_again_and_a_refusal_is_not() {
        let lost = |status: Status, resuming| Lost::new("http://a", &status, resuming);
        assert!(matches!(lost(Status::unavailable("moved"), false), Lost::ForNow(_)));
        assert!(matches!(lost(Status::unknown("transport error"), false), Lost::ForNow(_)));
        assert!(matches!(lost(Status::not_found("no such export"), true), Lost::ForGood(_)));
        assert!(matches!(lost(Status::data_loss("damaged"), true), Lost::ForGood(_)));
    }

    #[test]
    fn a_place_out_of_range_is_tried_again_only_when_resuming() {
        let status = Status::out_of_range("the token is ahead");
        assert!(matches!(Lost::new("http://a", &status, true), Lost::ForNow(_)));
        assert!(matches!(Lost::new("http://a", &status, false), Lost::ForGood(_)));
    }

    #[test]
    fn pauses_grow_to_a_limit_and_patience_ends() {
        let start = Instant::now();
        let mut outage = Outage::default();
        assert_eq!(outage.pause(start), Some(PAUSES.0));
        assert_eq!(outage.pause(start), Some(PAUSES.0 * 2));
        for _ in 0..40 {
            assert!(outage.pause(start).is_some_and(|pause| pause <= PAUSES.1));
        }
        assert_eq!(outage.pause(start + PATIENCE), None);
    }
}
