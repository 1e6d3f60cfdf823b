//! What the fold answers.

pub(super) use tidegate_proto::v1::outcome::Kind;
use tidegate_proto::v1::{Created, Done, Fenced, Outcome, Refused, RefusedKind, ShardId};

/// `Err` for what was not done, so that `?` leaves a rule early.
pub(super) type Verdict = Result<Outcome, Outcome>;

pub(super) fn done() -> Outcome {
    of(Kind::Done(Done {}))
}

pub(super) fn created(id: u64) -> Outcome {
    of(Kind::Created(Created { id }))
}

pub(super) fn not_found(reason: impl Into<String>) -> Outcome {
    refused(RefusedKind::NotFound, reason)
}

pub(super) fn exists(reason: impl Into<String>) -> Outcome {
    refused(RefusedKind::Exists, reason)
}

pub(super) fn conflict(reason: impl Into<String>) -> Outcome {
    refused(RefusedKind::Conflict, reason)
}

pub(super) fn invalid(reason: impl Into<String>) -> Outcome {
    refused(RefusedKind::Invalid, reason)
}

pub(super) fn fenced(shard: ShardId, current: u64) -> Outcome {
    of(Kind::Fenced(Fenced { shard: Some(shard), current }))
}

pub(super) fn of(kind: Kind) -> Outcome {
    Outcome { kind: Some(kind) }
}

fn refused(kind: RefusedKind, reason: impl Into<String>) -> Outcome {
    of(Kind::Refused(Refused { kind: kind.into(), reason: reason.into() }))
}
