//! What operators ask of snapshots and of gaps, as commands.

use tidegate_proto::v1::{
    RepairGap, RepairGapRequest, SnapshotCancel, SnapshotPause, SnapshotStart,
    StartSnapshotRequest, command,
};
use tidegate_raft_store::State;
use tonic::Status;

use crate::admin::names;
use crate::admin::plan;
use crate::control::{Control, status};
use crate::sources::Rows;

/// The longest reason an operator can give, in bytes.
pub(super) const REASON_BYTES_MAX: usize = 512;

/// Fails if the export's source cannot read its rows again.
pub(super) async fn start(
    control: &Control,
    request: StartSnapshotRequest,
) -> Result<command::Kind, Status> {
    let StartSnapshotRequest { export, shard, scope } = request;
    rereads(control, &export).await?;
    control.read(|state| {
        let of = names::export(state, &export)?;
        let shards = match &shard[..] {
            "" => Vec::new(),
            name => vec![names::shard(state, of, name)?.id.unwrap_or_default().index],
        };
        Ok(command::Kind::SnapshotStart(SnapshotStart { export_id: of.id, shards, scope }))
    })
}

pub(super) fn pause(state: &State, export: &str, paused: bool) -> Result<command::Kind, Status> {
    let export_id = names::export(state, export)?.id;
    Ok(command::Kind::SnapshotPause(SnapshotPause { export_id, paused }))
}

pub(super) fn cancel(state: &State, export: &str) -> Result<command::Kind, Status> {
    let export_id = names::export(state, export)?.id;
    Ok(command::Kind::SnapshotCancel(SnapshotCancel { export_id }))
}

/// Fails if rows are to be read again and the export's source cannot do that.
pub(super) async fn repair(
    control: &Control,
    request: RepairGapRequest,
) -> Result<command::Kind, Status> {
    let RepairGapRequest { export, shard, number, accepted } = request;
    if accepted.len() > REASON_BYTES_MAX {
        let why = format!("a reason has at most {REASON_BYTES_MAX} bytes; say it shorter");
        return Err(Status::invalid_argument(why));
    }
    if accepted.is_empty() {
        rereads(control, &export).await?;
    }
    control.read(|state| {
        let of = names::export(state, &export)?;
        let shard = names::shard(state, of, &shard)?.id;
        let repair = match &accepted[..] {
            "" => String::new(),
            why => format!("accepted: {why}"),
        };
        Ok(command::Kind::RepairGap(RepairGap { shard, number, repair, by_source: false }))
    })
}

/// Fails if the export's source cannot read its rows again.
pub(super) async fn rereads(control: &Control, export: &str) -> Result<(), Status> {
    let text = control.read(|state| names::export(state, export).map(|it| it.spec.clone()))?;
    let traits = plan::source(&text).await.map_err(|error| status(&error))?.traits();
    if traits.rows == Rows::Chunked {
        return Ok(());
    }
    let kind = traits.kind;
    Err(Status::failed_precondition(format!(
        "{kind} is not read row by row: whenever it cannot go on, it is read anew as a whole and \
         compared; a gap that was not mended by that can only be accepted"
    )))
}
