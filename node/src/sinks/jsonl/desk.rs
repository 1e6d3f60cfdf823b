//! A folder that belongs to one owner of a shard's files: who shuts it out takes
//! the folder away.

use std::fs::{self, File};
use std::io::{self, ErrorKind as Io, Write as _};
use std::path::{Path, PathBuf};

use super::files::explain;
use crate::error::{Error, ErrorKind, Result};

/// What is being written at a desk.
const DRAFT: &str = "new.json";
/// How often a desk may be found in use while it is taken away.
const TRIES_MAX: u32 = 16;

/// Where an owner writes what it then puts in place.
#[derive(Debug)]
pub(super) struct Desk(PathBuf);

impl Desk {
    /// Makes a desk, then takes away those of owners with epochs up to `upto`. Of two that
    /// open at once at least one finds the other's. `Fenced` if a newer owner has one.
    pub(super) fn take(folder: &Path, stem: &str, epoch: u64, upto: u64) -> Result<Self> {
        let doing = |error: io::Error| explain("make a desk", &error);
        let start = format!("{stem}.desk-");
        let own = Self(folder.join(format!("{start}{epoch}-{:016x}", rand::random::<u64>())));
        fs::create_dir(&own.0).map_err(doing)?;
        for entry in fs::read_dir(folder).map_err(doing)? {
            let other = Self(entry.map_err(doing)?.path());
            let Some(there) = other.epoch(&start).filter(|_| other.0 != own.0) else { continue };
            if there > upto {
                own.remove()?;
                return Err(fenced(there, epoch));
            }
            other.remove()?;
        }
        Ok(own)
    }

    /// Replaces `place` by `bytes`, durably but for the name; false if this desk was
    /// taken away, and `place` is as it was.
    pub(super) fn put(&self, bytes: &[u8], place: &Path) -> io::Result<bool> {
        let draft = self.0.join(DRAFT);
        let put = File::create(&draft).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&draft, place)
        });
        match put {
            Err(error) if error.kind() == Io::NotFound => Ok(false),
            put => put.map(|()| true),
        }
    }

    /// Takes it away. From then on nothing can be written at it or put in place
    /// from it, whatever its owner was about to do.
    pub(super) fn remove(&self) -> Result<()> {
        let doing = |error: io::Error| explain("shut out owners before this one", &error);
        for _ in 0..TRIES_MAX {
            gone(fs::remove_file(self.0.join(DRAFT))).map_err(doing)?;
            match gone(fs::remove_dir(&self.0)) {
                Err(error) if error.kind() == Io::DirectoryNotEmpty => {}
                removed => return removed.map_err(doing),
            }
        }
        let what = "another owner keeps writing to the jsonl sink";
        Err(Error::new(ErrorKind::Unavailable, what))
    }

    /// Of the owner, if this is the desk of one.
    fn epoch(&self, start: &str) -> Option<u64> {
        let rest = self.0.file_name()?.to_str()?.strip_prefix(start)?;
        rest.split_once('-')?.0.parse().ok()
    }
}

/// That something is not there is what was wanted.
pub(super) fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == Io::NotFound => Ok(()),
        removed => removed,
    }
}

/// The answer to an owner that a newer one has replaced.
pub(super) fn fenced(there: u64, own: u64) -> Error {
    let what = format!("the jsonl files are at epoch {there}, this owner has {own}");
    Error::new(ErrorKind::Fenced, what)
}
