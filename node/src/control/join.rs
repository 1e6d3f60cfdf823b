//! How a node starts: founding a cluster, entering one, or coming back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, Raft, SnapshotPolicy};
use tidegate_proto::NodeId;
use tidegate_proto::v1::{ClusterCreate, JoinRequest, NodeJoin, command, outcome};
use tidegate_raft_store::{LEVEL, Peer, RaftStore};

use crate::config::ClusterConfig;
use crate::config::NodeConfig;
use crate::control::boot::Boot;
use crate::control::broken;
use crate::control::elections;
use crate::control::gather::{self, Gather};
use crate::control::handle::{Control, Shared};
use crate::control::identity::Identity;
use crate::control::lease::{self, Lease};
use crate::control::members;
use crate::control::network::Network;
use crate::control::peers::{Peers, explain};
use crate::control::probe;
use crate::error::{Error, ErrorKind, Result};
use crate::retry::Backoff;
use crate::task::Tasks;

const FIRST: NodeId = NodeId(1);
/// How often a node asks for admission before it gives up.
const JOIN_TRIES: u32 = 60;

/// Who this node is: from its folder, or new to the world.
pub(super) async fn identify(config: &NodeConfig, peers: &Peers) -> Result<Identity> {
    if let Some(identity) = Identity::load(&config.data)? {
        return Ok(identity);
    }
    let identity = if config.bootstrap {
        Identity::new(new_cluster_id(), FIRST)
    } else if config.join.is_empty() {
        let why = format!(
            "{} is empty: say --bootstrap to start a new cluster, or --join HOST:PORT to enter one",
            config.data.display()
        );
        return Err(Error::new(ErrorKind::Config, why));
    } else {
        enter(config, peers).await?
    };
    identity.save(&config.data)?;
    Ok(identity)
}

/// Asks the nodes of `config.join` in turn for admission.
async fn enter(config: &NodeConfig, peers: &Peers) -> Result<Identity> {
    let request = JoinRequest {
        name: config.name.clone(),
        address: config.address(),
        region: config.region.clone(),
        learner: config.learner,
        level: LEVEL,
    };
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
    let mut last = None;
    for address in config.join.iter().cycle().take(JOIN_TRIES as usize) {
        match peers.raft(address)?.join(request.clone()).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                return Ok(Identity::new(answer.cluster_id, NodeId(answer.node)));
            }
            Err(status) => {
                let error = explain(address, "ask for admission", &status);
                if error.kind() == ErrorKind::Config {
                    return Err(error);
                }
                tracing::warn!(error = %error, "not admitted yet; asking again");
                last = Some(error);
            }
        }
        tokio::time::sleep(backoff.wait()).await;
    }
    let why = "no node of `join` let this one in; check that they run and can be reached";
    let error = Error::new(ErrorKind::Config, why);
    Err(match last {
        Some(cause) => error.because(cause),
        None => error,
    })
}

impl Control {
    /// Opens the log, starts consensus, and keeps this node in the cluster.
    pub async fn start(config: &NodeConfig, boot: Boot, tasks: &Tasks) -> Result<Self> {
        let peers = Arc::new(Peers::new(config.limits.message_bytes));
        let identity = Arc::new(identify(config, &peers).await?);
        let (log, machine, state) = RaftStore::open(&config.data.join("raft"), boot.stop())
            .map_err(|error| {
                Error::new(ErrorKind::Corrupt, "open the checkpoint log").because(error)
            })?;
        let network = Network { identity: Arc::clone(&identity), peers: Arc::clone(&peers) };
        let settings = Arc::new(raft_settings(&config.cluster)?);
        let raft = Raft::new(identity.node().0, settings, network, log, machine)
            .await
            .map_err(|error| Error::new(ErrorKind::Corrupt, "start consensus").because(error))?;
        let (renew, lease) = Lease::new();
        let (gather, queue) = Gather::new();
        let control = Self::new(Shared {
            raft,
            state,
            identity,
            peers,
            times: config.cluster.clone(),
            address: config.address(),
            region: config.region.clone(),
            run: rand::random(),
            gather,
            boot,
            liveness: std::sync::Mutex::default(),
            contacts: std::sync::Mutex::default(),
            suspicions: tokio::sync::watch::Sender::default(),
            lease,
        });
        tasks.spawn("proposals", gather::keep(control.clone(), queue));
        tasks.spawn("broken log", broken::watch(control.clone()));
        tasks.spawn("elections", elections::keep(control.clone()));
        if config.bootstrap && control.node() == FIRST {
            control.found(config).await?;
        }
        tasks.spawn("lease", lease::keep(control.clone(), renew));
        tasks.spawn("probes", probe::keep(control.clone()));
        tasks.spawn("members", members::keep(control.clone()));
        Ok(control)
    }

    /// Makes the cluster this first node is alone in; a repeat does nothing.
    async fn found(&self, config: &NodeConfig) -> Result<()> {
        if self.read(|state| state.node(FIRST.0).is_some()) {
            return Ok(());
        }
        let fail = |error| Error::new(ErrorKind::Corrupt, "start a new cluster").because(error);
        if !self.raft().is_initialized().await.map_err(fail)? {
            let alone = BTreeMap::from([(FIRST.0, Peer { address: config.address() })]);
            self.raft().initialize(alone).await.map_err(|error| {
                Error::new(ErrorKind::Corrupt, "start a new cluster").because(error)
            })?;
        }
        let mut metrics = self.raft().metrics();
        while metrics.borrow_and_update().current_leader.is_none() {
            if metrics.changed().await.is_err() {
                return Err(Error::new(ErrorKind::Corrupt, "consensus ended while it started"));
            }
        }
        let cluster_id = self.identity().cluster_id.clone();
        self.propose(command::Kind::ClusterCreate(ClusterCreate { cluster_id })).await?;
        let join = JoinRequest {
            name: config.name.clone(),
            address: config.address(),
            region: config.region.clone(),
            learner: false,
            level: LEVEL,
        };
        let admitted = self.admit(join).await?;
        assert_eq!(admitted, FIRST, "the founder is the first node");
        Ok(())
    }

    /// Gives a node without an id one; the same one if it asks again.
    pub(super) async fn admit(&self, request: JoinRequest) -> Result<NodeId> {
        let JoinRequest { name, address, region, learner, level } = request;
        let join = NodeJoin { name, address, region, learner, level };
        let outcome = self.insist(command::Kind::NodeJoin(join)).await?;
        match outcome.kind {
            Some(outcome::Kind::Created(created)) => Ok(NodeId(created.id)),
            _ => Err(Error::new(ErrorKind::Corrupt, "admission gave no id")),
        }
    }
}

fn raft_settings(times: &ClusterConfig) -> Result<Config> {
    let config = Config {
        cluster_name: "tidegate".to_owned(),
        heartbeat_interval: (times.election_ms / 8).max(50),
        election_timeout_min: times.election_ms,
        // Followers refuse a new leader for this long after they heard the old one.
        election_timeout_max: times.silence_ms(),
        // See `elections`.
        enable_elect: false,
        install_snapshot_timeout: 30_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(times.log_entries),
        max_in_snapshot_log_to_keep: times.log_entries / 10,
        snapshot_max_chunk_size: times.state_chunk_bytes,
        ..Config::default()
    };
    config
        .validate()
        .map_err(|error| Error::new(ErrorKind::Config, "[cluster] times").because(error))
}

fn new_cluster_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}
