//! Calls to whoever leads.

use tidegate_proto::NodeId;
use tidegate_proto::v1::{Command, HeartbeatRequest, HeartbeatResponse, Outcome, ProposeRequest};
use tokio::time::timeout;

use crate::control::handle::{Control, PROPOSE_WAIT, late, no_leader};
use crate::control::peers::explain;
use crate::error::{Error, ErrorKind, Result};

impl Control {
    pub(super) async fn propose_command(&self, command: Command) -> Result<Outcome> {
        if let Some(refusal) = self.refused(&command) {
            return Ok(refusal);
        }
        if self.leads() {
            return self.write_here(&command).await.map(|(_, outcome)| outcome);
        }
        let (leader, address) = self.leader_address()?;
        let mut client = self.peers().raft(&address)?;
        let cluster_id = self.identity().cluster_id.clone();
        let request = ProposeRequest { cluster_id, command: Some(command) };
        let answered = timeout(PROPOSE_WAIT, client.propose(request));
        let answer = tokio::select! {
            answer = answered => answer.map_err(|_| late())?,
            () = self.replaced(leader) => return Err(late()),
        };
        let answer = answer.map_err(|status| explain(&address, "propose", &status))?.into_inner();
        answer.outcome.ok_or_else(|| Error::new(ErrorKind::Corrupt, "the leader sent no outcome"))
    }

    /// The refusal of a command that not every node knows.
    pub(super) fn refused(&self, command: &Command) -> Option<Outcome> {
        let kind = command.kind.as_ref()?;
        self.read(|state| state.is_known_to_all(kind)).err()
    }

    /// Sends a heartbeat to the leader.
    pub(super) async fn heartbeat(&self, request: HeartbeatRequest) -> Result<HeartbeatResponse> {
        if self.leads() {
            return self.hear(&request);
        }
        let (leader, address) = self.leader_address()?;
        let mut client = self.peers().raft(&address)?;
        let answer = tokio::select! {
            answer = client.heartbeat(request) => answer,
            () = self.replaced(leader) => return Err(no_leader("the leader was replaced")),
        };
        Ok(answer.map_err(|status| explain(&address, "heartbeat", &status))?.into_inner())
    }

    /// Waits until another node leads than `leader`, which may stand still and never
    /// answer.
    async fn replaced(&self, leader: NodeId) {
        let mut changed = self.leadership_changed();
        while self.leadership().leader.is_none_or(|now| now == leader) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn leader_address(&self) -> Result<(NodeId, String)> {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow();
        let leader = metrics.current_leader.ok_or_else(|| {
            no_leader("the cluster has no leader right now: a majority of its nodes must be up")
        })?;
        let member = metrics.membership_config.membership().get_node(&leader);
        let member = member.ok_or_else(|| no_leader("the leader is not known"))?;
        Ok((NodeId(leader), member.address.clone()))
    }
}
