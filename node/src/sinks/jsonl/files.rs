//! The files of one shard, and the position that says how far they count.
//!
//! ```text
//!   EXPORT-SHARD-EPOCH-FROM.jsonl     lines; FROM is the first line's sequence
//!   EXPORT-SHARD.position.json        the newest file, how much of it counts
//!   EXPORT-SHARD.lock                 held while either is changed
//! ```
//!
//! A position is replaced by renaming a synced file over it, after the lines it
//! covers were synced, and under a lock under which its epoch was looked at:
//! an owner that was shut out cannot add a line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use prost::Message as _;
use serde::{Deserialize, Serialize};
use tidegate_proto::Sequence;
use tidegate_proto::v1::Progress;

use super::Held;
use crate::error::{Error, ErrorKind, Result};
use crate::sinks::lake::safe;
use crate::sinks::{Committed, SinkShard};

const FORMAT: u32 = 1;

/// A shard's files, with the newest one ready to be added to.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    /// `EXPORT-SHARD`.
    stem: String,
    epoch: u64,
    rotate_bytes: u64,
    position: Position,
}

/// The content of the position file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    format: u32,
    epoch: u64,
    /// The last sequence in the files; 0 for none.
    sequence: u64,
    records: u64,
    /// Protobuf; empty before the first change.
    progress: Vec<u8>,
    /// The newest file's name; empty before the first change.
    file: String,
    /// How many of its bytes count.
    bytes: u64,
}

impl Files {
    /// Shuts out older epochs and cuts off what no position covers.
    pub(super) fn open(folder: PathBuf, shard: SinkShard, rotate_bytes: u64) -> Result<Self> {
        fs::create_dir_all(&folder).map_err(|error| explain("make the folder", &error))?;
        let stem = format!("{}-{}", safe(&shard.export), safe(&shard.shard));
        let position = Position { format: FORMAT, ..Position::default() };
        let epoch = shard.epoch.0;
        let mut files = Self { folder, stem, epoch, rotate_bytes, position };
        let lock = files.lock()?;
        files.position = files.read_position()?;
        if files.position.epoch > epoch {
            return Err(files.fenced());
        }
        files.cut_off()?;
        let position = Position { epoch, ..files.position.clone() };
        files.write_position(position)?;
        drop(lock);
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
        let lock = self.lock()?;
        let there = self.read_position()?;
        if there.epoch > self.epoch {
            self.position.epoch = there.epoch;
            return Err(self.fenced());
        }
        if there != self.position {
            let what = "the jsonl position file is another than this owner's; open the sink anew";
            return Err(Error::new(ErrorKind::Unknown, what));
        }
        // A try before may have left lines that do not count.
        self.cut_off()?;
        let mut next = self.position.clone();
        if next.file.is_empty() || next.bytes >= self.rotate_bytes || self.is_of_another_epoch() {
            next.file = format!("{}-{}-{}.jsonl", self.stem, self.epoch, held.from + 1);
            next.bytes = 0;
        }
        add(&self.folder.join(&next.file), &held.lines)
            .and_then(|()| sync_folder(&self.folder))
            .map_err(|error| explain("add lines", &error))?;
        next.bytes += held.lines.len() as u64;
        next.sequence = held.upto;
        next.records += held.count;
        next.progress.clone_from(&held.progress);
        self.write_position(next)?;
        drop(lock);
        Ok(())
    }

    fn is_of_another_epoch(&self) -> bool {
        !self.position.file.starts_with(&format!("{}-{}-", self.stem, self.epoch))
    }

    /// Released when the file is dropped.
    fn lock(&self) -> Result<File> {
        let path = self.folder.join(format!("{}.lock", self.stem));
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let locked = file.and_then(|file| file.lock().map(|()| file));
        locked.map_err(|error| explain("lock the position", &error))
    }

    fn read_position(&self) -> Result<Position> {
        let position: Position = match fs::read(self.position_path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
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

    fn write_position(&mut self, position: Position) -> Result<()> {
        let bytes = serde_json::to_vec(&position)
            .map_err(|error| Error::new(ErrorKind::Corrupt, "a jsonl position").because(error))?;
        let (path, made) = (self.position_path(), self.folder.join(format!("{}.new", self.stem)));
        let replaced = File::create(&made).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&made, &path)?;
            sync_folder(&self.folder)
        });
        replaced.map_err(|error| explain("replace the position", &error))?;
        self.position = position;
        Ok(())
    }

    fn position_path(&self) -> PathBuf {
        self.folder.join(format!("{}.position.json", self.stem))
    }

    /// Takes away lines that the position does not cover: the end of its file,
    /// and files begun behind it.
    fn cut_off(&self) -> Result<()> {
        let doing = |error: io::Error| explain("cut off lines that do not count", &error);
        for entry in fs::read_dir(&self.folder).map_err(doing)? {
            let name = entry.map_err(doing)?.file_name();
            let from = name.to_str().and_then(|name| self.first_sequence(name));
            if from.is_some_and(|from| from > self.position.sequence) {
                fs::remove_file(self.folder.join(&name)).map_err(doing)?;
            }
        }
        if self.position.file.is_empty() {
            return Ok(());
        }
        let path = self.folder.join(&self.position.file);
        let file = OpenOptions::new().write(true).open(&path).map_err(doing)?;
        let there = file.metadata().map_err(doing)?.len();
        if there < self.position.bytes {
            let what = "a jsonl file is shorter than its position says; restore it";
            return Err(Error::new(ErrorKind::Corrupt, what));
        }
        if there > self.position.bytes {
            file.set_len(self.position.bytes).and_then(|()| file.sync_all()).map_err(doing)?;
        }
        Ok(())
    }

    /// Of one of this shard's files.
    fn first_sequence(&self, name: &str) -> Option<u64> {
        let rest = name.strip_prefix(&self.stem)?.strip_prefix('-')?.strip_suffix(".jsonl")?;
        let (epoch, from) = rest.split_once('-')?;
        epoch.parse::<u64>().ok()?;
        from.parse().ok()
    }

    fn fenced(&self) -> Error {
        let (there, own) = (self.position.epoch, self.epoch);
        Error::new(
            ErrorKind::Fenced,
            format!("the jsonl files are at epoch {there}, this owner has {own}"),
        )
    }
}

fn add(path: &Path, lines: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(lines)?;
    file.sync_all()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn explain(doing: &str, error: &io::Error) -> Error {
    let (kind, advice) = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::Unavailable, ": the disk is full; free space on it")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            (ErrorKind::Config, ": not permitted; make the folder writable for the node")
        }
        _ => (ErrorKind::Unavailable, ""),
    };
    Error::new(kind, format!("{doing} of the jsonl sink{advice}")).because(error.to_string())
}
