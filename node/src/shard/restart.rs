//! Where a reader goes on: its own log, or the delivered checkpoints.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::{Checkpoint, Gap, GapKind, GapPolicy, Progress, Rewound, Shard};
use tidegate_proto::{Epoch, NodeId, Sequence};
use tidegate_raft_store::absorb;

use crate::checkpoint::Added;
use crate::clock;
use crate::error::Result;
use crate::shard::Means;
use crate::shard::losses::record;
use crate::shard::role::under;
use crate::spool::{AHEAD_MAX, ShardLog};

/// Bytes of batches looked at in one go.
const READ_BYTES: usize = 4 << 20;

/// A log to append to, and what its first batch has to say.
#[derive(Debug)]
pub(super) struct Restart {
    pub(super) log: Arc<ShardLog>,
    /// Set when the last copy of the spool was lost.
    pub(super) rewound: Option<Rewound>,
    /// What of it is not recorded as captured, with the shard's whole progress.
    pub(super) unrecorded: Added,
}

/// Opens the log of an anchored shard for the owner of `epoch`.
///
/// If this node was in sync, it has everything that was seen, and goes on at the
/// end of its log. If not, all copies are lost: the shard is read again from the
/// least that any sink has, under new sequences, and a gap says so.
pub(super) async fn restart(means: &Means, shard: &Shard, epoch: Epoch) -> Result<Restart> {
    let id = shard.id.unwrap_or_default();
    let captured = shard.captured.clone().unwrap_or_default();
    let me = means.control.node();
    let others: BTreeSet<NodeId> = shard.in_sync.iter().map(|node| NodeId(*node)).collect();
    let others: BTreeSet<NodeId> = others.into_iter().filter(|node| *node != me).collect();
    // What the reader before this one may still append is not among what is read here.
    let held = means.spool.log(id).map(|log| (log.next(), log));
    if let Some((next, log)) = held
        && goes_on(shard, (next, log.made()))
    {
        let known = means.control.read(|state| {
            under(state, id, epoch).map(|_| recorded(state.gaps_of(id), &captured))
        })?;
        let unrecorded = unrecorded(&log, &known)?;
        log.take_over(epoch, (next, unrecorded.progress.clone()), others)?;
        log.set_stable(Sequence(captured.sequence));
        let rewound = means.control.read(|state| unsaid(state.gaps_of(id), next));
        return Ok(Restart { log, rewound, unrecorded });
    }
    let from = match is_fresh(shard, &captured) {
        true => captured.clone(),
        false => least_delivered(means, shard, epoch, &captured).await?,
    };
    let (last, rewound) = begins_behind(shard, &captured, from.sequence);
    let progress = from.progress.unwrap_or_default();
    if let Some(lost) = rewound {
        let Rewound { after, upto } = lost;
        tracing::warn!(after, upto, "all copies of the spool are lost; reading again");
        let gap = record_of(shard, epoch, lost, &progress);
        record(&means.control, gap, GapPolicy::Unspecified).await?;
    }
    let log = means.spool.begin(id, epoch, last.next(), progress.clone())?;
    log.take_over(epoch, (last.next(), progress.clone()), others)?;
    Ok(Restart { log, rewound, unrecorded: Added { progress, ..Added::default() } })
}

/// The owner goes on at the end of the log it has, which ends before `next` and was
/// begun under `made`: it has everything that was seen. A log from before all copies
/// were lost has not, although it may be longer than what was captured; that holds
/// for the owners after the one that was to begin anew, too, if it never did.
pub(crate) fn goes_on(shard: &Shard, (next, made): (Sequence, Epoch)) -> bool {
    let captured = shard.captured.as_ref().map_or(0, |at| at.sequence);
    next > Sequence(captured) && made >= Epoch(shard.anew)
}

/// Nobody can have seen anything of it.
pub(crate) fn is_fresh(shard: &Shard, captured: &Checkpoint) -> bool {
    captured.sequence == 0 && !shard.copied
}

/// Behind which sequence a log is begun anew that is read from `from` on, and
/// what is lost by that.
pub(crate) fn begins_behind(
    shard: &Shard,
    captured: &Checkpoint,
    from: u64,
) -> (Sequence, Option<Rewound>) {
    // What other copies had may have been seen before it was recorded.
    let ahead = if shard.copied { AHEAD_MAX } else { 0 };
    let last = captured.sequence.max(from) + ahead;
    (Sequence(last), (from < last).then_some(Rewound { after: from, upto: last }))
}

/// The newest that is recorded of a log: what was captured of it, or, if it was
/// begun anew since, where it begins.
pub(crate) fn recorded<'a>(
    gaps: impl Iterator<Item = &'a Gap>,
    captured: &Checkpoint,
) -> Checkpoint {
    let lost = gaps.filter(|gap| gap.kind() == GapKind::SpoolLost).last();
    match lost {
        Some(gap) if gap.epoch > captured.epoch => Checkpoint {
            sequence: gap.upto,
            progress: gap.progress.clone(),
            epoch: gap.epoch,
            ..Checkpoint::default()
        },
        _ => captured.clone(),
    }
}

/// What a log adds to what was recorded as captured: the batches behind that, and
/// how far the shard is in its source with them.
pub(super) fn unrecorded(log: &ShardLog, captured: &Checkpoint) -> Result<Added> {
    let progress = captured.progress.clone().unwrap_or_default();
    let mut sum = Added { progress, ..Added::default() };
    let mut after = Sequence(captured.sequence);
    loop {
        let frames = log.read_appended(after, READ_BYTES)?;
        let Some(last) = frames.last() else { return Ok(sum) };
        for frame in frames.iter().filter(|frame| frame.first() > after) {
            let batch = frame.decode()?;
            absorb(&mut sum.progress, &batch.progress.unwrap_or_default());
            sum.records += batch.changes.len() as u64;
            sum.bytes += frame.bytes().len() as u64;
            let newest = batch.changes.iter().map(|change| change.committed_ms).max();
            sum.committed_ms = sum.committed_ms.max(newest.unwrap_or(0));
        }
        after = last.last();
    }
}

/// The checkpoint of the sink that has least, once every sink has told the
/// owner of this epoch what it has; what was captured if there are no sinks.
async fn least_delivered(
    means: &Means,
    shard: &Shard,
    epoch: Epoch,
    captured: &Checkpoint,
) -> Result<Checkpoint> {
    let id = shard.id.unwrap_or_default();
    let mut changed = means.control.changed();
    let mut told = tokio::time::interval(Duration::from_secs(5));
    told.tick().await;
    loop {
        changed.borrow_and_update();
        let now = means.control.read(|state| under(state, id, epoch))?;
        if let Some(sinks) = told_by_all(&now, epoch) {
            let gaps: Vec<_> = means.control.read(|state| state.gaps_of(id).cloned().collect());
            return Ok(read_on(sinks, &gaps, captured, shard));
        }
        tokio::select! {
            _ = changed.changed() => {}
            _ = told.tick() => {
                tracing::info!("waiting for every sink to say what it has");
            }
        }
    }
}

/// What each sink has, once all have told the owner of `epoch`.
pub(crate) fn told_by_all(shard: &Shard, epoch: Epoch) -> Option<Vec<Checkpoint>> {
    let told = |at: &&Checkpoint| at.epoch == epoch.0;
    let sinks = shard.writers.keys().map(|sink| shard.delivered.get(sink).filter(told).cloned());
    sinks.collect()
}

/// Where a new spool begins, given what each sink has.
pub(crate) fn read_on(
    sinks: Vec<Checkpoint>,
    gaps: &[Gap],
    captured: &Checkpoint,
    shard: &Shard,
) -> Checkpoint {
    let alone = sinks.len() == 1;
    let sinks = sinks.into_iter().map(|at| if alone { at } else { before_losses(at, gaps) });
    match sinks.min_by_key(|at| at.sequence) {
        Some(least) if least.sequence != captured.sequence => anchored(least, shard),
        // Nothing undelivered was lost: then what was captured holds, and it
        // may have moved on without a change.
        _ => captured.clone(),
    }
}

/// What a sink has that the others can be compared by.
///
/// ```text
///   lost log       ... 48 49 50 51 52 53
///   read again               \ 54 55 56 ...
/// ```
///
/// A sink at 52 and one at 55 do not have less and more of one log: the first
/// may have changes and rows that the second has yet to get again. Both have
/// what came before the loss, 50.
fn before_losses(at: Checkpoint, gaps: &[Gap]) -> Checkpoint {
    let lost = gaps.iter().filter(|gap| {
        gap.kind() == GapKind::SpoolLost && gap.after < at.sequence && at.sequence <= gap.upto
    });
    match lost.min_by_key(|gap| gap.after) {
        Some(gap) => Checkpoint { sequence: gap.after, progress: gap.progress.clone(), ..at },
        None => at,
    }
}

/// The loss that the batch at `next` follows, if an owner began a log behind
/// one and stopped before its first batch could say so.
pub(crate) fn unsaid<'a>(gaps: impl Iterator<Item = &'a Gap>, next: Sequence) -> Option<Rewound> {
    let lost = |gap: &&Gap| gap.kind() == GapKind::SpoolLost && Sequence(gap.upto).next() == next;
    gaps.filter(lost).last().map(|gap| Rewound { after: gap.after, upto: gap.upto })
}

/// A sink that has nothing yet stands at the anchor.
fn anchored(mut at: Checkpoint, shard: &Shard) -> Checkpoint {
    let mut progress = shard.anchor.clone().unwrap_or_default();
    if let Some(delivered) = &at.progress {
        absorb(&mut progress, delivered);
    }
    at.progress = Some(progress);
    at
}

/// A lost spool as it is recorded: `progress` is where it is read again.
pub(crate) fn record_of(shard: &Shard, epoch: Epoch, lost: Rewound, progress: &Progress) -> Gap {
    Gap {
        shard: shard.id,
        epoch: epoch.0,
        after: lost.after,
        upto: lost.upto,
        kind: GapKind::SpoolLost.into(),
        detail: "all copies of the spool that were in sync are lost".to_owned(),
        at_ms: clock::now_ms(),
        repair: "read again from the delivered checkpoint, under new sequences".to_owned(),
        progress: Some(progress.clone()),
        ..Gap::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_from_before_the_copies_were_lost_is_not_gone_on_with() {
        let captured = Some(Checkpoint { sequence: 100, ..Checkpoint::default() });
        let shard = Shard { epoch: 3, anew: 2, captured, ..Shard::default() };
        let goes = |last: u64, made| goes_on(&shard, (Sequence(last).next(), Epoch(made)));
        assert!(!goes(105, 1), "the owner of epoch 2 never began anew: 106 may have been seen");
        assert!(goes(105, 2) && goes(100, 3), "begun since");
        assert!(!goes(99, 2), "it lacks what was captured");
    }
}
