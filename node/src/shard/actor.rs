//! One role's actor: owns the task that does the work, decides what its end means.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, async_trait};
use tidegate_proto::v1::{ShardFailed, command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::error::{Error, ErrorKind, Result, Verdict};
use crate::retry::{Backoff, MOST};
use crate::shard::Means;
use crate::shard::copy;
use crate::shard::reader;
use crate::shard::role::{Role, Terms};
use crate::shard::sink_watch::SinkWatch;
use crate::shard::writer;

/// A task that worked this long has recovered from what befell it before.
const HEALTHY: Duration = Duration::from_secs(30);
/// A sink that was unavailable so often in a row may be out of reach of this node only.
const FAILED_MAX: u32 = 3;

/// Everything a role's actor is ever told, and by whom.
#[derive(Debug)]
pub(super) enum Message {
    /// From its task, when that ended.
    Ended(Result<()>),
    /// From itself, when a wait is over.
    Again,
    /// From the supervisor: finish the batch at hand, then end.
    Drain,
}

/// Runs one role under one set of terms.
pub(super) struct RoleActor;

pub(super) struct Work {
    means: Means,
    role: Role,
    terms: Terms,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
    started: tokio::time::Instant,
    backoff: Backoff,
    /// Times it failed since it last worked well.
    failed: u32,
}

#[async_trait]
impl Actor for RoleActor {
    type Msg = Message;
    type State = Work;
    type Arguments = (Means, Role, Terms);

    async fn pre_start(
        &self,
        me: ActorRef<Message>,
        (means, role, terms): Self::Arguments,
    ) -> Result<Work, ActorProcessingErr> {
        let mut work = Work {
            means,
            role,
            terms,
            stop: watch::Sender::new(false),
            task: None,
            started: tokio::time::Instant::now(),
            backoff: Backoff::default(),
            failed: 0,
        };
        work.start(me);
        Ok(work)
    }

    async fn handle(
        &self,
        me: ActorRef<Message>,
        message: Message,
        work: &mut Work,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Ended(outcome) => work.on_ended(&me, outcome),
            Message::Again => work.start(me),
            Message::Drain => work.on_drain(&me),
        }
        Ok(())
    }
}

impl Work {
    fn start(&mut self, me: ActorRef<Message>) {
        if *self.stop.borrow() {
            me.stop(None);
            return;
        }
        let (means, role, terms) = (self.means.clone(), self.role.clone(), self.terms);
        let stop = self.stop.subscribe();
        let span = tracing::info_span!("shard", role = %role, epoch = %terms.epoch);
        self.started = tokio::time::Instant::now();
        let work = async move {
            let threads = means.work.clone();
            let inner = threads.spawn(perform(means, role, terms, stop).in_current_span());
            let _ends_with_us = AbortOnDrop(inner.abort_handle());
            let outcome = inner.await.unwrap_or_else(|error| {
                Err(Error::new(ErrorKind::Unavailable, "the task panicked").because(error))
            });
            // The actor may be gone already.
            drop(me.send_message(Message::Ended(outcome)));
        };
        self.task = Some(tokio::spawn(work.instrument(span)));
    }

    fn on_drain(&mut self, me: &ActorRef<Message>) {
        self.stop.send_replace(true);
        if self.task.is_none() {
            me.stop(None);
        }
    }

    fn on_ended(&mut self, me: &ActorRef<Message>, outcome: Result<()>) {
        self.task = None;
        let (role, epoch) = (self.role.to_string(), self.terms.epoch);
        if *self.stop.borrow() {
            // Nobody waits for more of it; under new terms it may be no error at all.
            if let Err(error) = outcome {
                tracing::info!(role, %epoch, reason = %error, "ended while it was told to");
            }
            me.stop(None);
            return;
        }
        // Captured to its end: nothing more to do.
        let Err(error) = outcome else { return };
        match error.verdict() {
            Verdict::Leave => {
                tracing::info!(role, %epoch, reason = %error, "ended");
                // The supervisor will see what the cluster wants now.
                me.stop(None);
            }
            Verdict::Fail | Verdict::Gap | Verdict::Park => {
                tracing::error!(role, %epoch, error = %error, "cannot go on without an operator");
                self.fail(&error);
            }
            Verdict::Retry | Verdict::Reopen => {
                if self.started.elapsed() > HEALTHY {
                    self.backoff.reset();
                    self.failed = 0;
                }
                self.failed += 1;
                if self.failed == FAILED_MAX && error.kind() == ErrorKind::Unavailable {
                    self.look_at_sink();
                }
                let wait = self.backoff.wait().min(self.longest());
                let retry_in_ms = wait.as_millis();
                tracing::warn!(role, %epoch, error = %error, retry_in_ms, "trying again");
                drop(me.send_after(wait, || Message::Again));
            }
        }
    }

    /// The longest wait before its task is tried again: a reader's source may be one that
    /// forgets within seconds.
    fn longest(&self) -> Duration {
        let Role::Reader(id) = &self.role else { return MOST };
        let job = self.means.exports.opened(id.export_id);
        // One that was never opened has nothing to forget yet.
        job.map_or(MOST, |job| job.source.traits().again)
    }

    /// A sink that does not answer this node may answer another.
    fn look_at_sink(&self) {
        if let Role::Writer(id, sink) = self.role.clone() {
            SinkWatch { means: self.means.clone(), id, epoch: self.terms.epoch, sink }.look();
        }
    }

    /// Tells the cluster that the shard stands still, and why.
    fn fail(&self, error: &Error) {
        let command = ShardFailed {
            shard: Some(self.role.shard()),
            epoch: self.terms.epoch.0,
            reason: format!("{}: {error}", self.role),
        };
        let control = self.means.control.clone();
        tokio::spawn(async move {
            let mut backoff = Backoff::default();
            for _ in 0..20 {
                let kind = command::Kind::ShardFailed(command.clone());
                match control.propose(kind).await {
                    Ok(_) => return,
                    Err(error) => tracing::warn!(error = %error, "report a failed shard"),
                }
                tokio::time::sleep(backoff.wait()).await;
            }
        });
    }
}

async fn perform(
    means: Means,
    role: Role,
    terms: Terms,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let _turn = match &role {
        Role::Reader(shard) | Role::Copy(shard) => tokio::select! {
            turn = means.alone.with(*shard) => Some(turn),
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        },
        Role::Writer(..) => None,
    };
    match role {
        Role::Reader(shard) => reader::run(means, shard, terms, stop).await,
        Role::Copy(shard) => copy::run(means, shard, terms, stop).await,
        Role::Writer(shard, sink) => writer::run(means, (shard, sink), terms, stop).await,
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Ends a task when whoever waits for it is ended.
pub(super) struct AbortOnDrop(pub(super) tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
