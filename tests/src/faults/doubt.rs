//! Commits of which nobody knows what became of them.

use std::time::Duration;

use tonic::async_trait;

use super::{Arena, Fault};
use crate::Outcome;
use crate::world::{Database, Doubts};

/// Connections to the database break behind a commit, or before it. In every other
/// round an owner of shards is killed meanwhile: another has to find out.
pub(super) struct Doubt {
    pick: usize,
    lasts: Duration,
    before: Doubts,
    killed: Option<usize>,
}

impl Doubt {
    pub(super) fn of(pick: usize, lasts: Duration) -> Self {
        Self { pick, lasts, before: Doubts::default(), killed: None }
    }
}

#[async_trait]
impl Fault for Doubt {
    fn lasts(&self) -> Duration {
        self.lasts
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        self.before = database(arena)?.doubter.doubts();
        database(arena)?.doubter.begin(self.pick as u64);
        let done = self.before.done;
        let met = move |it: &Arena| database(it).is_ok_and(|it| it.doubter.doubts().done > done);
        arena.until("an answer to a commit is lost", met).await?;
        if self.pick.is_multiple_of(2) {
            let owner = arena.owner(self.pick)?;
            arena.world.cluster.kill(owner).await;
            self.killed = Some(owner);
        }
        let killed = self.killed.map_or(String::new(), |node| format!(", node{node} is killed"));
        Ok(format!("commits are in doubt for {:?}{killed}", self.lasts))
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        database(arena)?.doubter.end();
        if let Some(node) = self.killed {
            arena.world.cluster.start_node(node);
        }
        Ok(())
    }

    async fn proof(&self, arena: &Arena) -> Outcome<String> {
        let now = database(arena)?.doubter.doubts();
        let (done, lost) = (now.done - self.before.done, now.lost - self.before.lost);
        if done == 0 || lost == 0 {
            return Err(format!("{done} answers to commits and {lost} commits were lost").into());
        }
        Ok(format!("{done} answers to commits were lost, and {lost} commits"))
    }
}

fn database(arena: &Arena) -> Outcome<&Database> {
    arena.world.database.as_ref().ok_or_else(|| "this world was made without a database".into())
}
