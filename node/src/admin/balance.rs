//! What a rebalance would move.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_proto::v1::{PlanRebalanceResponse, PlannedMove, Shard, ShardId};
use tidegate_raft_store::State;
use tonic::Status;

use crate::control::Control;
use crate::placement::Uneven;
use crate::placement::rates::weight;

/// How long the shards' load is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Looks how much each shard captures, and plans the moves that would even the
/// nodes out.
pub(super) async fn plan(control: &Control) -> Result<PlanRebalanceResponse, Status> {
    let before = control.read(captured);
    tokio::time::sleep(LOOK).await;
    let now = control.read(captured);
    let rate = |id: ShardId| {
        let (before, now) = (before.get(&id), now.get(&id));
        now.unwrap_or(&0).saturating_sub(*before.or(now).unwrap_or(&0)) / LOOK.as_secs()
    };
    let load = |shard: &Shard| weight(rate(shard.id.unwrap_or_default()));
    let uneven = control.read(|state| Uneven::new(state, load));
    let moves = tokio::task::spawn_blocking(move || uneven.even_out()).await;
    let moves = moves.map_err(|_| Status::internal("planning the moves failed"))?.into_iter();
    let planned =
        |state: &State| moves.filter_map(|(id, to)| planned(state, id, to, rate(id))).collect();
    Ok(PlanRebalanceResponse { moves: control.read(planned) })
}

fn captured(state: &State) -> BTreeMap<ShardId, u64> {
    let bytes = |shard: &Shard| shard.captured.as_ref().map_or(0, |at| at.bytes);
    state.shards().map(|shard| (shard.id.unwrap_or_default(), bytes(shard))).collect()
}

fn planned(state: &State, id: ShardId, to: u64, bytes_per_second: u64) -> Option<PlannedMove> {
    let shard = state.shard(id)?;
    Some(PlannedMove {
        export: state.export(id.export_id)?.name.clone(),
        shard: shard.spec.as_ref()?.name.clone(),
        from: state.node(shard.reader)?.name.clone(),
        to: state.node(to)?.name.clone(),
        bytes_per_second,
    })
}
