//! What can go wrong on this node's disk.

use std::{error, fmt, io};

use openraft::{AnyError, ErrorSubject, ErrorVerb, StorageError, StorageIOError};

/// What to do about damage.
pub(crate) const REJOIN: &str = "empty this node's data directory and let it join anew, under \
                                 another name; if a majority of the nodes says this, do not, \
                                 and see \"When a majority is lost\" in node/ARCHITECTURE.md";

/// Why the store stopped, and what to do about it.
///
/// None of these is retried: after a failed write nobody knows what the disk
/// holds, so the process ends and finds out at its next start.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
}

/// Each kind is an instruction to whoever starts the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// Stored bytes do not decode. Take the node out and let it join anew.
    Corrupt,
    /// Another process has the directory open. Stop that one first.
    Locked,
    /// Another version of Tidegate wrote the directory. Start that version.
    UnknownFormat,
    /// The disk refused. Mend it, then start again.
    Io,
}

impl StoreError {
    /// What to do.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self { kind: StoreErrorKind::Corrupt, message: message.into() }
    }

    pub(crate) fn locked(message: impl Into<String>) -> Self {
        Self { kind: StoreErrorKind::Locked, message: message.into() }
    }

    pub(crate) fn unknown_format(message: impl Into<String>) -> Self {
        Self { kind: StoreErrorKind::UnknownFormat, message: message.into() }
    }

    /// `what` was being done when the file system said no.
    pub(crate) fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        Self { kind: StoreErrorKind::Io, message: format!("{what}: {error}") }
    }

    /// `what` was being done when the database said no.
    pub(crate) fn database(what: impl fmt::Display, error: &rocksdb::Error) -> Self {
        let message = format!("{what}: {error}");
        if error.kind() == rocksdb::ErrorKind::Corruption {
            return Self::corrupt(format!("{message}; {REJOIN}"));
        }
        Self { kind: StoreErrorKind::Io, message }
    }

    /// The same for the consensus library, which stops when it gets one.
    pub(crate) fn during(self, verb: ErrorVerb, subject: ErrorSubject<u64>) -> StorageError<u64> {
        StorageIOError::new(subject, verb, AnyError::new(&self)).into()
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

impl error::Error for StoreError {}
