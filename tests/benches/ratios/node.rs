//! Real nodes: processes of their own, asked over gRPC.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tidegate_proto::v1::admin_client::AdminClient;
use tidegate_proto::v1::{
    ApplyRequest, DeleteExportRequest, ListShardsRequest, Shard, StatusRequest, StatusResponse,
};
use tidegate_tests::cluster::binary;
use tidegate_tests::ports::free_address;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use crate::bench::Outcome;
use crate::machine;

/// How long anything may take before a row gives up on it.
const PATIENCE: Duration = Duration::from_secs(240);
/// As large as a node's own.
const WINDOW_BYTES: u32 = 8 << 20;
/// Bytes of an HTTP/2 frame: a batch goes in one, not in pieces of 16 KiB.
const FRAME_BYTES: u32 = 1 << 20;
/// 10,000 shards in one answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// How a node is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Start {
    /// `taskset`'s list of cores; all if empty.
    pub(crate) cores: &'static str,
    /// Address of a node to join; a cluster of its own without.
    pub(crate) join: Option<String>,
}

/// A node; dropping it kills it.
pub(crate) struct Node {
    pub(crate) address: String,
    process: Child,
    admin: AdminClient<Channel>,
    /// Its process id.
    pub(crate) pid: u32,
}

impl Node {
    /// Starts one and waits until it answers as part of a group with a leader.
    pub(crate) async fn start(folder: &Path, start: Start) -> Outcome<Self> {
        let address = free_address();
        let mut words: Vec<String> = Vec::new();
        if !start.cores.is_empty() {
            words.extend(["taskset", "-c", start.cores].map(str::to_owned));
        }
        words.push(binary("tidegated").to_string_lossy().into_owned());
        let data = folder.join("data");
        let log = std::fs::File::create(folder.join("node.log"))?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["run", "--listen", &address, "--name"]).arg(&address);
        command.args(["--metrics-listen", &free_address(), "--data"]).arg(&data);
        match &start.join {
            Some(join) => command.args(["--join", join]),
            None => command.arg("--bootstrap"),
        };
        // Nobody reads its output: a sink that writes there stands still.
        let process = command.stdout(Stdio::piped()).stderr(log).spawn()?;
        let admin = AdminClient::new(channel(&address)?)
            .max_decoding_message_size(ANSWER_BYTES_MAX)
            .max_encoding_message_size(ANSWER_BYTES_MAX);
        let mut node = Self { address, pid: process.id(), process, admin };
        let wanted = start.join.as_ref().map_or(1, |_| 2);
        let started = Instant::now();
        loop {
            if let Ok(status) = node.status().await
                && status.leader != 0
                && status.nodes.len() >= wanted
                && status.nodes.iter().all(|it| it.state == 2)
            {
                break;
            }
            if started.elapsed() > PATIENCE {
                return Err(format!("a node did not come up; see {}", folder.display()).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(node)
    }

    /// What the node says of itself.
    pub(crate) async fn status(&mut self) -> Outcome<StatusResponse> {
        Ok(self.admin.status(StatusRequest {}).await?.into_inner())
    }

    /// Declares an export, or changes it.
    pub(crate) async fn apply(&mut self, spec: &str) -> Outcome<()> {
        let request = ApplyRequest { spec: spec.to_owned(), ..ApplyRequest::default() };
        self.admin.apply(request).await?;
        Ok(())
    }

    /// Deletes an export.
    pub(crate) async fn delete(&mut self, export: &str) -> Outcome<()> {
        self.admin.delete_export(DeleteExportRequest { name: export.to_owned() }).await?;
        Ok(())
    }

    /// The shards of an export; of all if it has no name.
    pub(crate) async fn shards(&mut self, export: &str) -> Outcome<Vec<Shard>> {
        let request = ListShardsRequest { export: export.to_owned() };
        Ok(self.admin.list_shards(request).await?.into_inner().shards)
    }

    /// Asks for the shards again and again until `done` says so.
    pub(crate) async fn until(
        &mut self,
        export: &str,
        every: Duration,
        done: impl Fn(&[Shard]) -> bool,
    ) -> Outcome<()> {
        let started = Instant::now();
        loop {
            if done(&self.shards(export).await?) {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                return Err(format!("{export} did not come as far as it should").into());
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Seconds of processor time used so far.
    pub(crate) fn cpu(&self) -> Outcome<f64> {
        machine::cpu_seconds(self.pid)
    }

    /// A line of its `/proc/PID/status`, in bytes.
    pub(crate) fn memory(&self, what: &str) -> Outcome<f64> {
        machine::memory(self.pid, what)
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(mut self) -> Outcome<()> {
        signal(self.pid, "TERM")?;
        let until = Instant::now() + Duration::from_secs(30);
        while self.process.try_wait()?.is_none() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u32, name: &str) -> Outcome<()> {
    Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status()?;
    Ok(())
}

/// A connection with windows that do not limit it; made at its first use.
pub(crate) fn channel(address: &str) -> Outcome<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(2 * WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES);
    Ok(endpoint.connect_lazy())
}

/// An export of generated changes; `more` is put behind its tables.
pub(crate) fn generated(name: &str, source: &str, more: &str) -> String {
    format!("name = \"{name}\"\n[source]\nkind = \"datagen\"\n{source}\n{more}\n")
}

/// Changes captured over all of `shards`.
pub(crate) fn captured(shards: &[Shard]) -> u64 {
    shards.iter().filter_map(|shard| Some(shard.captured.as_ref()?.sequence)).sum()
}

/// Changes delivered to `sink` over all of `shards`.
pub(crate) fn delivered(shards: &[Shard], sink: &str) -> u64 {
    shards.iter().filter_map(|shard| Some(shard.delivered.get(sink)?.sequence)).sum()
}
