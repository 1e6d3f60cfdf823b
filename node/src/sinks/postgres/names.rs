//! Names of tables and columns, made from names of collections and fields.

use crate::sinks::SinkShard;

/// Bytes that PostgreSQL keeps of a name; it would cut the rest off silently.
pub(super) const NAME_BYTES_MAX: usize = 63;
/// What begins like this is ours.
pub(super) const OWN: &str = "tidegate_";
/// Columns that are made whatever the export declares.
pub(super) const RESERVED: [&str; 3] = ["key", "document", "before"];
/// Columns of PostgreSQL itself.
pub(super) const SYSTEM: [&str; 7] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid", "oid"];
/// Hexadecimal digits of a hash behind a name that had to be changed.
const HASH_CHARS: usize = 16;

/// `name` as SQL takes it, whatever it holds.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The table of a collection, by a template with `{export}`, `{shard}` and
/// `{collection}` in it.
///
/// A name that PostgreSQL would not take, or that looks like one of ours, ends
/// in a hash of the whole: two collections of a shard never share it.
pub(super) fn table(template: &str, shard: &SinkShard, collection: &str) -> String {
    let mut name = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        name.push_str(before);
        let (word, behind) = after.split_once('}').unwrap_or((after, ""));
        match word {
            "export" => name.push_str(&shard.export),
            "shard" => name.push_str(&shard.shard),
            _ => name.push_str(collection),
        }
        rest = behind;
    }
    name.push_str(rest);
    if is_plain(&name) { name } else { hashed(&name) }
}

/// The column of a field, in the same way: no two fields share it.
pub(super) fn column(field: &str) -> String {
    let ours = RESERVED.contains(&field) || SYSTEM.contains(&field);
    if is_plain(field) && !ours { field.to_owned() } else { hashed(field) }
}

/// `text` as a text constant of SQL, whatever it holds but U+0000.
pub(super) fn constant(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn is_plain(name: &str) -> bool {
    let taken = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains('\0');
    taken && !name.starts_with(OWN)
}

/// What stands in braces in a template, if all of it is known.
pub(super) fn words(template: &str) -> Option<Vec<&str>> {
    let mut words = Vec::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (word, behind) = after.split_once('}')?;
        if before.contains('}') || !["export", "shard", "collection"].contains(&word) {
            return None;
        }
        words.push(word);
        rest = behind;
    }
    (!rest.contains('}')).then_some(words)
}

fn hashed(name: &str) -> String {
    let hash = blake3::hash(name.as_bytes()).to_hex();
    let kept = name.replace('\0', "");
    let cut = kept.floor_char_boundary(NAME_BYTES_MAX - HASH_CHARS - 1);
    format!("{}_{}", &kept[..cut], &hash[..HASH_CHARS])
}

#[cfg(test)]
mod tests {
    use tidegate_proto::Epoch;

    use super::*;

    fn named(template: &str, collection: &str) -> String {
        let [export, uid, shard, sink] = ["orders", "c/1", "table/0", "out"].map(str::to_owned);
        table(template, &SinkShard { export, uid, shard, sink, epoch: Epoch(1) }, collection)
    }

    #[test]
    fn a_template_is_filled_once() {
        assert_eq!(named("{collection}", "items"), "items");
        assert_eq!(named("{export}_{shard}_{collection}_x", "{shard}"), "orders_table/0_{shard}_x");
        assert_eq!(words("a{export}b{collection}"), Some(vec!["export", "collection"]));
        for wrong in ["{", "}", "{x}", "{collection", "a}{collection}", "{collection}}"] {
            assert_eq!(words(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_that_would_be_cut_or_refused_end_in_a_hash() {
        let long = "ü".repeat(40);
        let names =
            [&long, &format!("{long}x"), "", "a\0b", "ab", "tidegate_checkpoint", "tidegate_x"]
                .map(|collection| named("{collection}", collection));
        for name in &names {
            assert!(name.len() <= NAME_BYTES_MAX && !name.contains('\0'), "{name}");
        }
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
        assert_ne!(names[5], "tidegate_checkpoint");
        assert_eq!(names[4], "ab", "a plain name stays");
        assert_eq!(named("{collection}", &"x".repeat(63)), "x".repeat(63));
    }

    #[test]
    fn fields_have_columns_of_their_own() {
        let long = "ü".repeat(40);
        let fields = [&long, &format!("{long}x"), "", "a\0b", "ab", "key", "ctid", "tidegate_key"];
        let columns: std::collections::BTreeSet<_> = fields.into_iter().map(column).collect();
        assert_eq!(columns.len(), fields.len(), "{columns:?}");
        for name in &columns {
            assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX, "{name}");
            assert!(!name.contains('\0') && !["key", "ctid", "tidegate_key"].contains(&&name[..]));
        }
        assert_eq!(column("Größe \"x\""), "Größe \"x\"");
    }

    #[test]
    fn quotes_in_names_do_not_end_them() {
        assert_eq!(constant("it's \\"), "E'it''s \\\\'");
        assert_eq!(quoted("a\"; drop table b; --"), "\"a\"\"; drop table b; --\"");
    }
}
