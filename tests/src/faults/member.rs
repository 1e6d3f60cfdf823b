//! Nodes whose disk is lost or damaged, and nodes that take their place.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::async_trait;

use super::arena::{PATIENCE, named};
use super::{Arena, Fault};
use crate::Outcome;

/// Bytes at the ends of a file that stay as they are.
const MARGIN: usize = 4096;
/// Between two bytes that are turned over.
const STEP: usize = 512;
/// A log that is longer has bytes to turn over.
const LOG_BYTES_MIN: u64 = 16 << 10;

/// What a node has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Its place: it is removed, and another takes it.
    Place,
    /// Its disk: it comes back empty, under the name it had.
    Disk,
    /// Some bits of what it remembers of the cluster.
    Bits,
}

/// A node that must not come back as it is, and is replaced under load.
pub(super) struct Replaced {
    loss: Loss,
    pick: usize,
    node: usize,
    refused: String,
}

impl Replaced {
    pub(super) fn of(loss: Loss, pick: usize) -> Self {
        Self { loss, pick, node: 0, refused: String::new() }
    }

    /// The node is started as it is, and ends by itself. Its words are kept.
    async fn is_refused(&mut self, arena: &mut Arena) -> Outcome<()> {
        let said = arena.world.cluster.log(self.node).len();
        arena.world.cluster.start_node(self.node);
        let ended = ended(arena, self.node).await?;
        if ended.success() {
            return Err("the node ended as if all was well".into());
        }
        let log = arena.world.cluster.log(self.node);
        let last = log.get(said..).unwrap_or_default().lines().last().unwrap_or_default();
        self.refused = last.to_owned();
        Ok(())
    }
}

#[async_trait]
impl Fault for Replaced {
    fn lasts(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        // The first is whom the others ask for admission.
        self.node = 1 + self.pick % (arena.world.size() - 1);
        let data = arena.world.cluster.data(self.node);
        if self.loss == Loss::Bits {
            // A node that has just started has written little.
            let db = data.join("raft/db");
            arena.until("there is a log to damage", |_| can_turn_over(&db)).await?;
        }
        arena.world.cluster.kill(self.node).await;
        match self.loss {
            Loss::Place => {}
            Loss::Disk => {
                std::fs::remove_dir_all(&data)?;
                self.is_refused(arena).await?;
            }
            Loss::Bits => {
                if turn_over(&data.join("raft/db"))? == 0 {
                    return Err("there is no log to damage".into());
                }
                self.is_refused(arena).await?;
            }
        }
        Ok(format!("node{} lost its {:?}", self.node, self.loss))
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        let old = arena.world.cluster.name(self.node).to_owned();
        let data = arena.world.cluster.data(self.node);
        if data.exists() {
            std::fs::remove_dir_all(&data)?;
        }
        let end = Instant::now() + PATIENCE;
        // It may be removed once it is down and its work is elsewhere.
        while let Err(why) = arena.cli(&["--yes", "node", "remove", &old]).await {
            arena.check()?;
            if Instant::now() > end {
                return Err(format!("{old} is not removed: {why}").into());
            }
            sleep(Duration::from_millis(300)).await;
        }
        arena.world.cluster.start_as(self.node, &named(&old));
        Ok(())
    }

    async fn proof(&self, arena: &Arena) -> Outcome<String> {
        let cluster = arena.watch.cluster();
        let name = arena.world.cluster.name(self.node);
        if !cluster.status.nodes.iter().any(|node| node.name == name) {
            return Err(format!("{name} is no member").into());
        }
        if self.loss != Loss::Place && self.refused.is_empty() {
            return Err("the node was not refused".into());
        }
        Ok(format!("{name} took its place; {}", self.refused))
    }
}

/// Waits until a node has ended by itself.
async fn ended(arena: &mut Arena, node: usize) -> Outcome<ExitStatus> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = arena.world.cluster.has_ended(node) {
            return Ok(status);
        }
        arena.check()?;
        if Instant::now() > end {
            return Err(format!("node{node} must not run, and does").into());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The write-ahead logs of a folder.
fn logs(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let paths = std::fs::read_dir(folder)?.map(|entry| entry.map(|it| it.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>()?;
    paths.retain(|path| path.extension().is_some_and(|it| it == "log"));
    Ok(paths)
}

/// One of them is long enough to be damaged.
fn can_turn_over(folder: &Path) -> bool {
    let logs = logs(folder).unwrap_or_default().into_iter();
    logs.filter_map(|it| it.metadata().ok()).any(|log| log.len() > LOG_BYTES_MIN)
}

/// Turns over bytes all through them. Returns how many.
fn turn_over(folder: &Path) -> Outcome<usize> {
    let mut turned = 0;
    for path in logs(folder)? {
        let mut bytes = std::fs::read(&path)?;
        let end = bytes.len().saturating_sub(MARGIN).max(MARGIN);
        let inner = bytes.get_mut(MARGIN..end).unwrap_or_default();
        for byte in inner.iter_mut().step_by(STEP) {
            *byte ^= 1;
            turned += 1;
        }
        std::fs::write(&path, bytes)?;
    }
    Ok(turned)
}
