//! The command line.

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    apply, docs, doctor, export, feed, gap, node, position, shard, snapshot, status,
};
use crate::failure::EXIT_CODES;
use crate::output::Format;

/// The node asked when none is named.
const ENDPOINT: &str = "http://127.0.0.1:7400";
/// The stores asked when none is named: `tidegated documents`, `tidegated dev`.
const DOCUMENTS: [&str; 2] = ["http://127.0.0.1:7390", ENDPOINT];

/// Looks after a Tidegate cluster: exports, shards, snapshots and feeds
///
/// Any node answers. Tables are for people; scripts say `--output json`.
///
/// Begin with:
///   tidegate status
///   tidegate apply -f orders.toml
///   tidegate feed tail orders --from earliest
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, verbatim_doc_comment, after_help = EXIT_CODES)]
#[command(arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Node to ask, repeated or comma-separated: the next is tried when one does
    /// not answer [default: http://127.0.0.1:7400; docs: port 7390, then 7400]
    #[arg(long, global = true, env = "TIDEGATE_ENDPOINT", value_delimiter = ',')]
    #[arg(value_name = "URL")]
    endpoint: Vec<String>,
    /// How to show what was found
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// Do not ask before changing or removing something
    #[arg(long, short, global = true)]
    pub(crate) yes: bool,
}

impl Common {
    /// The nodes to ask, in this order.
    pub(crate) fn nodes(&self) -> Vec<String> {
        self.given().unwrap_or_else(|| vec![ENDPOINT.to_owned()])
    }

    /// The document stores to ask, in this order.
    pub(crate) fn stores(&self) -> Vec<String> {
        self.given().unwrap_or_else(|| DOCUMENTS.map(str::to_owned).to_vec())
    }

    fn given(&self) -> Option<Vec<String>> {
        (!self.endpoint.is_empty()).then(|| self.endpoint.clone())
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the cluster at a glance
    #[command(after_help = status::EXAMPLE)]
    Status(status::StatusArgs),
    /// Check an export file and show what applying it would change
    #[command(after_help = apply::PLAN_EXAMPLE)]
    Plan(apply::FileArgs),
    /// Create or change an export as a file says
    #[command(after_help = apply::APPLY_EXAMPLE)]
    Apply(apply::ApplyArgs),
    /// Exports: declared jobs, each one source and its sinks
    #[command(subcommand)]
    Export(export::ExportCommand),
    /// Shards: the parts of a source, and who works on them
    #[command(subcommand)]
    Shard(shard::ShardCommand),
    /// Nodes of the cluster
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Snapshots: the first state of a source
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Feeds: an export's changes, as they come
    #[command(subcommand)]
    Feed(feed::FeedCommand),
    /// Gaps: recorded losses at a source, and how they were mended
    #[command(subcommand)]
    Gap(gap::GapCommand),
    /// Positions: where shards are in their source
    #[command(subcommand)]
    Position(position::PositionCommand),
    /// The embedded document store: a source to try things with
    #[command(subcommand)]
    Docs(docs::DocsCommand),
    /// Test what a node and its exports depend on
    #[command(after_help = doctor::EXAMPLE)]
    Doctor(doctor::DoctorArgs),
    /// Print completions for a shell
    #[command(
        after_help = "Example:\n  tidegate completions bash > /etc/bash_completion.d/tidegate"
    )]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn nodes(line: &[&str]) -> Vec<String> {
        Cli::try_parse_from(line).unwrap().common.nodes()
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn endpoints_are_repeated_or_separated_by_commas() {
        let both = nodes(&["tidegate", "--endpoint", "a,b", "node", "list", "--endpoint", "c"]);
        assert!(both == ["c"] || both == ["a", "b", "c"], "{both:?}");
        assert_eq!(nodes(&["tidegate", "status", "--endpoint", "a,b"]), ["a", "b"]);
        assert_eq!(
            nodes(&["tidegate", "--endpoint", "a", "--endpoint", "b", "status"]),
            ["a", "b"]
        );
    }

    #[test]
    fn every_leaf_teaches_with_an_example() {
        fn leaves(command: &clap::Command, path: &str) -> Vec<(String, bool)> {
            let path = format!("{path} {}", command.get_name());
            if command.has_subcommands() {
                return command.get_subcommands().flat_map(|it| leaves(it, &path)).collect();
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            vec![(path, help.contains("Example"))]
        }
        for (path, teaches) in leaves(&Cli::command(), "") {
            assert!(teaches, "{path} --help shows no example");
        }
    }
}
