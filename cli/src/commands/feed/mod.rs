//! `tidegate feed`.

mod matches;
mod subscription;
mod tail;
mod token;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::args::Common;
use crate::failure::Result;

#[derive(Debug, Subcommand)]
pub(crate) enum FeedCommand {
    /// Print an export's changes as they come, one a line
    #[command(after_help = "Examples:
  tidegate feed tail orders                           # what comes from now on
  tidegate feed tail orders --from earliest --until-now > all.jsonl
  tidegate feed tail orders --collection items --op delete --format compact
  tidegate feed tail orders --token-file place.txt    # goes on where it ended

A lost connection is resumed where it broke, at another endpoint if need be. The
token on standard error at the end names the place; hand it to --from. With
--token-file a line may come twice after a kill, and none is left out.")]
    Tail(TailArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TailArgs {
    /// Name of the export
    export: String,
    /// Where to begin: earliest, latest or a token [default: latest; with
    /// --until-now: earliest]. A token file that is there wins
    #[arg(long, value_name = "PLACE")]
    from: Option<token::Place>,
    /// Only these shards, by name
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    shard: Vec<String>,
    /// Only these collections
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    collection: Vec<String>,
    /// Only these operations
    #[arg(long, value_enum, value_delimiter = ',')]
    op: Vec<Op>,
    /// How to print a change
    #[arg(long, value_enum, default_value_t = LineFormat::Json)]
    format: LineFormat,
    /// End when all that was there at the start is printed
    #[arg(long)]
    until_now: bool,
    /// Keep the place in this file, and begin there next time
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Op {
    Insert,
    Update,
    Delete,
    /// A row of the snapshot
    Snapshot,
    /// The source cannot tell an insert from an update
    Upsert,
    /// History was lost here; shown whatever else is asked for
    Gap,
}

/// How a change is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LineFormat {
    /// As the server gives it: one JSON object a line
    Json,
    /// For people: sequence, operation, collection, key, document
    Compact,
}

/// Does what was asked about feeds.
pub(crate) async fn run(command: FeedCommand, common: &Common) -> Result<()> {
    let FeedCommand::Tail(args) = command;
    tail::run(args, common).await
}
