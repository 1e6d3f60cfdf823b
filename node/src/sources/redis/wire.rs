//! A connection to a server: commands out, replies in.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::config::RedisConfig;
use super::resp;
use crate::config::resolve;
use crate::error::{Error, ErrorKind, Result};
use crate::tls;

const CONNECT: Duration = Duration::from_secs(3);
/// A primary says something every ten seconds, unless it is set to less.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes of a reply that is text.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// An open connection, and what came in and was not taken yet.
pub(super) struct Wire {
    pub(super) socket: Box<dyn Socket>,
    pub(super) buffer: BytesMut,
    address: String,
}

/// A connection, encrypted or not.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// What a server answers, as far as it is asked here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Text(String),
    /// Begins with a code: `NOAUTH …`.
    Refused(String),
}

/// What a server answers, as it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    /// A status or a number.
    Text(String),
    Bytes(Bytes),
    Nothing,
    /// Begins with a code: `NOAUTH …`.
    Refused(String),
}

impl Wire {
    /// Connects and logs in.
    pub(super) async fn connect(config: &RedisConfig) -> Result<Self> {
        let address = config.address()?;
        let connecting = tokio::time::timeout(CONNECT, connect(config, &address)).await;
        let socket =
            connecting.map_err(|_| lost(&address, "connect to").because("no answer"))??;
        let mut wire = Self { socket, buffer: BytesMut::new(), address };
        if let Some(password) = &config.password {
            let password = resolve(&password.0)?;
            let user = config.user.as_deref().map(resolve).transpose()?;
            let mut login = vec!["AUTH"];
            login.extend(user.as_deref());
            login.push(&password);
            wire.ask_done(&login, "log in to").await?;
        }
        Ok(wire)
    }

    /// Sends a command and reads its reply.
    pub(super) async fn ask(&mut self, command: &[&str]) -> Result<Reply> {
        let arguments: Vec<&[u8]> = command.iter().map(|argument| argument.as_bytes()).collect();
        self.send(&[&arguments]).await?;
        self.reply().await
    }

    /// Sends commands, each of which will be answered.
    pub(super) async fn send(&mut self, commands: &[&[&[u8]]]) -> Result<()> {
        let mut out = Vec::new();
        commands.iter().for_each(|command| resp::write(command, &mut out));
        let sent = self.socket.write_all(&out).await;
        let sent = if sent.is_ok() { self.socket.flush().await } else { sent };
        sent.map_err(|error| lost(&self.address, "send to").because(error))
    }

    /// Sends a command that must succeed, `doing` something with the server.
    pub(super) async fn ask_done(&mut self, command: &[&str], doing: &str) -> Result<String> {
        match self.ask(command).await? {
            Reply::Text(text) => Ok(text),
            Reply::Refused(why) => Err(self.refused(doing, &why)),
        }
    }

    /// A setting of the server; `None` if it does not tell. Of no use afterwards, if so.
    pub(super) async fn setting(&mut self, name: &str) -> Result<Option<String>> {
        self.send(&[&[b"CONFIG", b"GET", name.as_bytes()]]).await?;
        if self.line().await? != "*2" {
            return Ok(None);
        }
        self.raw(TEXT_BYTES_MAX).await?;
        match self.raw(TEXT_BYTES_MAX).await? {
            Raw::Bytes(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
            Raw::Text(_) | Raw::Nothing | Raw::Refused(_) => Ok(None),
        }
    }

    /// The next reply, which is text.
    pub(super) async fn reply(&mut self) -> Result<Reply> {
        match self.raw(TEXT_BYTES_MAX).await? {
            Raw::Text(text) => Ok(Reply::Text(text)),
            Raw::Bytes(bytes) => Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned())),
            Raw::Refused(why) => Ok(Reply::Refused(why)),
            Raw::Nothing => Err(self.odd()),
        }
    }

    /// The next reply, of up to so many bytes. Lines without content keep a connection
    /// alive.
    pub(super) async fn raw(&mut self, bytes_max: usize) -> Result<Raw> {
        let line = loop {
            let line = self.line().await?;
            if !line.is_empty() {
                break line;
            }
        };
        let (kind, rest) = line.split_at_checked(1).unwrap_or_default();
        match kind {
            "+" | ":" => Ok(Raw::Text(rest.to_owned())),
            "-" => Ok(Raw::Refused(rest.to_owned())),
            "$" if rest == "-1" => Ok(Raw::Nothing),
            "$" => {
                let size = rest.parse().ok().filter(|size| *size <= bytes_max);
                let size = size.ok_or_else(|| self.odd())?;
                self.more_than(size + 1).await?;
                let bytes = self.buffer.split_to(size).freeze();
                self.buffer.advance(2);
                Ok(Raw::Bytes(bytes))
            }
            _ => Err(self.odd()),
        }
    }

    /// The next line, without its end.
    async fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
            }
            if self.buffer.len() > TEXT_BYTES_MAX {
                return Err(self.odd());
            }
            self.more_than(self.buffer.len()).await?;
        }
    }

    /// Reads until more than so many bytes are there.
    async fn more_than(&mut self, bytes: usize) -> Result<()> {
        while self.buffer.len() <= bytes {
            let read = tokio::time::timeout(SILENCE, self.socket.read_buf(&mut self.buffer)).await;
            let read = read.map_err(|_| lost(&self.address, "hear from"))?;
            let read = read.map_err(|error| lost(&self.address, "read from").because(error))?;
            if read == 0 {
                return Err(lost(&self.address, "read from").because("it closed the connection"));
            }
        }
        Ok(())
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// What it means that the server refuses; the one place that decides.
    pub(super) fn refused(&self, doing: &str, why: &str) -> Error {
        let code = why.split(' ').next().unwrap_or_default();
        let (kind, remedy) = match code {
            "NOAUTH" | "WRONGPASS" => {
                (ErrorKind::Config, "give [source] user and password that are valid there")
            }
            "NOPERM" => (
                ErrorKind::Config,
                "allow this user +psync +replconf +ping +info (ACL SETUSER), of \
                                     a cluster also +cluster|nodes +asking +dump +pexpiretime %R~*",
            ),
            "ERR" if why.contains("unknown command") || why.contains("unsupported") => (
                ErrorKind::Config,
                "this service hides replication (PSYNC), as managed ones do; let it feed a Redis \
                 of your own (its import or migration tools, or RIOT) and export that one",
            ),
            "ERR" => (ErrorKind::Config, "see what it says"),
            // LOADING, MASTERDOWN, NOMASTERLINK, BUSY and others that pass.
            _ => (ErrorKind::Unavailable, "it is tried again"),
        };
        Error::new(kind, format!("{doing} redis at {}: {why}; {remedy}", self.address))
    }

    pub(super) fn odd(&self) -> Error {
        let why = format!("what redis at {} answers is not understood", self.address);
        Error::new(ErrorKind::Unavailable, why)
    }
}

async fn connect(config: &RedisConfig, address: &str) -> Result<Box<dyn Socket>> {
    let connected = TcpStream::connect(address).await;
    let socket = connected.map_err(|error| lost(address, "connect to").because(error))?;
    // What is sent is short and waited for.
    drop(socket.set_nodelay(true));
    if !config.encrypted() {
        return Ok(Box::new(socket));
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ca_file = config.ca_file.as_deref().map(resolve).transpose()?;
    Ok(Box::new(Box::pin(encrypt(socket, host, ca_file.as_deref())).await?))
}

/// Speaks TLS with `host`.
async fn encrypt(
    socket: TcpStream,
    host: &str,
    ca_file: Option<&str>,
) -> Result<TlsStream<TcpStream>> {
    const PLACE: &str = "[source]";
    let name = ServerName::try_from(host.to_owned()).map_err(|error| {
        let why = format!("{PLACE}: endpoint names no host that TLS knows");
        Error::new(ErrorKind::Config, why).because(error)
    })?;
    let connector = TlsConnector::from(tls::client(ca_file, PLACE)?);
    connector.connect(name, socket).await.map_err(|error| {
        let why = "redis: TLS is not agreed on; if the certificate is refused, name the file of \
                   its authority in [source] ca-file";
        Error::new(ErrorKind::Unavailable, why).because(error)
    })
}

/// The connection is no use any more.
pub(super) fn lost(address: &str, doing: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{doing} redis at {address}"))
}

/// How long nothing may come in.
pub(super) const fn silence() -> Duration {
    SILENCE
}
