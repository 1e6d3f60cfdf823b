//! What `tidegate feed tail` has written of a feed.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// The changes a subscriber got, in the order they came. A line still being written
/// is left out.
pub(crate) fn changes(followed: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(followed).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The sequences each shard's subscriber got, in the order they came.
pub(crate) fn sequences(followed: &Path) -> BTreeMap<String, Vec<u64>> {
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for change in changes(followed) {
        let sequence = change["sequence"].as_u64().unwrap();
        seen.entry(change["shard"].to_string()).or_default().push(sequence);
    }
    seen
}

/// The numbers of the gaps whose marks a subscriber got. What was read again follows its
/// mark.
pub(crate) fn marks(followed: &Path) -> Vec<u64> {
    changes(followed).iter().filter_map(mark).collect()
}

/// The number of the gap that a change is the mark of.
pub(crate) fn mark(change: &Value) -> Option<u64> {
    (change["operation"] == "gap").then(|| change["document"]["gap"].as_u64().unwrap())
}
