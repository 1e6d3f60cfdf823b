//! Long work on a shard, told step by step.

use std::time::Duration;

use tidegate_proto::v1::{Shard, ShardId, command};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tonic::Status;

use crate::control::Control;
use crate::control::status;

/// Steps made before the caller has taken the one before.
const STEPS_MAX: usize = 16;
/// How long one step may take before the call stops waiting for it, besides what a
/// move may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(600);

/// Where the steps of one call are told.
#[derive(Debug)]
pub(super) struct Steps<T> {
    started: Instant,
    answers: mpsc::Sender<Result<T, Status>>,
}

impl<T> Steps<T> {
    /// Steps from now on, and who takes them.
    pub(super) fn begin() -> (Self, mpsc::Receiver<Result<T, Status>>) {
        let (answers, taken) = mpsc::channel(STEPS_MAX);
        (Self { started: Instant::now(), answers }, taken)
    }

    /// Tells a step, made from the microseconds since the call. Whoever asked may
    /// have hung up.
    pub(super) async fn tell(&self, step: impl FnOnce(u64) -> T) {
        let after_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        drop(self.answers.send(Ok(step(after_us))).await);
    }

    /// Tells how it ended, if badly.
    pub(super) async fn end(&self, outcome: Result<(), Status>) {
        if let Err(error) = outcome {
            drop(self.answers.send(Err(error)).await);
        }
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
