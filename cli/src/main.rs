//! `tidegate`: what an operator does with a cluster, from a terminal.
//!
//! A command asks the cluster ([`connect`]), turns the answer into a [`views`]
//! document, and shows it ([`output`]): as a [`table`] for people, as JSON for
//! scripts. What goes wrong is a [`failure`], which also is the exit code.

mod args;
mod cluster;
mod commands;
mod connect;
mod failure;
mod hex;
mod human;
mod output;
mod positions;
mod progress;
mod table;
mod time;
mod views;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;
use crate::failure::{Failure, Result};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure);
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("start the runtime: {error}")))?;
    let outcome = runtime.block_on(commands::run(cli));
    // A thread may still wait for standard input; nobody waits for it.
    runtime.shutdown_background();
    outcome
}
