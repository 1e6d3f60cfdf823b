//! An S3 bucket of moto's, behind a proxy of ours.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::SINK;
use super::proxy::Proxy;
use crate::Outcome;
use crate::lake::python;

/// Where moto listens; the network is ours, so nobody else does.
const UPSTREAM: &str = "127.0.0.1:5000";
/// Where nodes find it.
const PORT: u16 = 9000;
/// The bucket's name.
const NAME: &str = "lake";
/// How often it is tried, 100 ms apart.
const TRIES: usize = 300;
/// Copies a bucket into a folder.
const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/readers/bucket.py");

/// An empty bucket. Dropping it ends it.
#[derive(Debug)]
pub struct Bucket {
    /// What all requests of nodes pass.
    pub proxy: Proxy,
    _server: Child,
}

impl Bucket {
    pub(super) async fn start() -> Outcome<Self> {
        let (host, port) = UPSTREAM.split_once(':').ok_or("an address with a port")?;
        let server = Command::new(python())
            .args(["-m", "moto.server", "-H", host, "-p", port])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("start moto; run deploy/install-deps.sh: {error}"))?;
        for _ in 0..TRIES {
            if make().await.is_ok() {
                let address = (SINK.address(), PORT).into();
                let proxy = Proxy::start(address, UPSTREAM.parse()?).await?;
                return Ok(Self { proxy, _server: server });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err("moto did not make a bucket within half a minute; run deploy/install-deps.sh".into())
    }

    /// The keys of a `[[sink]]` of kind `lake` that writes below `prefix`.
    #[must_use]
    pub fn table(&self, prefix: &str) -> String {
        let address = SINK.address();
        format!(
            "path = \"s3://{NAME}/{prefix}\"\nendpoint = \"http://{address}:{PORT}\"\n\
             allow-http = true\naccess-key = \"test\"\nsecret-key = \"test\"\n"
        )
    }

    /// Copies all that is in it into `folder`, past the proxy. Returns the folder
    /// of `prefix`.
    ///
    /// # Errors
    ///
    /// If that fails.
    pub async fn copy(&self, folder: &Path, prefix: &str) -> Outcome<PathBuf> {
        let mut command = Command::new(python());
        command.args([READER, &format!("http://{UPSTREAM}"), NAME]).arg(folder);
        let output = command.output().await?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        Ok(folder.join(prefix))
    }
}

async fn make() -> Outcome<()> {
    let mut stream = TcpStream::connect(UPSTREAM).await?;
    let request = format!("PUT /{NAME} HTTP/1.0\r\nHost: s3\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.contains(" 200 ") { Ok(()) } else { Err(answer.into()) }
}
