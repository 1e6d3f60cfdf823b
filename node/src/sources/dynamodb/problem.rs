//! What DynamoDB's failures mean, and how to mend them.

use std::error::Error as StdError;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use tidegate_proto::v1::Check;

use crate::error::{Error, ErrorKind};

/// A failure together with its remedy: an [`Error`] for the shard, a [`Check`]
/// for `plan` and `doctor`.
#[derive(Debug)]
pub(super) struct Problem {
    kind: ErrorKind,
    what: String,
    remedy: String,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl Problem {
    pub(super) fn new(kind: ErrorKind, what: String, remedy: String) -> Self {
        Self { kind, what, remedy, cause: None }
    }

    /// What went wrong while `doing` something with the table. The one place
    /// where a failure of the client is given its kind.
    pub(super) fn from_sdk<E>(doing: &str, error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        let (kind, remedy) = judge(&error);
        let what = format!("dynamodb: {doing}");
        Self { kind, what, remedy: remedy.to_owned(), cause: Some(error.into()) }
    }

    pub(super) fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(super) fn check(&self, name: &str) -> Check {
        let why = self
            .cause
            .as_ref()
            .map_or_else(String::new, |cause| format!(": {}", DisplayErrorContext(&**cause)));
        Check {
            name: name.to_owned(),
            passed: false,
            detail: format!("{}{why}", self.what),
            remedy: self.remedy.clone(),
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        let error = Self::new(problem.kind, format!("{}; {}", problem.what, problem.remedy));
        match problem.cause {
            Some(cause) => error.because(cause),
            None => error,
        }
    }
}

fn judge<E>(error: &SdkError<E, HttpResponse>) -> (ErrorKind, &'static str)
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    const WAIT: &str = "it is tried again";
    const UNREACHABLE: &str =
        "it is tried again; check [source] endpoint and region and the network of this node";
    const KEYS: &str = "give [source] access-key and secret-key, or this node AWS credentials of \
                        its own (environment, profile or role), that are valid now";
    if let Some(code) = error.code() {
        return match code {
            "ResourceNotFoundException" | "TableNotFoundException" => {
                (ErrorKind::Config, "create the table, or correct [source] table and region")
            }
            "AccessDeniedException" => (
                ErrorKind::Config,
                "allow this identity dynamodb:DescribeTable and Scan on the table, and \
                 DescribeStream, GetShardIterator and GetRecords on its streams",
            ),
            "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "InvalidClientTokenId"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "ExpiredToken"
            | "ExpiredTokenException" => (ErrorKind::Config, KEYS),
            "LimitExceededException"
            | "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "ThrottlingException"
            | "Throttling" => (
                ErrorKind::Unavailable,
                "it is tried again; if it lasts, raise the table's read capacity or lower \
                 [source] read-units-per-second",
            ),
            "InternalServerError" | "ServiceUnavailable" | "ServiceUnavailableException" => {
                (ErrorKind::Unavailable, WAIT)
            }
            "ValidationException" => (ErrorKind::Config, "correct what the cause names"),
            _ if is_server_side(error) => (ErrorKind::Unavailable, WAIT),
            _ => (ErrorKind::Config, "correct what the cause names"),
        };
    }
    if is_server_side(error) {
        return (ErrorKind::Unavailable, WAIT);
    }
    if matches!(error, SdkError::DispatchFailure(_))
        && let Some(kind) = lacks_credentials(error)
    {
        return (kind, KEYS);
    }
    if matches!(error, SdkError::ConstructionFailure(_)) {
        return (ErrorKind::Config, "check [source] endpoint and region");
    }
    (ErrorKind::Unavailable, UNREACHABLE)
}

fn is_server_side<E>(error: &SdkError<E, HttpResponse>) -> bool {
    error.raw_response().is_some_and(|response| response.status().is_server_error())
}

/// Whether there are none, or whoever gives them did not answer well, which may pass;
/// `None` if something else is wrong. The client tells this only in its causes' texts.
fn lacks_credentials(error: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    const PASSING: [&str; 2] =
        ["credentials provider timed out", "an error occurred while loading credentials"];
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    let tells = |what: &str| texts.iter().any(|text| text.contains(what));
    match PASSING.iter().any(|passing| tells(passing)) {
        true => Some(ErrorKind::Unavailable),
        false => tells("credential").then_some(ErrorKind::Config),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn who_gives_credentials_may_be_away_for_a_while() {
        let told = |text: &str| lacks_credentials(&io::Error::other(text.to_owned()));
        for (text, kind) in [
            ("the credential provider was not enabled", Some(ErrorKind::Config)),
            ("credentials provider timed out after 5 seconds", Some(ErrorKind::Unavailable)),
            ("an error occurred while loading credentials", Some(ErrorKind::Unavailable)),
            ("dns error", None),
        ] {
            assert_eq!(told(text), kind, "{text}");
        }
    }
}
