//! Consensus calls to other nodes.

use std::sync::Arc;

use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable,
};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_proto::v1::RaftMessage;
use tidegate_raft_store::{Peer, TypeConfig};

use crate::control::identity::Identity;
use crate::control::peers::Peers;

/// Makes the network clients openraft asks for.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) identity: Arc<Identity>,
    pub(super) peers: Arc<Peers>,
}

/// Calls one other node.
#[derive(Debug)]
pub(super) struct Link {
    network: Network,
    target: u64,
    peer: Peer,
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Append,
    Vote,
    Snapshot,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Link {
        Link { network: self.clone(), target, peer: node.clone() }
    }
}

impl RaftNetwork<TypeConfig> for Link {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, Peer, RaftError<u64>>> {
        self.call(Call::Append, &request, &option).await
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<
        InstallSnapshotResponse<u64>,
        RPCError<u64, Peer, RaftError<u64, InstallSnapshotError>>,
    > {
        self.call(Call::Snapshot, &request, &option).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, Peer, RaftError<u64>>> {
        self.call(Call::Vote, &request, &option).await
    }
}

impl Link {
    async fn call<Q, A, E>(
        &self,
        call: Call,
        request: &Q,
        option: &RPCOption,
    ) -> Result<A, RPCError<u64, Peer, RaftError<u64, E>>>
    where
        Q: Serialize,
        A: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        let body =
            postcard::to_stdvec(request).map_err(|e| RPCError::Network(NetworkError::new(&e)))?;
        let identity = &self.network.identity;
        let message = RaftMessage {
            cluster_id: identity.cluster_id.clone(),
            from: identity.node().0,
            to: self.target,
            body: body.into(),
        };
        let client = self.network.peers.raft(&self.peer.address);
        let mut client = client.map_err(|e| RPCError::Unreachable(Unreachable::new(&e)))?;
        let sent = async {
            match call {
                Call::Append => client.append_entries(message).await,
                Call::Vote => client.vote(message).await,
                Call::Snapshot => client.install_snapshot(message).await,
            }
        };
        let answer = match tokio::time::timeout(option.hard_ttl(), sent).await {
            Ok(Ok(answer)) => answer.into_inner(),
            // Unreachable makes openraft wait a little before it tries again.
            Ok(Err(status)) => return Err(RPCError::Unreachable(Unreachable::new(&status))),
            Err(late) => return Err(RPCError::Network(NetworkError::new(&late))),
        };
        let answer: Result<A, RaftError<u64, E>> = postcard::from_bytes(&answer.body)
            .map_err(|e| RPCError::Network(NetworkError::new(&e)))?;
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }
}
