//! Ratios of Tidegate to the bare parts it is made of: `make bench`.
//!
//! METHOD Both sides of a ratio run in turn, seven rounds, in one process run;
//! what counts is the median of the rounds' ratios. Every throughput run ends
//! with a check of what came out, and one that fails it has no number.

mod bare;
mod bench;
mod etcd;
mod log;
mod machine;
mod node;
mod report;
mod rows;
mod stock;
mod subscriber;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::bench::{Bench, Outcome};
use crate::report::Report;

/// All rows, in the order in which they run.
const ROWS: [&str; 13] =
    ["SPOOL", "P1", "P2", "P3", "P5", "P6", "P7", "P8", "P9", "P10", "P11", "P12", "COST"];

/// Measures Tidegate against the bare parts it is made of.
#[derive(Debug, Parser)]
struct Flags {
    /// Which rows, as P3,P5; all by default
    #[arg(long, env = "ROWS", value_delimiter = ',')]
    rows: Vec<String>,
    /// Rounds of each ratio
    #[arg(long, env = "ROUNDS", default_value_t = 7)]
    rounds: usize,
    /// Seconds each row waits for a load below 0.5
    #[arg(long, env = "PATIENCE", default_value_t = 60)]
    patience: u64,
    /// Folder of latest.md and latest.json
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/bench"))]
    into: PathBuf,
    /// Commit and date, for the table
    #[arg(long, default_value = "")]
    measured: String,
    /// Serve as the other side of a feed: tcp or grpc
    #[arg(long, hide = true)]
    serve: Option<String>,
    /// Subscribe to the backlog of the node at this address, for ever
    #[arg(long, hide = true)]
    subscribe: Option<String>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let run = || -> Outcome<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            match (&flags.serve, &flags.subscribe) {
                (Some(kind), _) => bare::serve(kind).await,
                (None, Some(address)) => rows::fanout::subscribe(address).await,
                (None, None) => measure(flags).await,
            }
        })
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_error(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "this is a program for a terminal")]
fn say_error(error: &str) {
    eprintln!("bench: {error}");
}

async fn measure(flags: Flags) -> Outcome<()> {
    let wanted: Vec<String> = flags.rows.iter().filter(|row| !row.is_empty()).cloned().collect();
    if let Some(unknown) = wanted.iter().find(|row| !ROWS.contains(&row.as_str())) {
        return Err(format!("there is no row {unknown}; there are {}", ROWS.join(", ")).into());
    }
    let report = Report::open(flags.into, machine::describe()?, flags.measured)?;
    let patience = Duration::from_secs(flags.patience);
    let mut bench = Bench::new(flags.rounds, patience, report)?;
    let mut failed = Vec::new();
    for row in ROWS {
        if !wanted.is_empty() && !wanted.iter().any(|it| it == row) {
            continue;
        }
        bench.begin(row).await?;
        // A row that fails has no number; the others do.
        if let Err(error) = run(row, &mut bench).await {
            say_error(&format!("{row}: {error}"));
            failed.push(row);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!("no number for {}", failed.join(", ")).into())
}

async fn run(row: &str, bench: &mut Bench) -> Outcome<()> {
    match row {
        "SPOOL" => rows::spool::run(bench).await,
        "P1" => rows::redis::catch_up(bench).await,
        "P2" => {
            rows::redis::attached(bench).await?;
            rows::lag::run(bench).await
        }
        "P3" => rows::lake::run(bench).await,
        "P5" => rows::feed::run(bench).await,
        "P6" => rows::fanout::run(bench).await,
        "P7" => rows::checkpoints::throughput(bench).await,
        "P8" => rows::checkpoints::latency(bench).await,
        "P9" => rows::shards::run(bench).await,
        "P10" => rows::size::run(bench).await,
        "P11" => rows::memory::run(bench).await,
        "P12" => rows::postgres::run(bench).await,
        "COST" => rows::cost::run(bench).await,
        other => Err(format!("there is no row {other}").into()),
    }
}
