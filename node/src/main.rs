//! `tidegated`: a node of a Tidegate cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tidegate_node::config::{NodeConfig, NodeFlags};
use tidegate_node::error::Result;
use tidegate_node::{dev, documents, node, telemetry};
use tokio::signal::unix::{SignalKind, signal};

/// A node of a Tidegate cluster: exports NoSQL stores, snapshot and changes.
///
/// Try it:      tidegated dev
/// First node:  tidegated run --bootstrap --data /var/lib/tidegate --name a
/// More nodes:  tidegated run --join HOST:7400 --data /var/lib/tidegate --name b
#[derive(Debug, Parser)]
#[command(name = "tidegated", version, verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Run(NodeFlags),
    /// Run a node, a cluster of itself, and a document store in one process
    Dev(DevFlags),
    /// Run a document store alone: a source to try things with
    Documents(DocumentsFlags),
}

#[derive(Debug, Args)]
struct DevFlags {
    /// Folder for everything
    #[arg(long, default_value = "tidegate-dev", env = "TIDEGATE_DATA")]
    data: PathBuf,
    /// Address of the gRPC endpoint, documents included
    #[arg(long, default_value = "127.0.0.1:7400", env = "TIDEGATE_LISTEN")]
    listen: SocketAddr,
    /// Address of /metrics, /livez and /readyz
    #[arg(long, default_value = "127.0.0.1:7500", env = "TIDEGATE_METRICS_LISTEN")]
    metrics_listen: SocketAddr,
}

#[derive(Debug, Args)]
struct DocumentsFlags {
    /// Folder of the store
    #[arg(long, default_value = "tidegate-documents")]
    data: PathBuf,
    /// Address of its gRPC endpoint
    #[arg(long, default_value = "127.0.0.1:7390")]
    listen: SocketAddr,
    /// Allow an address that is not loopback although nothing is encrypted
    #[arg(long)]
    insecure: bool,
}

fn main() -> ExitCode {
    telemetry::start_logging();
    // One TLS library for all clients, chosen once per process.
    drop(rustls::crypto::ring::default_provider().install_default());
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(cli.command)),
        Err(error) => {
            tracing::error!(error = %error, "start the runtime");
            return ExitCode::FAILURE;
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %error, "cannot go on");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Run(flags) => {
            let config = NodeConfig::load(flags)?;
            node::run(config, telemetry::start_metrics()?, None, stopped()).await
        }
        Command::Dev(flags) => {
            let metrics = telemetry::start_metrics()?;
            dev::run(flags.data, flags.listen, flags.metrics_listen, metrics, stopped()).await
        }
        Command::Documents(flags) => {
            documents::run(flags.data, flags.listen, flags.insecure, stopped()).await
        }
    }
}

/// Ends with the first SIGTERM or SIGINT.
async fn stopped() {
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
