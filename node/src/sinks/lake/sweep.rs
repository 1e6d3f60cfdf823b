//! Deletes data files that an earlier owner wrote and never committed.

use std::collections::HashSet;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::chain::Chain;
use super::client::Store;
use super::names;
use crate::error::Result;
use crate::sinks::SinkShard;

/// Younger files stay: their owner may not know yet that it was shut out.
const AGE_MS_MIN: i64 = 60 * 60 * 1000;
/// When to look a second time, for what was too young at first.
const AGAIN_AFTER: Duration = Duration::from_secs(70 * 60);
/// Manifests read back from the fence. Files of commits before them are left.
const MANIFESTS_MAX: u64 = 1_000;
/// Names read in one folder.
const FILES_MAX: usize = 100_000;

/// Sweeps now and once more later, in the background, until dropped.
#[derive(Debug)]
pub(super) struct Sweeper(JoinHandle<()>);

impl Sweeper {
    /// `now_ms` tells the wall clock's time.
    pub(super) fn start(store: Store, shard: SinkShard, fence: u64, now_ms: fn() -> i64) -> Self {
        Self(tokio::spawn(async move {
            for wait in [Duration::ZERO, AGAIN_AFTER] {
                tokio::time::sleep(wait).await;
                match sweep(&store, &shard, fence, now_ms()).await {
                    Ok(0) => {}
                    Ok(files) => tracing::info!(files, "unlisted files of the lake deleted"),
                    Err(error) => tracing::warn!(%error, "unlisted files of the lake not deleted"),
                }
            }
        }))
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Deletes the shard's files of epochs below its own that no manifest up to
/// link `fence` names and that are old enough; says how many.
///
/// Safe, since that fence shuts out those epochs: what they have not listed by
/// then is never listed.
pub(super) async fn sweep(
    store: &Store,
    shard: &SinkShard,
    fence: u64,
    now_ms: i64,
) -> Result<usize> {
    let (listed, from) = listed(store, shard, fence).await?;
    let mut deleted = 0;
    let data = names::data_folder(&shard.export);
    for collection in store.folders(&data).await? {
        let folder = format!("{data}/{collection}");
        let first = format!("{folder}/{}", names::safe(&shard.shard));
        for object in store.names_behind(&folder, &first, FILES_MAX).await? {
            let Some(name) = object.location.filename() else { continue };
            let Some((epoch, begins)) = names::data_place(&shard.shard, name) else { continue };
            let path = format!("{folder}/{name}");
            let old = object.last_modified.timestamp_millis() < now_ms - AGE_MS_MIN;
            if epoch < shard.epoch.0 && begins >= from && old && !listed.contains(&path) {
                store.delete(&path).await?;
                deleted += 1;
            }
        }
    }
    Ok(deleted)
}

/// The files of the last manifests up to link `fence`, and the first sequence
/// from which on they are complete.
async fn listed(store: &Store, shard: &SinkShard, fence: u64) -> Result<(HashSet<String>, u64)> {
    let oldest = fence.saturating_sub(MANIFESTS_MAX).max(1);
    let mut paths = HashSet::new();
    let mut from = u64::MAX;
    for number in (oldest..=fence).rev() {
        let manifest = Chain::manifest(store, shard, number).await?;
        from = from.min(manifest.from);
        paths.extend(manifest.files.into_iter().map(|file| file.path));
    }
    Ok((paths, if oldest == 1 { 0 } else { from }))
}
