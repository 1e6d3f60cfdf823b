//! An export file.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::config::table;
use crate::error::{Error, ErrorKind, Result};

/// The most sinks an export may have.
const SINKS_MAX: usize = 16;
/// The most copies of a spool.
const COPIES_MAX: usize = 5;
/// The longest name of an export or a sink.
const NAME_BYTES_MAX: usize = 64;

/// A declared job: one source, its sinks, its policies.
///
/// Kept in the replicated state as the text the operator wrote; the tables of
/// source and sinks are read by their connectors.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExportSpec {
    /// Lower-case letters, digits and dashes; 1 to 64 of them.
    pub name: String,
    /// The `[source]` table, with its `kind`.
    pub source: toml::Table,
    /// The `[[sink]]` tables. May be empty: then only feeds read the export.
    #[serde(default, rename = "sink")]
    sinks: Vec<toml::Table>,
    /// The `[snapshot]` table.
    #[serde(default)]
    pub snapshot: SnapshotConfig,
    /// The `[index]` table.
    #[serde(default)]
    pub index: IndexConfig,
    /// The `[retention]` table.
    #[serde(default)]
    pub retention: RetentionConfig,
    /// The `[spool]` table.
    #[serde(default)]
    pub spool: SpoolConfig,
    /// The `[regions]` table.
    #[serde(default)]
    pub regions: RegionsConfig,
}

/// One `[[sink]]` table.
#[derive(Clone, Debug)]
pub struct SinkSpec {
    /// Unique within the export.
    pub name: String,
    /// Which connector.
    pub kind: String,
    /// The connector's own keys.
    pub table: toml::Table,
}

/// How the first state of the source is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SnapshotConfig {
    /// `initial` (the default) or `never`.
    pub mode: SnapshotMode,
    /// Chunks of one shard read at the same time. Default 2, at most 64.
    pub chunks_in_flight: usize,
    /// Rows per second and shard; 0, the default, for no limit.
    pub rows_per_second: u32,
    /// `resnapshot`, `pause` or `accept`; see [`SnapshotConfig::on_gap`].
    on_gap: Option<OnGap>,
    /// What a later snapshot does not find any more is deleted. For that the spool keeps
    /// every key. Default false.
    pub sweep: bool,
}

/// What is kept of each key beside the changes.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct IndexConfig {
    /// Each change says what it is to its key (new, an update, a duplicate), and which
    /// change brought the key last. For that the spool keeps every key. Default false.
    pub novelty: bool,
}

/// What is done when the source has lost history that was not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnGap {
    /// The shard's rows are read again, while its stream goes on.
    Resnapshot,
    /// The shard stands still until an operator decides.
    Pause,
    /// The shard goes on without what was lost.
    Accept,
}

/// Whether a snapshot is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotMode {
    /// Once, when the export is created.
    #[default]
    Initial,
    /// Only the stream, from the moment the export is created.
    Never,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        let mode = SnapshotMode::Initial;
        Self { mode, chunks_in_flight: 2, rows_per_second: 0, on_gap: None, sweep: false }
    }
}

impl SnapshotConfig {
    /// What is done about a gap. If the file does not say: rows are read again, unless it
    /// wants none.
    #[must_use]
    pub fn on_gap(&self) -> OnGap {
        self.on_gap.unwrap_or(match self.mode {
            SnapshotMode::Initial => OnGap::Resnapshot,
            SnapshotMode::Never => OnGap::Accept,
        })
    }
}

/// How long delivered changes stay in the spool, for feeds and replays. What a
/// sink still needs stays in any case.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RetentionConfig {
    /// Hours since capture. Default 24.
    pub hours: u32,
    /// Bytes per shard, whatever their age. Default 8 GiB.
    pub bytes: u64,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { hours: 24, bytes: 8 << 30 }
    }
}

/// How each shard's spool is kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SpoolConfig {
    /// Nodes that keep it, the owner included, as far as there are so many.
    /// Default 2, at most 5. With 1, what a killed node had captured and no sink
    /// had yet is read again from the source.
    pub copies: usize,
    /// Regions the copies are spread over, as far as there are so many. Default 1:
    /// near the source, but for one in each region that has a writer. With 2, the
    /// loss of a region loses no spool, and every change waits for another region.
    pub regions: usize,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self { copies: 2, regions: 1 }
    }
}

/// Where source and sinks are, as regions of nodes. What is left out may be
/// read or written anywhere.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RegionsConfig {
    /// Where the store is: its shards are read there, as long as a node is up there.
    pub source: Option<String>,
    /// Where sinks are, by their names: they are written there.
    pub sinks: BTreeMap<String, String>,
}

impl ExportSpec {
    /// Reads an export file and checks all that can be checked without asking
    /// the systems it names.
    pub fn parse(text: &str) -> Result<Self> {
        let spec: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            table::explain(&format!("export file, line {line}"), &error)
        })?;
        check_name("name", &spec.name)?;
        if !(1..=64).contains(&spec.snapshot.chunks_in_flight) {
            return Err(refuse("[snapshot] chunks-in-flight must be from 1 to 64"));
        }
        if !(1..=COPIES_MAX).contains(&spec.spool.copies) {
            return Err(refuse(&format!("[spool] copies must be from 1 to {COPIES_MAX}")));
        }
        if !(1..=spec.spool.copies).contains(&spec.spool.regions) {
            return Err(refuse("[spool] regions must be from 1 to the number of copies"));
        }
        spec.source_kind()?;
        let sinks = spec.sinks()?;
        if sinks.len() > SINKS_MAX {
            return Err(refuse(&format!("an export has at most {SINKS_MAX} sinks")));
        }
        for (at, sink) in sinks.iter().enumerate() {
            check_name("[[sink]] name", &sink.name)?;
            if sinks[..at].iter().any(|other| other.name == sink.name) {
                return Err(refuse(&format!("two sinks are named \"{}\"; rename one", sink.name)));
            }
        }
        let unknown = |name: &&String| !sinks.iter().any(|sink| sink.name == **name);
        if let Some(name) = spec.regions.sinks.keys().find(unknown) {
            let there: Vec<_> = sinks.iter().map(|sink| sink.name.as_str()).collect();
            let there = there.join(", ");
            return Err(refuse(&format!(
                "[regions] sinks names \"{name}\", which is no sink; there are: {there}"
            )));
        }
        Ok(spec)
    }

    /// The source's `kind`.
    pub fn source_kind(&self) -> Result<&str> {
        text_of(&self.source, "kind")
            .ok_or_else(|| refuse("[source] needs a `kind`, as kind = \"dynamodb\""))
    }

    /// The sinks, in the order of the file.
    pub fn sinks(&self) -> Result<Vec<SinkSpec>> {
        self.sinks.iter().map(|table| sink_of(table.clone())).collect()
    }
}

fn sink_of(mut table: toml::Table) -> Result<SinkSpec> {
    let kind = text_of(&table, "kind")
        .ok_or_else(|| refuse("every [[sink]] needs a `kind`, as kind = \"lake\""))?
        .to_owned();
    let name = text_of(&table, "name").unwrap_or(&kind).to_owned();
    table.remove("kind");
    table.remove("name");
    Ok(SinkSpec { name, kind, table })
}

fn text_of<'a>(table: &'a toml::Table, key: &str) -> Option<&'a str> {
    table.get(key).and_then(toml::Value::as_str)
}

fn check_name(what: &str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
        return Err(refuse(&format!(
            "{what} must be 1 to {NAME_BYTES_MAX} lower-case letters, digits and dashes"
        )));
    }
    Ok(())
}

fn refuse(why: &str) -> Error {
    Error::new(ErrorKind::Config, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        name = "orders"
        [source]
        kind = "embedded"
        [[sink]]
        kind = "lake"
        path = "/tmp/lake"
    "#;

    fn refused(text: &str) -> String {
        ExportSpec::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_sink_is_named_after_its_kind_unless_it_says_otherwise() {
        let sinks = ExportSpec::parse(GOOD).unwrap().sinks().unwrap();
        assert_eq!((sinks[0].name.as_str(), sinks[0].kind.as_str()), ("lake", "lake"));
        assert_eq!(sinks[0].table.len(), 1, "only the connector's own keys are left");
    }

    #[test]
    fn rows_are_read_again_after_a_gap_unless_none_are_wanted() {
        let on_gap = |text: &str| {
            let text = format!("{GOOD}\n[snapshot]\n{text}");
            ExportSpec::parse(&text).unwrap().snapshot.on_gap()
        };
        assert_eq!(on_gap(""), OnGap::Resnapshot);
        assert_eq!(on_gap("mode = \"never\""), OnGap::Accept);
        assert_eq!(on_gap("mode = \"never\"\non-gap = \"pause\""), OnGap::Pause);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(refused(&GOOD.replace("[source]", "[sauce]")).contains("did you mean `source`?"));
        assert!(refused(&GOOD.replace("\"orders\"", "\"../x\"")).contains("name must be"));
        assert!(refused(&format!("{GOOD}\n[[sink]]\nkind = \"lake\"")).contains("two sinks"));
        assert!(refused(&GOOD.replace("kind = \"embedded\"", "")).contains("[source] needs"));
        assert!(refused("name = 5").contains("line 1"));
        let regions = format!("{GOOD}\n[regions]\nsinks = {{ like = \"eu\" }}");
        assert!(refused(&regions).contains("\"like\", which is no sink; there are: lake"));
        assert!(refused(&format!("{GOOD}\n[spool]\nregions = 3")).contains("number of copies"));
    }
}
