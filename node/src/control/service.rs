//! Consensus calls from other nodes, and proposals on their way to the leader.

use std::time::Duration;

use openraft::error::{Fatal, InstallSnapshotError, RaftError, SnapshotMismatch};
use openraft::raft::{AppendEntriesRequest, InstallSnapshotRequest};
use openraft::{SnapshotSegmentId, Vote};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_proto::NodeId;
use tidegate_proto::v1::raft_server::Raft;
use tidegate_proto::v1::{
    HeartbeatRequest, HeartbeatResponse, JoinRequest, JoinResponse, PingRequest, PingResponse,
    ProposeRequest, ProposeResponse, RaftMessage,
};
use tidegate_raft_store::TypeConfig;
use tokio::time::Instant;
use tonic::{Request, Response, Status, async_trait};

use crate::control::handle::Control;
use crate::error::{Error, ErrorKind};

/// How long a leader waits that has to send the cluster's state once more.
const AGAIN: Duration = Duration::from_millis(500);

/// The `Raft` service of one node.
#[derive(Clone, Debug)]
pub struct RaftService(Control);

impl RaftService {
    /// Serves `control`.
    #[must_use]
    pub fn new(control: Control) -> Self {
        Self(control)
    }

    fn same_cluster(&self, cluster_id: &str) -> Result<(), Status> {
        let ours = &self.0.identity().cluster_id;
        if cluster_id == ours {
            return Ok(());
        }
        Err(Status::permission_denied(format!(
            "this node belongs to cluster {ours}, the caller to {cluster_id}; \
             one of them has an address that is not its own"
        )))
    }

    fn open<T: DeserializeOwned>(&self, message: &RaftMessage) -> Result<T, Status> {
        self.same_cluster(&message.cluster_id)?;
        let node = self.0.node();
        // A node that entered anew at the address of one that was lost would
        // count twice in a majority.
        if message.to != node.0 {
            return Err(Status::failed_precondition(format!(
                "this is node {node}; node {} no longer has this address",
                message.to
            )));
        }
        postcard::from_bytes(&message.body)
            .map_err(|error| Status::invalid_argument(format!("not a consensus message: {error}")))
    }

    fn led_by(&self, vote: &Vote<u64>) {
        let leader = vote.leader_id().voted_for();
        self.0.contacts().led(NodeId(leader.unwrap_or_default()), Instant::now());
    }

    fn close<T: Serialize>(&self, answer: &T) -> Result<Response<RaftMessage>, Status> {
        let body = postcard::to_stdvec(answer)
            .map_err(|error| Status::internal(format!("encode a consensus answer: {error}")))?;
        let identity = self.0.identity();
        Ok(Response::new(RaftMessage {
            cluster_id: identity.cluster_id.clone(),
            from: identity.node().0,
            to: 0,
            body: body.into(),
        }))
    }
}

#[async_trait]
impl Raft for RaftService {
    async fn append_entries(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        let request: AppendEntriesRequest<TypeConfig> = self.open(request.get_ref())?;
        self.led_by(&request.vote);
        let answer = self.0.raft().append_entries(request).await;
        self.close(&stop_if_fatal(answer)?)
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let request = self.open(request.get_ref())?;
        let answer = self.0.raft().vote(request).await;
        self.close(&stop_if_fatal(answer)?)
    }

    async fn pre_vote(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        let candidate = self.open(request.get_ref())?;
        self.close(&self.0.would_vote(candidate))
    }

    async fn install_snapshot(
        &self,
        request: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        let request: InstallSnapshotRequest<TypeConfig> = self.open(request.get_ref())?;
        self.led_by(&request.vote);
        let id = request.meta.snapshot_id.clone();
        let got = SnapshotSegmentId { id: id.clone(), offset: request.offset };
        let mut answer = self.0.raft().install_snapshot(request).await;
        if let Err(RaftError::Fatal(Fatal::StorageError(error))) = &answer
            && self.0.raft().metrics().borrow().running_state.is_ok()
        {
            tracing::warn!(error = %error, "receive the cluster's state; asking for all of it again");
            tokio::time::sleep(AGAIN).await;
            // The file takes what is written in the background: it may be an earlier part
            // that is missing.
            let expect = SnapshotSegmentId { id, offset: 0 };
            let again = SnapshotMismatch { expect, got };
            answer = Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(again)));
        }
        self.close(&stop_if_fatal(answer)?)
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let node = self.0.admit(request.into_inner()).await.map_err(|e| status(&e))?;
        let cluster_id = self.0.identity().cluster_id.clone();
        Ok(Response::new(JoinResponse { cluster_id, node: node.0 }))
    }

    async fn propose(
        &self,
        request: Request<ProposeRequest>,
    ) -> Result<Response<ProposeResponse>, Status> {
        let request = request.into_inner();
        self.same_cluster(&request.cluster_id)?;
        let command = request.command.filter(|command| command.kind.is_some());
        let command = command.ok_or_else(|| {
            Status::invalid_argument(
                "the leader does not know this command; upgrade all nodes before it is used",
            )
        })?;
        if let Some(refusal) = self.0.refused(&command) {
            return Ok(Response::new(ProposeResponse { outcome: Some(refusal), log_index: 0 }));
        }
        let (log_index, outcome) =
            self.0.write_here(&command).await.map_err(|error| status(&error))?;
        Ok(Response::new(ProposeResponse { outcome: Some(outcome), log_index }))
    }

    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        self.same_cluster(&request.into_inner().cluster_id)?;
        Ok(Response::new(PingResponse { node: self.0.node().0, run: self.0.run() }))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let request = request.into_inner();
        self.same_cluster(&request.cluster_id)?;
        let heard = self.0.hear(&request);
        Ok(Response::new(heard.map_err(|error| status(&error))?))
    }
}

/// An answer a peer can act on passes; a broken store of our own does not.
fn stop_if_fatal<T, E>(
    answer: Result<T, RaftError<u64, E>>,
) -> Result<Result<T, RaftError<u64, E>>, Status> {
    match answer {
        Err(RaftError::Fatal(fatal)) => Err(Status::unavailable(fatal.to_string())),
        other => Ok(other),
    }
}

/// What an error of ours is to another node or a client.
pub(crate) fn status(error: &Error) -> Status {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Unavailable => Status::unavailable(text),
        ErrorKind::Unknown => Status::unknown(text),
        ErrorKind::Fenced => Status::aborted(text),
        ErrorKind::Rejected | ErrorKind::Config => Status::invalid_argument(text),
        ErrorKind::Gone => Status::out_of_range(text),
        ErrorKind::Corrupt => Status::data_loss(text),
    }
}
