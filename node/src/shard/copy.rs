//! Keeps this node's copy of a shard's spool.

use std::convert::Infallible;
use std::time::Duration;

use tidegate_proto::v1::{IndexOpen, Progress, ShardId};
use tidegate_proto::{Epoch, Sequence};
use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};
use crate::shard::Means;
use crate::shard::role::Terms;
use crate::shard::room::room;
use crate::spool::{Keeps, Kept, ShardLog};

/// How often an owner that is not there yet is asked.
const OWNER_WAIT: Duration = Duration::from_millis(30);

/// Runs until told to stop, or until another owner is known.
pub(super) async fn run(
    means: Means,
    id: ShardId,
    terms: Terms,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    loop {
        let error = tokio::select! {
            Err(error) = follow(&means, id, terms) => error,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        if !asks_again(error.kind()) {
            return Err(error);
        }
        tracing::debug!(error = %error, "a copy looks for the owner");
        tokio::time::sleep(OWNER_WAIT).await;
    }
}

/// Whether a copy that met an error of this kind asks the owner again. What is gone was
/// retained no longer before it could be fetched: asked again, the owner says behind what
/// to begin anew. A copy that is behind is no reason for its shard to stand still.
pub(crate) fn asks_again(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Gone)
}

/// Follows the owner of these terms for as long as it can be reached.
async fn follow(means: &Means, id: ShardId, terms: Terms) -> Result<Infallible> {
    room(&means.spool).await;
    let owner = means.control.read(|state| {
        let shard = state.shard(id).filter(|shard| shard.epoch == terms.epoch.0)?;
        let owner = state.node(shard.reader).map(|node| node.address.clone());
        Some((owner, shard.spec.clone().unwrap_or_default()))
    });
    let (owner, spec) =
        owner.ok_or_else(|| Error::new(ErrorKind::Fenced, "the shard has another owner"))?;
    let away = || Error::new(ErrorKind::Unavailable, "the shard has no owner right now");
    let address = owner.ok_or_else(away)?;
    let held = means.spool.log(id);
    // If its file cannot be read here now, whoever becomes the owner catches up.
    let job = means.exports.job(id.export_id).await;
    let keeps = job.ok().and_then(|job| job.keeps(&spec));
    let documents = keeps.filter(|keeps| keeps.kept == Kept::Documents);
    let index = index_here(held.as_deref(), documents, terms.epoch)?;
    let shard = (id, terms.epoch);
    let mut fetch = means.exchange.fetch_copy(shard, &address, held.as_deref(), index).await?;
    let keep = Sequence(fetch.start().keep);
    let (log, at) = match held {
        Some(log) if !fetch.start().anew => (log, fetch.asked()),
        Some(_) | None => {
            let made = Epoch(fetch.start().made);
            (means.spool.begin(id, made, keep.next(), Progress::default())?, keep)
        }
    };
    log.follow(terms.epoch, (at, keep))?;
    if let Some(keeps) = keeps {
        log.keep_index(keeps)?;
        if keep < at && documents.is_some() {
            let why = "what was cut off is asked for in another fetch";
            return Err(Error::new(ErrorKind::Unavailable, why));
        }
    }
    let mut lacks = documents.is_some() && !log.known().whole;
    tracing::info!(after = %keep, lacks_keys = lacks, "keeping a copy");
    loop {
        let fetched = fetch.next().await?;
        for frame in &fetched.frames {
            log.append_copy(frame, terms.epoch)?;
        }
        if let Some(rows) = &fetched.index {
            log.take_rows(rows, terms.epoch)?;
        }
        if lacks && log.known().whole {
            lacks = false;
            fetch.indexed();
            tracing::info!("the owner's key index is here");
        }
        log.set_stable(fetched.stable);
        if log.asks_for_more() {
            let why = "keys of which nothing is known are asked for in another fetch";
            return Err(Error::new(ErrorKind::Unavailable, why));
        }
        if let Some(last) = fetched.frames.last() {
            fetch.acknowledge(last.last());
        }
    }
}

/// What this node has of an index of documents, if there is to be one: of others, nobody
/// sends rows.
fn index_here(
    held: Option<&ShardLog>,
    documents: Option<Keeps>,
    epoch: Epoch,
) -> Result<Option<IndexOpen>> {
    let Some(documents) = documents else { return Ok(None) };
    let Some(log) = held else { return Ok(Some(IndexOpen::default())) };
    log.keep_index(documents)?;
    log.index_open(epoch).map(Some)
}
