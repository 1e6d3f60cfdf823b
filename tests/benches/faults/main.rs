//! Faults drawn from a seed, done to a cluster of real processes under load: `make faults`.
//!
//! METHOD See `tidegate_tests::faults`. The program runs itself again in a network
//! of its own, so that its devices and addresses are in nobody's way.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tidegate_tests::Outcome;
use tidegate_tests::cluster::binaries;
use tidegate_tests::faults::{Kind, Plan, Run, Runs, Scene, Violation, run};
use tidegate_tests::world::{Extra, is_alone, run_alone};

/// Does to a cluster what can go wrong, and checks what comes out.
#[derive(Debug, Parser)]
struct Flags {
    /// All that is drawn follows from it; drawn itself by default
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// Faults begin for so long
    #[arg(long, env = "MINUTES", default_value_t = 5.0)]
    minutes: f64,
    /// Only these kinds, as F5,F9
    #[arg(long, env = "FAULTS", value_delimiter = ',')]
    faults: Vec<Kind>,
    /// Nodes of the cluster
    #[arg(long, env = "NODES", default_value_t = 3)]
    nodes: usize,
    /// Generated changes per second and shard
    #[arg(long, env = "RATE", default_value_t = 400)]
    rate: u32,
    /// Whether a table in DynamoDB is exported too
    #[arg(long, env = "TABLE", default_value_t = true, action = clap::ArgAction::Set)]
    table: bool,
    /// Folder of the binaries; beside this one by default
    #[arg(long, env = "TIDEGATE_BIN")]
    binaries: Option<PathBuf>,
    /// Folder of the binaries of another version; F26 rolls the nodes to it and back
    #[arg(long, env = "TIDEGATE_NEXT")]
    next: Option<PathBuf>,
    /// Where the table goes; what it is made of goes beside it, as JSON
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/bench/faults.md"))]
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
    match begin(flags) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("faults: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Says a line on the terminal.
#[expect(clippy::print_stdout, reason = "this is a program for a terminal")]
fn say(text: &str) {
    println!("{text}");
}

fn begin(flags: Flags) -> Outcome<ExitCode> {
    if !is_alone()? {
        let arguments: Vec<_> = std::env::args().skip(1).collect();
        let ended = run_alone(arguments.iter().map(String::as_str))?;
        return Ok(if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let seed = flags.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    say(&format!("SEED={seed}"));
    let mut all = flags.faults;
    if all.is_empty() {
        // Who wants all kinds need not have two versions.
        let comes = |kind: &Kind| *kind != Kind::F26 || flags.next.is_some();
        all.extend(Kind::ALL.into_iter().filter(comes));
    }
    let mut extras = Kind::need(&all);
    if flags.table {
        extras.parts.push(Extra::Table);
    }
    let plan = Plan {
        scene: Scene {
            seed,
            nodes: flags.nodes,
            rate: flags.rate,
            extras,
            binaries: flags.binaries.unwrap_or_else(binaries),
            next: flags.next,
        },
        length: Duration::from_secs_f64(flags.minutes * 60.0),
        kinds: all,
        say,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match runtime.block_on(run(&plan)) {
        Ok(done) => {
            let done = Run::new(&plan, done, &flags.measured);
            let page = Runs::add(done, &flags.into.with_extension("json"))?.page();
            say(&format!("\n{page}"));
            std::fs::write(&flags.into, page)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(violation) => {
            tell(seed, &violation);
            Ok(ExitCode::FAILURE)
        }
    }
}

fn tell(seed: u64, violation: &Violation) {
    say(&format!("\nVIOLATION with SEED={seed}: {}\n\nWhat came before:", violation.why));
    for line in &violation.history {
        say(&format!("  {line}"));
    }
    say(&format!("The nodes' logs are in {}", violation.logs.display()));
}
