//! A cluster of real processes, each in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::Outcome;
use crate::place::Place;

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(90);
/// The node file of all nodes, in the cluster's folder.
const SETTINGS: &str = "node.toml";

/// Waits until no other test of this binary runs a cluster: two cores are
/// enough for one.
pub async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// Three nodes. Dropping it ends them.
#[derive(Debug)]
pub struct Cluster {
    folder: tempfile::TempDir,
    /// Where the binaries lie.
    binaries: PathBuf,
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    name: String,
    place: Place,
    process: Option<Child>,
}

impl Cluster {
    /// Starts `size` nodes and waits until the cluster counts all of them as up.
    ///
    /// # Panics
    ///
    /// If the binaries are not built, or the nodes do not come up.
    pub async fn start(size: usize) -> Self {
        Self::start_in(&std::env::temp_dir(), size, "").await
    }

    /// Starts nodes that keep everything below `parent`, each with `settings`:
    /// the text of a node file.
    ///
    /// # Panics
    ///
    /// As [`Cluster::start`].
    pub async fn start_in(parent: &Path, size: usize, settings: &str) -> Self {
        let folder = tempfile::tempdir_in(parent).expect("a temporary folder");
        std::fs::write(folder.path().join(SETTINGS), settings).expect("a file");
        Self::launch(folder, binaries(), on_loopback(size)).await
    }

    /// As [`Cluster::start`], with the binaries that lie in a folder.
    ///
    /// # Panics
    ///
    /// If they do not lie there, or the nodes do not come up.
    pub async fn start_from(binaries: &Path, size: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join(SETTINGS), "").expect("a file");
        Self::launch(folder, binaries.to_owned(), on_loopback(size)).await
    }

    /// As [`Cluster::start_from`], each node at a place of its own, with `settings`.
    ///
    /// # Panics
    ///
    /// As [`Cluster::start_from`].
    pub async fn start_at(binaries: &Path, places: Vec<Place>, settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join(SETTINGS), settings).expect("a file");
        Self::launch(folder, binaries.to_owned(), places).await
    }

    async fn launch(folder: tempfile::TempDir, binaries: PathBuf, places: Vec<Place>) -> Self {
        let size = places.len();
        let nodes = places.into_iter().enumerate().map(|(number, place)| Node {
            name: format!("node{number}"),
            place,
            process: None,
        });
        let mut cluster = Self { nodes: nodes.collect(), folder, binaries };
        for number in 0..size {
            cluster.start_node(number);
            cluster.until("the node answers", |it| it.up() > number).await;
        }
        cluster
    }

    /// Starts a node, for the first time or again, under the name it has.
    ///
    /// # Panics
    ///
    /// If the binary is not built.
    pub fn start_node(&mut self, number: usize) {
        let name = self.nodes[number].name.clone();
        self.start_as(number, &name);
    }

    /// Starts a node under a name of its own, as one that enters anew must have.
    ///
    /// # Panics
    ///
    /// If the binary is not built.
    pub fn start_as(&mut self, number: usize, name: &str) {
        let first = self.nodes[0].place.address.clone();
        let data = self.data(number);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("node{number}.log")))
            .expect("a log file");
        let node = &mut self.nodes[number];
        name.clone_into(&mut node.name);
        let place = &node.place;
        let binaries = place.binaries.as_ref().unwrap_or(&self.binaries);
        let mut command = place.command(&binaries.join("tidegated"));
        command.args(["run", "--name", name, "--listen", &place.address, "--config"]);
        command.arg(self.folder.path().join(SETTINGS));
        command.args(["--metrics-listen", &place.metrics, "--data"]).arg(data);
        command.args(&place.flags);
        if number == 0 {
            command.arg("--bootstrap");
        } else {
            command.args(["--join", &first]);
        }
        let process = command.stdout(Stdio::null()).stderr(log).spawn();
        node.process = Some(process.expect("tidegated is built: cargo build --workspace --bins"));
    }

    /// Ends a node with SIGKILL.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub async fn kill(&mut self, number: usize) {
        let mut process = self.nodes[number].process.take().expect("the node runs");
        process.kill().await.expect("the node is ended");
    }

    /// Waits until a node has ended by itself.
    ///
    /// # Panics
    ///
    /// If it does not, or does not run.
    pub async fn ended(&mut self, number: usize) -> ExitStatus {
        let mut process = self.nodes[number].process.take().expect("the node runs");
        let ended = tokio::time::timeout(PATIENCE, process.wait()).await;
        ended.expect("the node ends by itself").expect("its status is known")
    }

    /// The data folder of a node.
    #[must_use]
    pub fn data(&self, number: usize) -> PathBuf {
        let own = self.folder.path().join(format!("node{number}"));
        self.nodes[number].place.data.clone().unwrap_or(own)
    }

    /// Where and how a node is started the next time.
    pub fn place(&mut self, number: usize) -> &mut Place {
        &mut self.nodes[number].place
    }

    /// What a node is called: `node<number>`, unless it was started as another.
    #[must_use]
    pub fn name(&self, number: usize) -> &str {
        &self.nodes[number].name
    }

    /// The folder of the binaries it runs.
    #[must_use]
    pub fn binaries(&self) -> &Path {
        &self.binaries
    }

    /// The process id of a node; `None` if it was not started or was killed.
    #[must_use]
    pub fn process(&self, number: usize) -> Option<u32> {
        self.nodes[number].process.as_ref().and_then(Child::id)
    }

    /// How a node has ended by itself; `None` while it runs.
    pub fn has_ended(&mut self, number: usize) -> Option<ExitStatus> {
        self.nodes[number].process.as_mut()?.try_wait().ok()?
    }

    /// All that a node has logged; the starts before this one included.
    #[must_use]
    pub fn log(&self, number: usize) -> String {
        let path = self.folder.path().join(format!("node{number}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// Sends a node's process a signal: STOP freezes it, CONT thaws it.
    ///
    /// # Panics
    ///
    /// If it does not run.
    pub fn signal(&self, number: usize, name: &str) {
        let process = self.nodes[number].process.as_ref().and_then(Child::id);
        let id = process.expect("the node runs").to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.expect("kill is there").success(), "no signal for node{number}");
    }

    /// What a node answers to `GET path` at its metrics port, with its head.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub async fn page(&self, number: usize, path: &str) -> Outcome<String> {
        let mut connection = TcpStream::connect(&self.nodes[number].place.metrics).await?;
        connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut text = String::new();
        connection.read_to_string(&mut text).await?;
        Ok(text)
    }

    /// Where each node listens.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.place.address.clone()).collect()
    }

    /// The folder of the cluster, for files of the test.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs the CLI against any node.
    ///
    /// # Panics
    ///
    /// If the binary is not built.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> Output {
        cli_of(&self.binaries, &self.endpoints(), arguments, Stdio::null())
    }

    /// As [`Cluster::cli`], its answer as JSON; null if it failed.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_slice(&self.cli(arguments).stdout).unwrap_or_default()
    }

    /// Writes `spec` to a file and applies it, whatever its checks say.
    ///
    /// # Panics
    ///
    /// If it is refused; says why.
    pub fn apply(&self, spec: &str) {
        let output = self.try_apply(spec, &["--yes", "--force"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Follows an export's feed into a file of JSON lines, from the oldest on,
    /// until the process is dropped.
    ///
    /// # Panics
    ///
    /// If the binary is not built.
    #[must_use]
    pub fn follow(&self, export: &str, into: &Path) -> Child {
        let out = std::fs::File::create(into).expect("a file");
        let mut command = tokio::process::Command::new(self.binaries.join("tidegate"));
        command.args(["--endpoint", &self.endpoints(), "feed", "tail", export]);
        command.args(["--from", "earliest", "--format", "json"]);
        let process = command.stdout(out).stderr(Stdio::null()).kill_on_drop(true).spawn();
        process.expect("tidegate is built: cargo build --workspace --bins")
    }

    /// Writes `spec` to a file and tries to apply it, with flags of `apply`.
    ///
    /// # Panics
    ///
    /// If the file cannot be written.
    #[must_use]
    pub fn try_apply(&self, spec: &str, flags: &[&str]) -> Output {
        let path = self.folder.path().join("export.toml");
        std::fs::write(&path, spec).expect("a file");
        let path = path.to_string_lossy();
        self.cli(&[&["apply", "-f", &path], flags].concat())
    }

    /// The shards of an export.
    #[must_use]
    pub fn shards(&self, export: &str) -> Vec<Value> {
        self.json(&["shard", "list", export])["shards"].as_array().cloned().unwrap_or_default()
    }

    /// How many changes of an export are captured.
    #[must_use]
    pub fn captured(&self, export: &str) -> u64 {
        self.shards(export).iter().map(|shard| sequence(&shard["captured"])).sum()
    }

    /// How many changes of an export a sink has.
    #[must_use]
    pub fn delivered(&self, export: &str, sink: &str) -> u64 {
        let shards = self.shards(export);
        let sinks = shards.iter().filter_map(|shard| shard["sinks"].as_array()).flatten();
        let its = sinks.filter(|it| it["sink"] == sink);
        its.map(|it| sequence(&it["delivered"])).sum()
    }

    /// The recorded gaps of an export.
    ///
    /// # Panics
    ///
    /// If they cannot be had.
    #[must_use]
    pub fn gaps(&self, export: &str) -> Vec<Value> {
        self.json(&["gap", "list", export])["gaps"].as_array().cloned().expect("a list of gaps")
    }

    /// The number of the node that reads most shards of an export.
    ///
    /// # Panics
    ///
    /// If nobody reads any.
    #[must_use]
    pub fn busiest(&self, export: &str) -> usize {
        let shards = self.shards(export);
        let reads = |number: &usize| {
            let name = format!("node{number}");
            shards.iter().filter(|shard| shard["reader"] == name.as_str()).count()
        };
        (0..self.nodes.len()).max_by_key(reads).expect("there are nodes")
    }

    /// Looks until `done` says so.
    ///
    /// # Panics
    ///
    /// If that takes too long; shows the ends of the nodes' logs.
    pub async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !done(self) {
            assert!(started.elapsed() < PATIENCE, "waited for: {what}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Where its nodes listen, as the CLI takes it.
    #[must_use]
    pub fn endpoints(&self) -> String {
        let all = self.nodes.iter().map(|node| format!("http://{}", node.place.address));
        all.collect::<Vec<_>>().join(",")
    }

    /// How many nodes are up.
    #[must_use]
    pub fn up(&self) -> usize {
        let status = self.json(&["status"]);
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().filter(|node| node["state"] == "up").count()
    }

    /// The ends of the nodes' logs.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for number in 0..self.nodes.len() {
            let text = self.log(number);
            let lines: Vec<_> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(400)..].join("\n");
            all.push_str(&format!("--- node{number}\n{tail}\n"));
        }
        all
    }
}

/// Runs the CLI against `endpoints`.
///
/// # Panics
///
/// If the binary is not built.
#[must_use]
pub fn cli(endpoints: &str, arguments: &[&str], input: impl Into<Stdio>) -> Output {
    cli_of(&binaries(), endpoints, arguments, input)
}

/// As [`cli`], with the binaries that lie in a folder.
///
/// # Panics
///
/// If the binary does not lie there.
#[must_use]
pub fn cli_of(
    binaries: &Path,
    endpoints: &str,
    arguments: &[&str],
    input: impl Into<Stdio>,
) -> Output {
    Command::new(binaries.join("tidegate"))
        .args(["--output", "json", "--endpoint", endpoints])
        .args(arguments)
        .stdin(input)
        .output()
        .expect("tidegate is built: cargo build --workspace --bins")
}

/// A binary of this workspace, beside the test's own.
///
/// # Panics
///
/// If the test does not lie in a target folder.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    binaries().join(name)
}

/// The folder of this workspace's binaries, above the test's own.
///
/// # Panics
///
/// If the test does not lie in a target folder.
#[must_use]
pub fn binaries() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    test.ancestors().nth(2).expect("target/debug/deps").to_owned()
}

fn sequence(checkpoint: &Value) -> u64 {
    checkpoint["sequence"].as_u64().unwrap_or(0)
}

fn on_loopback(size: usize) -> Vec<Place> {
    (0..size).map(|_| Place::on_loopback()).collect()
}
