//! A Redis under many writes of every type while all goes wrong: `make bench-redis`.
//!
//! METHOD Three real nodes on loopback read a real Redis into a lake. Its rate is taken
//! alone and while it is read; then the reader's node is killed, the link is cut, a replica
//! takes over, nothing is read for longer than the backlog lasts, and Redis starts with
//! older data. In the end the lake is compared with Redis: keys, types, values, ends. Who
//! fails that has no number.

mod load;
mod report;
mod steps;
mod way;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tidegate_tests::cluster::{Cluster, binaries};
use tidegate_tests::redis_data::{compare, held};
use tidegate_tests::{Outcome, lake};
use tokio::time::{Instant, sleep};

use crate::load::{Commands, Load};
use crate::report::{End, Rates, page};
use crate::steps::{EXPORT, Stage, server};
use crate::way::Way;

/// Load without anything else, after each thing done.
const BETWEEN: Duration = Duration::from_secs(5);
/// How long the rate is taken, alone and while Redis is read.
const WHILE: Duration = Duration::from_secs(10);

/// Measures a Redis under many writes while all goes wrong.
#[derive(Debug, Parser)]
struct Flags {
    /// Commands a second
    #[arg(long, env = "RATE", default_value_t = 100_000)]
    rate: u32,
    /// Keys of each type
    #[arg(long, env = "KEYS", default_value_t = 10_000)]
    keys: u32,
    /// What the commands are drawn from
    #[arg(long, env = "SEED", default_value_t = 1)]
    seed: u64,
    /// Folder of the binaries; beside this one by default
    #[arg(long, env = "TIDEGATE_BIN")]
    binaries: Option<PathBuf>,
    /// The page that is written
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/bench/redis.md"))]
    into: PathBuf,
    /// Date and commit, for the page
    #[arg(long, default_value = "")]
    measured: String,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Says a line on the terminal.
#[expect(clippy::print_stdout, reason = "this is a program for a terminal")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Flags::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: Flags) -> Outcome<()> {
    let commands = Commands::new(flags.seed, flags.keys);
    let logs = tempfile::tempdir()?;
    let server = server(&logs, "primary").await;
    let load = Load::start(server.port(), flags.rate, commands.clone()).await?;
    let alone = rate(&load).await;
    say(&format!("alone, Redis takes {alone:.0} commands a second"));
    let way = Way::to(server.port()).await?;
    let folder = flags.binaries.unwrap_or_else(binaries);
    let cluster = Cluster::start_from(&folder, 3).await;
    let (rate, lines) = (flags.rate, Vec::new());
    let mut stage = Stage { cluster, server, way, rate, commands, load, sent: 0, lines, logs };
    let rates = read(&mut stage, alone).await?;
    stage.kill_owner().await?;
    sleep(BETWEEN).await;
    stage.cut_link().await?;
    sleep(BETWEEN).await;
    stage.fail_over().await?;
    sleep(BETWEEN).await;
    stage.outlast_backlog().await?;
    sleep(BETWEEN).await;
    stage.lose_writes().await?;
    sleep(BETWEEN).await;
    let end = settle(stage).await?;
    let page = page((&flags.measured, flags.rate, flags.keys), &rates, &end);
    say(&page);
    std::fs::write(&flags.into, page)?;
    Ok(())
}

/// Commands a second, over some time.
async fn rate(load: &Load) -> f64 {
    let (before, begun) = (load.sent(), Instant::now());
    sleep(WHILE).await;
    let count = (load.sent() - before) as f64;
    count / begun.elapsed().as_secs_f64()
}

/// Begins the export while commands come in.
async fn read(stage: &mut Stage, alone: f64) -> Outcome<Rates> {
    let root = stage.cluster.folder().join("lake");
    stage.cluster.apply(&format!(
        "name = \"{EXPORT}\"\n\
         [source]\nkind = \"redis\"\nendpoint = \"redis://127.0.0.1:{}\"\n\
         [[sink]]\nkind = \"lake\"\npath = \"{}\"\ndelay-ms = 1000\n",
        stage.way.port(),
        root.display()
    ));
    let streams = |it: &Stage| {
        let shards = it.cluster.shards(EXPORT);
        shards.first().is_some_and(|shard| shard["state"] == "streaming")
    };
    stage.until("the stream is read", streams).await?;
    let (before, begun) = (stage.captured(), Instant::now());
    let reading = rate(&stage.load).await;
    let captured = (stage.captured() - before) as f64 / begun.elapsed().as_secs_f64();
    say(&format!("read, it takes {reading:.0}; {captured:.0} changes a second are captured"));
    Ok(Rates { alone, reading, captured })
}

/// No more is written; the lake has what Redis has.
async fn settle(mut stage: Stage) -> Outcome<End> {
    stage.load.stop();
    let mut client = stage.client().await;
    sleep(Duration::from_millis(500)).await;
    client.say("SET last 1").await;
    let begun = Instant::now();
    let (mut captured, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_secs(5)
        || stage.cluster.delivered(EXPORT, "lake") < captured
    {
        let now = stage.captured();
        if now > captured {
            (captured, since) = (now, Instant::now());
        }
        if begun.elapsed() > Duration::from_secs(900) {
            return Err("the lake does not catch up".into());
        }
        sleep(Duration::from_millis(200)).await;
    }
    let behind = begun.elapsed().saturating_sub(Duration::from_secs(5));
    let expected = held(&mut client).await;
    let found = lake::latest(&stage.cluster.folder().join("lake"), EXPORT);
    compare(&expected, &found);
    let gaps = stage.cluster.gaps(EXPORT);
    let gaps = gaps.iter().map(|gap| format!("{}: {}", gap["kind"], gap["repair"])).collect();
    let commands = stage.sent + stage.load.sent();
    let lines = std::mem::take(&mut stage.lines);
    let (keys, overflows) = (expected.len(), stage.overflows()?);
    Ok(End { commands, changes: captured, keys, behind, gaps, overflows, lines })
}
