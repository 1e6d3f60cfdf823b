//! Which changes a subscriber wants: a pure core.

use std::collections::BTreeSet;

use tidegate_proto::v1::{ChangeBatch, Operation, SubscribeStart};

/// A subscriber's wishes; empty sets mean all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    collections: BTreeSet<String>,
    operations: BTreeSet<i32>,
}

impl Filter {
    pub(super) fn new(start: &SubscribeStart) -> Result<Self, String> {
        for operation in &start.operations {
            let known = Operation::try_from(*operation);
            if known.is_err() || known == Ok(Operation::Unspecified) {
                return Err(format!(
                    "operation {operation} is not known; use insert, update, delete, snapshot, \
                     upsert or gap"
                ));
            }
        }
        Ok(Self {
            collections: start.collections.iter().cloned().collect(),
            operations: start.operations.iter().copied().collect(),
        })
    }

    /// Takes everything.
    pub(super) fn is_open(&self) -> bool {
        self.collections.is_empty() && self.operations.is_empty()
    }

    /// The indices of the changes of `batch` that pass. Marks of a gap always do: what is
    /// missing there may be of any collection.
    pub(super) fn passing(&self, batch: &ChangeBatch) -> Vec<usize> {
        let wanted: Vec<bool> = batch
            .collections
            .iter()
            .map(|name| self.collections.is_empty() || self.collections.contains(name))
            .collect();
        let passes = |at: &usize| {
            let change = &batch.changes[*at];
            let named = wanted.get(change.collection as usize) == Some(&true);
            let asked = self.operations.is_empty() || self.operations.contains(&change.operation);
            change.operation() == Operation::Gap || named && asked
        };
        (0..batch.changes.len()).filter(passes).collect()
    }
}

#[cfg(test)]
mod tests {
    use tidegate_proto::v1::Change;

    use super::*;

    fn batch() -> ChangeBatch {
        let change = |collection, operation: Operation| Change {
            collection,
            operation: operation.into(),
            ..Change::default()
        };
        ChangeBatch {
            collections: ["orders", "users", ""].map(str::to_owned).to_vec(),
            changes: vec![
                change(0, Operation::Insert),
                change(1, Operation::Insert),
                change(0, Operation::Delete),
                change(2, Operation::Gap),
            ],
            ..ChangeBatch::default()
        }
    }

    fn filter(collections: &[&str], operations: &[Operation]) -> Filter {
        let start = SubscribeStart {
            collections: collections.iter().map(|&name| name.to_owned()).collect(),
            operations: operations.iter().map(|&it| it.into()).collect(),
            ..SubscribeStart::default()
        };
        Filter::new(&start).unwrap()
    }

    #[test]
    fn only_what_was_asked_for_passes_and_every_gap() {
        assert_eq!(filter(&[], &[]).passing(&batch()), [0, 1, 2, 3]);
        assert_eq!(filter(&["orders"], &[]).passing(&batch()), [0, 2, 3]);
        assert_eq!(filter(&["orders"], &[Operation::Delete]).passing(&batch()), [2, 3]);
        assert_eq!(filter(&["nothing-of-that-name"], &[]).passing(&batch()), [3]);
    }

    #[test]
    fn an_unknown_operation_is_refused() {
        let start = SubscribeStart { operations: vec![99], ..SubscribeStart::default() };
        assert!(Filter::new(&start).unwrap_err().contains("99"));
    }
}
