//! Moving a shard, step by step.

use std::collections::HashMap;

use tidegate_proto::v1::{Assign, MoveShard, MoveShardRequest, Shard, ShardId, command, outcome};
use tidegate_raft_store::State;
use tonic::Status;

use crate::admin::names;
use crate::admin::steps::{Steps, entry, propose, until};
use crate::control::Control;
use crate::control::status;

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
    steps: &Steps,
) -> Result<(), Status> {
    let id = plan.id;
    if plan.reader != 0 && entry(control, id)?.reader != plan.reader {
        plan.epoch = move_reader(control, &plan, steps).await?;
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
            ..Assign::default()
        };
        propose(control, command::Kind::Assign(command)).await?;
        plan.epoch = shard.epoch + 1;
        steps.tell("assigned to the new writers", plan.epoch).await;
    }
    let epoch = plan.epoch;
    let capturing = |shard: &Shard| shard.captured.as_ref().is_some_and(|at| at.epoch >= epoch);
    until(control, id, capturing).await?;
    steps.tell("captures under the new epoch", epoch).await;
    let delivering = |shard: &Shard| {
        let recent = |sink| shard.delivered.get(sink).is_some_and(|at| at.epoch >= epoch);
        shard.writers.keys().all(recent)
    };
    until(control, id, delivering).await?;
    steps.tell("delivers to every sink under the new epoch", epoch).await;
    Ok(())
}

/// Moves the reader; the epoch it has then.
async fn move_reader(control: &Control, plan: &Move, steps: &Steps) -> Result<u64, Status> {
    let Move { id, epoch, reader: to, .. } = *plan;
    let number = ask(control, plan).await?;
    // This node may apply it a moment later than the leader.
    until(control, id, |shard| shard.moves >= number || shard.epoch > epoch).await?;
    steps.tell("the move is recorded", epoch).await;
    let goes_on =
        |shard: &Shard| (shard.epoch, shard.moves, shard.moving_to) == (epoch, number, to);
    let ready = |shard: &Shard| shard.in_sync.contains(&to) || !goes_on(shard);
    let shard = until(control, id, ready).await?;
    if goes_on(&shard) || shard.reader == to {
        steps.tell("the new reader's copy is in sync", epoch).await;
    }
    let shard = until(control, id, |shard| !goes_on(shard)).await?;
    if shard.reader != to {
        return Err(control.read(|state| given_up(state, &shard, number)));
    }
    steps.tell("assigned to the new reader", shard.epoch).await;
    Ok(shard.epoch)
}

/// Asks for the move of the reader; the number it got.
async fn ask(control: &Control, plan: &Move) -> Result<u64, Status> {
    let (shard, epoch, reader) = (Some(plan.id), plan.epoch, plan.reader);
    let command = MoveShard { shard, epoch, reader, ..MoveShard::default() };
    let outcome = control.insist(command::Kind::MoveShard(command)).await;
    match outcome.map_err(|error| status(&error))?.kind {
        Some(outcome::Kind::Created(created)) => Ok(created.id),
        _ => Err(Status::internal("the move got no number")),
    }
}

/// Why the move of this number is over and the shard not where it was to go.
fn given_up(state: &State, shard: &Shard, number: u64) -> Status {
    let why = match &shard.move_given_up[..] {
        _ if shard.moves != number => "another move of this shard was asked for",
        "" => "the shard has moved on since",
        why => why,
    };
    let reads = state.node(shard.reader).map_or_else(
        || "the shard has no reader right now".to_owned(),
        |node| format!("the shard is read by {}", node.name),
    );
    Status::aborted(format!("the move was given up, {reads}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::sample::Sample;

    #[test]
    fn a_receipt_says_why_a_move_was_given_up_and_where_the_shard_is() {
        let cluster = Sample::new(&["here", "here"]);
        let shard = cluster.state.shard(cluster.shard).unwrap();
        let why = "node1 is down; start it".to_owned();
        let shard = Shard { moves: 2, move_given_up: why, ..shard.clone() };
        let said = given_up(&cluster.state, &shard, 2);
        let told = "the move was given up, the shard is read by node0: node1 is down; start it";
        assert_eq!(said.message(), told);
        let another = given_up(&cluster.state, &shard, 1);
        assert!(another.message().ends_with("another move of this shard was asked for"));
    }
}
