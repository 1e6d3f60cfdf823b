//! Moving a shard, step by step.

use std::collections::HashMap;

use tidegate_proto::v1::{
    Assign, MoveShard, MoveShardRequest, MoveShardResponse, Shard, ShardId, command,
};
use tidegate_raft_store::State;
use tonic::Status;

use crate::admin::names;
use crate::admin::steps::{Steps, entry, propose, until};
use crate::control::Control;

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
    let known = names::export(state, export)?;
    let found = names::shard(state, known, shard)?;
    let mut moved = HashMap::new();
    for (sink, name) in writers {
        if !known.sinks.iter().any(|it| it.name == *sink) {
            let why = format!("export \"{export}\" has no sink \"{sink}\"");
            return Err(Status::not_found(why));
        }
        moved.insert(sink.clone(), names::node(state, name)?);
    }
    let reader = if reader.is_empty() { 0 } else { names::node(state, reader)? };
    if reader == 0 && moved.is_empty() {
        return Err(Status::invalid_argument("name a reader, a writer, or both"));
    }
    Ok(Move { id: found.id.unwrap_or_default(), epoch: found.epoch, reader, writers: moved })
}

/// Carries a move out and tells each step.
pub(super) async fn carry_out(
    control: &Control,
    mut plan: Move,
    steps: &Steps<MoveShardResponse>,
) -> Result<(), Status> {
    let tell = async |step: String, epoch: u64| {
        steps.tell(|after_us| MoveShardResponse { step, after_us, epoch }).await;
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
