//! Nodes that are killed or stand still.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::async_trait;

use super::{Arena, Before, Fault};
use crate::Outcome;

/// Between a thaw and the next freeze.
const BETWEEN: Duration = Duration::from_millis(1500);
/// How long a process may take to stop.
const STOPPED_MAX: Duration = Duration::from_secs(2);

/// Whom it meets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whom {
    /// A node that reads shards; one of them.
    Owner(usize),
    /// Who leads at that moment.
    Leader,
    /// Everybody.
    All,
}

impl Whom {
    async fn find(self, arena: &mut Arena) -> Outcome<Vec<usize>> {
        Ok(match self {
            Self::Owner(pick) => vec![arena.owner(pick)?],
            Self::Leader => vec![arena.leader().await?],
            Self::All => (0..arena.world.size()).collect(),
        })
    }

    /// Fails unless the cluster has felt the loss of these nodes.
    fn felt(self, nodes: &[usize], before: &Before, arena: &Arena) -> Outcome<String> {
        let now = arena.before();
        let shards = before.moved(&now, |reader| nodes.contains(&reader))?;
        let term = now.term;
        // When all come back at once, who led may go on under the term it had.
        if matches!(self, Self::Leader) && term <= before.term {
            return Err(format!("the term is {term} as it was before").into());
        }
        Ok(format!("{shards} shards moved, term {} to {term}", before.term))
    }
}

/// SIGKILL; the disk stays.
pub(super) struct Kill {
    whom: Whom,
    lasts: Duration,
    killed: Vec<(usize, u32)>,
    before: Before,
}

impl Kill {
    pub(super) fn of(whom: Whom, lasts: Duration) -> Self {
        Self { whom, lasts, killed: Vec::new(), before: Before::default() }
    }
}

#[async_trait]
impl Fault for Kill {
    fn lasts(&self) -> Duration {
        self.lasts
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        let nodes = self.whom.find(arena).await?;
        self.before = arena.before();
        for node in &nodes {
            let process = arena.world.cluster.process(*node).ok_or("the node does not run")?;
            self.killed.push((*node, process));
        }
        for node in &nodes {
            arena.world.cluster.kill(*node).await;
        }
        Ok(format!("killed {nodes:?}"))
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        for (node, _) in &self.killed {
            arena.world.cluster.start_node(*node);
        }
        Ok(())
    }

    async fn proof(&self, arena: &Arena) -> Outcome<String> {
        let lives = |process: &u32| Path::new(&format!("/proc/{process}")).exists();
        if let Some((node, process)) = self.killed.iter().find(|(_, process)| lives(process)) {
            return Err(format!("process {process} of node{node} still runs").into());
        }
        let nodes: Vec<_> = self.killed.iter().map(|(node, _)| *node).collect();
        self.whom.felt(&nodes, &self.before, arena)
    }
}

/// SIGSTOP, then SIGCONT: a zombie that wakes up. Several rounds meet whoever has
/// the role then.
pub(super) struct Freeze {
    whom: Whom,
    rounds: usize,
    lasts: Duration,
    frozen: Vec<usize>,
    /// How often a process was seen to stand still.
    stood: usize,
    met: Vec<usize>,
    before: Before,
}

impl Freeze {
    pub(super) fn of(whom: Whom, rounds: usize, lasts: Duration) -> Self {
        let (frozen, met, before) = (Vec::new(), Vec::new(), Before::default());
        Self { whom, rounds, lasts, frozen, stood: 0, met, before }
    }

    async fn freeze(&mut self, arena: &mut Arena) -> Outcome<()> {
        self.frozen = self.whom.find(arena).await?;
        for node in &self.frozen {
            arena.world.cluster.signal(*node, "STOP");
        }
        for node in &self.frozen {
            let process = arena.world.cluster.process(*node).ok_or("the node does not run")?;
            self.stood += usize::from(stands_still(process).await);
        }
        self.met.extend(&self.frozen);
        Ok(())
    }

    fn thaw(&mut self, arena: &Arena) {
        for node in self.frozen.drain(..) {
            arena.world.cluster.signal(node, "CONT");
        }
    }
}

#[async_trait]
impl Fault for Freeze {
    fn lasts(&self) -> Duration {
        self.lasts
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        self.before = arena.before();
        self.freeze(arena).await?;
        for _ in 1..self.rounds {
            sleep(self.lasts).await;
            self.thaw(arena);
            sleep(BETWEEN).await;
            self.freeze(arena).await?;
        }
        Ok(format!("froze {:?} for {:?} each", self.met, self.lasts))
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        self.thaw(arena);
        Ok(())
    }

    async fn proof(&self, arena: &Arena) -> Outcome<String> {
        if self.stood < self.rounds {
            return Err(format!("{} of {} freezes were seen", self.stood, self.rounds).into());
        }
        // Whoever was met first had the shards of then.
        self.whom.felt(&self.met[..1], &self.before, arena)
    }
}

/// Whether the kernel says that a process is stopped, once all its threads had the time.
pub(super) async fn stands_still(process: u32) -> bool {
    let end = Instant::now() + STOPPED_MAX;
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let stopped = stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
        if stopped || Instant::now() > end {
            return stopped;
        }
        sleep(Duration::from_millis(5)).await;
    }
}
