//! DynamoDB Local, the real jar, for tests: each has a server of its own.

use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::faketime;
use crate::ports::free_port;

/// Where the install script puts the jar, below the home folder.
const FOLDER: &str = ".cache/tidegate/dynamodb-local";
/// How often the port is tried, 100 ms apart; Java takes 3 to 5 s here.
const TRIES: usize = 600;

/// A server with no tables, on a free port, ended when it is dropped.
#[derive(Debug)]
pub struct DynamoDbLocal {
    endpoint: String,
    server: Child,
    _folder: tempfile::TempDir,
}

/// It shares its clock with nobody any more; one that runs fast leaves it behind.
impl Drop for DynamoDbLocal {
    fn drop(&mut self) {
        faketime::clean(self.server.id());
    }
}

impl DynamoDbLocal {
    /// Starts one whose tables are in memory.
    ///
    /// # Panics
    ///
    /// If the jar or Java is missing, or the port does not open within a minute.
    pub async fn start() -> Self {
        Self::launch(&[], &format!("127.0.0.1:{}", free_port()), &[]).await
    }

    /// As [`DynamoDbLocal::start`], at `host:port`, behind the words of a command that
    /// puts it into another network.
    ///
    /// # Panics
    ///
    /// As [`DynamoDbLocal::start`].
    pub async fn start_at(prefix: &[String], address: &str) -> Self {
        Self::launch(prefix, address, &[]).await
    }

    /// Starts one whose clock runs `speed` times as fast. Its stream shards roll
    /// every four hours and its records are trimmed after a day: at 600, every
    /// 24 seconds and after two and a half minutes.
    ///
    /// # Panics
    ///
    /// As [`DynamoDbLocal::start`], or if `faketime` is missing.
    pub async fn start_fast(speed: u32) -> Self {
        let library = faketime::library().expect("faketime is installed");
        let clock = format!("+0 x{speed}");
        let faster = [
            ("LD_PRELOAD", library),
            ("FAKETIME", clock.as_str()),
            ("FAKETIME_FORCE_MONOTONIC_FIX", "1"),
        ];
        Self::launch(&[], &format!("127.0.0.1:{}", free_port()), &faster).await
    }

    /// For `endpoint` in a `[source]` table.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    async fn launch(prefix: &[String], address: &str, environment: &[(&str, &str)]) -> Self {
        let home = std::env::home_dir().unwrap_or_default().join(FOLDER);
        let jar = home.join("DynamoDBLocal.jar");
        assert!(jar.exists(), "{} is missing; run deploy/install-deps.sh", jar.display());
        let port = address.rsplit_once(':').map_or("", |(_, port)| port);
        let folder = tempfile::tempdir().expect("the folder for temporary files can be written");
        let mut words = prefix.iter().map(String::as_str).chain(["java"]);
        let mut command = Command::new(words.next().unwrap_or_default());
        let server = command
            .args(words)
            .arg("-Xmx512m")
            .arg(format!("-Djava.library.path={}", home.join("DynamoDBLocal_lib").display()))
            .arg("-jar")
            .arg(&jar)
            .args(["-inMemory", "-sharedDb", "-disableTelemetry", "-port", port])
            .envs(environment.iter().copied())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("java is installed; run deploy/install-deps.sh");
        let started = Self { endpoint: format!("http://{address}"), server, _folder: folder };
        for _ in 0..TRIES {
            if TcpStream::connect(address).await.is_ok() {
                return started;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("DynamoDB Local did not open {address} within a minute");
    }
}
