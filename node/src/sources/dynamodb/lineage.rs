//! Which stream shards may be read next, and which were lost.
//!
//! A stream shard lives for some hours and is followed by one child, or by
//! several when its partition was split. A key's changes are in order only if
//! a parent is read to its end before its children. Nothing here asks anyone:
//! listings and progress go in, shards to read and losses come out.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_proto::v1::GapKind;

use super::sequence::SequenceNumber;
use crate::error::{Error, ErrorKind, Result};
use crate::sources::Loss;

/// A stream shard as a listing has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) parent: Option<String>,
    /// It will get no more records.
    pub(super) closed: bool,
}

/// How far one stream shard has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing yet: read the oldest record it has.
    Horizon {
        /// Until then nothing that we need was trimmed: milliseconds since
        /// 1970. A first look a day later may have come too late.
        since_ms: i64,
    },
    /// This record was the last one read.
    After(SequenceNumber),
    /// Every record was read, or was older than the anchor.
    Finished,
}

/// All stream shards that matter still, and how far each was read.
///
/// ```text
///              Horizon --record--> After --record--> After
///   listed ---->  |                  |
///                 +------- end ------+--> Finished --no longer listed--> forgotten
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lineage {
    places: BTreeMap<String, Place>,
    /// What the last listing said; empty before the first.
    listed: BTreeMap<String, Listed>,
    /// The youngest shard forgotten. Ids begin with the time of birth, so
    /// what is not younger and turns up again was finished.
    forgotten: String,
}

impl Lineage {
    /// At the anchor: what is closed holds only changes that the snapshot will
    /// show; what is open is read from its oldest record. Its newest would not
    /// do: the ends of many shards are not taken at one moment.
    pub(super) fn anchored(listing: &[Listed], now_ms: i64) -> Self {
        Self::from_listing(listing, |shard| match shard.closed {
            true => Place::Finished,
            false => Place::Horizon { since_ms: now_ms },
        })
    }

    /// For a stream that took the place of another: all of it is read.
    pub(super) fn whole(listing: &[Listed], now_ms: i64) -> Self {
        Self::from_listing(listing, |_| Place::Horizon { since_ms: now_ms })
    }

    /// As a position had it.
    pub(super) fn restored(places: BTreeMap<String, Place>, forgotten: String) -> Self {
        Self { places, listed: BTreeMap::new(), forgotten }
    }

    fn from_listing(listing: &[Listed], place: impl Fn(&Listed) -> Place) -> Self {
        let listed = by_id(listing);
        let places = listed.iter().map(|(id, shard)| (id.clone(), place(shard))).collect();
        Self { places, listed, forgotten: String::new() }
    }

    /// Every known shard and how far it was read.
    pub(super) fn places(&self) -> &BTreeMap<String, Place> {
        &self.places
    }

    /// The youngest shard forgotten; empty for none.
    pub(super) fn forgotten(&self) -> &str {
        &self.forgotten
    }

    /// What `listing` would cost if it is right. A listing may be behind the
    /// stream it lists, so ask again before believing it.
    pub(super) fn losses(&self, listing: &[Listed]) -> Vec<Loss> {
        let listed = by_id(listing);
        let vanished = self.vanished(&listed).map(|(id, place)| {
            let read = match place {
                Place::After(last) => format!("read up to record {last}"),
                Place::Horizon { .. } | Place::Finished => "of which nothing was read".to_owned(),
            };
            loss(GapKind::Vanished, format!("stream shard {id}, {read}, was gone before its end"))
        });
        let born_and_gone =
            listed.values().filter(|shard| self.is_new(&shard.id)).filter_map(|shard| {
                let parent = shard.parent.as_deref()?;
                let unknown = !self.places.contains_key(parent)
                    && !listed.contains_key(parent)
                    && self.is_new(parent);
                let why = format!("stream shard {parent} came and went between two listings");
                unknown.then(|| loss(GapKind::Vanished, why))
            });
        let mut losses: Vec<Loss> = vanished.chain(born_and_gone).collect();
        losses.dedup();
        losses
    }

    /// Takes `listing` as the truth: new shards are known from here on, what
    /// vanished is given up, what is finished and no longer listed is forgotten.
    pub(super) fn learn(&mut self, listing: &[Listed], now_ms: i64) -> Result<Vec<Loss>> {
        let listed = by_id(listing);
        refuse_cycles(&listed)?;
        let losses = self.losses(listing);
        let vanished: BTreeSet<String> = self.vanished(&listed).map(|(id, _)| id.clone()).collect();
        let above = self.ancestors(&listed);
        for id in listed.keys() {
            let place = match self.is_new(id) && !above.contains(id) {
                true => Place::Horizon { since_ms: now_ms },
                false => Place::Finished,
            };
            self.places.entry(id.clone()).or_insert(place);
        }
        let gone: Vec<String> =
            self.places.keys().filter(|id| !listed.contains_key(*id)).cloned().collect();
        for id in gone {
            self.places.remove(&id);
            if !vanished.contains(&id) && id > self.forgotten {
                self.forgotten = id;
            }
        }
        self.listed = listed;
        Ok(losses)
    }

    /// Shards that have more to read and whose parents have not. A position does not say
    /// whose child is whose: of several none is, before there is a listing.
    pub(super) fn readable(&self) -> impl Iterator<Item = (&str, &Place)> {
        let blind = self.listed.is_empty() && self.unfinished().nth(1).is_some();
        self.unfinished().filter(move |(id, _)| {
            if blind {
                return false;
            }
            let parent = self.listed.get(*id).and_then(|shard| shard.parent.as_deref());
            let drained = |parent| !matches!(self.places.get(parent), Some(place) if *place != Place::Finished);
            parent.is_none_or(drained)
        })
    }

    /// Shards that have more to read.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = (&str, &Place)> {
        let all = self.places.iter().map(|(id, place)| (id.as_str(), place));
        all.filter(|(_, place)| **place != Place::Finished)
    }

    /// How far `id` was read; `None` if it is not known (any more).
    pub(super) fn place(&self, id: &str) -> Option<&Place> {
        self.places.get(id)
    }

    /// The last listing had `id` closed: an empty page of it is no reason to wait.
    pub(super) fn is_closed(&self, id: &str) -> bool {
        self.listed.get(id).is_some_and(|shard| shard.closed)
    }

    /// The last listing had a child of `id`.
    pub(super) fn has_child(&self, id: &str) -> bool {
        self.listed.values().any(|shard| shard.parent.as_deref() == Some(id))
    }

    /// `id` was read further.
    pub(super) fn advance(&mut self, id: &str, to: Place) {
        let Some(place) = self.places.get_mut(id) else { return };
        if let (Place::After(old), Place::After(new)) = (&*place, &to) {
            assert!(old <= new, "a stream shard is read forwards");
        }
        assert!(*place != Place::Finished, "nothing follows the end of a stream shard");
        *place = to;
    }

    fn vanished<'a>(
        &'a self,
        listed: &'a BTreeMap<String, Listed>,
    ) -> impl Iterator<Item = (&'a String, &'a Place)> {
        let unfinished = self.places.iter().filter(|(_, place)| **place != Place::Finished);
        unfinished.filter(|(id, _)| !listed.contains_key(*id))
    }

    /// Parents of known shards and those above them. One that turns up only now was given
    /// up when its child was taken: behind that its records would undo newer ones.
    fn ancestors(&self, listed: &BTreeMap<String, Listed>) -> BTreeSet<String> {
        let mut above = BTreeSet::new();
        for id in self.places.keys() {
            let mut parent = listed.get(id).and_then(|shard| shard.parent.as_ref());
            while let Some(id) = parent.filter(|id| !above.contains(*id)) {
                above.insert(id.clone());
                parent = listed.get(id).and_then(|shard| shard.parent.as_ref());
            }
        }
        above
    }

    fn is_new(&self, id: &str) -> bool {
        !self.places.contains_key(id) && id > self.forgotten.as_str()
    }
}

fn by_id(listing: &[Listed]) -> BTreeMap<String, Listed> {
    listing.iter().map(|shard| (shard.id.clone(), shard.clone())).collect()
}

/// DynamoDB mends nothing itself.
pub(super) fn loss(kind: GapKind, detail: String) -> Loss {
    Loss { kind, detail, mended: String::new() }
}

fn refuse_cycles(listed: &BTreeMap<String, Listed>) -> Result<()> {
    for shard in listed.values() {
        let mut steps = 0;
        let mut parent = shard.parent.as_ref();
        while let Some(above) = parent.and_then(|id| listed.get(id)) {
            steps += 1;
            if steps > listed.len() {
                let why = "stream shards name each other as parents; report this to AWS support";
                return Err(Error::new(ErrorKind::Corrupt, why));
            }
            parent = above.parent.as_ref();
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "lineage/tests.rs"]
mod tests;
