//! A node's own settings: file, environment and flags.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use crate::config::limits::Limits;
use crate::config::table;
use crate::error::{Error, ErrorKind, Result};

/// What a node has to know about itself.
///
/// Every key may stand in the file, most also in the environment or as a flag;
/// flags win over the environment, both over the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[expect(clippy::struct_excessive_bools, reason = "switches, each by itself")]
pub struct NodeConfig {
    /// Unique within the cluster. Default `node`.
    pub name: String,
    /// Where everything is kept. Default `./tidegate-data`.
    pub data: PathBuf,
    /// Address of the gRPC endpoint. Default 127.0.0.1:7400.
    pub listen: SocketAddr,
    /// `host:port` at which other nodes reach it. Default: `listen`.
    pub advertise: Option<String>,
    /// Address of `/metrics`, `/livez` and `/readyz`. Default 127.0.0.1:7500.
    pub metrics_listen: SocketAddr,
    /// Where this node runs; writers and readers are placed by it.
    pub region: String,
    /// Nodes to ask for admission, on the first start only.
    pub join: Vec<String>,
    /// Start a new cluster, on the first start only.
    pub bootstrap: bool,
    /// Join without a vote, on the first start only.
    pub learner: bool,
    /// Allow addresses that are not loopback although nothing is encrypted yet.
    pub insecure: bool,
    /// File that names this boot of the machine: after another boot, what was not
    /// synced counts as lost. Default `/proc/sys/kernel/random/boot_id` (proc(5)).
    pub boot_id: PathBuf,
    /// The `[cluster]` table.
    pub cluster: ClusterConfig,
    /// The `[limits]` table.
    pub limits: Limits,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            name: "node".to_owned(),
            data: PathBuf::from("tidegate-data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            advertise: None,
            metrics_listen: SocketAddr::from(([127, 0, 0, 1], 7500)),
            region: "local".to_owned(),
            join: Vec::new(),
            bootstrap: false,
            learner: false,
            insecure: false,
            boot_id: PathBuf::from("/proc/sys/kernel/random/boot_id"),
            cluster: ClusterConfig::default(),
            limits: Limits::default(),
        }
    }
}

/// Times that decide who is alive, and how the log is kept. Equal on all nodes.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClusterConfig {
    /// How often nodes tell the leader that they live. Default 100 ms.
    pub heartbeat_ms: u64,
    /// A node whose heartbeats went unanswered this long stops its shards.
    /// Below `down-ms`. Default 700 ms.
    pub lease_ms: u64,
    /// A node not heard this long is declared down. Default 1000 ms.
    pub down_ms: u64,
    /// Raft's election timeout: a follower that has not heard the leader for 1.2 times
    /// this stands for election if a majority has not heard it either; at once if its
    /// process is gone. Default 800 ms.
    pub election_ms: u64,
    /// How often checkpoints are gathered into one log entry. Default 20 ms.
    pub tick_ms: u64,
    /// A shard whose copies in sync are all on nodes that are down waits so long for
    /// them to come back; then it is read again from its source elsewhere. Default
    /// 10,000 ms; 1,000 to 3,600,000.
    pub awaited_ms: u64,
    /// A copy that lacks what was appended so long ago is in sync no more: its shard
    /// goes on without it, at the pace of the others, until it has caught up. One that
    /// takes nothing at all is out after 1 s. Default 10,000 ms; 1,000 to 600,000.
    pub lag_ms: u64,
    /// A shard's move whose new copy is not in sync after so long is given up, and the
    /// shard stays where it is. Default 300,000 ms; 1,000 to 86,400,000.
    pub move_ms: u64,
    /// Log entries after which the state is written to a file of its own and older
    /// entries go, but for a tenth as many. A node that was away for longer gets that
    /// file. Default 20,000; 100 to 1,000,000.
    pub log_entries: u64,
    /// Bytes of that file sent in one message, each of which may take 30 s. Default
    /// 3 MiB; 256 B to 16 MiB.
    pub state_chunk_bytes: u64,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            heartbeat_ms: 100,
            lease_ms: 700,
            down_ms: 1000,
            election_ms: 800,
            tick_ms: 20,
            awaited_ms: 10_000,
            lag_ms: 10_000,
            move_ms: 300_000,
            log_entries: 20_000,
            state_chunk_bytes: 3 << 20,
        }
    }
}

impl ClusterConfig {
    /// [`ClusterConfig::heartbeat_ms`].
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    /// [`ClusterConfig::lease_ms`].
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// After so many milliseconds without a word of its leader a follower elects another.
    #[must_use]
    pub fn silence_ms(&self) -> u64 {
        self.election_ms + self.election_ms / 5
    }

    /// [`ClusterConfig::down_ms`].
    #[must_use]
    pub fn down(&self) -> Duration {
        Duration::from_millis(self.down_ms)
    }

    /// [`ClusterConfig::tick_ms`].
    #[must_use]
    pub fn tick(&self) -> Duration {
        Duration::from_millis(self.tick_ms)
    }

    /// [`ClusterConfig::awaited_ms`].
    #[must_use]
    pub fn awaited(&self) -> Duration {
        Duration::from_millis(self.awaited_ms)
    }

    /// [`ClusterConfig::lag_ms`].
    #[must_use]
    pub fn lag(&self) -> Duration {
        Duration::from_millis(self.lag_ms)
    }

    /// [`ClusterConfig::move_ms`].
    #[must_use]
    pub fn moved(&self) -> Duration {
        Duration::from_millis(self.move_ms)
    }

    fn check(&self) -> Result<()> {
        let refuse = |why: String| Err(Error::new(ErrorKind::Config, why));
        if !(self.heartbeat_ms < self.lease_ms && self.lease_ms < self.down_ms) {
            return refuse(
                "[cluster] needs heartbeat-ms < lease-ms < down-ms: a node must stop by itself \
                 before another may start"
                    .to_owned(),
            );
        }
        for (key, value, bounds) in [
            ("awaited-ms", self.awaited_ms, 1_000..=3_600_000),
            ("lag-ms", self.lag_ms, 1_000..=600_000),
            ("move-ms", self.move_ms, 1_000..=86_400_000),
            ("log-entries", self.log_entries, 100..=1_000_000),
            ("state-chunk-bytes", self.state_chunk_bytes, 256..=16 << 20),
        ] {
            if !bounds.contains(&value) {
                let (least, most) = bounds.into_inner();
                return refuse(format!("[cluster] {key} must be from {least} to {most}"));
            }
        }
        Ok(())
    }
}

/// The flags of `tidegated run`; each may also be set in the environment.
#[derive(Clone, Debug, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches, each by itself")]
pub struct NodeFlags {
    /// Settings file (TOML)
    #[arg(long, env = "TIDEGATE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Name of this node, unique within the cluster
    #[arg(long, env = "TIDEGATE_NAME")]
    pub name: Option<String>,
    /// Folder for everything this node keeps
    #[arg(long, env = "TIDEGATE_DATA")]
    pub data: Option<PathBuf>,
    /// Address of the gRPC endpoint [default: 127.0.0.1:7400]
    #[arg(long, env = "TIDEGATE_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// host:port at which other nodes reach this one [default: the listen address]
    #[arg(long, env = "TIDEGATE_ADVERTISE")]
    pub advertise: Option<String>,
    /// Address of /metrics, /livez and /readyz [default: 127.0.0.1:7500]
    #[arg(long, env = "TIDEGATE_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,
    /// Region this node runs in
    #[arg(long, env = "TIDEGATE_REGION")]
    pub region: Option<String>,
    /// Node to ask for admission, host:port; may be repeated (first start only)
    #[arg(long, env = "TIDEGATE_JOIN", value_delimiter = ',')]
    pub join: Vec<String>,
    /// File that names this boot of the machine
    #[arg(long, env = "TIDEGATE_BOOT_ID", hide = true)]
    pub boot_id: Option<PathBuf>,
    /// Start a new cluster with this node (first start only)
    #[arg(long)]
    pub bootstrap: bool,
    /// Join without a vote: this node runs shards, and no quorum waits for it (first start
    /// only; see `tidegate node promote`)
    #[arg(long)]
    pub learner: bool,
    /// Allow addresses that are not loopback although nothing is encrypted
    #[arg(long)]
    pub insecure: bool,
}

impl NodeConfig {
    /// Reads the file, puts the flags over it, and checks the whole.
    pub fn load(flags: NodeFlags) -> Result<Self> {
        let mut config = match &flags.config {
            Some(path) => Self::read(path)?,
            None => Self::default(),
        };
        config.lay_over(flags);
        config.check()?;
        Ok(config)
    }

    /// Reads a settings file.
    pub fn read(path: &Path) -> Result<Self> {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::new(ErrorKind::Config, format!("read the settings file {place}")).because(error)
        })?;
        toml::from_str(&text).map_err(|error| table::explain(&place, &error))
    }

    /// `host:port` at which other nodes reach this one.
    #[must_use]
    pub fn address(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.listen.to_string())
    }

    fn lay_over(&mut self, flags: NodeFlags) {
        fn put<T>(place: &mut T, flag: Option<T>) {
            if let Some(value) = flag {
                *place = value;
            }
        }
        put(&mut self.name, flags.name);
        put(&mut self.data, flags.data);
        put(&mut self.listen, flags.listen);
        put(&mut self.metrics_listen, flags.metrics_listen);
        put(&mut self.region, flags.region);
        put(&mut self.boot_id, flags.boot_id);
        if flags.advertise.is_some() {
            self.advertise = flags.advertise;
        }
        if !flags.join.is_empty() {
            self.join = flags.join;
        }
        self.bootstrap |= flags.bootstrap;
        self.learner |= flags.learner;
        self.insecure |= flags.insecure;
    }

    fn check(&self) -> Result<()> {
        let refuse = |why: String| Err(Error::new(ErrorKind::Config, why));
        for (what, address) in [("listen", self.listen), ("metrics-listen", self.metrics_listen)] {
            if !address.ip().is_loopback() && !self.insecure {
                return refuse(format!(
                    "{what} = {address} is not a loopback address and nothing is encrypted yet; \
                     use 127.0.0.1, or say --insecure if the network is yours alone"
                ));
            }
        }
        if self.bootstrap && !self.join.is_empty() {
            return refuse("bootstrap starts a new cluster and join enters one: choose".to_owned());
        }
        if self.bootstrap && self.learner {
            return refuse("learner: the first node of a cluster votes; leave it out".to_owned());
        }
        self.cluster.check()?;
        self.limits.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "name = \"a\"\nregion = \"eu\"\n").unwrap();
        let flags = NodeFlags {
            config: Some(file.path().to_owned()),
            name: Some("b".to_owned()),
            ..NodeFlags::default()
        };
        let config = NodeConfig::load(flags).unwrap();
        assert_eq!((config.name.as_str(), config.region.as_str()), ("b", "eu"));
    }

    #[test]
    fn an_open_address_needs_the_insecure_flag() {
        let listen: SocketAddr = "0.0.0.0:7400".parse().unwrap();
        let open = NodeFlags { listen: Some(listen), ..NodeFlags::default() };
        let error = NodeConfig::load(open.clone()).unwrap_err().to_string();
        assert!(error.contains("--insecure"), "{error}");
        assert!(NodeConfig::load(NodeFlags { insecure: true, ..open }).is_ok());
    }

    #[test]
    fn a_lease_longer_than_the_patience_of_the_leader_is_refused() {
        let cluster = ClusterConfig { lease_ms: 2000, ..ClusterConfig::default() };
        let config = NodeConfig { cluster, ..NodeConfig::default() };
        assert!(config.check().unwrap_err().to_string().contains("lease-ms"));
    }

    #[test]
    fn what_is_out_of_its_bounds_is_refused_with_them() {
        let wrong = |text: &str| {
            let cluster = toml::from_str(text).unwrap();
            let config = NodeConfig { cluster, ..NodeConfig::default() };
            config.check().unwrap_err().to_string()
        };
        let awaited = wrong("awaited-ms = 999");
        assert_eq!(awaited, "[cluster] awaited-ms must be from 1000 to 3600000");
        assert!(wrong("lag-ms = 600001").contains("lag-ms must be from 1000 to 600000"));
        assert!(wrong("log-entries = 99").contains("log-entries must be from 100 to"));
        let chunk = wrong("state-chunk-bytes = 16777217");
        assert!(chunk.ends_with("from 256 to 16777216"), "{chunk}");
    }

    #[test]
    fn a_wrong_key_names_the_right_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "metrics-liste = \"127.0.0.1:1\"\n").unwrap();
        let error = NodeConfig::read(file.path()).unwrap_err().to_string();
        assert!(error.contains("did you mean `metrics-listen`?"), "{error}");
    }
}
