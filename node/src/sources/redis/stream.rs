//! A shard's changes: a dump if there must be one, then the commands.
//!
//! ```text
//!   position  ?                                      ID:BYTES:DB
//!             Announced ─► Dump ─► Sweep ─► Settle ─► Commands ◄──► Flush
//!                 ▲                                      │
//!                 └────────── Over ◄─────────────────────┘  a command that is not computed
//! ```
//!
//! A row of the dump passes if it is not what was captured last of its key; what
//! was captured and is not in the dump is deleted. So the changes lead from what
//! was captured to what the primary has, the first time as after a loss. While
//! the position is `?` all of that begins again after a failure.

mod backlog;
mod commands;
mod resync;

use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::BatchBuilder;
use tidegate_proto::v1::GapKind;
use tokio::time::Instant;
use tonic::async_trait;

use super::check;
use super::cluster::Gate;
use super::config::RedisConfig;
use super::document;
use super::keyspace::Keyspace;
use super::link::{Answer, Link};
use super::position::{Offset, Position};
use super::rereads::Rereads;
use super::resp::Taken;
use crate::error::{Error, ErrorKind, Result};
use crate::sources::{Captured, ChangeStream, Loss, Read};
use backlog::Backlog;
use resync::Resync;

/// An open stream.
pub(super) struct RedisStream {
    link: Link,
    keys: Keyspace,
    phase: Phase,
    /// Behind what was given.
    position: Position,
    /// Bytes that must be there before it is worth looking again; better so many.
    wanted: (usize, usize),
    losses: Vec<Loss>,
    rereads: Arc<Rereads>,
    backlog: Backlog,
    now_ms: fn() -> i64,
    /// There, if the primary is one of a cluster.
    gate: Option<Gate>,
    /// Off the link, and not applied yet.
    held: Option<Taken>,
}

/// What a stream needs beside its place.
pub(super) struct Besides {
    /// Shared by all streams of a source.
    pub(super) rereads: Arc<Rereads>,
    pub(super) now_ms: fn() -> i64,
    /// For a primary of a cluster.
    pub(super) gate: Option<Gate>,
}

/// What is being read.
enum Phase {
    Resync(Resync),
    Commands(Offset),
    Flush(Flush),
    /// Everything must be read anew, on another link; says why.
    Over(String),
}

/// Keys on their way out, page by page.
struct Flush {
    /// All of them if there is none.
    db: Option<u32>,
    /// Up to here they are gone.
    upto: (String, Vec<u8>),
    /// Where the stream is once they all are.
    then: Offset,
}

impl RedisStream {
    pub(super) async fn open(
        config: &RedisConfig,
        position: Position,
        captured: Arc<dyn Captured>,
        besides: Besides,
    ) -> Result<Self> {
        let Besides { rereads, now_ms, gate } = besides;
        let server = check::describe(config).await?;
        if server.cluster && gate.is_none() {
            let why = "redis: the server is part of a cluster by now: delete the export and create \
                       it again, so that all of the cluster is read";
            return Err(Error::new(ErrorKind::Config, why));
        }
        let known = captured.known()?;
        let at = match &position {
            Position::At(at) if known.whole && known.exact => Some(at),
            Position::At(_) | Position::Anew => None,
        };
        let (link, answer) = Link::open(config, at).await?;
        let mut losses = Vec::new();
        let (phase, position) = match answer {
            Answer::Continues(id) => {
                let db = at.map_or(0, |at| at.db);
                let bytes = at.map_or(0, |at| at.bytes);
                if at.is_some_and(|at| at.id != id) {
                    tracing::info!("the primary was replaced; its stream goes on");
                }
                let at = Offset { id, bytes, db };
                (Phase::Commands(at.clone()), Position::At(at))
            }
            Answer::Dump(then) => {
                losses.extend(lost((at, &position), &then, known.whole));
                (Phase::Resync(Resync::begin(then, &*captured)?), Position::Anew)
            }
        };
        let keys = Keyspace::new(captured, config.tell_inserts);
        let backlog = Backlog::new(server.backlog_bytes);
        let wanted = (1, 1);
        let held = None;
        Ok(Self {
            link,
            keys,
            phase,
            position,
            wanted,
            losses,
            rereads,
            backlog,
            now_ms,
            gate,
            held,
        })
    }

    /// Behind what was given.
    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    /// Changes wait to be given.
    pub(super) fn is_behind(&self) -> bool {
        self.keys.queued() > 0
    }

    /// A dump is read.
    pub(super) fn resyncs(&self) -> bool {
        matches!(self.phase, Phase::Resync(_))
    }

    /// It goes on whether more of the stream comes or not.
    pub(super) fn is_at_work(&self) -> bool {
        matches!(self.phase, Phase::Resync(_) | Phase::Flush(_))
    }

    /// What was looked at may be old. Only when nothing waits and all is spooled.
    pub(super) fn forget(&mut self) {
        self.keys.forget();
    }

    /// Waits up to `wait` for more of the stream.
    pub(super) async fn arrives(&mut self, wait: Duration) -> Result<bool> {
        self.link.more(wait).await
    }

    /// The gate, with how far the stream has come in.
    pub(super) fn gate(&mut self) -> Option<(&mut Gate, u64)> {
        let received = match &self.phase {
            Phase::Commands(at) => {
                let held = self.held.as_ref().map_or(0, Taken::bytes);
                at.bytes.saturating_add(held).saturating_add(self.link.buffer.len() as u64)
            }
            Phase::Resync(_) | Phase::Flush(_) | Phase::Over(_) => 0,
        };
        Some((self.gate.as_mut()?, received))
    }

    /// As much is noted elsewhere as should be before more is read.
    fn is_full(&self) -> bool {
        self.gate.as_ref().is_some_and(Gate::is_full)
    }

    /// Something is noted elsewhere.
    fn notes(&self) -> bool {
        self.gate.as_ref().is_some_and(Gate::notes)
    }

    /// A key that was captured is gone, as far as this primary can tell.
    fn gone(&mut self, (collection, key): (String, Vec<u8>)) -> Result<()> {
        if let Some(gate) = &self.gate {
            let counts = document::redis_key(&key).map(|key| gate.judge_row(0, &key));
            if !counts.transpose()?.unwrap_or(false) {
                return Ok(());
            }
        }
        self.keys.sweep(collection, key);
        Ok(())
    }

    /// What was given is spooled by now.
    fn spooled(&mut self) {
        self.keys.spooled();
        if let Position::At(at) = &self.position {
            self.link.acknowledge(at.bytes);
            self.backlog.read_to(at.bytes, Instant::now());
        }
    }

    /// Waits up to `wait` for what is wanted; false: it is not worth looking again.
    async fn more(&mut self, wait: Duration) -> Result<bool> {
        let until = Instant::now() + wait;
        while self.link.buffer.len() < self.wanted.1 {
            let left = until.saturating_duration_since(Instant::now());
            if !self.link.more(left).await? {
                break;
            }
        }
        Ok(self.link.buffer.len() >= self.wanted.0)
    }
}

/// What a dump that ends at `then` leaves out behind `position`; `at`: where the stream was
/// to go on. `whole`: all keys that were captured are known.
fn lost((at, position): (Option<&Offset>, &Position), then: &Offset, whole: bool) -> Option<Loss> {
    let (kind, detail, mended) = match (at, position) {
        (Some(at), _) if at.id == then.id => (GapKind::Trimmed, trimmed(at), REREAD),
        (Some(at), _) => (GapKind::Recreated, recreated(at, then), REREAD),
        (None, _) if !whole => (GapKind::Trimmed, partial(position, then), ""),
        (None, Position::At(at)) => (GapKind::Reread, inexact(at), REREAD),
        (None, Position::Anew) => return None,
    };
    Some(Loss { kind, detail, mended: mended.to_owned() })
}

const PARTIAL: &str = "this node's copy of the spool lacks older keys: what was deleted while the \
                       shard changed its owner may stay at sinks; everything else was read anew";

fn partial(position: &Position, then: &Offset) -> String {
    match position {
        Position::At(at) => format!("{PARTIAL} (byte {} of {})", at.bytes, at.id),
        // Where another dump ends is no other loss.
        Position::Anew => format!("{PARTIAL} (a dump of {})", then.id),
    }
}

fn inexact(at: &Offset) -> String {
    let (bytes, id) = (at.bytes, &at.id);
    format!("this node does not know what all keys held at byte {bytes} of {id}")
}

/// How any other loss is mended.
const REREAD: &str = "everything was read anew and compared, deletes included";

fn trimmed(at: &Offset) -> String {
    let bytes = at.bytes;
    format!(
        "the primary's backlog no longer reaches back to byte {bytes}; raise repl-backlog-size there"
    )
}

fn recreated(at: &Offset, then: &Offset) -> String {
    format!("the primary has another history ({} instead of {})", then.id, at.id)
}

#[async_trait]
impl ChangeStream for RedisStream {
    async fn read(
        &mut self,
        out: &mut BatchBuilder,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Read> {
        self.spooled();
        if !self.losses.is_empty() {
            if let Phase::Over(_) = self.phase {
                self.position = Position::Anew;
            }
            let losses = std::mem::take(&mut self.losses);
            return Ok(Read { position: self.position.encode(), losses, ..Read::default() });
        }
        let before = self.position.clone();
        // What one command or page brought may be more than one batch takes.
        let given = self.keys.give(out, bytes_max);
        // What is not a command needs that all that was changed before is spooled.
        if given && (out.is_empty() || matches!(self.phase, Phase::Commands(_))) {
            match &self.phase {
                Phase::Commands(_) => self.commands(out, bytes_max, wait).await?,
                Phase::Resync(_) => self.resync(out, bytes_max, wait).await?,
                Phase::Flush(_) => self.flush(out, bytes_max)?,
                Phase::Over(why) => {
                    let why = format!("redis: {why}; everything is read anew");
                    return Err(Error::new(ErrorKind::Unavailable, why));
                }
            }
        }
        let moved = self.position != before || !out.is_empty();
        let position = if moved { self.position.encode() } else { bytes::Bytes::new() };
        Ok(Read { position, ..Read::default() })
    }

    /// There are no pages: rows come with the stream.
    fn passed(&self, _seen: &[u8]) -> bool {
        true
    }

    fn mends(&self) -> bool {
        self.position == Position::Anew
    }

    fn kept_until_ms(&self) -> Option<i64> {
        let lasts_ms = i64::try_from(self.backlog.lasts()?.as_millis()).ok()?;
        Some((self.now_ms)().saturating_add(lasts_ms))
    }
}
