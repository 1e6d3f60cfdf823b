//! What can go wrong, told apart by what the caller has to do about it.

use std::error::Error as StdError;
use std::fmt;

/// What went wrong, while doing what, because of what.
///
/// Prints as `context: cause: its cause`. Holds nothing that came out of a row.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An instruction to the caller, not a place in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A peer or a system is down, slow or throttling, and nothing was done. Retry.
    Unavailable,
    /// It may or may not have been done. Read back, then retry.
    Unknown,
    /// This node no longer owns the shard. Stop; never retry.
    Fenced,
    /// The other side refused this one record. Park it.
    Rejected,
    /// The source no longer has what we need. Record a gap, then go by policy.
    Gone,
    /// The operator must change something. Stop the shard and say what.
    Config,
    /// Stored bytes do not decode. Stop the shard, or the node if they are its own.
    Corrupt,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Wait as [`crate::retry::Backoff`] says, then try the same again.
    Retry,
    /// Open anew, ask the other side how far it got, go on from there.
    Reopen,
    /// Set the record aside with its key.
    Park,
    /// Record the loss.
    Gap,
    /// End; this node has nothing more to do with it.
    Leave,
    /// End, and tell the operator why.
    Fail,
}

impl ErrorKind {
    /// The one place that decides what a failure means.
    #[must_use]
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Unavailable => Verdict::Retry,
            Self::Unknown => Verdict::Reopen,
            Self::Rejected => Verdict::Park,
            Self::Gone => Verdict::Gap,
            Self::Fenced => Verdict::Leave,
            Self::Config | Self::Corrupt => Verdict::Fail,
        }
    }
}

impl Error {
    /// An error without a cause of its own. `context` is lower case, names what
    /// was being done, and says how to mend it where that is not plain.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// Adds what caused it.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// What the caller has to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Shorthand for `self.kind().verdict()`.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.kind.verdict()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        let mut cause: Option<&(dyn StdError + 'static)> =
            self.source.as_ref().map(|source| &**source as _);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {}

impl From<tidegate_proto::FrameError> for Error {
    fn from(error: tidegate_proto::FrameError) -> Self {
        Self::new(ErrorKind::Corrupt, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_its_causes_in_order() {
        let root = std::io::Error::other("disk on fire");
        let error = Error::new(ErrorKind::Corrupt, "read the vote").because(root);
        assert_eq!(error.to_string(), "read the vote: disk on fire");
        assert_eq!(error.verdict(), Verdict::Fail);
    }
}
