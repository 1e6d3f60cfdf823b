//! The `Admin` service.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::admin_server::Admin;
use tidegate_proto::v1::{
    ApplyRequest, ApplyResponse, CancelSnapshotRequest, CancelSnapshotResponse, Check,
    CordonNodeRequest, CordonNodeResponse, DeleteExportRequest, DeleteExportResponse,
    DoctorRequest, DoctorResponse, ExportDelete, ExportSetRate, ExportSetState, ListExportsRequest,
    ListExportsResponse, ListGapsRequest, ListGapsResponse, ListNodesRequest, ListNodesResponse,
    ListShardsRequest, ListShardsResponse, MoveShardRequest, NodeCordon, NodePromote, NodeRemove,
    Outcome, PauseSnapshotRequest, PauseSnapshotResponse, PlanRebalanceRequest,
    PlanRebalanceResponse, PlanRequest, PlanResponse, PromoteNodeRequest, PromoteNodeResponse,
    Refused, RefusedKind, RemoveNodeRequest, RemoveNodeResponse, RepairGapRequest,
    RepairGapResponse, SetExportRateRequest, SetExportRateResponse, SetExportStateRequest,
    SetExportStateResponse, SetPositionRequest, SplitShardRequest, StartSnapshotRequest,
    StartSnapshotResponse, StatusRequest, StatusResponse, command, outcome,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Request, Response, Status, async_trait};

use crate::admin::balance;
use crate::admin::doctor;
use crate::admin::moves;
use crate::admin::names;
use crate::admin::plan;
use crate::admin::position;
use crate::admin::snapshots;
use crate::admin::split;
use crate::admin::steps::{Steps, Told};
use crate::clock;
use crate::control::Control;
use crate::control::status;
use crate::error::{self, ErrorKind};
use crate::spool::Spool;

/// How long a question waits for a node that has just started.
const CATCH_UP: Duration = Duration::from_secs(3);
/// How long what an operator asks for waits for the cluster to have a leader: longer than
/// an election takes.
const LEADER_WAIT: Duration = Duration::from_secs(5);
const LEADER_LOOKS: Duration = Duration::from_millis(100);

type Answer<T> = Result<Response<T>, Status>;

/// Serves operators from one node.
#[derive(Clone, Debug)]
pub struct AdminService {
    control: Control,
    data: PathBuf,
    spool: Arc<Spool>,
}

impl AdminService {
    /// Acts through `control`; `data` is the node's folder, for `doctor`, as is
    /// `spool`.
    #[must_use]
    pub fn new(control: Control, data: PathBuf, spool: Arc<Spool>) -> Self {
        Self { control, data, spool }
    }

    /// Proposes; a refusal becomes the gRPC code that fits it.
    async fn act(&self, kind: command::Kind) -> Result<Option<outcome::Kind>, Status> {
        let outcome = self.propose(kind).await.map_err(|error| status(&error))?;
        match outcome.kind {
            Some(outcome::Kind::Refused(refused)) => Err(refusal(&refused)),
            other => Ok(other),
        }
    }

    /// Proposes; again for [`LEADER_WAIT`] while nobody takes it.
    async fn propose(&self, kind: command::Kind) -> error::Result<Outcome> {
        let until = Instant::now() + LEADER_WAIT;
        loop {
            match self.control.propose(kind.clone()).await {
                Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < until => {}
                other => return other,
            }
            sleep(LEADER_LOOKS).await;
        }
    }

    /// Fails, so that another node is asked, until this one has applied that it
    /// started: before that it would tell what was.
    async fn current(&self) -> Result<(), Status> {
        let caught_up = self.control.caught_up();
        timeout(CATCH_UP, caught_up).await.map_err(|_| {
            Status::unavailable(
                "this node has just started and does not know yet what is; try again",
            )
        })
    }

    fn node_named(&self, name: &str) -> Result<u64, Status> {
        self.control.read(|state| names::node(state, name))
    }
}

#[async_trait]
impl Admin for AdminService {
    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let leadership = self.control.leadership();
        let age_ms = self
            .control
            .age()
            .map_or(u64::MAX, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let mut answer = self.control.read(|state| StatusResponse {
            nodes: state.nodes().cloned().collect(),
            exports: state.exports().cloned().collect(),
            shards: state.shards().count() as u64,
            shards_failed: state.shards().filter(|shard| !shard.failure.is_empty()).count() as u64,
            ..StatusResponse::default()
        });
        answer.cluster_id.clone_from(&self.control.identity().cluster_id);
        answer.node = self.control.node().0;
        answer.leader = leadership.leader.map_or(0, |id| id.0);
        answer.term = leadership.term;
        answer.applied = self.control.applied();
        answer.age_ms = age_ms;
        answer.voters = self.control.voters().into_iter().map(|id| id.0).collect();
        env!("CARGO_PKG_VERSION").clone_into(&mut answer.version);
        Ok(Response::new(answer))
    }

    async fn plan(&self, request: Request<PlanRequest>) -> Answer<PlanResponse> {
        let text = request.into_inner().spec;
        let name = plan::command(&text, 0).map_err(|error| status(&error))?.name;
        let present = self.control.read(|state| state.export_named(&name).cloned());
        let plan = plan::plan(&text, present).await.map_err(|error| status(&error))?;
        Ok(Response::new(plan))
    }

    async fn apply(&self, request: Request<ApplyRequest>) -> Answer<ApplyResponse> {
        let ApplyRequest { spec, replaces } = request.into_inner();
        let put = plan::command(&spec, replaces).map_err(|error| status(&error))?;
        match self.act(command::Kind::ExportPut(put)).await? {
            Some(outcome::Kind::Created(created)) => {
                Ok(Response::new(ApplyResponse { version: created.id }))
            }
            _ => Err(Status::internal("applying an export gave no version")),
        }
    }

    async fn list_exports(&self, _: Request<ListExportsRequest>) -> Answer<ListExportsResponse> {
        self.current().await?;
        let exports = self.control.read(|state| state.exports().cloned().collect());
        Ok(Response::new(ListExportsResponse { exports }))
    }

    async fn set_export_state(
        &self,
        request: Request<SetExportStateRequest>,
    ) -> Answer<SetExportStateResponse> {
        let SetExportStateRequest { name, state } = request.into_inner();
        self.act(command::Kind::ExportSetState(ExportSetState { name, state })).await?;
        Ok(Response::new(SetExportStateResponse {}))
    }

    async fn set_export_rate(
        &self,
        request: Request<SetExportRateRequest>,
    ) -> Answer<SetExportRateResponse> {
        let SetExportRateRequest { name, rate } = request.into_inner();
        self.act(command::Kind::ExportSetRate(ExportSetRate { name, rate })).await?;
        Ok(Response::new(SetExportRateResponse {}))
    }

    async fn delete_export(
        &self,
        request: Request<DeleteExportRequest>,
    ) -> Answer<DeleteExportResponse> {
        let name = request.into_inner().name;
        self.act(command::Kind::ExportDelete(ExportDelete { name })).await?;
        Ok(Response::new(DeleteExportResponse {}))
    }

    async fn list_shards(&self, request: Request<ListShardsRequest>) -> Answer<ListShardsResponse> {
        self.current().await?;
        let name = request.into_inner().export;
        let shards = self.control.read(|state| {
            let only = names::only(state, &name)?;
            let shards = state.shards().filter(|shard| only.is_none_or(|id| of(shard.id) == id));
            Ok::<_, Status>(shards.cloned().collect())
        })?;
        Ok(Response::new(ListShardsResponse { shards, now_ms: clock::now_ms() }))
    }

    async fn list_nodes(&self, _: Request<ListNodesRequest>) -> Answer<ListNodesResponse> {
        Ok(Response::new(ListNodesResponse {
            nodes: self.control.read(|state| state.nodes().cloned().collect()),
            leader: self.control.leadership().leader.map_or(0, |id| id.0),
            voters: self.control.voters().into_iter().map(|id| id.0).collect(),
        }))
    }

    type MoveShardStream = Told;

    async fn move_shard(
        &self,
        request: Request<MoveShardRequest>,
    ) -> Answer<Self::MoveShardStream> {
        let request = request.into_inner();
        let plan = self.control.read(|state| moves::resolve(state, &request))?;
        let control = self.control.clone();
        Ok(Response::new(Steps::of(|steps| async move {
            moves::carry_out(&control, plan, &steps).await
        })))
    }

    type SplitShardStream = Told;

    async fn split_shard(
        &self,
        request: Request<SplitShardRequest>,
    ) -> Answer<Self::SplitShardStream> {
        let request = request.into_inner();
        let plan = self.control.read(|state| split::resolve(state, &request))?;
        let control = self.control.clone();
        Ok(Response::new(Steps::of(|steps| async move {
            split::carry_out(&control, plan, &steps).await
        })))
    }

    type SetPositionStream = Told;

    async fn set_position(
        &self,
        request: Request<SetPositionRequest>,
    ) -> Answer<Self::SetPositionStream> {
        let request = request.into_inner();
        let wanted = self.control.read(|state| position::resolve(state, request))?;
        let control = self.control.clone();
        Ok(Response::new(Steps::of(|steps| async move {
            position::carry_out(&control, wanted, &steps).await
        })))
    }

    async fn plan_rebalance(
        &self,
        _: Request<PlanRebalanceRequest>,
    ) -> Answer<PlanRebalanceResponse> {
        self.current().await?;
        Ok(Response::new(balance::plan(&self.control).await?))
    }

    async fn cordon_node(&self, request: Request<CordonNodeRequest>) -> Answer<CordonNodeResponse> {
        let CordonNodeRequest { node, cordoned } = request.into_inner();
        let node = self.node_named(&node)?;
        self.act(command::Kind::NodeCordon(NodeCordon { node, cordoned })).await?;
        Ok(Response::new(CordonNodeResponse {}))
    }

    async fn remove_node(&self, request: Request<RemoveNodeRequest>) -> Answer<RemoveNodeResponse> {
        let node = self.node_named(&request.into_inner().node)?;
        self.act(command::Kind::NodeRemove(NodeRemove { node })).await?;
        Ok(Response::new(RemoveNodeResponse {}))
    }

    async fn promote_node(
        &self,
        request: Request<PromoteNodeRequest>,
    ) -> Answer<PromoteNodeResponse> {
        let node = self.node_named(&request.into_inner().node)?;
        self.act(command::Kind::NodePromote(NodePromote { node })).await?;
        Ok(Response::new(PromoteNodeResponse {}))
    }

    async fn start_snapshot(
        &self,
        request: Request<StartSnapshotRequest>,
    ) -> Answer<StartSnapshotResponse> {
        let start = snapshots::start(&self.control, request.into_inner()).await?;
        self.act(start).await?;
        Ok(Response::new(StartSnapshotResponse {}))
    }

    async fn pause_snapshot(
        &self,
        request: Request<PauseSnapshotRequest>,
    ) -> Answer<PauseSnapshotResponse> {
        let PauseSnapshotRequest { export, paused } = request.into_inner();
        self.act(self.control.read(|state| snapshots::pause(state, &export, paused))?).await?;
        Ok(Response::new(PauseSnapshotResponse {}))
    }

    async fn cancel_snapshot(
        &self,
        request: Request<CancelSnapshotRequest>,
    ) -> Answer<CancelSnapshotResponse> {
        let export = request.into_inner().export;
        self.act(self.control.read(|state| snapshots::cancel(state, &export))?).await?;
        Ok(Response::new(CancelSnapshotResponse {}))
    }

    async fn repair_gap(&self, request: Request<RepairGapRequest>) -> Answer<RepairGapResponse> {
        let repair = snapshots::repair(&self.control, request.into_inner()).await?;
        self.act(repair).await?;
        Ok(Response::new(RepairGapResponse {}))
    }

    async fn list_gaps(&self, request: Request<ListGapsRequest>) -> Answer<ListGapsResponse> {
        self.current().await?;
        let name = request.into_inner().export;
        let gaps = self.control.read(|state| {
            let only = names::only(state, &name)?;
            let gaps = state.gaps().filter(|gap| only.is_none_or(|id| of(gap.shard) == id));
            Ok::<_, Status>(gaps.cloned().collect())
        })?;
        Ok(Response::new(ListGapsResponse { gaps }))
    }

    async fn doctor(&self, request: Request<DoctorRequest>) -> Answer<DoctorResponse> {
        let name = request.into_inner().export;
        let mut checks = doctor::cluster(&self.control, &self.data, &self.spool);
        let specs: Vec<(String, String)> = self.control.read(|state| {
            let wanted = state.exports().filter(|it| name.is_empty() || it.name == name);
            let specs = wanted.map(|export| {
                checks.extend(doctor::headroom(state, export));
                (export.name.clone(), export.spec.clone())
            });
            specs.collect()
        });
        if specs.is_empty() && !name.is_empty() {
            return Err(Status::not_found(format!("there is no export \"{name}\"")));
        }
        for (export, spec) in specs {
            let found = plan::checks(&spec).await;
            let found =
                found.unwrap_or_else(|error| vec![plan::failed("file", &error.to_string())]);
            checks.extend(
                found.into_iter().map(|it| Check { name: format!("{export}: {}", it.name), ..it }),
            );
        }
        Ok(Response::new(DoctorResponse { checks }))
    }
}

fn of(shard: Option<tidegate_proto::v1::ShardId>) -> u64 {
    shard.unwrap_or_default().export_id
}

fn refusal(refused: &Refused) -> Status {
    let reason = refused.reason.clone();
    match refused.kind() {
        RefusedKind::NotFound => Status::not_found(reason),
        RefusedKind::Exists => Status::already_exists(reason),
        RefusedKind::Conflict => Status::failed_precondition(reason),
        RefusedKind::Invalid | RefusedKind::Unspecified => Status::invalid_argument(reason),
    }
}
