//! The link to a primary: we are one of its replicas.
//!
//! ```text
//!   AUTH, REPLCONF ..., PSYNC id offset+1     ──►
//!                                             ◄── +CONTINUE [id]           what follows is the stream
//!                                             ◄── +FULLRESYNC id offset    then a dump, then the stream
//!                                             ◄── \n ... $EOF:mark\r\n dump mark     or     $length\r\n dump
//!   REPLCONF ACK offset, each second          ──►
//! ```
//!
//! A task of its own reads the socket, so that the primary gets rid of what it
//! has for us while we work on what came before; another acknowledges.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

use super::config::RedisConfig;
use super::position::{Offset, is_id};
use super::resp;
use super::wire::{Reply, Socket, Wire, lost, silence};
use crate::error::{Error, ErrorKind, Result};

/// Bytes read from the socket in one go.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait for us; with them, a quarter of what a primary holds for a
/// replica before it gives it up.
const PIECES: usize = 256;
const ACKNOWLEDGE: Duration = Duration::from_secs(1);

/// What the primary agreed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The stream goes on where we are; the id it has now.
    Continues(Arc<str>),
    /// A dump comes, of the moment before this offset, then the stream.
    Dump(Offset),
}

/// An open link.
pub(super) struct Link {
    /// What came in and was not taken yet.
    pub(super) buffer: BytesMut,
    pieces: mpsc::Receiver<Result<Bytes>>,
    /// How far we are; `None`: not in the stream yet.
    acknowledged: watch::Sender<Option<u64>>,
    asked: Arc<Notify>,
    tasks: [AbortHandle; 2],
}

impl Link {
    /// Asks the primary to go on behind `at`, or, without it, for a dump.
    pub(super) async fn open(config: &RedisConfig, at: Option<&Offset>) -> Result<(Self, Answer)> {
        let mut wire = Wire::connect(config).await?;
        let doing = "become a replica of";
        wire.ask_done(&["PING"], doing).await?;
        // There is no port to be read from.
        wire.ask_done(&["REPLCONF", "listening-port", "0"], doing).await?;
        wire.ask_done(&["REPLCONF", "capa", "eof", "capa", "psync2"], doing).await?;
        let (id, offset) = match at {
            Some(at) => (&*at.id, at.bytes.saturating_add(1).to_string()),
            None => ("?", "-1".to_owned()),
        };
        let answer = match wire.ask(&["PSYNC", id, &offset]).await? {
            Reply::Text(text) => text,
            Reply::Refused(why) => return Err(wire.refused(doing, &why)),
        };
        let parsed = parse(&answer, at);
        let why = || format!("redis at {}: its answer to PSYNC is not understood", wire.address());
        let answer = parsed.ok_or_else(|| Error::new(ErrorKind::Config, why()))?;
        Ok((Self::start(wire), answer))
    }

    fn start(wire: Wire) -> Self {
        let address = wire.address().to_owned();
        let (reading, writing) = tokio::io::split(wire.socket);
        let (sender, pieces) = mpsc::channel(PIECES);
        let (acknowledged, offset) = watch::channel(None);
        let asked = Arc::new(Notify::new());
        let read = tokio::spawn(read(reading, sender, address));
        let acknowledge = tokio::spawn(acknowledge(writing, offset, Arc::clone(&asked)));
        let tasks = [read.abort_handle(), acknowledge.abort_handle()];
        Self { buffer: wire.buffer, pieces, acknowledged, asked, tasks }
    }

    /// Takes in what has come, waiting up to `wait` for the first of it; false if
    /// nothing has.
    pub(super) async fn more(&mut self, wait: Duration) -> Result<bool> {
        let piece = match self.pieces.try_recv() {
            Ok(piece) => piece,
            Err(_) => match tokio::time::timeout(wait, self.pieces.recv()).await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Err(Error::new(ErrorKind::Unavailable, "the link has ended")),
                Err(_) => return Ok(false),
            },
        };
        self.buffer.extend_from_slice(&piece?);
        Ok(true)
    }

    /// What lies before `offset` is spooled, or will be read again.
    pub(super) fn acknowledge(&self, offset: u64) {
        self.acknowledged.send_replace(Some(offset));
    }

    /// The primary wants to know how far we are, now.
    pub(super) fn answer(&self) {
        self.asked.notify_one();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What the primary's line means.
fn parse(line: &str, at: Option<&Offset>) -> Option<Answer> {
    let mut words = line.split(' ');
    match words.next()? {
        "FULLRESYNC" => {
            let id = words.next().filter(|id| is_id(id))?.into();
            Some(Answer::Dump(Offset { id, bytes: words.next()?.parse().ok()?, db: 0 }))
        }
        "CONTINUE" => {
            let same = || at.map(|at| Arc::clone(&at.id));
            let id = words.next().map_or_else(same, |id| Some(id.into()));
            id.filter(|id| at.is_some() && is_id(id)).map(Answer::Continues)
        }
        _ => None,
    }
}

/// Reads the socket for as long as somebody takes what comes.
async fn read(
    mut socket: ReadHalf<Box<dyn Socket>>,
    pieces: mpsc::Sender<Result<Bytes>>,
    address: String,
) {
    loop {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        let read = tokio::time::timeout(silence(), socket.read_buf(&mut piece)).await;
        let piece = match read {
            Ok(Ok(0)) => Err(lost(&address, "read from").because("it closed the link")),
            Ok(Ok(_)) => Ok(piece.freeze()),
            Ok(Err(error)) => Err(lost(&address, "read from").because(error)),
            Err(_) => Err(lost(&address, "hear from").because("it has been silent for a minute")),
        };
        let over = piece.is_err();
        if pieces.send(piece).await.is_err() || over {
            return;
        }
    }
}

/// Tells the primary how far we are: each second, and when it asks.
async fn acknowledge(
    mut socket: WriteHalf<Box<dyn Socket>>,
    mut offset: watch::Receiver<Option<u64>>,
    asked: Arc<Notify>,
) {
    loop {
        let now = *offset.borrow_and_update();
        if let Some(now) = now {
            let (mut out, now) = (Vec::new(), now.to_string());
            resp::write(&[b"REPLCONF", b"ACK", now.as_bytes()], &mut out);
            // Encrypted, it may stay in a buffer until it is flushed.
            if socket.write_all(&out).await.is_err() || socket.flush().await.is_err() {
                // Whoever reads will see it.
                return;
            }
            drop(tokio::time::timeout(ACKNOWLEDGE, asked.notified()).await);
        } else if offset.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_psync_are_understood() {
        let (id, other) = (Arc::from("a".repeat(40)), Arc::<str>::from("b".repeat(40)));
        let at = Offset { id: Arc::clone(&id), bytes: 7, db: 1 };
        let known = |line: &str| parse(line, Some(&at));
        assert_eq!(known("CONTINUE"), Some(Answer::Continues(id)));
        assert_eq!(
            known(&format!("CONTINUE {other}")),
            Some(Answer::Continues(Arc::clone(&other)))
        );
        let dump = Offset { id: Arc::clone(&other), bytes: 99, db: 0 };
        assert_eq!(known(&format!("FULLRESYNC {other} 99")), Some(Answer::Dump(dump)));
        assert_eq!(parse("CONTINUE", None), None);
        assert_eq!(known("FULLRESYNC x 99"), None);
        assert_eq!(known("FULLRESYNC"), None);
        assert_eq!(known(""), None);
    }
}
