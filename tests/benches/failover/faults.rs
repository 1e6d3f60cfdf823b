//! Nodes killed and frozen, one after the other.

use std::time::Duration;

use tokio::time::sleep;

use crate::Outcome;
use crate::rig::{NODES, Rig};

/// How long a frozen node stands still.
const FREEZE: Duration = Duration::from_secs(10);
/// Shards are back on their nodes and in their stride before the next round.
const SETTLE: Duration = Duration::from_secs(1);

/// What happens to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL; its disk stays.
    Kill,
    /// SIGSTOP for ten seconds, then SIGCONT.
    Freeze,
}

/// What one shard's subscriber saw of one round.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "three facts, each told apart in the report")]
pub(crate) struct Gap {
    pub(crate) ms: f64,
    /// The node read this shard.
    pub(crate) owned: bool,
    /// The node led the group.
    pub(crate) leader: bool,
    /// The node served the subscriber.
    pub(crate) served: bool,
}

/// Does it to each node in turn, and says the gaps.
pub(crate) async fn run(rig: &mut Rig, fault: Fault, rounds: usize) -> Outcome<Vec<Gap>> {
    let mut gaps = Vec::new();
    for round in 0..rounds {
        // Downwards, since the subscriber goes upwards: not every node that fails serves it.
        let node = (NODES - round % NODES) % NODES;
        let found = one(rig, fault, node).await;
        let found = found.map_err(|error| format!("round {}: {error}", round + 1))?;
        let worst = found.iter().map(|gap| gap.ms).fold(0.0, f64::max).round();
        let owned = found.iter().filter(|gap| gap.owned).count();
        let first = found.first();
        let leader = if first.is_some_and(|gap| gap.leader) { ", the leader" } else { "" };
        let served = if first.is_some_and(|gap| gap.served) { ", served the feed" } else { "" };
        crate::say(&format!(
            "  {fault:?} {}: node{node} with {owned} shards{leader}{served}: {worst} ms at worst",
            round + 1
        ));
        gaps.extend(found);
    }
    Ok(gaps)
}

async fn one(rig: &mut Rig, fault: Fault, node: usize) -> Outcome<Vec<Gap>> {
    let name = format!("node{node}");
    let owners = rig.owners();
    let (leader, served) = (rig.leader() == name, rig.subscriber.node() == node);
    rig.subscriber.begin_round();
    match fault {
        Fault::Kill => {
            rig.cluster.kill(node).await;
            rig.flowing().await?;
            rig.cluster.start_node(node);
        }
        Fault::Freeze => {
            rig.cluster.signal(node, "STOP");
            sleep(FREEZE).await;
            rig.cluster.signal(node, "CONT");
            rig.flowing().await?;
        }
    }
    sleep(SETTLE).await;
    rig.whole().await?;
    let gaps = rig.subscriber.gaps().into_iter().map(|(shard, gap)| Gap {
        ms: gap.as_secs_f64() * 1000.0,
        owned: owners.get(&shard) == Some(&name),
        leader,
        served,
    });
    Ok(gaps.collect())
}
