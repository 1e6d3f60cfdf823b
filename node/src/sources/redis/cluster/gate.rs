//! What one primary's stream needs to know of the rest of the cluster.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::board::{Board, Verdict};
use super::keys::removes;
use super::nodes::{self, Node, Role};
use crate::error::{Error, ErrorKind, Result};
use crate::sources::redis::config::RedisConfig;
use crate::sources::redis::document;
use crate::sources::redis::object::{Entry, Object, Opaque};
use crate::sources::redis::rdb::{RdbError, restored};
use crate::sources::redis::resp::Command;
use crate::sources::redis::wire::{Raw, Wire};

/// Keys that wait to be read back before a stream is read no further.
const DIRTY_MAX: usize = 64;
/// Keys read back in one go, at most: the server takes that in at once.
pub(super) const TOGETHER: usize = 16;
/// How often keys are asked for whose primary is written to between question and answer.
const TRIES: usize = 50;
/// Bytes a value may have as it is read back.
const VALUE_BYTES_MAX: usize = 256 << 20;

/// A primary among the others that are followed.
pub(super) struct Seat {
    pub(super) board: Arc<Mutex<Board>>,
    pub(super) member: usize,
    /// Of all that are followed.
    pub(super) ids: Arc<[String]>,
}

/// What is asked of keys that are read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Value,
    /// It is pending, if the key is there.
    Whether,
}

/// A connection of its own to the primary, and what is noted for all.
pub(in crate::sources::redis) struct Gate {
    seat: Seat,
    wire: Wire,
    /// Up to here in the stream, what the primary says of its slots is newer.
    looked: u64,
}

impl Gate {
    pub(super) async fn connect(config: &RedisConfig, seat: Seat) -> Result<Self> {
        Ok(Self { seat, wire: Wire::connect(config).await?, looked: 0 })
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.seat.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before this command counts, the primary has to be asked about its slots: that a
    /// key is gone may mean that it went to another.
    pub(in crate::sources::redis) fn must_look(&self, command: &Command<'_>, upto: u64) -> bool {
        upto > self.looked && removes(command)
    }

    /// Asks the primary about its slots. The stream was received up to `received` before.
    pub(in crate::sources::redis) async fn look(&mut self, received: u64) -> Result<()> {
        let nodes = ask_nodes(&mut self.wire).await?;
        let changed = |what: &str| {
            let address = self.wire.address();
            let why = format!("redis at {address}: {what}; the cluster is looked at anew");
            Err(Error::new(ErrorKind::Unavailable, why))
        };
        let mut live = nodes.iter().filter(|node| node.role == Role::Primary);
        if live.any(|node| !self.seat.ids.contains(&node.id)) {
            return changed("there is another primary");
        }
        let own = nodes.into_iter().find(|node| node.asked && node.role == Role::Primary);
        let Some(own) = own else { return changed("it is no primary any more") };
        self.board().claim(self.seat.member, own.slots, own.moving);
        self.looked = self.looked.max(received);
        Ok(())
    }

    /// Whether the command of `keys` that ends at `upto` counts.
    pub(in crate::sources::redis) fn judge(
        &self,
        (db, keys): (u32, &[&[u8]]),
        upto: u64,
    ) -> Result<bool> {
        for key in keys {
            readable(db, key)?;
        }
        let takes = || self.board().judge(self.seat.member, keys, upto) == Verdict::Take;
        Ok(keys.is_empty() || takes())
    }

    /// Whether what a dump says of a key counts; also, that a captured key is gone.
    pub(in crate::sources::redis) fn judge_row(&self, db: u32, key: &[u8]) -> Result<bool> {
        readable(db, key)?;
        Ok(self.board().judge_row(self.seat.member, key) == Verdict::Take)
    }

    /// Keys wait to be read back.
    pub(in crate::sources::redis) fn notes(&self) -> bool {
        self.board().dirty() > 0
    }

    /// As many keys wait to be read back as should.
    pub(in crate::sources::redis) fn is_full(&self) -> bool {
        self.board().dirty() >= DIRTY_MAX
    }

    /// How far the primary's stream is.
    pub(super) async fn offset(&mut self) -> Result<u64> {
        let text = self.wire.ask_done(&["INFO", "replication"], "describe").await?;
        offset_in(&text).ok_or_else(|| self.wire.odd())
    }

    /// What the primary has of up to [`TOGETHER`] `keys` now, `None` of those that are not
    /// there, and notes where its stream is.
    pub(super) async fn read_back(
        &mut self,
        keys: &[Vec<u8>],
        ask: Ask,
    ) -> Result<Vec<Option<Entry>>> {
        if let Some(entries) = self.try_read_back(keys, ask).await? {
            return Ok(entries);
        }
        let (mut entries, mut tries) = (Vec::with_capacity(keys.len()), 0);
        while let Some(key) = keys.get(entries.len()) {
            match self.try_read_back(std::slice::from_ref(key), ask).await? {
                Some(entry) => entries.extend(entry),
                None => tries += 1,
            }
            if tries == TRIES {
                let address = self.wire.address();
                let why = format!("redis at {address}: keys cannot be read at one place");
                return Err(Error::new(ErrorKind::Unavailable, why));
            }
        }
        Ok(entries)
    }

    /// Asks where the stream is, for the keys, and where it is; `None` if something was
    /// written between. A key that comes from elsewhere is only given to who is ASKING.
    async fn try_read_back(
        &mut self,
        keys: &[Vec<u8>],
        ask: Ask,
    ) -> Result<Option<Vec<Option<Entry>>>> {
        const INFO: &[&[u8]] = &[b"INFO", b"replication"];
        const ASKING: &[&[u8]] = &[b"ASKING"];
        let names: &[&[u8]] = match ask {
            Ask::Value => &[b"DUMP", b"PEXPIRETIME"],
            Ask::Whether => &[b"PEXPIRETIME"],
        };
        let asked: Vec<[&[u8]; 2]> =
            keys.iter().flat_map(|key| names.iter().map(|name| [*name, &key[..]])).collect();
        let mut commands = vec![INFO];
        commands.extend(asked.iter().flat_map(|command| [ASKING, &command[..]]));
        commands.push(INFO);
        self.wire.send(&commands).await?;
        let before = self.told_offset().await?;
        let mut entries = Vec::with_capacity(keys.len());
        for _ in keys {
            let object = match ask {
                Ask::Value => self.told_object().await?,
                Ask::Whether => Some(Object::Opaque(Opaque::Pending)),
            };
            let expiry = self.told().await?;
            entries.push(self.entry(object, expiry)?);
        }
        let after = self.told_offset().await?;
        if before != after {
            return Ok(None);
        }
        let mut board = self.board();
        keys.iter().for_each(|key| board.was_read(self.seat.member, key, after));
        Ok(Some(entries))
    }

    async fn told_offset(&mut self) -> Result<u64> {
        match self.wire.raw(VALUE_BYTES_MAX).await? {
            Raw::Bytes(text) => offset_in(&String::from_utf8_lossy(&text)),
            Raw::Text(_) | Raw::Nothing | Raw::Refused(_) => None,
        }
        .ok_or_else(|| self.wire.odd())
    }

    /// The answer behind that to ASKING; `Nothing` if another primary has the key.
    async fn told(&mut self) -> Result<Raw> {
        const DOING: &str = "read a key of";
        if let Raw::Refused(why) = self.wire.raw(VALUE_BYTES_MAX).await? {
            return Err(self.wire.refused(DOING, &why));
        }
        match self.wire.raw(VALUE_BYTES_MAX).await? {
            Raw::Refused(why) if why.starts_with("MOVED") || why.starts_with("ASK ") => {
                Ok(Raw::Nothing)
            }
            Raw::Refused(why) => Err(self.wire.refused(DOING, &why)),
            told @ (Raw::Text(_) | Raw::Bytes(_) | Raw::Nothing) => Ok(told),
        }
    }

    async fn told_object(&mut self) -> Result<Option<Object>> {
        let payload = match self.told().await? {
            Raw::Bytes(payload) => payload,
            Raw::Nothing => return Ok(None),
            Raw::Text(_) | Raw::Refused(_) => return Err(self.wire.odd()),
        };
        let object = restored(&payload).map_err(|error| match error {
            RdbError::Unsupported(what) => {
                Error::new(ErrorKind::Config, format!("redis: a key that was moved holds {what}"))
            }
            RdbError::Corrupt(_) | RdbError::Short(_) => self.wire.odd(),
        })?;
        Ok(Some(object))
    }

    fn entry(&self, object: Option<Object>, expiry: Raw) -> Result<Option<Entry>> {
        let (object, ms) = match (object, expiry) {
            (Some(object), Raw::Text(ms)) => (object, ms),
            // It ended between the two, or is not there at all.
            (None, _) | (Some(_), Raw::Nothing) => return Ok(None),
            (Some(_), Raw::Bytes(_) | Raw::Refused(_)) => return Err(self.wire.odd()),
        };
        let ms: i64 = ms.parse().map_err(|_| self.wire.odd())?;
        // -1: it does not end; -2: it has ended.
        Ok((ms != -2).then_some(Entry { object, expire_ms: (ms >= 0).then_some(ms) }))
    }
}

/// Asks a node who is in the cluster.
pub(super) async fn ask_nodes(wire: &mut Wire) -> Result<Vec<Node>> {
    let text = wire.ask_done(&["CLUSTER", "NODES"], "ask about its cluster").await?;
    let host = wire.address().rsplit_once(':').map_or("", |(host, _)| host);
    nodes::parse(&text, host).ok_or_else(|| wire.odd())
}

fn offset_in(info: &str) -> Option<u64> {
    let offset = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
    offset?.trim().parse().ok()
}

/// Of a key that cannot be read back it could not be told where it is.
fn readable(db: u32, key: &[u8]) -> Result<()> {
    if db == 0 && document::is_whole(key) {
        return Ok(());
    }
    let why = "redis: keys over 3,500 bytes, and databases other than 0, are not read of a cluster";
    Err(Error::new(ErrorKind::Config, why))
}
