//! Where a process runs and how it is begun.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::ports::free_address;

/// The place of one process: on loopback, or in a world of its own.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// `host:port` of its gRPC endpoint.
    pub address: String,
    /// `host:port` of a node's metrics.
    pub metrics: String,
    /// Words before the program's own: what puts it into another network.
    pub prefix: Vec<String>,
    /// Set in its environment.
    pub environment: Vec<(String, OsString)>,
    /// Flags behind the program's own, as `--insecure`.
    pub flags: Vec<String>,
    /// The folder of its binaries; that of the cluster if none is said.
    pub binaries: Option<PathBuf>,
    /// Where a node keeps its data; in the cluster's folder if none is said.
    pub data: Option<PathBuf>,
}

impl Place {
    /// On loopback, at ports nobody listens on right now.
    #[must_use]
    pub fn on_loopback() -> Self {
        Self { address: free_address(), metrics: free_address(), ..Self::default() }
    }

    /// A command that runs `program` here.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut words = self.prefix.iter().map(OsString::from).collect::<Vec<_>>();
        words.push(program.into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.kill_on_drop(true);
        command
    }
}
