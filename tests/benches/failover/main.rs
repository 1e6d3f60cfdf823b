//! What a subscriber sees of killed and frozen nodes, and of moves: `make bench-failover`.
//!
//! METHOD Three real nodes on loopback, six generated shards, one subscriber of
//! all of them with a clock of its own. Each phase has its own cluster and ends
//! with a check of all that came; one that fails it has no number.

mod faults;
mod load;
mod moves;
mod report;
mod rig;
mod states;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
pub(crate) use tidegate_tests::Outcome;
use tidegate_tests::cluster::binaries;
use tidegate_tests::figures::Figures;

use crate::faults::{Fault, Gap};
use crate::load::Load;
use crate::report::{Line, Report};
use crate::rig::Rig;

/// How long it is measured what the machine carries.
const CALIBRATION: Duration = Duration::from_secs(5);
/// Changes per second while shards move.
const MOVES_LOAD: u32 = 20_000;

/// Measures what a subscriber sees of killed and frozen nodes, and of moves.
#[derive(Debug, Parser)]
struct Flags {
    /// Nodes to kill, in turn
    #[arg(long, env = "KILLS", default_value_t = 50)]
    kills: usize,
    /// Nodes to freeze for ten seconds, in turn
    #[arg(long, env = "FREEZES", default_value_t = 10)]
    freezes: usize,
    /// Shards to move, in turn
    #[arg(long, env = "MOVES", default_value_t = 200)]
    moves: usize,
    /// Changes per second while nodes fail; half of what the machine carries by default
    #[arg(long, env = "LOAD")]
    load: Option<u32>,
    /// Folder of the binaries; beside this one by default
    #[arg(long, env = "TIDEGATE_BIN")]
    binaries: Option<PathBuf>,
    /// Folder of failover.md, latest.md and latest.json
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/bench"))]
    into: PathBuf,
    /// Date and commit, for the table
    #[arg(long, default_value = "")]
    measured: String,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let run = || -> Outcome<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(measure(flags))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench-failover: no number: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Says a line on the terminal.
#[expect(clippy::print_stdout, reason = "this is a program for a terminal")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

async fn measure(flags: Flags) -> Outcome<()> {
    let binaries = flags.binaries.unwrap_or_else(binaries);
    let mut report = Report::new(flags.into, flags.measured);
    if flags.kills + flags.freezes > 0 {
        let load = match flags.load {
            Some(load) => load,
            None => calibrate(&binaries).await? / 2,
        };
        report.tell(&format!("Nodes fail under {load} changes a second."));
        kills(&binaries, load, flags.kills, &mut report).await?;
        freezes(&binaries, load, flags.freezes, &mut report).await?;
    }
    moves(&binaries, flags.moves, &mut report).await
}

/// Changes per second that come through when nothing holds the source back.
async fn calibrate(binaries: &Path) -> Outcome<u32> {
    let rig = Rig::start(binaries, Load::of(0)).await?;
    let sum = || rig.subscriber.sequences().values().sum::<u64>();
    let before = sum();
    tokio::time::sleep(CALIBRATION).await;
    let carried = (sum() - before) / CALIBRATION.as_secs();
    say(&format!("the machine carries {carried} changes a second"));
    rig.verify().await?;
    Ok(u32::try_from(carried)?)
}

async fn kills(binaries: &Path, load: u32, rounds: usize, report: &mut Report) -> Outcome<()> {
    if rounds == 0 {
        return Ok(());
    }
    report.tell(&format!("## {rounds} kills"));
    let (gaps, note) = fail(binaries, load, Fault::Kill, rounds).await?;
    let owned = told_apart(&gaps, report);
    let note = format!("shards of the killed node in {rounds} kills, {note}; {}", owned.line());
    for (id, what, percent, goal) in [
        ("P14.kill-p50", "gap of a shard whose node is killed, median, ms", 50, 500.0),
        ("P14.kill-p99", "gap of a shard whose node is killed, p99, ms", 99, 1500.0),
    ] {
        let value = owned.percentile(percent).ok_or("no killed node had a shard")?;
        report.add(&Line { id, what, value, goal, note: note.clone() }, &owned)?;
    }
    Ok(())
}

async fn freezes(binaries: &Path, load: u32, rounds: usize, report: &mut Report) -> Outcome<()> {
    if rounds == 0 {
        return Ok(());
    }
    report.tell(&format!("## {rounds} freezes of ten seconds"));
    let (gaps, note) = fail(binaries, load, Fault::Freeze, rounds).await?;
    told_apart(&gaps, report);
    let all = Figures::of(gaps.iter().map(|gap| gap.ms));
    let value = all.worst().ok_or("nothing was frozen")?;
    let note = format!("all shards in {rounds} freezes, {note}; {}", all.line());
    let (id, what) = ("P14.freeze-worst", "gap of any shard when a node freezes, worst, ms");
    report.add(&Line { id, what, value, goal: 3000.0, note }, &all)
}

async fn fail(
    binaries: &Path,
    load: u32,
    fault: Fault,
    rounds: usize,
) -> Outcome<(Vec<Gap>, String)> {
    let mut rig = Rig::start(binaries, Load::of(load)).await?;
    let gaps = faults::run(&mut rig, fault, rounds).await?;
    let changes = rig.verify().await?;
    Ok((gaps, format!("{changes} changes checked at {load} a second")))
}

/// Says the gaps of each kind; returns those of shards whose node failed.
fn told_apart(gaps: &[Gap], report: &mut Report) -> Figures {
    let of = |which: fn(&&Gap) -> bool| Figures::of(gaps.iter().filter(which).map(|gap| gap.ms));
    let owned = of(|gap| gap.owned);
    report.figures("Shards of the node that failed", &owned);
    report.figures("Other shards", &of(|gap| !gap.owned));
    report.figures("All shards, when it was the leader", &of(|gap| gap.leader));
    report.figures("All shards, when it served the subscriber", &of(|gap| gap.served));
    owned
}

async fn moves(binaries: &Path, count: usize, report: &mut Report) -> Outcome<()> {
    if count == 0 {
        return Ok(());
    }
    report.tell(&format!("## {count} moves under {MOVES_LOAD} changes a second"));
    let rig = Rig::start(binaries, Load::of(MOVES_LOAD)).await?;
    let moved = moves::run(&rig, count).await?;
    let changes = rig.verify().await?;
    let stalls = Figures::of(moved.stalls);
    report.figures("Stall of the shard that moves", &stalls);
    for (step, times) in moved.steps {
        report.tell(&format!("- until \"{step}\": {}", Figures::of(times).line()));
    }
    let value = stalls.percentile(50).ok_or("nothing was moved")?;
    let note = format!("{changes} changes checked; {}", stalls.line());
    let (id, what) =
        ("P14.move-p50", "stall of a shard that moves, above its usual gap, median, ms");
    report.add(&Line { id, what, value, goal: 100.0, note }, &stalls)
}
