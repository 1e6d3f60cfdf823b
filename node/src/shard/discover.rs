//! The leader's search for shards.

use std::collections::HashMap;
use std::time::Duration;

use tidegate_proto::v1::{ShardsDiscovered, command};
use tokio::time::Instant;

use crate::error::Result;
use crate::retry::Backoff;
use crate::shard::Means;

const ROUND: Duration = Duration::from_secs(1);
/// How often a source whose shards come and go is asked again.
const AGAIN: Duration = Duration::from_secs(30);

/// When an export is next asked, and how patient we are with it.
struct Due {
    version: u64,
    at: Instant,
    backoff: Backoff,
}

/// Asks each export's source for its shards: at once, and again for as long as
/// they may change. Runs for as long as the node lives; only while it leads.
pub async fn run(means: Means) {
    let mut topology = means.control.topology();
    let mut due: HashMap<u64, Due> = HashMap::new();
    loop {
        drop(tokio::time::timeout(ROUND, topology.changed()).await);
        if !means.control.leads() {
            due.clear();
            continue;
        }
        let exports: Vec<(u64, u64)> = means
            .control
            .read(|state| state.exports().map(|export| (export.id, export.version)).collect());
        due.retain(|id, _| exports.iter().any(|(export, _)| export == id));
        for (id, version) in exports {
            let now = Instant::now();
            let next = due.entry(id).or_insert_with(|| Due {
                version: 0,
                at: now,
                backoff: Backoff::default(),
            });
            if next.version == version && now < next.at {
                continue;
            }
            next.version = version;
            match discover(&means, id).await {
                Ok(Some(again)) => {
                    next.backoff.reset();
                    next.at = now + again;
                }
                Ok(None) => next.at = now + Duration::from_secs(86_400),
                Err(error) => {
                    let wait = next.backoff.wait();
                    let retry_in_ms = wait.as_millis();
                    tracing::warn!(error = %error, export_id = id, retry_in_ms, "discover shards");
                    next.at = now + wait;
                }
            }
        }
    }
}

/// Asks once; says when to ask again.
async fn discover(means: &Means, export_id: u64) -> Result<Option<Duration>> {
    let job = means.exports.job(export_id).await?;
    let found = job.source.discover().await?;
    let known: Vec<String> = means.control.read(|state| {
        let specs = state.shards_of(export_id).filter_map(|shard| shard.spec.as_ref());
        specs.map(|spec| spec.name.clone()).collect()
    });
    let shards: Vec<_> = found.into_iter().filter(|spec| !known.contains(&spec.name)).collect();
    let dynamic = job.source.traits().dynamic;
    if !dynamic && !known.is_empty() {
        // Other ranges than those there are would overlap them.
        if !shards.is_empty() {
            tracing::warn!(
                export = job.name,
                "the number of shards in the export's file is not what it began with, and stays \
                 without effect; use `tidegate shard split`"
            );
        }
    } else if !shards.is_empty() {
        tracing::info!(export = job.name, shards = shards.len(), "discovered shards");
        let discovered = ShardsDiscovered { export_id, shards };
        means.control.insist(command::Kind::ShardsDiscovered(discovered)).await?;
    }
    Ok(dynamic.then_some(AGAIN))
}
