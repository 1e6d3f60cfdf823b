//! A cluster under load, with a subscriber.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tidegate_tests::cluster::Cluster;
use tidegate_tests::feed::Subscriber;
use tokio::time::{Instant, sleep};

use crate::Outcome;
use crate::load::{EXPORT, Load, SHARDS};
use crate::states::{self, States};

/// Nodes of the cluster; number n is named `node<n>`.
pub(crate) const NODES: usize = 3;
/// How long a shard may stand still, or a node take to be in sync again.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks; few enough that looking costs nothing.
const LOOK: Duration = Duration::from_millis(200);

/// What a phase runs on; each has its own.
pub(crate) struct Rig {
    pub(crate) cluster: Cluster,
    pub(crate) subscriber: Subscriber<States>,
    load: Load,
}

impl Rig {
    /// Starts nodes, export and subscriber, and waits until all spools have their
    /// copies and changes flow.
    pub(crate) async fn start(binaries: &Path, load: Load) -> Outcome<Self> {
        let cluster = Cluster::start_from(binaries, NODES).await;
        cluster.apply(&load.spec());
        let subscriber = Subscriber::start(EXPORT, cluster.addresses(), States::default());
        let rig = Self { cluster, subscriber, load };
        rig.whole().await?;
        rig.flowing().await?;
        Ok(rig)
    }

    /// By shard, the name of the node that reads it.
    pub(crate) fn owners(&self) -> BTreeMap<String, String> {
        let text = |shard: &Value, field: &str| shard[field].as_str().unwrap_or("").to_owned();
        let shards = self.cluster.shards(EXPORT);
        shards.iter().map(|shard| (text(shard, "name"), text(shard, "reader"))).collect()
    }

    /// The leader's name.
    pub(crate) fn leader(&self) -> String {
        let status = self.cluster.json(&["status"]);
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let leader = nodes.iter().find(|node| node["role"] == "leader");
        leader.and_then(|node| node["name"].as_str()).unwrap_or_default().to_owned()
    }

    /// Waits until all nodes are up and all spools have two copies in sync.
    pub(crate) async fn whole(&self) -> Outcome<()> {
        let whole = || {
            let shards = self.cluster.shards(EXPORT);
            let both = |shard: &Value| shard["in_sync"].as_array().map(Vec::len) >= Some(2);
            shards.len() == SHARDS as usize && shards.iter().all(both) && self.cluster.up() == NODES
        };
        self.until("all spools have two copies in sync", whole).await
    }

    /// Waits until half a second's changes of every shard have come from now on.
    pub(crate) async fn flowing(&self) -> Outcome<()> {
        let before = self.subscriber.sequences();
        let enough = (self.load.of_a_shard() / 2).max(1);
        let moved = || {
            let now = self.subscriber.sequences();
            let on = |(shard, at): (&String, &u64)| *at >= before.get(shard).unwrap_or(&0) + enough;
            now.len() == SHARDS as usize && now.iter().all(on)
        };
        self.until("every shard moves on", moved).await
    }

    /// Ends the subscriber and checks all it has got; how many changes that were.
    pub(crate) async fn verify(self) -> Outcome<u64> {
        let gaps = self.cluster.json(&["gap", "list"])["gaps"].as_array().map(Vec::len);
        if gaps != Some(0) {
            return Err(format!("{gaps:?} gaps are recorded, and none was made").into());
        }
        let seen = self.subscriber.finish()?;
        // Its memory of changes is folded again here: not beside a runtime's tasks.
        let config = self.load.config().clone();
        tokio::task::spawn_blocking(move || states::verify(&seen, &config)).await?
    }

    async fn until(&self, what: &str, done: impl Fn() -> bool) -> Outcome<()> {
        let end = Instant::now() + PATIENCE;
        while !done() {
            self.subscriber.alive()?;
            if Instant::now() >= end {
                let (shards, at) = (self.cluster.shards(EXPORT), self.subscriber.sequences());
                let shards = Value::from(shards);
                let logs = self.cluster.logs();
                return Err(format!("waited for: {what}; at {at:?}\n{shards}\n{logs}").into());
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}
