//! A dump, and what follows from it.

use std::time::Duration;

use bytes::Buf as _;
use tidegate_proto::BatchBuilder;

use super::{Phase, RedisStream};
use crate::error::{Error, ErrorKind, Result};
use crate::sources::Captured;
use crate::sources::redis::document;
use crate::sources::redis::position::{Offset, Position};
use crate::sources::redis::rdb::{Dump, Found, RdbError};

/// Keys looked at in one go.
const PAGE: usize = 512;
/// Keys looked at before others get their turn.
const KEYS_MAX: usize = 4096;
/// Characters of the mark behind a dump of unknown length.
const MARK_BYTES: usize = 40;
/// Bytes of the line that announces a dump.
const LINE_BYTES_MAX: usize = 64;
/// Bytes one key of a dump may have, as it is written.
const ROW_BYTES_MAX: usize = 256 << 20;

/// How far a dump is.
pub(super) struct Resync {
    /// Where the stream goes on behind it.
    then: Offset,
    /// Something was captured before: rows are compared, keys marked and swept.
    compares: bool,
    marks: Vec<(String, Vec<u8>)>,
    step: Step,
}

enum Step {
    Announced,
    Dump {
        dump: Dump,
        read: u64,
        end: End,
    },
    /// Up to this key, what is not in the dump was deleted.
    Sweep(String, Vec<u8>),
    Settle,
}

/// How a dump's end is told.
#[derive(Clone, Copy)]
enum End {
    Mark([u8; MARK_BYTES]),
    Length(u64),
}

impl Resync {
    pub(super) fn begin(then: Offset, captured: &dyn Captured) -> Result<Self> {
        let compares = !captured.keys_after("", &[], 1)?.is_empty();
        captured.clear_marks()?;
        tracing::info!(compares, "everything is read anew");
        Ok(Self { then, compares, marks: Vec::new(), step: Step::Announced })
    }
}

impl RedisStream {
    /// Goes on with the dump.
    pub(super) async fn resync(
        &mut self,
        out: &mut BatchBuilder,
        bytes_max: usize,
        mut wait: Duration,
    ) -> Result<()> {
        let mut left = KEYS_MAX;
        while self.keys.give(out, bytes_max) && out.bytes() < bytes_max && !self.is_full() {
            let Phase::Resync(resync) = &mut self.phase else { return Ok(()) };
            if left == 0 {
                break;
            }
            left -= 1;
            let short = match &resync.step {
                Step::Announced => self.announced()?,
                Step::Dump { .. } => self.dump()?,
                Step::Sweep(..) => {
                    left = left.saturating_sub(PAGE);
                    self.sweep().await?;
                    None
                }
                Step::Settle => return self.settle(),
            };
            let wanted = short.unwrap_or(0);
            self.wanted = (wanted, enough(wanted, self.link.buffer.len()));
            if short.is_some() && !self.more(wait).await? {
                break;
            }
            if short.is_some() {
                wait = Duration::ZERO;
            }
            // Whoever settles does so in another read, once all is spooled.
            if matches!(&self.phase, Phase::Resync(Resync { step: Step::Settle, .. })) {
                break;
            }
        }
        self.keep_marks()
    }

    /// Reads the line before a dump; gives how many bytes are wanted if it is not
    /// all there.
    fn announced(&mut self) -> Result<Option<usize>> {
        let Phase::Resync(resync) = &mut self.phase else { return Ok(None) };
        let buffer = &mut self.link.buffer;
        // While the primary prepares, it keeps the link alive with empty lines.
        while buffer.first().is_some_and(|byte| b"\r\n".contains(byte)) {
            buffer.advance(1);
        }
        let Some(end) = buffer.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
            if buffer.len() >= LINE_BYTES_MAX {
                return Err(odd("the line before it"));
            }
            return Ok(Some(buffer.len() + 1));
        };
        let line = buffer.split_to(end + 1);
        let line = line.trim_ascii_end();
        if let Some(why) = line.strip_prefix(b"-") {
            let why = String::from_utf8_lossy(why);
            let why = format!("redis: the primary could not make a dump: {why}");
            return Err(Error::new(ErrorKind::Unavailable, why));
        }
        let end = match line.strip_prefix(b"$EOF:") {
            Some(mark) => mark.try_into().ok().map(End::Mark),
            None => line.strip_prefix(b"$").and_then(number).map(End::Length),
        };
        let end = end.ok_or_else(|| odd("the line before it"))?;
        resync.step = Step::Dump { dump: Dump::default(), read: 0, end };
        Ok(None)
    }

    /// Takes the next key; gives how many bytes are wanted if it is not all there.
    fn dump(&mut self) -> Result<Option<usize>> {
        let Phase::Resync(resync) = &mut self.phase else { return Ok(None) };
        let Step::Dump { dump, read, end } = &mut resync.step else { return Ok(None) };
        let buffer = &mut self.link.buffer;
        let (found, taken) = match dump.next(buffer) {
            Ok(next) => next,
            Err(RdbError::Short(wanted)) if wanted <= ROW_BYTES_MAX => return Ok(Some(wanted)),
            Err(RdbError::Short(_)) => return Err(unsupported("a key over 256 MiB")),
            Err(RdbError::Unsupported(what)) => return Err(unsupported(&what)),
            Err(RdbError::Corrupt(why)) => return Err(odd(why)),
        };
        if let Found::End = found
            && let End::Mark(mark) = end
        {
            // It may come in pieces, too; then the end is looked at once more.
            let Some(behind) = buffer.get(taken..taken + MARK_BYTES) else {
                return Ok(Some(taken + MARK_BYTES));
            };
            if behind != mark {
                return Err(odd("the mark behind it"));
            }
            buffer.advance(MARK_BYTES);
        }
        buffer.advance(taken);
        *read += taken as u64;
        match found {
            Found::Key { db, key, entry } => {
                let counts = match &self.gate {
                    Some(gate) => gate.judge_row(db, &key)?,
                    None => true,
                };
                if counts {
                    self.keys.row(db, &key, entry, resync.compares)?;
                }
                if resync.compares {
                    let named = document::key(&key)?.as_bytes().to_vec();
                    resync.marks.push((document::collection(db), named));
                }
            }
            Found::Selected(db) => resync.then.db = db,
            Found::Other => {}
            Found::End => {
                if matches!(end, End::Length(length) if *length != *read) {
                    return Err(odd("its length"));
                }
                // Only then does the primary send us the stream.
                self.link.acknowledge(resync.then.bytes);
                let sweep = Step::Sweep(String::new(), Vec::new());
                resync.step = if resync.compares { sweep } else { Step::Settle };
                self.keep_marks()?;
            }
        }
        Ok(None)
    }

    /// Deletes what was captured and is not in the dump, page by page.
    async fn sweep(&mut self) -> Result<()> {
        // What went to another primary is not in the dump either.
        if let Some(gate) = &mut self.gate {
            gate.look(0).await?;
        }
        let Phase::Resync(resync) = &mut self.phase else { return Ok(()) };
        let Step::Sweep(collection, key) = &mut resync.step else { return Ok(()) };
        let captured = self.keys.captured();
        let page = captured.keys_after(collection, key, PAGE)?;
        let mut gone = Vec::new();
        for (collection, key) in &page {
            if !captured.is_marked(collection, key)? {
                gone.push((collection.clone(), key.clone()));
            }
        }
        match page.into_iter().last() {
            Some(last) => (*collection, *key) = last,
            None => resync.step = Step::Settle,
        }
        gone.into_iter().try_for_each(|named| self.gone(named))
    }

    /// All that followed from the dump is spooled.
    fn settle(&mut self) -> Result<()> {
        let Phase::Resync(resync) = &self.phase else { return Ok(()) };
        let captured = self.keys.captured();
        captured.settle()?;
        captured.clear_marks()?;
        tracing::info!(bytes = resync.then.bytes, "what was captured is what the primary had");
        self.position = Position::At(resync.then.clone());
        self.phase = Phase::Commands(resync.then.clone());
        Ok(())
    }

    fn keep_marks(&mut self) -> Result<()> {
        let Phase::Resync(resync) = &mut self.phase else { return Ok(()) };
        if resync.marks.is_empty() {
            return Ok(());
        }
        self.keys.captured().mark(&std::mem::take(&mut resync.marks))
    }
}

/// Looking in vain at all there is again with every piece that comes would take
/// the square of its time.
fn enough(wanted: usize, there: usize) -> usize {
    const LITTLE: usize = 1 << 20;
    if there > LITTLE { wanted.max(there + there / 2) } else { wanted }
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A dump that is not what it should be; another may be.
fn odd(what: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("redis: the primary's dump is not understood: {what}"),
    )
}

fn unsupported(what: &str) -> Error {
    Error::new(ErrorKind::Config, format!("redis: the primary's dump holds {what}"))
}
