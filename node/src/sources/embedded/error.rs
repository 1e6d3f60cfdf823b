//! What can go wrong in the store, and what a caller is told.

use std::fmt;

use tonic::Status;

use super::keys::Revision;

/// Why the store did not do what it was asked. Holds no keys and no documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The request cannot be right; says what to change.
    Request(String),
    /// A write's `if_revision` is not what there is. Nothing was written.
    Precondition {
        /// The collection of that write.
        collection: String,
        /// Its place in the request, from 0.
        index: usize,
    },
    /// The changes asked for are no longer kept.
    Trimmed {
        /// The oldest that is.
        oldest: Revision,
    },
    /// The changes asked for lie behind ones that do not exist: another store?
    Ahead {
        /// The newest there is.
        last: Revision,
    },
    /// The store cannot be opened; says where and why.
    Open(String),
    /// What is on the disk does not decode.
    Corrupt(&'static str),
    /// The disk refused. A write may have happened or not.
    Disk(String),
    /// The store no longer takes writes: one did not reach the disk, or it is
    /// being closed.
    Stopped,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(what) | Self::Open(what) => f.write_str(what),
            Self::Precondition { collection, index } => write!(
                f,
                "collection \"{collection}\", write {index}: the document is not at if_revision; \
                 nothing was written; read it again and decide anew"
            ),
            Self::Trimmed { oldest } => write!(
                f,
                "changes are kept from revision {oldest} on; scan the documents and go on from there"
            ),
            Self::Ahead { last } => write!(
                f,
                "the last revision is {last}; a later one cannot have come from this store"
            ),
            Self::Corrupt(what) => write!(
                f,
                "the document store's files are damaged: {what}; restore its folder from a backup"
            ),
            Self::Disk(what) => write!(f, "the document store's disk refuses: {what}"),
            Self::Stopped => {
                write!(f, "the document store takes no more writes; see its log and restart it")
            }
        }
    }
}

impl std::error::Error for StoreError {}

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> Self {
        Self::Disk(error.into_string())
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        let words = error.to_string();
        match error {
            StoreError::Request(_) => Self::invalid_argument(words),
            StoreError::Precondition { .. } => Self::failed_precondition(words),
            StoreError::Trimmed { .. } | StoreError::Ahead { .. } => Self::out_of_range(words),
            StoreError::Corrupt(_) => Self::data_loss(words),
            StoreError::Open(_) | StoreError::Disk(_) => Self::internal(words),
            StoreError::Stopped => Self::unavailable(words),
        }
    }
}
