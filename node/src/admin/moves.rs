//! Moving a shard, step by step.

use std::collections::HashMap;
use std::time::Duration;

use tidegate_proto::v1::{
    Assign, MoveShard, MoveShardRequest, MoveShardResponse, Shard, ShardId, command,
};
use tidegate_raft_store::State;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use crate::control::Control;
use crate::control::status;

/// How long a copy may take to get in sync before the call gives the move up.
const PATIENCE: Duration = Duration::from_secs(600);

type Steps = mpsc::Sender<Result<MoveShardResponse, Status>>;

/// A move with its names looked up.
#[derive(Debug)]
pub(super) struct Move {
    id: ShardId,
    epoch: u64,
    /// Node id; 0 to leave it.
    reader: u64,
    writers: HashMap<String, u64>,
}

/// Looks up what a request names, and refuses what makes no sense.
pub(super) fn resolve(state: &State, request: &MoveShardRequest) -> Result<Move, Status> {
    let MoveShardRequest { export, shard, reader, writers } = request;
    let known = state.export_named(export).ok_or_else(|| {
        Status::not_found(format!(
            "there is no export \"{export}\"; `tidegate export list` shows them"
        ))
    })?;
    let named = |it: &&Shard| {
        let id = it.id.unwrap_or_default();
        it.spec.as_ref().is_some_and(|spec| spec.name == *shard) || id.to_string() == *shard
    };
    let found = state.shards_of(known.id).find(named).ok_or_else(|| {
        Status::not_found(format!(
            "export \"{export}\" has no shard \"{shard}\"; see `tidegate shard list {export}`"
        ))
    })?;
    let node = |name: &String| {
        let node = state.nodes().find(|node| node.name == *name).map(|node| node.id);
        node.ok_or_else(|| {
            Status::not_found(format!("there is no node \"{name}\"; see `tidegate node list`"))
        })
    };
    let mut moved = HashMap::new();
    for (sink, name) in writers {
        if !known.sinks.iter().any(|it| it.name == *sink) {
            let why = format!("export \"{export}\" has no sink \"{sink}\"");
            return Err(Status::not_found(why));
        }
        moved.insert(sink.clone(), node(name)?);
    }
    let reader = if reader.is_empty() { 0 } else { node(reader)? };
    if reader == 0 && moved.is_empty() {
        return Err(Status::invalid_argument("name a reader, a writer, or both"));
    }
    Ok(Move { id: found.id.unwrap_or_default(), epoch: found.epoch, reader, writers: moved })
}

/// Carries a move out and tells each step.
pub(super) async fn carry_out(control: Control, plan: Move, steps: Steps) {
    let started = Instant::now();
    if let Err(error) = move_all(&control, plan, &steps, started).await {
        // Whoever asked may have hung up.
        drop(steps.send(Err(error)).await);
    }
}

async fn move_all(
    control: &Control,
    mut plan: Move,
    steps: &Steps,
    started: Instant,
) -> Result<(), Status> {
    let tell = async |step: String, epoch: u64| {
        let after_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        drop(steps.send(Ok(MoveShardResponse { step, after_us, epoch })).await);
    };
    let id = plan.id;
    if plan.reader != 0 && entry(control, id)?.reader != plan.reader {
        let command = MoveShard { shard: Some(id), epoch: plan.epoch, reader: plan.reader };
        propose(control, command::Kind::MoveShard(command)).await?;
        let (to, epoch) = (plan.reader, plan.epoch);
        // This node may apply it a moment later than the leader.
        until(control, id, |shard| shard.moving_to == to || shard.epoch > epoch).await?;
        tell("the move is recorded".to_owned(), plan.epoch).await;
        until(control, id, |shard| shard.in_sync.contains(&to) || shard.moving_to == 0).await?;
        tell("the new reader's copy is in sync".to_owned(), plan.epoch).await;
        let shard = until(control, id, |shard| shard.epoch > plan.epoch || shard.moving_to == 0);
        let shard = shard.await?;
        if shard.reader != to {
            let why = "the move was abandoned, and the shard runs where it was: is the node down?";
            return Err(Status::aborted(why));
        }
        plan.epoch = shard.epoch;
        tell("assigned to the new reader".to_owned(), plan.epoch).await;
    }
    let shard = entry(control, id)?;
    let mut writers = shard.writers.clone();
    writers.extend(std::mem::take(&mut plan.writers));
    if writers != shard.writers {
        let command = Assign {
            shard: Some(id),
            replaces: shard.epoch,
            reader: shard.reader,
            writers,
            copies: shard.copies,
            anew: false,
        };
        propose(control, command::Kind::Assign(command)).await?;
        plan.epoch = shard.epoch + 1;
        tell("assigned to the new writers".to_owned(), plan.epoch).await;
    }
    let epoch = plan.epoch;
    let capturing = |shard: &Shard| shard.captured.as_ref().is_some_and(|at| at.epoch >= epoch);
    until(control, id, capturing).await?;
    tell("captures under the new epoch".to_owned(), epoch).await;
    let delivering = |shard: &Shard| {
        let recent = |sink| shard.delivered.get(sink).is_some_and(|at| at.epoch >= epoch);
        shard.writers.keys().all(recent)
    };
    until(control, id, delivering).await?;
    tell("delivers to every sink under the new epoch".to_owned(), epoch).await;
    Ok(())
}

async fn propose(control: &Control, kind: command::Kind) -> Result<(), Status> {
    control.insist(kind).await.map(drop).map_err(|error| status(&error))
}

fn entry(control: &Control, id: ShardId) -> Result<Shard, Status> {
    let shard = control.read(|state| state.shard(id).cloned());
    shard.ok_or_else(|| Status::not_found("the shard was deleted"))
}

/// Waits until the shard, as this node knows it, is as wanted.
async fn until(
    control: &Control,
    id: ShardId,
    done: impl Fn(&Shard) -> bool,
) -> Result<Shard, Status> {
    let mut changed = control.changed();
    let end = Instant::now() + PATIENCE;
    loop {
        changed.borrow_and_update();
        let shard = entry(control, id)?;
        if done(&shard) {
            return Ok(shard);
        }
        let waited = timeout_at(end, changed.changed()).await;
        if waited.is_err() {
            let why = "this takes long; look at `tidegate shard show`: the move goes on";
            return Err(Status::deadline_exceeded(why));
        }
    }
}
