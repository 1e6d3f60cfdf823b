//! What went wrong, and the exit code it ends with.

use std::fmt;
use std::process::ExitCode;

use tonic::{Code, Status};

/// The results of commands.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Shown at the end of `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: it was tried and did not work, or a check did not pass
  2  usage: the command line is not right, or an answer was needed and nobody asked
  3  refused: the cluster (or the store) understood and said no
  4  unreachable: no endpoint answered";

/// What went wrong and how to mend it, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    kind: FailureKind,
    text: String,
}

/// Told apart by what a script has to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// It was tried and did not work.
    Failed,
    /// The command line must change.
    Usage,
    /// The other side said no; asking again gives the same.
    Refused,
    /// Nobody answered; asking again may help.
    Unreachable,
    /// Whoever read our output has gone: nothing is left to do.
    Closed,
}

impl Failure {
    /// It was tried and did not work.
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self { kind: FailureKind::Failed, text: text.into() }
    }

    /// The command line must change.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { kind: FailureKind::Usage, text: text.into() }
    }

    /// The other side said no.
    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self { kind: FailureKind::Refused, text: text.into() }
    }

    /// Nobody answered.
    pub(crate) fn unreachable(text: impl Into<String>) -> Self {
        Self { kind: FailureKind::Unreachable, text: text.into() }
    }

    /// What came of writing to standard output.
    pub(crate) fn of_output(error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self {
                kind: FailureKind::Closed,
                text: "standard output was closed".to_owned(),
            };
        }
        Self::failed(format!("write to standard output: {error}"))
    }

    /// What an endpoint answered instead of doing what was asked.
    pub(crate) fn of_status(endpoint: &str, status: &Status) -> Self {
        let said = status.message();
        let (kind, text) = match status.code() {
            Code::NotFound
            | Code::AlreadyExists
            | Code::InvalidArgument
            | Code::OutOfRange
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::ResourceExhausted => (FailureKind::Refused, said.to_owned()),
            Code::FailedPrecondition | Code::Aborted => {
                (FailureKind::Refused, format!("{said}; look at the present state, then try again"))
            }
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => (
                FailureKind::Unreachable,
                format!("{endpoint} could not do it now: {said}; try again, or ask another node"),
            ),
            Code::Unimplemented => (
                FailureKind::Failed,
                format!(
                    "{endpoint} does not serve this call; is it the right kind of process there, \
                     and of this version? (documents are served by `tidegated documents`)"
                ),
            ),
            Code::Unknown => (
                FailureKind::Failed,
                format!(
                    "{endpoint}: {said}; it may or may not have been done: look before you repeat it"
                ),
            ),
            Code::Ok | Code::Internal | Code::DataLoss => {
                (FailureKind::Failed, format!("{endpoint}: {said}; see the log of that node"))
            }
        };
        Self { kind, text }
    }

    /// What a caller may do about it.
    pub(crate) fn kind(&self) -> FailureKind {
        self.kind
    }

    /// See [`EXIT_CODES`].
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            FailureKind::Closed => 0,
            FailureKind::Failed => 1,
            FailureKind::Usage => 2,
            FailureKind::Refused => 3,
            FailureKind::Unreachable => 4,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_and_silence_end_with_different_codes() {
        let of = |status| Failure::of_status("http://a", &status).kind();
        assert_eq!(of(Status::not_found("no")), FailureKind::Refused);
        assert_eq!(of(Status::failed_precondition("no")), FailureKind::Refused);
        assert_eq!(of(Status::unavailable("later")), FailureKind::Unreachable);
        assert_eq!(of(Status::internal("bug")), FailureKind::Failed);
    }

    #[test]
    fn an_unknown_outcome_says_so() {
        let failure = Failure::of_status("http://a", &Status::unknown("reset")).to_string();
        assert!(failure.contains("may or may not"), "{failure}");
    }

    #[test]
    fn a_reader_that_left_is_no_failure_to_speak_of() {
        let gone = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::of_output(&gone).kind(), FailureKind::Closed);
    }
}
