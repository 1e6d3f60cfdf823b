//! Splitting a shard, step by step.

use tidegate_proto::v1::{Shard, ShardId, ShardSpec, SplitShard, SplitShardRequest, command};
use tidegate_raft_store::State;
use tonic::Status;

use crate::admin::names;
use crate::admin::plan::source;
use crate::admin::steps::{Steps, entry, propose, until};
use crate::control::Control;
use crate::control::status;

/// A split with its names looked up.
#[derive(Debug)]
pub(super) struct Split {
    id: ShardId,
    epoch: u64,
    spec: ShardSpec,
    /// The export's file.
    file: String,
}

/// Looks up what a request names.
pub(super) fn resolve(state: &State, request: &SplitShardRequest) -> Result<Split, Status> {
    let export = names::export(state, &request.export)?;
    let shard = names::shard(state, export, &request.shard)?;
    Ok(Split {
        id: shard.id.unwrap_or_default(),
        epoch: shard.epoch,
        spec: shard.spec.clone().unwrap_or_default(),
        file: export.spec.clone(),
    })
}

/// Carries a split out and tells each step.
pub(super) async fn carry_out(control: &Control, plan: Split, steps: &Steps) -> Result<(), Status> {
    let source = source(&plan.file).await.map_err(|error| status(&error))?;
    let children = source.split(&plan.spec).map_err(|error| status(&error))?;
    let names: Vec<String> = children.iter().map(|child| child.name.clone()).collect();
    let (id, epoch) = (plan.id, plan.epoch);
    let command = SplitShard { shard: Some(id), epoch, children: children.into() };
    propose(control, command::Kind::SplitShard(command)).await?;
    steps.tell(format!("the split is recorded: {}", names.join(", ")), epoch).await;
    let ended = until(control, id, |shard| {
        shard.captured.as_ref().and_then(|at| at.progress.as_ref()).is_some_and(|it| it.ended)
    });
    let ended = ended.await?;
    let last = ended.captured.as_ref().map_or(0, |at| at.sequence);
    steps.tell(format!("captured to its end, sequence {last}"), ended.epoch).await;
    for name in names {
        let child = child(control, id, &name)?;
        let begun = until(control, child, |shard| shard.anchor.is_some()).await?;
        steps.tell(format!("{name} goes on from there"), begun.epoch).await;
    }
    let delivered =
        until(control, id, |shard| shard.delivered.values().all(|at| at.sequence >= last));
    delivered.await?;
    let epoch = entry(control, id)?.epoch;
    steps.tell("every sink has all of it; its children are delivered", epoch).await;
    Ok(())
}

fn child(control: &Control, parent: ShardId, name: &str) -> Result<ShardId, Status> {
    let named = |it: &&Shard| it.spec.as_ref().is_some_and(|spec| spec.name == *name);
    let id = control.read(|state| state.shards_of(parent.export_id).find(named)?.id);
    id.ok_or_else(|| Status::not_found("the shard was deleted"))
}
