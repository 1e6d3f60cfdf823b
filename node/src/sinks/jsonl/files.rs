//! The files of one shard, and the position that says how far they count.
//!
//! ```text
//!   EXPORT-SHARD-OPENING-FROM.jsonl   lines; FROM is the first line's sequence
//!   EXPORT-SHARD.position.json        the newest file, how much of it counts
//!   EXPORT-SHARD.desk-EPOCH-RANDOM/   where an owner writes its next position
//! ```
//!
//! A position is written at its owner's [`Desk`] after the lines it covers were
//! synced, and renamed over the one before. Whoever opens takes the desks of owners
//! before it away: a folder that is gone lets no file in or out. So an owner that
//! stood still, wherever that was, is refused by the rename itself, and nobody waits
//! for it, as one would for a lock that it holds.
//!
//! An opening has a number that no other has, never below its epoch, and adds to
//! files with that number only: what it writes once it is shut out lies behind what
//! its successor took. It cuts that off itself; if it dies first, the next opening does.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind as Io, Write as _};
use std::path::{Path, PathBuf};

use prost::Message as _;
use serde::{Deserialize, Serialize};
use tidegate_proto::Sequence;
use tidegate_proto::v1::Progress;

use super::Held;
use super::desk::{Desk, fenced, gone};
use crate::error::{Error, ErrorKind, Result};
use crate::sinks::lake::{meaning_of, safe};
use crate::sinks::{Committed, SinkShard};

const FORMAT: u32 = 1;

/// A shard's files, with the newest one ready to be added to.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    /// `EXPORT-SHARD`.
    stem: String,
    desk: Desk,
    rotate_bytes: u64,
    position: Position,
}

/// The content of the position file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    format: u32,
    /// See [`SinkShard::uid`].
    #[serde(default)]
    uid: String,
    epoch: u64,
    /// Grows with each opening.
    #[serde(default)]
    opening: u64,
    /// The last sequence in the files; 0 for none.
    sequence: u64,
    records: u64,
    /// Protobuf; empty before the first change.
    progress: Vec<u8>,
    /// The newest file's name; empty before the first change.
    file: String,
    /// How many of its bytes count.
    bytes: u64,
    /// What this opening found.
    #[serde(default)]
    taken: Extent,
}

/// Where the files of an opening and those before it end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Extent {
    opening: u64,
    sequence: u64,
    file: String,
    bytes: u64,
}

impl Position {
    fn extent(&self) -> Extent {
        // Once files had an epoch in that place.
        let opening = self.opening.max(self.epoch);
        let Self { sequence, file, bytes, .. } = self.clone();
        Extent { opening, sequence, file, bytes }
    }

    /// See [`SinkShard::owns`].
    fn is_of(&self, shard: &SinkShard) -> Result<bool> {
        let remedy = "To begin anew, take its files away, or give the sink another `path`";
        let record = (&self.uid[..], Sequence(self.sequence));
        shard.owns(record, "the folder of the jsonl sink", remedy)
    }

    /// Refuses a shard that may not add to the files.
    fn admits(&self, shard: &SinkShard) -> Result<()> {
        if self.is_of(shard)? && self.epoch > shard.epoch.0 {
            return Err(fenced(self.epoch, shard.epoch.0));
        }
        Ok(())
    }
}

impl Files {
    /// Shuts out owners before this one and cuts off what no position covers.
    pub(super) fn open(folder: PathBuf, shard: &SinkShard, rotate_bytes: u64) -> Result<Self> {
        fs::create_dir_all(&folder).map_err(|error| explain("make the folder", &error))?;
        let stem = format!("{}-{}", safe(&shard.export), safe(&shard.shard));
        let epoch = shard.epoch.0;
        let ours = read_position(&folder, &stem)?.is_of(shard)?;
        let desk = Desk::take(&folder, &stem, epoch, if ours { epoch } else { u64::MAX })?;
        let position = Position { epoch, uid: shard.uid.clone(), ..Position::default() };
        let mut files = Self { folder, stem, desk, rotate_bytes, position };
        let there = files.read_position()?;
        if let Err(error) = there.admits(shard) {
            files.desk.remove()?;
            return Err(error);
        }
        let taken = there.extent();
        let opening = epoch.max(taken.opening + 1);
        let before = there.taken.clone();
        let uid = shard.uid.clone();
        files.write_position(Position { uid, epoch, opening, taken: taken.clone(), ..there })?;
        files.remove_behind(&before)?;
        files.remove_behind(&taken)?;
        files.trim(&taken.file, taken.bytes)?;
        // Whoever reads the files may have taken the one before away.
        if before.file != taken.file && files.folder.join(&before.file).exists() {
            files.trim(&before.file, before.bytes)?;
        }
        Ok(files)
    }

    /// What the files hold.
    pub(super) fn committed(&self) -> Result<Option<Committed>> {
        if self.position.sequence == 0 {
            return Ok(None);
        }
        let progress = Progress::decode(&self.position.progress[..]).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "progress in a jsonl position file").because(error)
        })?;
        let (sequence, records) = (Sequence(self.position.sequence), self.position.records);
        Ok(Some(Committed { sequence, progress, records }))
    }

    /// Adds lines and moves the position over them. All or nothing: after an
    /// error the same call may be made again.
    pub(super) fn append(&mut self, held: &Held) -> Result<()> {
        if self.read_position()? != self.position || held.from < self.position.sequence {
            return Err(self.replaced());
        }
        self.add(held)
    }

    fn add(&mut self, held: &Held) -> Result<()> {
        let mut next = self.position.clone();
        let own = format!("{}-{}-", self.stem, next.opening);
        if next.bytes >= self.rotate_bytes || !next.file.starts_with(&own) {
            next.file = format!("{own}{}.jsonl", held.from + 1);
            next.bytes = 0;
        }
        let (path, before) = (self.folder.join(&next.file), next.bytes);
        if before == 0 {
            File::create(&path).map_err(|error| explain("begin a file", &error))?;
        }
        // A try before may have left lines that do not count.
        self.trim(&next.file, before)?;
        write_behind(&path, &held.lines)
            .and_then(|()| sync_folder(&self.folder))
            .map_err(|error| explain("add lines", &error))?;
        next.bytes += held.lines.len() as u64;
        next.sequence = held.upto;
        next.records += held.count;
        next.progress.clone_from(&held.progress);
        let written = self.write_position(next);
        let shut_out =
            |error: &Error| matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Unknown);
        if written.as_ref().is_err_and(shut_out) {
            let undone = match before {
                0 => gone(fs::remove_file(&path)),
                _ => OpenOptions::new().write(true).open(&path).and_then(|it| it.set_len(before)),
            };
            undone.map_err(|error| explain("take back lines", &error))?;
        }
        written
    }

    /// Why this owner cannot go on.
    fn replaced(&self) -> Error {
        let own = self.position.epoch;
        match self.read_position() {
            Ok(there) if there.epoch > own => fenced(there.epoch, own),
            _ => {
                let what = "the jsonl files are not as this owner left them; open the sink anew";
                Error::new(ErrorKind::Unknown, what)
            }
        }
    }

    fn read_position(&self) -> Result<Position> {
        read_position(&self.folder, &self.stem)
    }

    fn write_position(&mut self, position: Position) -> Result<()> {
        let bytes = serde_json::to_vec(&position)
            .map_err(|error| Error::new(ErrorKind::Corrupt, "a jsonl position").because(error))?;
        let doing = |error: io::Error| explain("replace the position", &error);
        if !self.desk.put(&bytes, &position_path(&self.folder, &self.stem)).map_err(doing)? {
            return Err(self.replaced());
        }
        sync_folder(&self.folder).map_err(doing)?;
        self.position = position;
        Ok(())
    }

    /// Removes files that no position covers: begun behind the end of their opening.
    fn remove_behind(&self, end: &Extent) -> Result<()> {
        let doing = |error: io::Error| explain("remove files that do not count", &error);
        for entry in fs::read_dir(&self.folder).map_err(doing)? {
            let name = entry.map_err(doing)?.file_name();
            let place = name.to_str().and_then(|name| self.place_of(name));
            if place.is_some_and(|(opening, from)| opening <= end.opening && from > end.sequence) {
                gone(fs::remove_file(self.folder.join(&name))).map_err(doing)?;
            }
        }
        Ok(())
    }

    /// Cuts off the end of a file that no position covers.
    fn trim(&self, name: &str, bytes: u64) -> Result<()> {
        if name.is_empty() {
            return Ok(());
        }
        let doing = |error: io::Error| explain("cut off lines that do not count", &error);
        let file = OpenOptions::new().write(true).open(self.folder.join(name)).map_err(doing)?;
        let there = file.metadata().map_err(doing)?.len();
        if there < bytes {
            let what = "a jsonl file is shorter than its position says; restore it";
            return Err(Error::new(ErrorKind::Corrupt, what));
        }
        if there > bytes {
            file.set_len(bytes).and_then(|()| file.sync_all()).map_err(doing)?;
        }
        Ok(())
    }

    /// Opening and first sequence, by the name of one of this shard's files.
    fn place_of(&self, name: &str) -> Option<(u64, u64)> {
        let rest = name.strip_prefix(&self.stem)?.strip_prefix('-')?.strip_suffix(".jsonl")?;
        let (opening, from) = rest.split_once('-')?;
        Some((opening.parse().ok()?, from.parse().ok()?))
    }
}

fn read_position(folder: &Path, stem: &str) -> Result<Position> {
    let position: Position = match fs::read(position_path(folder, stem)) {
        Err(error) if error.kind() == Io::NotFound => {
            return Ok(Position { format: FORMAT, ..Position::default() });
        }
        Err(error) => return Err(explain("read the position", &error)),
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            let what = "a jsonl position file does not decode; restore it";
            Error::new(ErrorKind::Corrupt, what).because(error)
        })?,
    };
    let in_folder = Path::new(&position.file).components().count() <= 1;
    if position.format != FORMAT || !in_folder {
        let what = "a jsonl position file is of another version; upgrade the node";
        return Err(Error::new(ErrorKind::Config, what));
    }
    Ok(position)
}

fn position_path(folder: &Path, stem: &str) -> PathBuf {
    folder.join(format!("{stem}.position.json"))
}

fn write_behind(path: &Path, lines: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(lines)?;
    file.sync_all()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(super) fn explain(doing: &str, error: &io::Error) -> Error {
    let (kind, advice) = meaning_of(error.kind());
    let what = format!("{doing} of the jsonl sink{advice}");
    Error::new(kind, what).because(error.to_string())
}

#[cfg(test)]
mod tests {
    use tidegate_proto::Epoch;

    use super::*;

    fn open(folder: &Path, epoch: u64) -> Files {
        let [export, uid, shard, sink] = ["e", "c/1", "s", "out"].map(str::to_owned);
        let shard = SinkShard { export, uid, shard, sink, epoch: Epoch(epoch) };
        Files::open(folder.to_owned(), &shard, 20).unwrap()
    }

    fn held(from: u64, upto: u64) -> Held {
        let lines: String = (from + 1..=upto).map(|at| format!("{at}\n")).collect();
        let count = upto - from;
        Held { lines: lines.into_bytes(), count, from, upto, progress: Vec::new() }
    }

    /// Every file of lines, in the order of their first sequences.
    fn lines(folder: &Path) -> String {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            entries.filter(|it| it.extension().is_some_and(|end| end == "jsonl")).collect();
        let from = |path: &PathBuf| -> u64 {
            path.file_stem().unwrap().to_str().unwrap().rsplit('-').next().unwrap().parse().unwrap()
        };
        files.sort_by_key(from);
        files.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    #[test]
    fn who_was_shut_out_between_its_look_and_its_rename_leaves_nothing() {
        for (full, epoch, kind) in [
            (false, 2, ErrorKind::Fenced),
            (true, 2, ErrorKind::Fenced),
            (false, 1, ErrorKind::Unknown),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let mut old = open(folder.path(), 1);
            let upto = if full { 12 } else { 2 };
            old.append(&held(0, upto)).unwrap();
            let mut new = open(folder.path(), epoch);
            new.append(&held(upto, upto + 1)).unwrap();
            // Its look was before that, as if it had been frozen since.
            let refused = old.add(&held(upto, upto + 5)).unwrap_err();
            assert_eq!(refused.kind(), kind, "{refused}");
            new.append(&held(upto + 1, upto + 2)).unwrap();
            let wanted: String = (1..=upto + 2).map(|at| format!("{at}\n")).collect();
            assert_eq!(lines(folder.path()), wanted);
        }
    }

    #[test]
    fn what_a_dead_owner_left_behind_its_successors_take_is_cut_off_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), 1).append(&held(0, 2)).unwrap();
        let mut new = open(folder.path(), 2);
        new.append(&held(2, 4)).unwrap();
        write_behind(&folder.path().join("e-s-1-1.jsonl"), b"3\n").unwrap();
        fs::write(folder.path().join("e-s-1-3.jsonl"), "3\n4\n").unwrap();
        drop(open(folder.path(), 3));
        assert_eq!(lines(folder.path()), "1\n2\n3\n4\n");
    }

    #[test]
    fn an_owner_before_finds_that_it_is_too_late_and_leaves_no_desk() {
        let folder = tempfile::tempdir().unwrap();
        let new = open(folder.path(), 5);
        let refused = Desk::take(folder.path(), "e-s", 4, 4).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Fenced, "{refused}");
        let names = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name());
        let desks = names.filter(|name| name.to_string_lossy().contains(".desk-")).count();
        assert_eq!(desks, 1, "{new:?}");
    }
}
