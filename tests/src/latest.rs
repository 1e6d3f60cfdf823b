//! The last document of each key, as batches of changes leave it.

use std::collections::BTreeMap;

use tidegate_proto::content_hash;
use tidegate_proto::v1::{ChangeBatch, Operation};

use crate::Outcome;

/// The hash of each key's document; a deleted key is not there.
pub type State = BTreeMap<Vec<u8>, [u8; 16]>;

/// Puts a batch's changes over `state`.
///
/// # Errors
///
/// If a change names a dictionary that the batch does not have.
pub fn fold(state: &mut State, batch: &ChangeBatch) -> Outcome<()> {
    for change in batch.changes.iter().filter(|it| it.operation() != Operation::Gap) {
        if change.operation() == Operation::Delete {
            state.remove(&change.key[..]);
            continue;
        }
        let dictionary = batch.dictionaries.get(usize::try_from(change.dictionary)?);
        let dictionary = dictionary.ok_or("a change without its dictionary")?;
        // From the document, not from what the change says of it.
        state.insert(change.key.to_vec(), content_hash(dictionary, &change.document));
    }
    Ok(())
}
