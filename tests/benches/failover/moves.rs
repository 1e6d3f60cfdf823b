//! Planned moves, one after the other.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use crate::Outcome;
use crate::load::EXPORT;
use crate::rig::{NODES, Rig};

/// After the receipt, for what is on its way to the subscriber.
const AFTER: Duration = Duration::from_millis(300);

/// What all moves came to, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// Of each move: the shard's largest gap meanwhile, less what is usual.
    pub(crate) stalls: Vec<f64>,
    /// By step, how long after the step before it.
    pub(crate) steps: BTreeMap<String, Vec<f64>>,
}

/// Moves one shard after the other to each node that does not read it, in turn.
pub(crate) async fn run(rig: &Rig, moves: usize) -> Outcome<Moved> {
    let mut moved = Moved::default();
    for number in 0..moves {
        let owners = rig.owners();
        let Some((shard, owner)) = owners.iter().nth(number % owners.len().max(1)) else {
            return Err("no shard to move is shown".into());
        };
        let others: Vec<_> = (0..NODES).map(|it| format!("node{it}")).collect();
        let others: Vec<_> = others.iter().filter(|name| *name != owner).collect();
        let to = others[(number / owners.len()) % others.len()];
        let (usual, place) = (rig.subscriber.usual(shard), format!("{EXPORT}/{shard}"));
        rig.subscriber.begin_round();
        let output = rig.cluster.cli(&["shard", "move", &place, "--reader", to]);
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("move {}: {place} to {to}: {why}", number + 1).into());
        }
        sleep(AFTER).await;
        let gap = rig.subscriber.gaps().get(shard).copied().unwrap_or_default();
        moved.stalls.push(gap.saturating_sub(usual).as_secs_f64() * 1000.0);
        let receipt: Value = serde_json::from_slice(&output.stdout)?;
        moved.add(&receipt)?;
        rig.whole().await?;
    }
    Ok(moved)
}

impl Moved {
    fn add(&mut self, receipt: &Value) -> Outcome<()> {
        let mut before = 0.0;
        for step in receipt["steps"].as_array().ok_or("a receipt without steps")? {
            let after = step["after_us"].as_u64().ok_or("a step without its time")?;
            let after = Duration::from_micros(after).as_secs_f64() * 1000.0;
            let name = step["step"].as_str().unwrap_or_default().to_owned();
            self.steps.entry(name).or_default().push(after - before);
            before = after;
        }
        Ok(())
    }
}
