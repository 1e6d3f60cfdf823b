//! The `Admin` service, a method per question.

use tidegate_proto::v1::admin_client::AdminClient;
use tidegate_proto::v1::{
    ApplyRequest, CancelSnapshotRequest, Check, CordonNodeRequest, DeleteExportRequest,
    DoctorRequest, Export, ExportState, Gap, ListExportsRequest, ListGapsRequest, ListNodesRequest,
    ListNodesResponse, ListShardsRequest, ListShardsResponse, MoveShardRequest,
    PauseSnapshotRequest, PlanRebalanceRequest, PlanRequest, PlanResponse, PlannedMove,
    PromoteNodeRequest, Rate, RemoveNodeRequest, RepairGapRequest, SetExportRateRequest,
    SetExportStateRequest, SetPositionRequest, ShardStep, SplitShardRequest, StartSnapshotRequest,
    StatusRequest, StatusResponse,
};
use tonic::Streaming;
use tonic::transport::Channel;

use crate::connect::{Endpoints, MESSAGE_BYTES_MAX};
use crate::failure::{Failure, Result};

/// A cluster, by whichever of its nodes answers.
#[derive(Debug)]
pub(crate) struct Cluster {
    endpoints: Endpoints,
}

impl Cluster {
    /// Connects to nothing yet.
    pub(crate) fn new(urls: &[String]) -> Result<Self> {
        Ok(Self { endpoints: Endpoints::new(urls)? })
    }

    /// Who leads, who is there, what is declared.
    pub(crate) async fn status(&mut self) -> Result<StatusResponse> {
        self.endpoints.ask(|it| async { admin(it).status(StatusRequest {}).await }).await
    }

    /// What applying `spec` would change, and whether source and sinks are ready.
    pub(crate) async fn plan(&mut self, spec: &str) -> Result<PlanResponse> {
        let request = || PlanRequest { spec: spec.to_owned() };
        self.endpoints.ask(|it| async { admin(it).plan(request()).await }).await
    }

    /// Puts `spec` in the place of version `replaces`, 0 for none; gives the new
    /// version.
    pub(crate) async fn apply(&mut self, spec: &str, replaces: u64) -> Result<u64> {
        let request = || ApplyRequest { spec: spec.to_owned(), replaces };
        let answer = self.endpoints.ask(|it| async { admin(it).apply(request()).await }).await?;
        Ok(answer.version)
    }

    /// All exports.
    pub(crate) async fn exports(&mut self) -> Result<Vec<Export>> {
        let answer =
            self.endpoints.ask(|it| async { admin(it).list_exports(ListExportsRequest {}).await });
        Ok(answer.await?.exports)
    }

    /// One export; its absence is a failure that names those there are.
    pub(crate) async fn export(&mut self, name: &str) -> Result<Export> {
        let exports = self.exports().await?;
        let names: Vec<_> = exports.iter().map(|it| it.name.clone()).collect();
        exports.into_iter().find(|it| it.name == name).ok_or_else(|| {
            let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Failure::refused(format!("there is no export \"{name}\"; there are: {there}"))
        })
    }

    /// Pauses or resumes an export.
    pub(crate) async fn set_export_state(&mut self, name: &str, state: ExportState) -> Result<()> {
        let request = || SetExportStateRequest { name: name.to_owned(), state: state.into() };
        let answer = self.endpoints.ask(|it| async { admin(it).set_export_state(request()).await });
        answer.await.map(|_| ())
    }

    /// Limits an export's capture; without a rate, its file is followed again.
    pub(crate) async fn set_export_rate(&mut self, name: &str, rate: Option<Rate>) -> Result<()> {
        let request = || SetExportRateRequest { name: name.to_owned(), rate };
        let answer = self.endpoints.ask(|it| async { admin(it).set_export_rate(request()).await });
        answer.await.map(|_| ())
    }

    /// Removes an export with its shards, spools and checkpoints.
    pub(crate) async fn delete_export(&mut self, name: &str) -> Result<()> {
        let request = || DeleteExportRequest { name: name.to_owned() };
        let answer = self.endpoints.ask(|it| async { admin(it).delete_export(request()).await });
        answer.await.map(|_| ())
    }

    /// The shards of an export, or of all when `export` is empty.
    pub(crate) async fn shards(&mut self, export: &str) -> Result<ListShardsResponse> {
        let request = || ListShardsRequest { export: export.to_owned() };
        self.endpoints.ask(|it| async { admin(it).list_shards(request()).await }).await
    }

    /// Moves a shard; gives its steps as they happen.
    pub(crate) async fn move_shard(
        &mut self,
        request: MoveShardRequest,
    ) -> Result<Streaming<ShardStep>> {
        self.endpoints.ask(|it| async { admin(it).move_shard(request.clone()).await }).await
    }

    /// Splits a shard; gives the steps as they happen.
    pub(crate) async fn split_shard(
        &mut self,
        request: SplitShardRequest,
    ) -> Result<Streaming<ShardStep>> {
        self.endpoints.ask(|it| async { admin(it).split_shard(request.clone()).await }).await
    }

    /// Has a shard's stream go on elsewhere; gives the steps as they happen.
    pub(crate) async fn set_position(
        &mut self,
        request: SetPositionRequest,
    ) -> Result<Streaming<ShardStep>> {
        self.endpoints.ask(|it| async { admin(it).set_position(request.clone()).await }).await
    }

    /// The moves that would even out the nodes' work.
    pub(crate) async fn plan_rebalance(&mut self) -> Result<Vec<PlannedMove>> {
        let request = || PlanRebalanceRequest {};
        let answer = self.endpoints.ask(|it| async { admin(it).plan_rebalance(request()).await });
        Ok(answer.await?.moves)
    }

    /// Keeps work off a node, or lets it have some again. Asked while nodes restart, so an
    /// election is waited for.
    pub(crate) async fn cordon(&mut self, node: &str, cordoned: bool) -> Result<()> {
        let request = || CordonNodeRequest { node: node.to_owned(), cordoned };
        let call = |it| async { admin(it).cordon_node(request()).await };
        self.endpoints.ask_patiently(call).await.map(|_| ())
    }

    /// Takes a node without work out of the cluster.
    pub(crate) async fn remove_node(&mut self, node: &str) -> Result<()> {
        let request = || RemoveNodeRequest { node: node.to_owned() };
        let answer = self.endpoints.ask(|it| async { admin(it).remove_node(request()).await });
        answer.await.map(|_| ())
    }

    /// Lets a learner vote.
    pub(crate) async fn promote(&mut self, node: &str) -> Result<()> {
        let request = || PromoteNodeRequest { node: node.to_owned() };
        let answer = self.endpoints.ask(|it| async { admin(it).promote_node(request()).await });
        answer.await.map(|_| ())
    }

    /// All nodes.
    pub(crate) async fn nodes(&mut self) -> Result<ListNodesResponse> {
        self.endpoints.ask(|it| async { admin(it).list_nodes(ListNodesRequest {}).await }).await
    }

    /// Has rows read again.
    pub(crate) async fn start_snapshot(&mut self, request: StartSnapshotRequest) -> Result<()> {
        let request = || request.clone();
        let answer = self.endpoints.ask(|it| async { admin(it).start_snapshot(request()).await });
        answer.await.map(|_| ())
    }

    /// Lets snapshots of an export stand still, or go on.
    pub(crate) async fn pause_snapshot(&mut self, export: &str, paused: bool) -> Result<()> {
        let request = || PauseSnapshotRequest { export: export.to_owned(), paused };
        let answer = self.endpoints.ask(|it| async { admin(it).pause_snapshot(request()).await });
        answer.await.map(|_| ())
    }

    /// Ends snapshots of an export where they are.
    pub(crate) async fn cancel_snapshot(&mut self, export: &str) -> Result<()> {
        let request = || CancelSnapshotRequest { export: export.to_owned() };
        let answer = self.endpoints.ask(|it| async { admin(it).cancel_snapshot(request()).await });
        answer.await.map(|_| ())
    }

    /// Decides about a gap.
    pub(crate) async fn repair_gap(&mut self, request: RepairGapRequest) -> Result<()> {
        let request = || request.clone();
        let answer = self.endpoints.ask(|it| async { admin(it).repair_gap(request()).await });
        answer.await.map(|_| ())
    }

    /// The gaps of an export, or of all when `export` is empty.
    pub(crate) async fn gaps(&mut self, export: &str) -> Result<Vec<Gap>> {
        let request = || ListGapsRequest { export: export.to_owned() };
        let answer = self.endpoints.ask(|it| async { admin(it).list_gaps(request()).await });
        Ok(answer.await?.gaps)
    }

    /// Has the node that answers test itself, and an export or all of them.
    pub(crate) async fn doctor(&mut self, export: &str) -> Result<Vec<Check>> {
        let request = || DoctorRequest { export: export.to_owned() };
        let answer = self.endpoints.ask(|it| async { admin(it).doctor(request()).await });
        Ok(answer.await?.checks)
    }
}

fn admin(channel: Channel) -> AdminClient<Channel> {
    AdminClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}
