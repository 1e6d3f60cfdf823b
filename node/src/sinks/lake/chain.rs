//! A shard's chain of manifests: where it ends, and how a link is added.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::claim;
use super::client::{Created, Store};
use super::manifest::{FORMAT, Kind, Manifest};
use super::names;
use crate::error::{Error, ErrorKind, Result};
use crate::sinks::{Committed, SinkShard};

/// How often a fence may find its place taken by an owner before it.
const FENCE_TRIES_MAX: u32 = 16;
/// The most manifests that may appear while the end is looked for.
const LATE_MAX: usize = 100_000;

/// The chain as this owner knows it. Links are only ever added behind the
/// last, each by a create-if-absent: of two owners only one gets a place, and
/// a fence in it shuts out all epochs below.
#[derive(Debug)]
pub(super) struct Chain {
    store: Store,
    shard: SinkShard,
    tail: Option<Link>,
    /// The export's folder is known to be this export's.
    claimed: bool,
}

#[derive(Clone, Debug)]
struct Link {
    manifest: Manifest,
    hash: String,
}

impl Chain {
    /// Finds the end and shuts out epochs below the shard's. May be called
    /// again after any error: a fence that is there already is not doubled.
    pub(super) async fn open(store: Store, shard: SinkShard) -> Result<Self> {
        claim::check(&store, &shard).await?;
        let mut chain = Self { store, shard, tail: None, claimed: false };
        if let Some(number) = chain.find_end().await? {
            chain.tail = Some(chain.read(number).await?);
        }
        for _ in 0..FENCE_TRIES_MAX {
            match chain.owner()? {
                Some(epoch) if epoch > chain.shard.epoch.0 => return Err(chain.fenced(epoch)),
                Some(epoch) if epoch == chain.shard.epoch.0 => return Ok(chain),
                Some(_) | None => {}
            }
            if chain.fence().await? {
                return Ok(chain);
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "another owner keeps writing to this lake's chain"))
    }

    /// The epoch that wrote the last link; `None` if there is none, or if it is of an
    /// export that may be taken over.
    fn owner(&self) -> Result<Option<u64>> {
        let Some(Link { manifest, .. }) = &self.tail else { return Ok(None) };
        Ok(manifest.is_of(&self.shard)?.then_some(manifest.epoch))
    }

    /// What the lake has of the shard.
    pub(super) fn committed(&self) -> Result<Option<Committed>> {
        self.tail.as_ref().map_or(Ok(None), |link| link.manifest.committed())
    }

    /// The last sequence the lake has, 0 for none, and how many changes.
    pub(super) fn counts(&self) -> (u64, u64) {
        self.tail.as_ref().map_or((0, 0), |link| (link.manifest.to, link.manifest.records))
    }

    /// The number of the last link; 0 before the first.
    pub(super) fn length(&self) -> u64 {
        self.tail.as_ref().map_or(0, |link| link.manifest.number)
    }

    /// Makes the export's folder this export's, which it is to be before anything is
    /// delivered; fails with `Config` if it is another's.
    pub(super) async fn claim(&mut self) -> Result<()> {
        if !self.claimed {
            claim::claim(&self.store, &self.shard).await?;
            self.claimed = true;
        }
        Ok(())
    }

    /// Adds a commit. Its place in the chain is filled in here. Repeating a
    /// call whose outcome was not known is safe: the same commit is not added
    /// twice.
    pub(super) async fn append(&mut self, commit: &Manifest) -> Result<()> {
        let commit = self.placed(commit.clone());
        let (number, bytes) = (commit.number, commit.encode()?);
        if self.create(number, &bytes).await? == Created::Taken {
            let there = self.read(number).await?;
            if there.manifest != commit {
                return Err(self.displaced(&there.manifest));
            }
        }
        self.tail = Some(Link { manifest: commit, hash: hash_of(&bytes) });
        Ok(())
    }

    /// Manifest `number` of `shard`'s chain.
    pub(super) async fn manifest(
        store: &Store,
        shard: &SinkShard,
        number: u64,
    ) -> Result<Manifest> {
        Ok(read(store, shard, number).await?.manifest)
    }

    /// Adds a fence; `false` if another link took its place, which is then the
    /// last one known.
    async fn fence(&mut self) -> Result<bool> {
        let (to, records) = self.counts();
        let fence = self.placed(Manifest {
            format: FORMAT,
            kind: Kind::Fence,
            number: 0,
            export: self.shard.export.clone(),
            uid: self.shard.uid.clone(),
            shard: self.shard.shard.clone(),
            epoch: self.shard.epoch.0,
            from: to + 1,
            to,
            skipped: None,
            records,
            progress: self.tail.as_ref().and_then(|link| link.manifest.progress.clone()),
            operations: BTreeMap::new(),
            files: Vec::new(),
            previous: None,
        });
        let (number, bytes) = (fence.number, fence.encode()?);
        let created = self.create(number, &bytes).await;
        // Opening anew finds a fence that was made after all.
        let created = created.map_err(|error| {
            let unsure = error.kind() == ErrorKind::Unknown;
            let again = || Error::new(ErrorKind::Unavailable, "shut out owners before this one");
            if unsure { again().because(error) } else { error }
        })?;
        if created == Created::Taken {
            self.tail = Some(self.read(number).await?);
            return Ok(false);
        }
        if self.store.is_remote() && self.create(number, &bytes).await? == Created::Made {
            return Err(Error::new(
                ErrorKind::Config,
                "the object store ignores `If-None-Match: *`, so it cannot keep two owners apart; \
                 use a store with conditional writes",
            ));
        }
        self.tail = Some(Link { manifest: fence, hash: hash_of(&bytes) });
        Ok(true)
    }

    fn placed(&self, manifest: Manifest) -> Manifest {
        let previous = self.tail.as_ref().map(|link| link.hash.clone());
        Manifest { number: self.length() + 1, previous, ..manifest }
    }

    async fn create(&self, number: u64, bytes: &[u8]) -> Result<Created> {
        let path = names::manifest(&self.shard, number);
        self.store.create(&path, Bytes::copy_from_slice(bytes)).await
    }

    async fn read(&self, number: u64) -> Result<Link> {
        read(&self.store, &self.shard, number).await
    }

    /// The number of the last link, in about twice log2 of it requests and one
    /// listing of what lies behind.
    async fn find_end(&self) -> Result<Option<u64>> {
        let mut there = 0;
        let mut step = 1;
        while self.has(there + step).await? {
            there += step;
            step *= 2;
        }
        while step > 1 {
            step /= 2;
            if self.has(there + step).await? {
                there += step;
            }
        }
        let end = self.check_nothing_behind(there).await?;
        Ok((end > 0).then_some(end))
    }

    async fn has(&self, number: u64) -> Result<bool> {
        self.store.exists(&names::manifest(&self.shard, number)).await
    }

    /// The end again, further on if an owner added links meanwhile. A link
    /// behind a missing one means that somebody deleted manifests: to go on in
    /// the hole would deliver twice.
    async fn check_nothing_behind(&self, end: u64) -> Result<u64> {
        let folder = names::manifest_folder(&self.shard);
        let offset = names::manifest(&self.shard, end);
        let listed = self.store.names_behind(&folder, &offset, LATE_MAX).await?;
        let numbers = listed.iter().filter_map(|object| object.location.filename());
        let behind: BTreeSet<u64> = numbers.filter_map(names::manifest_number).collect();
        let last = behind.last().copied().unwrap_or(end);
        for number in end + 1..=last {
            if !behind.contains(&number) && !self.has(number).await? {
                let what = format!(
                    "manifest {number} of shard {} is missing in the lake, and later ones are \
                     there; restore it",
                    self.shard.shard
                );
                return Err(Error::new(ErrorKind::Corrupt, what));
            }
        }
        Ok(last)
    }

    fn displaced(&self, by: &Manifest) -> Error {
        if by.epoch > self.shard.epoch.0 {
            return self.fenced(by.epoch);
        }
        let what = format!(
            "manifest {} of shard {} is another than this owner's; open the lake anew",
            by.number, self.shard.shard
        );
        Error::new(ErrorKind::Unknown, what)
    }

    fn fenced(&self, epoch: u64) -> Error {
        let SinkShard { shard, epoch: own, .. } = &self.shard;
        Error::new(
            ErrorKind::Fenced,
            format!("shard {shard} has epoch {epoch} in the lake, this owner has {own}"),
        )
    }
}

async fn read(store: &Store, shard: &SinkShard, number: u64) -> Result<Link> {
    let bytes = store.get(&names::manifest(shard, number)).await?.ok_or_else(|| {
        // A store may say that a write collided with one that then failed.
        let what = format!("manifest {number} of shard {} is not there", shard.shard);
        Error::new(ErrorKind::Unknown, what)
    })?;
    let manifest = Manifest::decode(&bytes, shard, number)?;
    Ok(Link { manifest, hash: hash_of(&bytes) })
}

fn hash_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
