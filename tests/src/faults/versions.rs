//! Nodes of two versions in one cluster.

use std::path::Path;
use std::time::Duration;

use tonic::async_trait;

use super::{Arena, Fault};
use crate::Outcome;

/// One node after the other ends, and starts again with the binaries of another version;
/// then the same back.
pub(super) struct Versions {
    pick: usize,
    lasts: Duration,
    /// Starts with other binaries than before.
    starts: usize,
}

impl Versions {
    pub(super) fn of(pick: usize, lasts: Duration) -> Self {
        Self { pick, lasts, starts: 0 }
    }

    /// Has all nodes run the binaries in a folder; each once all is well with the one before.
    async fn roll(&mut self, arena: &mut Arena, folder: &Path) -> Outcome<()> {
        let size = arena.world.size();
        for node in (0..size).map(|step| (self.pick + step) % size) {
            let before = run(arena, node, node);
            arena.world.cluster.signal(node, "TERM");
            let ended = arena.world.cluster.ended(node).await;
            if !ended.success() {
                return Err(format!("node{node} ended with {ended}, told to").into());
            }
            arena.world.cluster.place(node).binaries = Some(folder.to_owned());
            arena.world.cluster.start_node(node);
            // What was said last may be from before it ended.
            let counts = |it: &Arena| {
                (0..size).all(|by| run(it, by, node).is_some_and(|run| Some(run) != before))
            };
            arena.until("the node counts as up in another run", counts).await?;
            arena.whole().await?;
            arena.fresh().await?;
            let process = arena.world.cluster.process(node).ok_or("the node does not run")?;
            let program = std::fs::read_link(format!("/proc/{process}/exe"))?;
            if program.parent() != Some(folder.canonicalize()?.as_path()) {
                return Err(format!("node{node} runs {}", program.display()).into());
            }
            self.starts += 1;
        }
        Ok(())
    }
}

#[async_trait]
impl Fault for Versions {
    fn lasts(&self) -> Duration {
        self.lasts
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        let next = arena.next.clone();
        let next = next.ok_or("another version is needed: say which with FROM=commit")?;
        self.roll(arena, &next).await?;
        Ok("all nodes went to another version and back".to_owned())
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        let before = arena.world.cluster.binaries().to_owned();
        self.roll(arena, &before).await
    }

    async fn proof(&self, arena: &Arena) -> Outcome<String> {
        if self.starts != 2 * arena.world.size() {
            return Err(format!("{} nodes started", self.starts).into());
        }
        Ok(format!("{} starts with other binaries", self.starts))
    }
}

/// The run of a node's process, by what another said last; none if that does not know.
fn run(arena: &Arena, by: usize, node: usize) -> Option<u64> {
    let name = arena.world.cluster.name(node);
    let nodes = arena.watch.said_by(by).status.nodes;
    nodes.iter().find(|it| it.name == name).map(|it| it.run)
}
