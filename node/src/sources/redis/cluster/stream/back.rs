//! Keys on the move, read back from whoever has them.

use std::collections::BTreeSet;

use tidegate_proto::BatchBuilder;
use tokio::time::Instant;

use super::{ClusterStream, locked};
use crate::error::Result;
use crate::sources::Last;
use crate::sources::redis::cluster::gate::{Ask, TOGETHER};
use crate::sources::redis::cluster::position::Place;
use crate::sources::redis::document;
use crate::sources::redis::object::{Entry, Object, Opaque};

/// Captured keys looked at in one go.
const PAGE: usize = 512;
/// Bytes of a batch behind which values that are read back are pending: they are read with
/// the next.
const BYTES_MAX: usize = 24 << 20;

/// Goes through the captured keys of open slots. A primary that left may have said what was
/// not read: then each is read back, else those that are pending.
pub(super) struct Audit {
    /// Up to here.
    pub(super) upto: (String, Vec<u8>),
    /// Of those that left; they stand in the position until it is done.
    pub(super) left: Vec<Place>,
}

/// A batch that keys are read back into.
struct Back<'a> {
    out: &'a mut BatchBuilder,
    /// Keys that were on their way before, as documents have them.
    given: BTreeSet<Vec<u8>>,
}

impl<'a> Back<'a> {
    fn into(out: &'a mut BatchBuilder) -> Self {
        let given = out.pending().map(|change| change.key.to_vec()).collect();
        Self { out, given }
    }

    fn is_given(&self, key: &[u8]) -> Result<bool> {
        Ok(self.given.contains(document::key(key)?.as_bytes()))
    }

    fn is_full(&self) -> bool {
        self.out.bytes() > BYTES_MAX
    }
}

impl ClusterStream {
    /// Notes the next captured keys of open slots, if there is reason to.
    pub(super) fn go_on_with_audit(&mut self) -> Result<()> {
        let Some(audit) = &mut self.audit else { return Ok(()) };
        let captured = self.keys.captured();
        let page = captured.keys_after(&audit.upto.0, &audit.upto.1, PAGE)?;
        for (collection, named) in &page {
            if let Some(key) = document::redis_key(named)
                && locked(&self.board).is_open(&key)
                && (!audit.left.is_empty() || is_pending(captured.last(collection, named)?)?)
            {
                locked(&self.board).note_captured(&key);
            }
        }
        match page.into_iter().last() {
            Some(last) => audit.upto = last,
            None => self.audit = None,
        }
        Ok(())
    }

    /// Reads back what was noted, behind all that was computed before.
    pub(super) async fn read_back(&mut self, out: &mut BatchBuilder) -> Result<()> {
        if self.is_behind() {
            return Ok(());
        }
        let noted = self.board().take_dirty();
        if noted.is_empty() {
            return Ok(());
        }
        // A key may go to another primary between two questions, so that the one that has
        // its slot is asked first, and all are asked again before it counts as gone.
        let mut back = Back::into(out);
        let mut rest = Vec::new();
        for member in 0..self.members.len() {
            let own = noted.iter().filter(|(_, claimant)| *claimant == Some(member));
            let own: Vec<Vec<u8>> = own.map(|(key, _)| key.clone()).collect();
            rest.extend(self.ask(member, own, &mut back).await?);
        }
        rest.extend(noted.into_iter().filter(|(_, it)| it.is_none()).map(|(key, _)| key));
        for _ in 0..2 {
            for member in 0..self.members.len() {
                rest = self.ask(member, rest, &mut back).await?;
            }
            if !rest.is_empty() {
                // Unless there is a primary that is not asked.
                self.look_due = Instant::now();
                self.look_around().await?;
            }
        }
        for key in rest {
            if back.is_given(&key)? || self.keys.exists(0, &key)? {
                self.keys.delete(0, &key)?;
            }
        }
        self.keys.give(back.out, usize::MAX);
        self.old = true;
        Ok(())
    }

    /// Reads back what a primary has of `keys`, and gives the others.
    async fn ask(
        &mut self,
        member: usize,
        keys: Vec<Vec<u8>>,
        back: &mut Back<'_>,
    ) -> Result<Vec<Vec<u8>>> {
        let mut rest = Vec::new();
        for keys in keys.chunks(TOGETHER) {
            let Some((gate, _)) = self.members[member].stream.gate() else { continue };
            let ask = if back.is_full() { Ask::Whether } else { Ask::Value };
            for (key, entry) in keys.iter().zip(gate.read_back(keys, ask).await?) {
                match entry {
                    Some(entry) => self.bring(key, entry, back)?,
                    None => rest.push(key.clone()),
                }
            }
            // Each is read back once, and what was given before is told apart.
            self.keys.forget();
        }
        Ok(rest)
    }

    fn bring(&mut self, key: &[u8], mut entry: Entry, back: &mut Back<'_>) -> Result<()> {
        let is_given = back.is_given(key)?;
        if back.is_full() && (is_given || self.keys.get(0, key)? != Some(&entry)) {
            entry.object = Object::Opaque(Opaque::Pending);
        }
        if entry.object == Object::Opaque(Opaque::Pending) {
            self.board().note_captured(key);
        }
        if is_given || self.keys.get(0, key)? != Some(&entry) {
            self.keys.put(0, key, entry)?;
            self.keys.give(back.out, usize::MAX);
        }
        Ok(())
    }
}

/// What was captured last of a key is not its value.
fn is_pending(last: Option<Last>) -> Result<bool> {
    Ok(match last {
        Some(Last::Document { dictionary, value }) => {
            let entry = document::decode(&dictionary, &value)?;
            entry.object == Object::Opaque(Opaque::Pending)
        }
        Some(Last::Unknown) => true,
        None => false,
    })
}
