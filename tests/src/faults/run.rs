//! One run: faults from a seed, one after the other, until the time is over.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::arena::{Arena, Scene};
use super::kind::Kind;
use super::verdict::{Verdict, judge, table_has_all};
use crate::Outcome;

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is put up.
    pub scene: Scene,
    /// Faults begin until it is over; each kind comes at least once.
    pub length: Duration,
    /// Those that may come.
    pub kinds: Vec<Kind>,
    /// Where lines about it go.
    pub say: fn(&str),
}

/// One fault that came and went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Round {
    /// Which.
    pub kind: Kind,
    /// By shard: the longest time without anything, from the fault until all was
    /// well, in milliseconds.
    pub stalls_ms: Vec<f64>,
    /// By shard: from the end of the fault until something came, in milliseconds.
    pub resumed_ms: Vec<f64>,
}

/// A run in which everything held.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// Its faults, in order.
    pub rounds: Vec<Round>,
    /// What became of each, a line each.
    pub history: Vec<String>,
    /// What the sinks held.
    pub verdict: Verdict,
    /// The most a node held in memory.
    pub memory_bytes: u64,
}

/// A run in which something did not hold.
#[derive(Debug)]
pub struct Violation {
    /// What; the first thing that was seen.
    pub why: String,
    /// What came before, a line each.
    pub history: Vec<String>,
    /// Where the nodes' logs are kept; empty if none were written.
    pub logs: PathBuf,
}

/// Runs it.
///
/// # Errors
///
/// The first violation.
pub async fn run(plan: &Plan) -> Result<Done, Violation> {
    let mut history = Vec::new();
    let arena = Arena::start(&plan.scene).await;
    let arena = arena.map_err(|error| Violation {
        why: format!("nothing could be put up: {error}"),
        history: Vec::new(),
        logs: PathBuf::new(),
    })?;
    let held = hold(plan, arena, &mut history).await;
    held.map_err(|(error, logs)| Violation { why: error.to_string(), history, logs })
}

type Lost = (Box<dyn std::error::Error + Send + Sync>, PathBuf);

async fn hold(plan: &Plan, mut arena: Arena, history: &mut Vec<String>) -> Result<Done, Lost> {
    let folder = arena.world.cluster.folder().to_owned();
    let rounds = rounds(plan, &mut arena, history).await;
    let logs = keep(&folder, plan.scene.seed);
    let rounds = rounds.map_err(|error| (error, logs.clone()))?;
    let memory_bytes = arena.memory.worst_bytes;
    let verdict = judge(arena).await.map_err(|error| (error, logs.clone()))?;
    // Nobody needs the logs of a run that held.
    drop(std::fs::remove_dir_all(logs));
    Ok(Done { rounds, history: std::mem::take(history), verdict, memory_bytes })
}

async fn rounds(plan: &Plan, arena: &mut Arena, history: &mut Vec<String>) -> Outcome<Vec<Round>> {
    let mut random = StdRng::seed_from_u64(plan.scene.seed);
    let begun = Instant::now();
    let (mut rounds, mut bag) = (Vec::new(), Vec::new());
    while begun.elapsed() < plan.length || rounds.len() < plan.kinds.len() {
        if bag.is_empty() {
            bag.clone_from(&plan.kinds);
            bag.shuffle(&mut random);
        }
        let kind = bag.pop().ok_or("there are no kinds of faults")?;
        let pause = Duration::from_millis(random.random_range(0..1500));
        sleep(pause).await;
        let mut fault = kind.draw(&mut random);
        let at = begun.elapsed().as_secs();
        let (round, line) = one(arena, kind, &mut *fault, history).await?;
        (plan.say)(&format!("{at:>5} s  {line}"));
        rounds.push(round);
    }
    Ok(rounds)
}

async fn one(
    arena: &mut Arena,
    kind: Kind,
    fault: &mut dyn super::Fault,
    history: &mut Vec<String>,
) -> Outcome<(Round, String)> {
    arena.set_may_rewind(fault.may_rewind());
    let gaps = arena.watch.cluster().gaps.len();
    history.push(format!("{kind} {}: begins", kind.what()));
    arena.begin_round();
    let text = fault.inject(arena).await?;
    if let Some(last) = history.last_mut() {
        *last = format!("{kind} {text}");
    }
    let lasts = Instant::now() + fault.lasts();
    while Instant::now() < lasts {
        arena.check()?;
        sleep(Duration::from_millis(200).min(lasts.duration_since(Instant::now()))).await;
    }
    fault.heal(arena).await?;
    let resumed = arena.flowing().await?;
    arena.whole().await?;
    let fresh = arena.fresh().await?;
    let proof = fault.proof(arena).await;
    let proof = proof.map_err(|why| format!("{kind} was not exercised: {why}"))?;
    table_has_all(arena)?;
    if !fault.may_rewind() && arena.watch.cluster().gaps.len() > gaps {
        return Err("a gap is recorded, and nothing was lost".into());
    }
    arena.set_may_rewind(false);
    let gaps = arena.gaps().into_values();
    let stalls_ms: Vec<_> = gaps.map(|gap| gap.as_secs_f64() * 1000.0).collect();
    let resumed_ms: Vec<_> = resumed.into_values().collect();
    let worst = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
    let line = format!(
        "{kind} {text}: stalled {:.0} ms at worst, {:.0} ms after its end; a fresh write in {} ms; \
         {proof}",
        worst(&stalls_ms),
        worst(&resumed_ms),
        fresh.as_millis()
    );
    if let Some(last) = history.last_mut() {
        last.clone_from(&line);
    }
    Ok((Round { kind, stalls_ms, resumed_ms }, line))
}

/// Copies the nodes' logs to where they outlive the cluster. Best effort: what was
/// found matters more than whether its logs could be kept.
fn keep(folder: &Path, seed: u64) -> PathBuf {
    let kept = std::env::temp_dir().join(format!("tidegate-faults-{seed}"));
    drop(std::fs::create_dir_all(&kept));
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().ends_with(".log") {
            drop(std::fs::copy(entry.path(), kept.join(name)));
        }
    }
    kept
}
