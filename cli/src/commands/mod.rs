//! What can be done: a file per noun.

pub(crate) mod apply;
pub(crate) mod docs;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod feed;
pub(crate) mod gap;
pub(crate) mod node;
pub(crate) mod position;
pub(crate) mod rebalance;
mod receipt;
pub(crate) mod shard;
pub(crate) mod snapshot;
pub(crate) mod status;

use clap::CommandFactory as _;

use crate::args::{Cli, Command};
use crate::cluster::Cluster;
use crate::failure::{Failure, Result};

/// Does what the command line says.
pub(crate) async fn run(cli: Cli) -> Result<()> {
    let Cli { common, command } = cli;
    let cluster = Cluster::new(&common.nodes());
    match command {
        Command::Status(args) => status::run(&args, cluster?, common.output).await,
        Command::Plan(args) => apply::plan(&args, cluster?, common.output).await,
        Command::Apply(args) => apply::apply(&args, cluster?, &common).await,
        Command::Export(command) => export::run(command, cluster?, &common).await,
        Command::Shard(command) => shard::run(command, cluster?, common.output).await,
        Command::Node(command) => node::run(command, cluster?, &common).await,
        Command::Snapshot(command) => snapshot::run(command, cluster?, &common).await,
        Command::Feed(command) => feed::run(command, &common).await,
        Command::Gap(command) => gap::run(command, cluster?, common.output).await,
        Command::Position(command) => position::run(command, cluster?, &common).await,
        Command::Docs(command) => docs::run(command, &common).await,
        Command::Doctor(args) => doctor::run(&args, cluster?, common.output).await,
        Command::Completions { shell } => completions(shell),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut script);
    let script = String::from_utf8(script)
        .map_err(|error| Failure::failed(format!("write completions: {error}")))?;
    crate::output::line(script.trim_end())
}
