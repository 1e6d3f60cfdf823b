//! A subscriber that goes on at another node when its own fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tidegate_proto::v1::SubscribeRequest;
use tidegate_proto::v1::subscribe_request::Kind;
use tidegate_proto::v1::subscribe_start::From;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use super::open::open;
use super::seen::{Judge, Seen};
use crate::Outcome;

/// Bytes that may be on their way to it.
const CREDIT: u64 = 32 << 20;
/// A node that says nothing for so long is left: under load there is always something.
const SILENCE: Duration = Duration::from_secs(1);
/// Between two nodes.
const PAUSE: Duration = Duration::from_millis(10);

/// It runs on a thread of its own, so that nothing else delays its clock.
#[derive(Debug)]
pub struct Subscriber<J> {
    shared: Arc<Shared<J>>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared<J> {
    export: String,
    seen: Mutex<Seen<J>>,
    /// Which endpoint it is at.
    node: AtomicUsize,
    stop: AtomicBool,
    /// Why it has given up; empty while it runs.
    failure: Mutex<String>,
}

impl<J: Judge> Shared<J> {
    fn failure(&self) -> MutexGuard<'_, String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Seen<J>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl<J: Judge> Subscriber<J> {
    /// Follows an export from its oldest change on; `judge` looks at all that comes.
    #[must_use]
    pub fn start(export: &str, addresses: Vec<String>, judge: J) -> Self {
        let shared = Arc::new(Shared {
            export: export.to_owned(),
            seen: Mutex::new(Seen::new(judge)),
            node: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            failure: Mutex::default(),
        });
        let its = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let ended =
                runtime.map_err(Into::into).and_then(|it| it.block_on(run(&its, &addresses)));
            if let Err(error) = ended {
                *its.failure() = error.to_string();
            }
        });
        Self { shared, thread }
    }

    /// From now on the largest gaps count anew.
    pub fn begin_round(&self) {
        self.shared.seen().begin_round();
    }

    /// The largest gap of each shard since.
    #[must_use]
    pub fn gaps(&self) -> BTreeMap<String, Duration> {
        self.shared.seen().gaps(Instant::now())
    }

    /// What a shard's gap usually is.
    #[must_use]
    pub fn usual(&self, shard: &str) -> Duration {
        self.shared.seen().usual(shard)
    }

    /// The last sequence of each shard.
    #[must_use]
    pub fn sequences(&self) -> BTreeMap<String, u64> {
        self.shared.seen().sequences()
    }

    /// The number of the node it is at.
    #[must_use]
    pub fn node(&self) -> usize {
        self.shared.node.load(Ordering::Relaxed)
    }

    /// Whether changes that were lost with all copies may come again from now on, in
    /// batches that say so.
    pub fn set_may_rewind(&self, may: bool) {
        self.shared.seen().set_may_rewind(may);
    }

    /// When something of each shard came last.
    #[must_use]
    pub fn arrivals(&self) -> BTreeMap<String, Instant> {
        self.shared.seen().arrivals()
    }

    /// Asks its judge something.
    pub fn ask<T>(&self, question: impl FnOnce(&mut J) -> T) -> T {
        question(&mut self.shared.seen().judge)
    }

    /// Where a subscriber would go on; empty before anything came.
    #[must_use]
    pub fn token(&self) -> Vec<u8> {
        self.shared.seen().token.to_vec()
    }

    /// # Errors
    ///
    /// If it has given up, as it does for a change lost or doubled; says which.
    pub fn alive(&self) -> Outcome<()> {
        let failure = self.shared.failure().clone();
        if failure.is_empty() { Ok(()) } else { Err(failure.into()) }
    }

    /// Ends it and returns what it has seen.
    ///
    /// # Errors
    ///
    /// What was wrong with that.
    pub fn finish(self) -> Outcome<Seen<J>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the subscriber panicked")?;
        if !self.shared.failure().is_empty() {
            return Err(self.shared.failure().clone().into());
        }
        let shared = Arc::into_inner(self.shared).ok_or("the subscriber still runs")?;
        Ok(shared.seen.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why a subscription ended.
enum End {
    /// Another node may go on.
    Left,
    /// Nobody can.
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

async fn run<J: Judge>(shared: &Shared<J>, addresses: &[String]) -> Outcome<()> {
    for node in (0..addresses.len()).cycle() {
        if shared.stopped() {
            break;
        }
        shared.node.store(node, Ordering::Relaxed);
        match follow(shared, &addresses[node]).await {
            End::Left => sleep(PAUSE).await,
            End::Failed(error) => return Err(error),
        }
    }
    Ok(())
}

async fn follow<J: Judge>(shared: &Shared<J>, address: &str) -> End {
    let token = shared.seen().token.clone();
    let from = if token.is_empty() { From::Earliest(true) } else { From::Token(token) };
    let opened = timeout(SILENCE, open(address, &shared.export, from, CREDIT)).await;
    let (requests, mut responses) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            return error.downcast::<Status>().map_or(End::Left, |status| ended(&status));
        }
        Err(_) => return End::Left,
    };
    let mut owed = 0;
    while !shared.stopped() {
        let response = match timeout(SILENCE, responses.message()).await {
            Ok(Ok(Some(response))) => response,
            Ok(Err(status)) => return ended(&status),
            Ok(Ok(None)) | Err(_) => return End::Left,
        };
        owed += response.frames.iter().map(|it| it.len() as u64).sum::<u64>();
        let taken = shared.seen().take(response, Instant::now());
        if let Err(error) = taken {
            return End::Failed(error);
        }
        if owed >= CREDIT / 4 {
            let credit = SubscribeRequest { kind: Some(Kind::CreditBytes(owed)) };
            // If nobody takes it, the next response says so.
            drop(requests.send(credit).await);
            owed = 0;
        }
    }
    End::Left
}

/// What was seen and is no longer there, and data that is damaged, are losses; a
/// node that starts or ends is not.
fn ended(status: &Status) -> End {
    if matches!(status.code(), Code::OutOfRange | Code::DataLoss | Code::InvalidArgument) {
        return End::Failed(status.message().to_owned().into());
    }
    End::Left
}
