//! One snapshot in one file.
//!
//! ```text
//!   "TGSNAPSH" | format u32 | header length u32 | header, JSON
//!   rows:  key length u32, not 0 | value length u32 | key | value
//!   end:   0 u32 | number of rows u64 | crc32c u32 of everything before
//! ```
//!
//! Numbers are big endian. The same state gives the same bytes on every node.

use std::io::{self, Read, Write};
use std::path::Path;

use openraft::storage::SnapshotMeta;
use openraft::{LogId, StoredMembership};
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::handle::Applied;
use crate::keys::{Key, Row};
use crate::types::Peer;

const MAGIC: &[u8; 8] = b"TGSNAPSH";
const FORMAT: u32 = 1;

/// What stands before the rows.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub last: Option<LogId<u64>>,
    pub membership: StoredMembership<u64, Peer>,
}

/// A snapshot whose checksum was right.
#[derive(Debug)]
pub(super) struct Contents {
    pub applied: Applied,
    pub checksum: u32,
}

impl Header {
    /// The id names the bytes: equal ids are equal files.
    pub(super) fn meta(&self, checksum: u32) -> SnapshotMeta<u64, Peer> {
        let last = self.last.map_or_else(|| "0".to_owned(), |id| id.to_string());
        SnapshotMeta {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
            snapshot_id: format!("{last}-{checksum:08x}"),
        }
    }
}

/// Writes a snapshot and returns its checksum.
pub(super) fn write(
    out: &mut impl Write,
    header: &Header,
    rows: &[(Row, Vec<u8>)],
) -> io::Result<u32> {
    let mut out = Summed { inner: out, checksum: 0 };
    out.write_all(MAGIC)?;
    out.write_all(&FORMAT.to_be_bytes())?;
    let header = serde_json::to_vec(header)?;
    out.write_all(&length(&header)?)?;
    out.write_all(&header)?;
    let mut count: u64 = 0;
    for (row, value) in rows {
        let key = Key::Row(*row).encode();
        for part in [&length(&key)?, &length(value)?, key.as_slice(), value] {
            out.write_all(part)?;
        }
        count += 1;
    }
    out.write_all(&0_u32.to_be_bytes())?;
    out.write_all(&count.to_be_bytes())?;
    let checksum = out.checksum;
    out.write_all(&checksum.to_be_bytes())?;
    Ok(checksum)
}

/// Reads a snapshot to its end. Nothing of it is believed before its checksum
/// was right; `path` is for the error.
pub(super) fn read(input: impl Read, path: &Path) -> Result<Contents, StoreError> {
    let mut input = Summed { inner: input, checksum: 0 };
    let raw = Raw::read(&mut input).map_err(|why| match why {
        Why::Damaged(why) => damaged(path, why),
        Why::UnknownFormat(format) => unknown_format(path, format),
        Why::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            damaged(path, "it is cut short")
        }
        Why::Io(error) => StoreError::io(format!("reading {}", path.display()), &error),
    })?;
    let header: Header = serde_json::from_slice(&raw.header)
        .map_err(|_| damaged(path, "its header does not decode"))?;
    let mut applied =
        Applied { last: header.last, membership: header.membership, ..Applied::default() };
    for (key, value) in raw.rows {
        let Some(Key::Row(row)) = Key::decode(&key) else {
            return Err(damaged(path, "it holds a row that this build does not know"));
        };
        let loaded = applied.state.load(row, &value);
        loaded.map_err(|_| damaged(path, &format!("{} does not decode", Key::Row(row))))?;
    }
    Ok(Contents { applied, checksum: raw.checksum })
}

/// Names the file and says what to do.
pub(super) fn damaged(path: &Path, why: &str) -> StoreError {
    StoreError::corrupt(format!(
        "snapshot {} is damaged: {why}; remove the file and start again, it is made anew",
        path.display()
    ))
}

fn unknown_format(path: &Path, format: u32) -> StoreError {
    StoreError::unknown_format(format!(
        "snapshot {} has format {format}, this build knows {FORMAT}; \
         run the version of tidegated that wrote it",
        path.display()
    ))
}

/// The parts of a file whose checksum was right.
struct Raw {
    header: Vec<u8>,
    rows: Vec<(Vec<u8>, Vec<u8>)>,
    checksum: u32,
}

enum Why {
    Damaged(&'static str),
    UnknownFormat(u32),
    Io(io::Error),
}

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Raw {
    fn read(input: &mut Summed<impl Read>) -> Result<Self, Why> {
        if input.take::<8>()? != *MAGIC {
            return Err(Why::Damaged("it does not begin like one"));
        }
        let format = input.number()?;
        if format != FORMAT {
            return Err(Why::UnknownFormat(format));
        }
        let header_length = input.number()?;
        let header = input.bytes(header_length)?;
        let mut rows = Vec::new();
        let mut count: u64 = 0;
        loop {
            let key_length = input.number()?;
            if key_length == 0 {
                break;
            }
            let value_length = input.number()?;
            rows.push((input.bytes(key_length)?, input.bytes(value_length)?));
            count += 1;
        }
        let expected = u64::from_be_bytes(input.take()?);
        let checksum = input.checksum;
        if input.number()? != checksum || expected != count {
            return Err(Why::Damaged("its checksum is wrong"));
        }
        if input.inner.read(&mut [0])? != 0 {
            return Err(Why::Damaged("it is too long"));
        }
        Ok(Self { header, rows, checksum })
    }
}

/// Sums what passes through it.
struct Summed<T> {
    inner: T,
    checksum: u32,
}

impl<T: Write> Summed<T> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
        self.inner.write_all(bytes)
    }
}

impl<T: Read> Summed<T> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.checksum = crc32c::crc32c_append(self.checksum, &bytes);
        Ok(bytes)
    }

    fn number(&mut self) -> io::Result<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// Takes memory only as bytes arrive: a damaged length costs nothing.
    fn bytes(&mut self, length: u32) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = (&mut self.inner).take(u64::from(length)).read_to_end(&mut bytes)?;
        if u64::try_from(read).ok() != Some(u64::from(length)) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.checksum = crc32c::crc32c_append(self.checksum, &bytes);
        Ok(bytes)
    }
}

fn length(bytes: &[u8]) -> io::Result<[u8; 4]> {
    let length = u32::try_from(bytes.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a row of more than 4 GiB"))?;
    Ok(length.to_be_bytes())
}
