//! What is done about history that a source has lost.

use tidegate_proto::Epoch;
use tidegate_proto::v1::{Gap, GapKind, GapPolicy, RecordGap, command};

use crate::clock;
use crate::config::OnGap;
use crate::control::{Control, done_or_there};
use crate::error::{Error, ErrorKind, Result};
use crate::sources::{Loss, Rows};
use crate::spool::ShardLog;

/// Records a loss that a source told of, between the end of the log and what comes next.
/// Fails if the export's file says that an operator has to decide, until one has: then
/// the source is read no further. Gives the gap as it is known.
pub(super) async fn record_loss(
    control: &Control,
    (log, epoch): (&ShardLog, Epoch),
    loss: &Loss,
    (on_gap, rows): (OnGap, Rows),
) -> Result<Gap> {
    tracing::error!(
        kind = loss.kind.as_str_name(),
        detail = loss.detail,
        "the source lost history"
    );
    let (policy, repair) = match (on_gap, rows) {
        (OnGap::Accept, _) => (GapPolicy::Accept, ""),
        (OnGap::Pause, _) => (GapPolicy::Pause, ""),
        (OnGap::Resnapshot, Rows::Chunked) => (GapPolicy::Resnapshot, ""),
        // It is mended by the source, or stays open.
        (OnGap::Resnapshot, Rows::Streamed) => (GapPolicy::Unspecified, &loss.mended[..]),
    };
    let last = log.last().0;
    let gap = Gap {
        shard: Some(log.shard()),
        epoch: epoch.0,
        kind: loss.kind.into(),
        detail: loss.detail.clone(),
        repair: repair.to_owned(),
        at_ms: clock::now_ms(),
        after: last,
        upto: last,
        ..Gap::default()
    };
    let known = record(control, gap, policy).await?;
    if policy != GapPolicy::Pause || is_decided(&known) {
        return Ok(known);
    }
    let (id, number, detail) = (known.shard.unwrap_or_default(), known.number, &known.detail);
    let name = control.read(|state| Some(state.export(id.export_id)?.name.clone()));
    let name = name.unwrap_or_default();
    let again = match rows {
        Rows::Chunked => "have its rows read again (--resnapshot), or ",
        Rows::Streamed => "",
    };
    Err(Error::new(
        ErrorKind::Config,
        format!(
            "gap {number}: {detail}; the export's file says to wait for you: {again}go on without \
             what was lost (--accept REASON), with `tidegate gap repair {name}/{id} {number}`"
        ),
    ))
}

/// Records a gap, and waits until this node knows of it: what it does next depends on
/// that. Gives it as it is known, which may be since an earlier reader came by.
pub(super) async fn record(control: &Control, gap: Gap, policy: GapPolicy) -> Result<Gap> {
    let command = RecordGap { gap: Some(gap.clone()), policy: policy.into() };
    done_or_there(control.propose(command::Kind::RecordGap(command)).await?)?;
    let shard = gap.shard.unwrap_or_default();
    control.until(|state| state.gaps_of(shard).find(|it| is_same(it, &gap)).cloned()).await
}

/// The one is the other as it was recorded.
pub(crate) fn is_same(known: &Gap, gap: &Gap) -> bool {
    let told =
        known.kind() != GapKind::SpoolLost || (known.epoch, known.upto) == (gap.epoch, gap.upto);
    told && (known.kind, &known.detail) == (gap.kind, &gap.detail)
}

/// It is mended, or will be, or was accepted.
fn is_decided(gap: &Gap) -> bool {
    !gap.repair.is_empty() || gap.round != 0
}
