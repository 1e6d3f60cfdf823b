//! A node whose wall clock is an hour wrong and jumps.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use tonic::async_trait;

use super::{Arena, Fault};
use crate::{Outcome, faketime};

/// How wrong it is, in seconds, and how much of that must be seen in milliseconds.
const STEP_SECONDS: i64 = 3600;
const SEEN_MS: i64 = 3_000_000;

/// A node starts an hour ahead, steps back to an hour behind while it runs, and
/// starts again with the right time.
pub(super) struct Clock {
    pick: usize,
    lasts: Duration,
    node: usize,
    file: PathBuf,
    /// The node's environment before.
    before: Vec<(String, OsString)>,
    ahead_ms: i64,
    behind_ms: i64,
}

impl Clock {
    pub(super) fn of(pick: usize, lasts: Duration) -> Self {
        Self {
            pick,
            lasts,
            node: 0,
            file: PathBuf::new(),
            before: Vec::new(),
            ahead_ms: 0,
            behind_ms: 0,
        }
    }

    fn wrong_by(&self, seconds: i64) -> Outcome<()> {
        // Replaced in one step: it is read while it is written.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n"))?;
        Ok(std::fs::rename(new, &self.file)?)
    }

    fn skew_ms(&self, arena: &Arena) -> i64 {
        let (its, ours) = arena.watch.said_by(self.node).clocks_ms;
        its - ours
    }
}

#[async_trait]
impl Fault for Clock {
    fn lasts(&self) -> Duration {
        self.lasts
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        let library = faketime::library()?;
        self.node = self.pick % arena.world.size();
        self.file = arena.world.cluster.folder().join(format!("clock{}", self.node));
        self.wrong_by(STEP_SECONDS)?;
        let node = self.node;
        arena.world.cluster.kill(node).await;
        let environment = &mut arena.world.cluster.place(node).environment;
        self.before.clone_from(environment);
        // A shim that is preloaded already is done without meanwhile.
        environment.retain(|(name, _)| name != "LD_PRELOAD");
        environment.extend([
            ("LD_PRELOAD".to_owned(), library.into()),
            ("FAKETIME_TIMESTAMP_FILE".to_owned(), self.file.clone().into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC".to_owned(), "1".into()),
            ("FAKETIME_CACHE_DURATION".to_owned(), "1".into()),
        ]);
        arena.world.cluster.start_node(node);
        arena
            .until("a node is an hour ahead", |it| {
                let (its, ours) = it.watch.said_by(node).clocks_ms;
                its - ours > SEEN_MS
            })
            .await?;
        self.ahead_ms = self.skew_ms(arena);
        arena.whole().await?;
        self.wrong_by(-STEP_SECONDS)?;
        Ok(format!("node{node} is an hour ahead, then an hour behind for {:?}", self.lasts))
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        self.behind_ms = self.skew_ms(arena);
        let process = arena.world.cluster.process(self.node);
        arena.world.cluster.kill(self.node).await;
        faketime::clean(process);
        arena.world.cluster.place(self.node).environment.clone_from(&self.before);
        arena.world.cluster.start_node(self.node);
        Ok(())
    }

    async fn proof(&self, _: &Arena) -> Outcome<String> {
        if self.behind_ms > -SEEN_MS {
            return Err(
                format!("the clock was {} ms off, not an hour behind", self.behind_ms).into()
            );
        }
        Ok(format!("its clock was off by {} and {} ms", self.ahead_ms, self.behind_ms))
    }
}
