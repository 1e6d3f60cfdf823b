//! The node's one door to consensus.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::Raft;
use openraft::error::{ClientWriteError, RaftError};
use tidegate_proto::NodeId;
use tidegate_proto::v1::{
    Command, HeartbeatRequest, HeartbeatResponse, NodeState, NodeUp, Outcome, RefusedKind, command,
    outcome,
};
use tidegate_raft_store::{LEVEL, Proposal, State, StateHandle, TypeConfig};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::clock;
use crate::config::ClusterConfig;
use crate::control::boot::Boot;
use crate::control::contacts::Contacts;
use crate::control::gather::{self, Gather};
use crate::control::identity::Identity;
use crate::control::lease::Lease;
use crate::control::liveness::Liveness;
use crate::control::peers::Peers;
use crate::error::{Error, ErrorKind, Result};

/// The version of the commands this build proposes.
const COMMAND_VERSION: u32 = 1;
/// How long a proposal may take before its outcome counts as unknown.
pub(super) const PROPOSE_WAIT: Duration = Duration::from_secs(10);

/// Proposes, reads, and holds the lease. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control(Arc<Shared>);

pub(super) struct Shared {
    pub(super) raft: Raft<TypeConfig>,
    pub(super) state: StateHandle,
    pub(super) identity: Arc<Identity>,
    pub(super) peers: Arc<Peers>,
    pub(super) times: ClusterConfig,
    pub(super) address: String,
    pub(super) region: String,
    /// Tells this run of the process from those before it.
    pub(super) run: u64,
    pub(super) gather: Gather,
    pub(super) boot: Boot,
    pub(super) liveness: Mutex<Liveness>,
    pub(super) contacts: Mutex<Contacts>,
    /// Moves when another node's process turns out to be gone.
    pub(super) suspicions: watch::Sender<u64>,
    pub(super) lease: Lease,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Who leads, as far as this node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader, if there is one.
    pub leader: Option<NodeId>,
    /// Raft's term.
    pub term: u64,
}

impl Control {
    pub(super) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// This node's id.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.identity.node()
    }

    /// Tells this run of the process from those before it.
    #[must_use]
    pub fn run(&self) -> u64 {
        self.0.run
    }

    /// Times that decide who is alive.
    #[must_use]
    pub fn times(&self) -> &ClusterConfig {
        &self.0.times
    }

    /// Connections to the other nodes.
    #[must_use]
    pub fn peers(&self) -> &Arc<Peers> {
        &self.0.peers
    }

    /// This node's right to run shards.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.0.lease.clone()
    }

    /// Looks at the state as this node has applied it; the leader's may be
    /// ahead. Keep `look` short: nothing is applied meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.0.state.read(look)
    }

    /// Moves with every entry applied here.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.state.changed()
    }

    /// This node's state tells that this run of it has started; before, it tells
    /// how things were when the node was last there.
    #[must_use]
    pub fn knows_itself(&self) -> bool {
        self.read(|state| state.node(self.node().0).is_some_and(|node| node.run == self.0.run))
    }

    /// Waits until [`Control::knows_itself`].
    pub async fn caught_up(&self) {
        let mut topology = self.topology();
        while !self.knows_itself() {
            if topology.changed().await.is_err() {
                return;
            }
        }
    }

    /// Moves when something other than checkpoints changed.
    #[must_use]
    pub fn topology(&self) -> watch::Receiver<u64> {
        self.0.state.topology()
    }

    /// The index of the last entry applied here.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.0.state.applied()
    }

    /// Who leads, as far as this node knows.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow();
        Leadership { leader: metrics.current_leader.map(NodeId), term: metrics.current_term }
    }

    /// This node leads, as far as it knows. What rests on it must also be
    /// checked by the command it leads to.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leadership().leader == Some(self.node())
    }

    /// Moves whenever leadership may have changed.
    #[must_use]
    pub fn leadership_changed(&self) -> watch::Receiver<impl Sized + use<>> {
        self.0.raft.server_metrics()
    }

    /// The nodes that vote.
    #[must_use]
    pub fn voters(&self) -> Vec<NodeId> {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.membership().voter_ids().map(NodeId).collect()
    }

    /// How long ago the leader was last heard by this node (0 on the leader);
    /// `None` if never. State read here is at most about this old.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        if self.leads() {
            return Some(Duration::ZERO);
        }
        let left = self.0.lease.left();
        (!left.is_zero()).then(|| self.0.times.lease().saturating_sub(left))
    }

    /// Proposes a command by way of the leader and returns what applying it
    /// gave. An error of kind `Unknown` means that it may yet be applied:
    /// commands are written so that proposing the same again is safe.
    pub async fn propose(&self, kind: command::Kind) -> Result<Outcome> {
        self.propose_command(command(kind)).await
    }

    /// As [`Control::propose`], but a refusal is an error of kind `Config`, a
    /// stale epoch one of kind `Fenced`.
    pub async fn insist(&self, kind: command::Kind) -> Result<Outcome> {
        self.propose(kind).await.and_then(done)
    }

    /// As [`Control::propose`], but only as the leader: what a node that leads no
    /// longer makes of its own silence must not reach the one that does.
    pub(super) async fn decide(&self, kind: command::Kind) -> Result<Outcome> {
        self.write_here(&command(kind)).await.map(|(_, outcome)| outcome)
    }

    /// Writes to the log as the leader; refused at once if this node is not it.
    pub(super) async fn write_here(&self, command: &Command) -> Result<(u64, Outcome)> {
        let written = async {
            match gather::may_wait(command) {
                true => self.0.gather.write(command.clone()).await,
                false => self.write_entry(command).await,
            }
        };
        timeout(PROPOSE_WAIT, written).await.map_err(|_| late())?
    }

    /// As [`Control::write_here`], as an entry of its own. Takes no longer than this node
    /// leads; beyond that it has no limit in time.
    pub(super) async fn write_entry(&self, command: &Command) -> Result<(u64, Outcome)> {
        let written = self.0.raft.client_write(Proposal::new(command));
        let written = self.while_leading(written).await.ok_or_else(late)?;
        match written {
            Ok(answer) => Ok((answer.log_id.index, answer.data.0)),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                Err(no_leader("this node does not lead; try again"))
            }
            Err(RaftError::APIError(error)) => {
                Err(Error::new(ErrorKind::Unavailable, "write to the log").because(error))
            }
            Err(RaftError::Fatal(error)) => {
                let why = "the checkpoint log of this node is broken; see its log, then restart it";
                Err(Error::new(ErrorKind::Corrupt, why).because(error))
            }
        }
    }

    /// Does `work` for as long as this node leads as it does now; without that limit if it
    /// does not lead. Consensus does not answer for an entry that the state of a later
    /// leader covers.
    pub(super) async fn while_leading<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.deposed() => {
                tracing::info!("leads no longer; what comes of its last proposals is not known");
                None
            }
        }
    }

    /// Ends when this node no longer leads as it does now; never if it does not.
    async fn deposed(&self) {
        let mut metrics = self.0.raft.server_metrics();
        let led = metrics.borrow_and_update().vote;
        let leads = led.is_committed() && led.leader_id().voted_for() == Some(self.node().0);
        // The channel closes when consensus ends, which then answers itself.
        if !leads || metrics.wait_for(|now| now.vote != led).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Takes a heartbeat as the leader. A leader that a quorum no longer
    /// follows renews nobody's lease, its own included.
    pub(super) fn hear(&self, beat: &HeartbeatRequest) -> Result<HeartbeatResponse> {
        let (node, run) = (NodeId(beat.node), beat.run);
        let followed_ms_ago = self
            .followed_ms_ago()
            .ok_or_else(|| no_leader("this node does not lead; try again"))?;
        let now = Instant::now();
        let mut liveness = self.liveness();
        let up = self.read(|state| {
            let known = state.node(node.0).is_some_and(|it| it.level == beat.level);
            known && counts_as_up(state, node, run)
        });
        if up && !liveness.heard(node, run, now) {
            return Err(no_leader("this node is being declared down; try again"));
        }
        Ok(HeartbeatResponse { up, followed_ms_ago })
    }

    /// Tells the cluster that this run of the node is up.
    pub(super) async fn announce(&self) -> Result<()> {
        let up = NodeUp {
            node: self.node().0,
            address: self.0.address.clone(),
            region: self.0.region.clone(),
            run: self.0.run,
            torn: self.0.boot.torn(),
            level: LEVEL,
        };
        self.insist(command::Kind::NodeUp(up)).await.map(drop)
    }

    /// The cluster counts this run as up, and so knows what became of its machine.
    pub(super) fn told(&self) -> Result<()> {
        self.0.boot.told()
    }

    pub(super) fn raft(&self) -> &Raft<TypeConfig> {
        &self.0.raft
    }

    pub(super) fn liveness(&self) -> MutexGuard<'_, Liveness> {
        self.0.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn contacts(&self) -> MutexGuard<'_, Contacts> {
        self.0.contacts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another node's process is gone.
    pub(super) fn suspect(&self) {
        self.0.suspicions.send_modify(|count| *count += 1);
    }

    /// Moves with each [`Control::suspect`].
    pub(super) fn suspicions(&self) -> watch::Receiver<u64> {
        self.0.suspicions.subscribe()
    }

    /// Leaves the group's work to the others and closes the log. All that this
    /// node wrote is on disk if it is `synced`.
    pub async fn shutdown(&self, synced: bool) {
        if let Err(error) = self.0.raft.shutdown().await {
            tracing::warn!(error = %error, "the consensus task did not end cleanly");
        }
        if synced && let Err(error) = self.0.boot.ended() {
            tracing::warn!(error = %error, "the next run will take this one for cut off");
        }
    }

    /// How long ago a majority was last known to follow this node; `None` if it
    /// does not lead, if that is too long ago, or until it has applied all that
    /// earlier leaders committed: a node it holds for up may be known to be down.
    pub(super) fn followed_ms_ago(&self) -> Option<u64> {
        if !self.leads() {
            return None;
        }
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow();
        let applied = metrics.last_applied.map(|at| at.leader_id.term);
        let since = metrics.millis_since_quorum_ack;
        let caught_up = applied == Some(metrics.current_term);
        since.filter(|ms| caught_up && *ms < self.0.times.lease_ms)
    }
}

pub(super) fn command(kind: command::Kind) -> Command {
    Command { version: COMMAND_VERSION, proposed_ms: clock::now_ms(), kind: Some(kind) }
}

/// An outcome, or the error that a refusal is to whoever insists.
pub(crate) fn done(outcome: Outcome) -> Result<Outcome> {
    match &outcome.kind {
        Some(outcome::Kind::Refused(refused)) => {
            Err(Error::new(ErrorKind::Config, refused.reason.clone()))
        }
        Some(outcome::Kind::Fenced(fenced)) => {
            let now = fenced.current;
            let why = format!("this shard has another owner since, under epoch {now}");
            Err(Error::new(ErrorKind::Fenced, why))
        }
        Some(
            outcome::Kind::Done(_)
            | outcome::Kind::Created(_)
            | outcome::Kind::Checkpoints(_)
            | outcome::Kind::Many(_),
        )
        | None => Ok(outcome),
    }
}

/// As [`done`], but what is there already is as good: the proposal before this one
/// may have been applied and its answer lost.
pub(crate) fn done_or_there(outcome: Outcome) -> Result<()> {
    match &outcome.kind {
        Some(outcome::Kind::Refused(refused)) if refused.kind() == RefusedKind::Exists => Ok(()),
        _ => done(outcome).map(drop),
    }
}

/// The cluster holds this run of the node for up.
pub(crate) fn counts_as_up(state: &State, node: NodeId, run: u64) -> bool {
    state.node(node.0).is_some_and(|it| it.run == run && it.state() == NodeState::Up)
}

pub(super) fn no_leader(why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, why)
}

pub(super) fn late() -> Error {
    Error::new(ErrorKind::Unknown, "the leader did not answer the proposal; it may yet be applied")
}
