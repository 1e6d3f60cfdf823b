//! Where a reader goes on: its own log, or the delivered checkpoints.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::{Checkpoint, Gap, GapKind, Progress, RecordGap, Rewound, Shard, command};
use tidegate_proto::{Epoch, NodeId, Sequence};
use tidegate_raft_store::absorb;

use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::shard::Means;
use crate::spool::{AHEAD_MAX, ShardLog};

/// Bytes of batches looked at in one go.
const READ_BYTES: usize = 4 << 20;

/// A log to append to, and what its first batch has to say.
#[derive(Debug)]
pub(super) struct Restart {
    pub(super) log: Arc<ShardLog>,
    /// Set when the last copy of the spool was lost.
    pub(super) rewound: Option<Rewound>,
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
    if let Some(log) = means.spool.log(id)
        && log.tail().next > Sequence(captured.sequence)
        && (shard.anew != epoch.0 || log.made() == epoch)
    {
        let progress = progress_at_end(&log, &captured)?;
        log.take_over(epoch, progress, others)?;
        log.set_stable(Sequence(captured.sequence));
        return Ok(Restart { log, rewound: None });
    }
    let fresh = captured.sequence == 0 && !shard.copied;
    let from = match fresh {
        true => captured.clone(),
        false => least_delivered(means, shard, epoch, &captured).await?,
    };
    // What other copies had may have been seen before it was recorded.
    let ahead = if shard.copied { AHEAD_MAX } else { 0 };
    let last = captured.sequence.max(from.sequence) + ahead;
    let rewound = (from.sequence < last).then_some(Rewound { after: from.sequence, upto: last });
    if let Some(rewound) = &rewound {
        record(means, shard, epoch, rewound).await?;
    }
    let progress = from.progress.unwrap_or_default();
    let log = means.spool.begin(id, epoch, Sequence(last).next(), progress.clone())?;
    log.take_over(epoch, progress, others)?;
    Ok(Restart { log, rewound })
}

/// How far the shard is in its source at the end of its log: what was recorded,
/// and what each batch behind that adds.
fn progress_at_end(log: &ShardLog, captured: &Checkpoint) -> Result<Progress> {
    let mut progress = captured.progress.clone().unwrap_or_default();
    let mut after = Sequence(captured.sequence);
    loop {
        let frames = log.read_appended(after, READ_BYTES)?;
        let Some(last) = frames.last() else { return Ok(progress) };
        for frame in frames.iter().filter(|frame| frame.first() > after) {
            absorb(&mut progress, &frame.decode()?.progress.unwrap_or_default());
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
        let now = means.control.read(|state| state.shard(id).cloned());
        let now = now.ok_or_else(|| Error::new(ErrorKind::Fenced, "the shard was deleted"))?;
        if now.epoch != epoch.0 {
            return Err(Error::new(ErrorKind::Fenced, "the shard has another owner"));
        }
        let sinks: Vec<_> = now.writers.keys().map(|sink| now.delivered.get(sink)).collect();
        if sinks.iter().all(|at| at.is_some_and(|at| at.epoch == epoch.0)) {
            let least = sinks.into_iter().flatten().min_by_key(|at| at.sequence).cloned();
            let least = least.unwrap_or_else(|| captured.clone());
            // Nothing undelivered was lost: then what was captured holds, and
            // it may have moved on without a change.
            let whole = least.sequence == captured.sequence;
            return Ok(if whole { captured.clone() } else { anchored(least, shard) });
        }
        tokio::select! {
            _ = changed.changed() => {}
            _ = told.tick() => {
                tracing::info!("waiting for every sink to say what it has");
            }
        }
    }
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

async fn record(means: &Means, shard: &Shard, epoch: Epoch, lost: &Rewound) -> Result<()> {
    let (after, upto) = (lost.after, lost.upto);
    tracing::warn!(after, upto, "all copies of the spool are lost; reading again");
    let gap = Gap {
        shard: shard.id,
        kind: GapKind::SpoolLost.into(),
        after,
        upto,
        detail: "all copies of the spool that were in sync are lost".to_owned(),
        at_ms: clock::now_ms(),
        repair: "read again from the delivered checkpoint, under new sequences".to_owned(),
        epoch: epoch.0,
        number: 0,
    };
    means.control.propose(command::Kind::RecordGap(RecordGap { gap: Some(gap) })).await.map(drop)
}
