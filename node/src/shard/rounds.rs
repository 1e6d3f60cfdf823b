//! Snapshots after the first: when a reader begins one, and which rows it captures.

use tidegate_proto::v1::{
    Outcome, Progress, RefusedKind, Scope, Shard, ShardId, SnapshotBegin, command, outcome,
};
use tidegate_proto::{Epoch, Key, KeyPart};

use crate::control::{Control, done_or_there};
use crate::error::{Error, ErrorKind, Result};
use crate::shard::Means;
use crate::shard::exports::Job;
use crate::shard::role::Terms;

/// What was captured is of a snapshot before the one the terms name.
pub(super) fn is_due(progress: &Progress, terms: &Terms) -> bool {
    progress.round < terms.round
}

/// Cuts the snapshot that is due into chunks, and has that recorded; gives the shard
/// with it. A repeat cuts anew: of the one before no row was captured.
pub(super) async fn begin(means: &Means, job: &Job, shard: Shard, terms: &Terms) -> Result<Shard> {
    let spec = shard.spec.clone().unwrap_or_default();
    let cut = job.source.anchor(&spec).await?;
    tracing::info!(round = terms.round, chunks = cut.chunks, "the rows are read again");
    let command = SnapshotBegin {
        shard: shard.id,
        epoch: terms.epoch.0,
        round: terms.round,
        chunks: cut.chunks,
        rows_estimated: cut.rows_estimated,
        sweeps: job.spec.snapshot.sweep,
    };
    let (chunks, rows_estimated, sweeps) = (command.chunks, command.rows_estimated, command.sweeps);
    begun(means.control.propose(command::Kind::SnapshotBegin(command)).await?)?;
    Ok(Shard { chunks, rows_estimated, sweeps, ..shard })
}

/// Has it recorded that the snapshot under way deletes nothing after all.
pub(super) async fn forgo_sweep(control: &Control, id: ShardId, epoch: Epoch) -> Result<()> {
    let begin = control.read(|state| {
        state.shard(id).map(|shard| SnapshotBegin {
            shard: Some(id),
            epoch: epoch.0,
            round: shard.round,
            chunks: shard.chunks,
            rows_estimated: shard.rows_estimated,
            sweeps: false,
        })
    });
    let begin = begin.ok_or_else(|| Error::new(ErrorKind::Fenced, "the shard was deleted"))?;
    begun(control.propose(command::Kind::SnapshotBegin(begin)).await?)
}

/// One that was canceled or given up for a later one meanwhile is no failure of the shard:
/// whoever starts next knows of it.
fn begun(outcome: Outcome) -> Result<()> {
    match &outcome.kind {
        Some(outcome::Kind::Refused(refused)) if refused.kind() == RefusedKind::Conflict => {
            Err(Error::new(ErrorKind::Unavailable, refused.reason.clone()))
        }
        _ => done_or_there(outcome),
    }
}

/// Whether a row with this key is in the scope.
pub(super) fn covers(scope: &Scope, collection: &str, key: &[u8]) -> Result<bool> {
    if !scope.collection.is_empty() && scope.collection != collection {
        return Ok(false);
    }
    if scope.key_prefix.is_empty() {
        return Ok(true);
    }
    let key = Key::from_bytes(bytes::Bytes::copy_from_slice(key));
    let parts = key.parts().map_err(|error| {
        Error::new(ErrorKind::Corrupt, "a key that its source made does not decode").because(error)
    })?;
    Ok(match parts.first() {
        Some(KeyPart::String(text)) => text.starts_with(&scope.key_prefix),
        Some(part) => Key::encode(std::slice::from_ref(part))
            .is_ok_and(|first| first.to_string().starts_with(&scope.key_prefix)),
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(collection: &str, prefix: &str, parts: &[KeyPart]) -> bool {
        let scope = Scope { collection: collection.to_owned(), key_prefix: prefix.to_owned() };
        covers(&scope, "orders", Key::encode(parts).unwrap().as_bytes()).unwrap()
    }

    #[test]
    fn a_scope_is_a_collection_and_how_the_first_part_of_a_key_begins() {
        let text = |text: &str| KeyPart::String(text.to_owned());
        let key = [text("order-17"), KeyPart::number("9").unwrap()];
        assert!(covered("", "", &key) && covered("orders", "", &key));
        assert!(covered("", "order-1", &key) && !covered("", "order-2", &key));
        assert!(!covered("lines", "order-1", &key));
        assert!(!covered("", "9", &key), "only the first part counts");
        let number = [KeyPart::number("1742").unwrap()];
        assert!(covered("", "17", &number) && !covered("", "42", &number));
    }

    #[test]
    fn a_key_that_is_none_is_an_error() {
        let scope = Scope { key_prefix: "a".to_owned(), ..Scope::default() };
        assert_eq!(covers(&scope, "orders", &[0xff, 1]).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
