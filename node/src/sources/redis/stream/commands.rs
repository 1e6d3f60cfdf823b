//! The commands of a stream, and the deletion of many keys.

use std::time::Duration;

use tidegate_proto::BatchBuilder;
use tidegate_proto::v1::GapKind;

use super::{Flush, Phase, REREAD, RedisStream};
use crate::error::{Error, ErrorKind, Result};
use crate::sources::Loss;
use crate::sources::redis::apply::{Effect, NAME_BYTES_MAX, Place, Stop, apply, may_be_parted};
use crate::sources::redis::cluster::keys;
use crate::sources::redis::document;
use crate::sources::redis::position::{Offset, Position};
use crate::sources::redis::resp::{self, Command, RespError, Taken};

/// Keys deleted in one go.
const PAGE: usize = 512;
/// Commands applied before others get their turn.
const COMMANDS_MAX: usize = 100_000;

impl RedisStream {
    /// Applies the commands at hand. The position moves behind each whose
    /// changes are all in `out`.
    pub(super) async fn commands(
        &mut self,
        out: &mut BatchBuilder,
        bytes_max: usize,
        mut wait: Duration,
    ) -> Result<()> {
        for left in (0..=COMMANDS_MAX).rev() {
            if !self.keys.give(out, bytes_max) {
                return Ok(());
            }
            let Phase::Commands(at) = &self.phase else { return Ok(()) };
            self.position = Position::At(at.clone());
            if left == 0 || out.bytes() >= bytes_max || self.is_full() {
                return Ok(());
            }
            let wanted = match self.next() {
                Ok(Some(taken)) => {
                    self.take(&taken.parts(), taken.bytes()).await?;
                    continue;
                }
                Ok(None) => return Ok(()),
                Err(RespError::Short(wanted)) => wanted,
                Err(RespError::Corrupt(why)) => {
                    let why = format!("redis: the stream of commands is not understood: {why}");
                    return Err(Error::new(ErrorKind::Unavailable, why));
                }
            };
            self.wanted = (wanted, wanted);
            if !self.more(wait).await? {
                return Ok(());
            }
            // More only if it is there already.
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// The next command. None: what is noted has to be read back before it, for the batch
    /// that it was noted in.
    fn next(&mut self) -> Result<Option<Taken>, RespError> {
        let taken = match self.held.take() {
            Some(taken) => taken,
            None => resp::take(&mut self.link.buffer)?,
        };
        if self.notes() && may_be_parted(&taken.parts()) {
            self.held = Some(taken);
            return Ok(None);
        }
        Ok(Some(taken))
    }

    /// Applies a command, unless its keys are on the move between primaries of a cluster.
    async fn take(&mut self, command: &Command<'_>, taken: u64) -> Result<()> {
        let (Phase::Commands(at), Some(gate)) = (&mut self.phase, &mut self.gate) else {
            return self.apply(command, taken);
        };
        let upto = at.bytes.saturating_add(taken);
        if gate.must_look(command, upto) {
            gate.look(upto.saturating_add(self.link.buffer.len() as u64)).await?;
        }
        let Some(keys) = keys(command) else { return Err(unknown(&name_of(command))) };
        if gate.judge((at.db, &keys), upto)? {
            return self.apply(command, taken);
        }
        at.bytes = upto;
        Ok(())
    }

    fn apply(&mut self, command: &Command<'_>, taken: u64) -> Result<()> {
        let Phase::Commands(at) = &mut self.phase else { return Ok(()) };
        let queued = self.keys.queued();
        let mut place = Place { keys: &mut self.keys, db: &mut at.db, now_ms: (self.now_ms)() };
        let outcome = apply(&mut place, command);
        let stop = match outcome {
            Ok(effect) => {
                at.bytes += taken;
                let then = at.clone();
                self.do_besides(effect, then);
                return Ok(());
            }
            Err(stop) => stop,
        };
        let name = name_of(command);
        let why = match stop {
            Stop::Failed(error) => return Err(error),
            Stop::Unknown => return Err(unknown(&name)),
            Stop::Opaque => "it depends on a value that is not carried",
            Stop::Reread(why) => why,
        };
        self.rereads.take(&name, why, at)?;
        tracing::warn!(command = name, why, "a command is not computed; everything is read anew");
        // What it did up to there does not count.
        self.keys.unqueue(queued);
        let (bytes, id) = (at.bytes, &at.id);
        let detail = format!("the command {name} at byte {bytes} of {id} is not computed ({why})");
        self.losses.push(Loss { kind: GapKind::Reread, detail, mended: REREAD.to_owned() });
        // The position goes there once what came before is given, with the loss.
        self.phase = Phase::Over(format!("the command {name} is not computed ({why})"));
        Ok(())
    }

    fn do_besides(&mut self, effect: Effect, then: Offset) {
        match effect {
            Effect::None => {}
            Effect::Acknowledge => self.link.answer(),
            Effect::Flush(db) => {
                let from = db.map(document::collection).unwrap_or_default();
                // The position stays before it until all are gone.
                self.phase = Phase::Flush(Flush { db, upto: (from, Vec::new()), then });
            }
        }
    }

    /// Deletes the next keys. All changes before are spooled: this is another read.
    pub(super) fn flush(&mut self, out: &mut BatchBuilder, bytes_max: usize) -> Result<()> {
        let Phase::Flush(flush) = &self.phase else { return Ok(()) };
        self.keys.forget();
        let only = flush.db.map(document::collection);
        while out.bytes() < bytes_max && !self.is_full() {
            let Phase::Flush(flush) = &mut self.phase else { return Ok(()) };
            let (collection, key) = &flush.upto;
            let page = self.keys.captured().keys_after(collection, key, PAGE)?;
            let meant = |collection: &String| only.as_ref().is_none_or(|only| only == collection);
            let page: Vec<_> = page.into_iter().take_while(|named| meant(&named.0)).collect();
            let done = page.len() < PAGE;
            flush.upto = page.last().unwrap_or(&flush.upto).clone();
            let then = flush.then.clone();
            page.into_iter().try_for_each(|named| self.gone(named))?;
            self.keys.give(out, usize::MAX);
            if done {
                self.position = Position::At(then.clone());
                self.phase = Phase::Commands(then);
                return Ok(());
            }
        }
        Ok(())
    }
}

fn unknown(name: &str) -> Error {
    let why = format!(
        "redis: the primary sends the command {name}, or a form of it, that is not known here; \
         upgrade Tidegate, or stop using it and then create the export anew"
    );
    Error::new(ErrorKind::Config, why)
}

/// A command's name, if it looks like one.
fn name_of(command: &Command<'_>) -> String {
    let name = command.first().map_or(&b""[..], |name| name);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_|".contains(byte);
    if name.len() > NAME_BYTES_MAX || !name.iter().all(plain) {
        return "(no name)".to_owned();
    }
    String::from_utf8_lossy(name).to_ascii_uppercase()
}
