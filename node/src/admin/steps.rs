//! Long work on a shard, told step by step.

use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::{Shard, ShardId, ShardStep, command};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::control::Control;
use crate::control::status;

/// Steps made before the caller has taken the one before.
const STEPS_MAX: usize = 16;
/// How long one step may take before the call stops waiting for it, besides what a
/// move may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(600);

/// The steps of one call, as they are made; an error ends them.
pub(super) type Told = ReceiverStream<Result<ShardStep, Status>>;

/// Where the steps of one call are told.
#[derive(Debug)]
pub(super) struct Steps {
    started: Instant,
    answers: mpsc::Sender<Result<ShardStep, Status>>,
}

impl Steps {
    /// Begins work that tells its steps. It goes on if whoever asked hangs up.
    pub(super) fn of<F>(work: impl FnOnce(Arc<Self>) -> F) -> Told
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let (answers, told) = mpsc::channel(STEPS_MAX);
        let work = work(Arc::new(Self { started: Instant::now(), answers: answers.clone() }));
        tokio::spawn(async move {
            if let Err(error) = work.await {
                drop(answers.send(Err(error)).await);
            }
        });
        ReceiverStream::new(told)
    }

    /// Tells a step of a shard that is in `epoch`.
    pub(super) async fn tell(&self, step: impl Into<String>, epoch: u64) {
        let after_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let step = ShardStep { step: step.into(), after_us, epoch };
        drop(self.answers.send(Ok(step)).await);
    }
}

pub(super) async fn propose(control: &Control, kind: command::Kind) -> Result<(), Status> {
    control.insist(kind).await.map(drop).map_err(|error| status(&error))
}

pub(super) fn entry(control: &Control, id: ShardId) -> Result<Shard, Status> {
    let shard = control.read(|state| state.shard(id).cloned());
    shard.ok_or_else(deleted)
}

/// Waits until the shard, as this node knows it, is as wanted. Fails once it stands still
/// and waits for an operator.
pub(super) async fn until(
    control: &Control,
    id: ShardId,
    done: impl Fn(&Shard) -> bool,
) -> Result<Shard, Status> {
    let found = control.until(|state| {
        let shard = state.shard(id);
        let over = |shard: &Shard| done(shard) || !shard.failure.is_empty();
        shard.is_none_or(over).then(|| shard.cloned())
    });
    let found = timeout(PATIENCE + control.times().moved(), found).await.map_err(|_| {
        let why = "this takes long; look at `tidegate shard show`: the move goes on";
        Status::deadline_exceeded(why)
    })?;
    let found = found.map_err(|error| status(&error))?.ok_or_else(deleted)?;
    if done(&found) {
        return Ok(found);
    }
    let why = format!("the shard stands still: {}; see `tidegate shard show`", found.failure);
    Err(Status::failed_precondition(why))
}

fn deleted() -> Status {
    Status::not_found("the shard was deleted")
}
