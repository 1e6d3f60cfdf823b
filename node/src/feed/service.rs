//! The `Feed` service.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tidegate_proto::v1::feed_server::Feed;
use tidegate_proto::v1::subscribe_request::Kind;
use tidegate_proto::v1::{FeedFormat, SubscribeRequest, SubscribeResponse, SubscribeStart};
use tidegate_proto::{Sequence, Token};
use tidegate_raft_store::State;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::control::Control;
use crate::control::status;
use crate::error::{ErrorKind, Result};
use crate::exchange::Exchange;
use crate::feed::filter::Filter;
use crate::feed::lane::{self, Plan, Portion};
use crate::feed::start::{Begin, Lane, lanes};
use crate::telemetry;

/// Portions fetched before the subscriber has taken the one before.
const PORTIONS_MAX: usize = 4;
/// Credit a subscriber has that asked for none: enough to be fast, little
/// enough to be forgotten.
const CREDIT_DEFAULT: u64 = 4 << 20;
/// What a shard's fetch may have in flight at least, however the subscriber's credit is
/// shared out.
const LANE_CREDIT_MIN: u64 = 64 << 10;

/// How long a node that is behind a subscriber's token may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Serves feeds of all exports.
#[derive(Clone, Debug)]
pub struct FeedService {
    control: Control,
    exchange: Exchange,
    places: Arc<Semaphore>,
    /// Where changes are filtered and encoded.
    work: Handle,
}

impl FeedService {
    /// At most `feeds_max` subscriptions at a time, served on the threads of `work`.
    #[must_use]
    pub fn new(control: Control, exchange: Exchange, feeds_max: usize, work: Handle) -> Self {
        Self { control, exchange, places: Arc::new(Semaphore::new(feeds_max)), work }
    }

    /// A token may come from a node that has heard more of the log than this
    /// one: it gets a moment to catch up.
    async fn open_patiently(&self, start: &SubscribeStart) -> Result<Subscription, Status> {
        let mut changed = self.control.changed();
        let until = tokio::time::Instant::now() + CATCH_UP;
        loop {
            changed.borrow_and_update();
            let opened = self.open(start);
            if !matches!(&opened, Err(refused) if refused.code() == tonic::Code::OutOfRange) {
                return opened;
            }
            let applied = tokio::time::timeout_at(until, changed.changed()).await;
            if !matches!(applied, Ok(Ok(()))) {
                return opened;
            }
        }
    }

    fn open(&self, start: &SubscribeStart) -> Result<Subscription, Status> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("this node serves as many feeds as it may; ask another")
        })?;
        let filter = Filter::new(start).map_err(Status::invalid_argument)?;
        let json = start.format() == FeedFormat::Json;
        let format = if json { FeedFormat::Json } else { FeedFormat::Frames };
        // Before the shards are looked up: one that comes right behind is not missed.
        let topology = self.control.topology();
        let cluster_id = self.control.identity().cluster_id.clone();
        let (export_id, lanes) = self.control.read(|state| lanes(state, &cluster_id, start))?;
        let credit = if start.credit_bytes == 0 { CREDIT_DEFAULT } else { start.credit_bytes };
        let share = (credit / (lanes.len() as u64).max(1)).max(LANE_CREDIT_MIN);
        let plan = Plan {
            exchange: self.exchange.clone().with_credit(share),
            control: self.control.clone(),
            export: start.export.clone(),
            filter,
            format,
            until_now: start.until_now,
        };
        let token = Token { cluster_id, export_id, sequences: begun(&lanes) };
        Ok(Subscription {
            control: self.control.clone(),
            topology,
            start: start.clone(),
            plan,
            lanes: Vec::new(),
            waiting: lanes,
            token,
            credit: i128::from(credit),
            _place: place,
        })
    }
}

#[async_trait]
impl Feed for FeedService {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.kind);
        let Some(Kind::Start(start)) = first else {
            return Err(Status::invalid_argument("a subscription starts with `start`"));
        };
        let subscription = self.open_patiently(&start).await?;
        let (responses, stream) = mpsc::channel(1);
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        self.work.spawn(async move {
            let _counted = telemetry::feed_open();
            if let Err(error) = subscription.serve(requests, &responses).await {
                // The subscriber may be gone already.
                drop(responses.send(Err(error)).await);
            }
            end.store(true, Ordering::Release);
        });
        Ok(Response::new(Box::pin(to_the_end(stream, ended))))
    }
}

/// What comes, and an error behind it if the task that sends has not `ended` it: it is
/// dropped when its node stops, and a feed that seems complete would not be resumed.
fn to_the_end(
    responses: mpsc::Receiver<Result<SubscribeResponse, Status>>,
    ended: Arc<AtomicBool>,
) -> impl Stream<Item = Result<SubscribeResponse, Status>> {
    let cut_off = async move { (!ended.load(Ordering::Acquire)).then(|| Err(stopping())) };
    let cut_off = futures::stream::once(cut_off).filter_map(std::future::ready);
    ReceiverStream::new(responses).chain(cut_off)
}

fn stopping() -> Status {
    Status::unavailable("this node is stopping; resume at another")
}

/// Where each lane begins, for the tokens of responses before its first.
fn begun(lanes: &[Lane]) -> BTreeMap<u32, Sequence> {
    let known = lanes.iter().filter_map(|lane| match lane.from {
        Begin::After(at) => Some((lane.shard.index, at)),
        Begin::Earliest => None,
    });
    known.collect()
}

struct Subscription {
    control: Control,
    /// Has moved if `waiting` may lack a shard.
    topology: watch::Receiver<u64>,
    start: SubscribeStart,
    plan: Plan,
    /// Those that run, by their numbers, and those that wait for others.
    lanes: Vec<Lane>,
    waiting: Vec<Lane>,
    token: Token,
    credit: i128,
    _place: OwnedSemaphorePermit,
}

impl Subscription {
    async fn serve(
        mut self,
        mut requests: Streaming<SubscribeRequest>,
        responses: &mpsc::Sender<Result<SubscribeResponse, Status>>,
    ) -> Result<(), Status> {
        let (sender, mut portions) = mpsc::channel(PORTIONS_MAX);
        let mut tasks = JoinSet::new();
        self.begin_lanes(&mut tasks, &sender);
        // A feed that follows keeps it, for shards that appear later.
        let mut sender = Some(sender).filter(|_| self.expects_lanes());
        let mut closed = false;
        loop {
            tokio::select! {
                changed = self.topology.changed(), if sender.is_some() => {
                    match &sender {
                        Some(sender) if changed.is_ok() => {
                            self.find_lanes()?;
                            self.begin_lanes(&mut tasks, sender);
                        }
                        _ => sender = None,
                    }
                }
                request = requests.message(), if !closed => match request? {
                    Some(request) => self.grant(&request)?,
                    // Half-closed: the credit given so far is all there will be.
                    None => closed = true,
                },
                portion = portions.recv(), if self.credit > 0 => match portion {
                    Some(Ok(portion)) => {
                        let response = self.respond(portion);
                        // It may have been the last that another lane waited for.
                        if let Some(still) = sender.take().filter(|_| self.expects_lanes()) {
                            self.begin_lanes(&mut tasks, &still);
                            sender = Some(still).filter(|_| self.expects_lanes());
                        }
                        if responses.send(Ok(response)).await.is_err() {
                            return Ok(());
                        }
                    }
                    Some(Err(error)) if error.kind() == ErrorKind::Gone => {
                        return Err(Status::out_of_range(format!(
                            "{error}; start from earliest, or take a new snapshot"
                        )));
                    }
                    Some(Err(error)) => return Err(status(&error)),
                    None if self.start.until_now => return Ok(()),
                    None => return Err(stopping()),
                },
                () = responses.closed() => return Ok(()),
            }
        }
    }

    /// More lanes may begin.
    fn expects_lanes(&self) -> bool {
        !self.start.until_now || !self.waiting.is_empty()
    }

    /// Finds shards that have appeared since; they are followed from their beginning.
    fn find_lanes(&mut self) -> Result<(), Status> {
        let cluster_id = &self.token.cluster_id;
        let (_, now) = self.control.read(|state| lanes(state, cluster_id, &self.start))?;
        for lane in now {
            let mut known = self.lanes.iter().chain(&self.waiting);
            if !self.start.until_now && known.all(|known| known.shard != lane.shard) {
                self.waiting.push(Lane { from: Begin::Earliest, ..lane });
            }
        }
        Ok(())
    }

    /// Begins lanes whose parents were sent to their end: a key's changes stay in
    /// their order when its shard is split.
    fn begin_lanes(&mut self, tasks: &mut JoinSet<()>, portions: &mpsc::Sender<Result<Portion>>) {
        for lane in std::mem::take(&mut self.waiting) {
            if !self.control.read(|state| self.parents_sent(state, &lane)) {
                self.waiting.push(lane);
                continue;
            }
            let number = self.lanes.len();
            tasks.spawn(lane::run(self.plan.clone(), number, lane.clone(), portions.clone()));
            self.lanes.push(lane);
        }
    }

    fn parents_sent(&self, state: &State, lane: &Lane) -> bool {
        // One without changes yet ends at once where only what is there is sent.
        let nothing = self.start.until_now && lane.captured == Sequence(0);
        nothing
            || lane.parents.iter().all(|parent| {
                let captured = state.shard(*parent).and_then(|shard| shard.captured.clone());
                let captured = captured.unwrap_or_default();
                let ended = captured.progress.is_some_and(|progress| progress.ended);
                let sent = self.token.sequences.get(&parent.index).map_or(0, |at| at.0);
                ended && sent >= captured.sequence
            })
    }

    fn grant(&mut self, request: &SubscribeRequest) -> Result<(), Status> {
        match request.kind {
            Some(Kind::CreditBytes(bytes)) => {
                self.credit += i128::from(bytes);
                Ok(())
            }
            Some(Kind::Start(_)) | None => {
                Err(Status::invalid_argument("after `start` there is only `credit_bytes`"))
            }
        }
    }

    fn respond(&mut self, portion: Portion) -> SubscribeResponse {
        self.credit -= i128::from(portion.bytes());
        telemetry::fed(&self.plan.export, portion.bytes());
        let lane = &self.lanes[portion.lane];
        self.token.sequences.insert(lane.shard.index, portion.sequence);
        SubscribeResponse {
            shard: lane.name.clone(),
            token: self.token.encode().into(),
            frames: portion.frames,
            json: portion.json,
            sequence: portion.sequence.0,
            stable: portion.stable.0,
            filtered: portion.filtered,
        }
    }
}
