//! Where things lie below a lake's root.
//!
//! ```text
//!   EXPORT/data/COLLECTION/SHARD-EPOCH-FROM-TO.parquet
//!   EXPORT/manifest/SHARD/NUMBER.json                     20 digits
//!   EXPORT/owner.json                                     once anything is delivered
//! ```

use std::fmt::Write as _;

use crate::sinks::SinkShard;

/// The longest name that stands in a path as it is. File systems take 255
/// bytes; a file's name has three numbers besides.
const NAME_BYTES_MAX: usize = 160;

/// The folder of all data files of an export.
pub(super) fn data_folder(export: &str) -> String {
    format!("{}/data", safe(export))
}

/// Whose the folder of an export is.
pub(super) fn owner(export: &str) -> String {
    format!("{}/owner.json", safe(export))
}

/// The folder of a shard's manifests.
pub(super) fn manifest_folder(shard: &SinkShard) -> String {
    format!("{}/manifest/{}", safe(&shard.export), safe(&shard.shard))
}

/// A link of a shard's chain; byte order is the chain's order.
pub(super) fn manifest(shard: &SinkShard, number: u64) -> String {
    format!("{}/{number:020}.json", manifest_folder(shard))
}

/// The number in a manifest's file name.
pub(super) fn manifest_number(file: &str) -> Option<u64> {
    file.strip_suffix(".json").filter(|digits| digits.len() == 20)?.parse().ok()
}

/// A data file with the changes of `collection` from `from` to `to`.
pub(super) fn data(shard: &SinkShard, collection: &str, from: u64, to: u64) -> String {
    let folder = data_folder(&shard.export);
    let (epoch, name) = (shard.epoch, safe(&shard.shard));
    format!("{folder}/{}/{name}-{epoch}-{from}-{to}.parquet", safe(collection))
}

/// The epoch and the first sequence in the name of one of `shard`'s data
/// files; `None` for any other file.
pub(super) fn data_place(shard: &str, file: &str) -> Option<(u64, u64)> {
    let rest = file.strip_prefix(&safe(shard))?.strip_prefix('-')?.strip_suffix(".parquet")?;
    let mut numbers = rest.split('-').map(str::parse::<u64>);
    let (epoch, from) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    numbers.next()?.ok()?;
    numbers.next().is_none().then_some((epoch, from))
}

/// `name` as one part of a path, on any store and any file system: all but
/// letters, digits, `_`, `-` and inner dots is percent-encoded; what is too
/// long ends in a hash of itself.
pub(in crate::sinks) fn safe(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if plain || (byte == b'.' && at > 0) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string does not fail");
        }
    }
    if out.is_empty() {
        return "%".to_owned();
    }
    if out.len() > NAME_BYTES_MAX {
        out.truncate(NAME_BYTES_MAX - 33);
        let hash = blake3::hash(name.as_bytes()).to_hex();
        out.push('%');
        out.push_str(&hash[..32]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_and_stay_apart() {
        assert_eq!(safe("orders.v2"), "orders.v2");
        assert_eq!(safe("../a b%"), "%2E.%2Fa%20b%25");
        let long = "ü".repeat(200);
        assert_eq!(safe(&long).len(), NAME_BYTES_MAX);
        assert_ne!(safe(&long), safe(&format!("{long}x")));
        assert_ne!(safe(""), safe("%"));
    }

    #[test]
    fn only_a_shards_own_files_are_told_by_name() {
        assert_eq!(data_place("a", "a-5-1-10.parquet"), Some((5, 1)));
        assert_eq!(data_place("a", "a-1-5-1-10.parquet"), None, "shard a-1");
        assert_eq!(data_place("a-1", "a-1-5-1-10.parquet"), Some((5, 1)));
        assert_eq!(data_place("a", "a-5-1-x.parquet"), None);
        assert_eq!(data_place("a", "b-5-1-10.parquet"), None);
    }
}
