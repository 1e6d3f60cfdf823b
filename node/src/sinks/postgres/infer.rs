//! Columns that nobody declared: which fields get one, and of which type.
//!
//! The table itself is the record: the comment of an inferred column names its
//! field, so whoever writes there next fills the same columns from the same
//! fields. A column is never changed: what does not fit it is told as of any.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tidegate_proto::DocumentError;
use tidegate_proto::document::{Dictionary, Node, Reader, tags};

use super::config::{Column, ColumnType, PostgresConfig, refuse};
use super::layout::{Cell, Layout};
use super::names;
use crate::error::Result;
use crate::sinks::SinkShard;

/// How the comment of an inferred column begins; the field's name follows as JSON.
const MARK: &str = "tidegate: field ";

/// Fields that have a value and no column, with a type that holds all values seen.
pub(super) type Fields = BTreeMap<String, ColumnType>;

/// The columns of the tables of a sink.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    /// What every table has.
    pub(super) base: Arc<Layout>,
    /// Inferred columns of a table, at most.
    most: usize,
    /// Fields that are declared, or whose name is a declared column's.
    declared: HashSet<String>,
    /// Tables that were looked at, where columns are inferred.
    tables: HashMap<String, Known>,
}

/// What was decided about the fields of a table.
#[derive(Clone, Debug)]
pub(super) struct Known {
    layout: Arc<Layout>,
    /// Fields with a column, and such as cannot have one.
    decided: HashSet<String>,
    /// There are more fields than columns: all others stay in the document.
    full: bool,
}

/// A column that a table has.
#[derive(Clone, Debug)]
pub(super) struct Existing {
    pub(super) name: String,
    /// As PostgreSQL itself writes it.
    pub(super) kind: String,
    pub(super) comment: Option<String>,
}

/// What is to become of a table.
#[derive(Debug)]
pub(super) struct Decision {
    /// Columns to add.
    pub(super) add: Vec<Cell>,
    /// Columns that are somebody else's, though a field has their name.
    pub(super) foreign: Vec<String>,
    /// What holds once they are added.
    pub(super) known: Known,
}

impl Columns {
    /// Those that every table has; others once [`Columns::learn`] was told.
    pub(super) fn new(config: &PostgresConfig, shard: &SinkShard) -> Self {
        let mut declared = HashSet::new();
        for column in &config.columns {
            declared.insert(column.name.clone());
            if let [field] = column.path()[..] {
                declared.insert(field.to_owned());
            }
        }
        let (base, most) = (Arc::new(Layout::new(config, shard)), config.columns_inferred());
        Self { base, most, declared, tables: HashMap::new() }
    }

    /// Fields may become columns.
    pub(super) fn infers(&self) -> bool {
        self.most > 0
    }

    /// Inferred columns of a table, at most.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Fields that are told apart while looking: those with columns, as many new
    /// ones, and one to see that there are more.
    pub(super) fn fields_max(&self) -> usize {
        2 * self.most + 1
    }

    /// How rows of a table are made.
    pub(super) fn layout(&self, table: &str) -> &Arc<Layout> {
        self.tables.get(table).map_or(&self.base, |known| &known.layout)
    }

    /// The table was looked at.
    pub(super) fn knows(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// Takes what was decided about a table.
    pub(super) fn learn(&mut self, table: String, known: Known) {
        self.tables.insert(table, known);
    }

    /// Nothing was decided about the field yet.
    fn is_open(&self, table: &str, field: &str) -> bool {
        let decided = |known: &Known| known.full || known.decided.contains(field);
        !self.declared.contains(field) && !self.tables.get(table).is_some_and(decided)
    }

    /// Which columns `fields` get in a table that has `there`.
    pub(super) fn decide(&self, there: &[Existing], fields: &Fields) -> Result<Decision> {
        let mut columns = Vec::new();
        let mut decided = HashSet::new();
        let of_base = |name: &String| self.base.cells.iter().any(|cell| cell.name() == name);
        for existing in there.iter().filter(|existing| !of_base(&existing.name)) {
            let Some(field) = existing.field() else { continue };
            columns.push(existing.column(&field)?);
            decided.insert(field);
        }
        let (mut add, mut foreign, mut full) = (Vec::new(), Vec::new(), false);
        for (field, kind) in fields {
            if decided.contains(field) {
                continue;
            }
            let column = Column::inferred(names::column(field), field, *kind);
            if there.iter().any(|existing| existing.name == column.name) {
                foreign.push(column.name);
            } else if columns.len() == self.most {
                full = true;
                continue;
            } else {
                add.push(Cell::Inferred(column.clone()));
                columns.push(column);
            }
            decided.insert(field.clone());
        }
        let layout = Arc::new(self.base.with(columns));
        Ok(Decision { add, foreign, known: Known { layout, decided, full } })
    }
}

impl Known {
    /// Some fields had to stay in the document for want of columns.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }
}

impl Existing {
    /// The field it was inferred from.
    fn field(&self) -> Option<String> {
        let line = self.comment.as_ref()?.lines().next()?;
        serde_json::from_str(line.strip_prefix(MARK)?).ok()
    }

    fn column(&self, field: &str) -> Result<Column> {
        let kind = ColumnType::ALL.into_iter().find(|kind| kind.sql() == self.kind);
        let kind = kind.ok_or_else(|| {
            refuse(&format!(
                "inferred column \"{}\" is {}, which no column of ours can be; alter it, or \
                 remove its comment to keep it for yourself",
                self.name, self.kind
            ))
        })?;
        Ok(Column::inferred(self.name.clone(), field, kind))
    }
}

/// The comment by which a column is known as inferred from `field`.
pub(super) fn comment(field: &str) -> String {
    format!("{MARK}{}", serde_json::Value::from(field))
}

/// Looks through documents of one table that share a dictionary.
pub(super) struct Search<'a> {
    dictionary: Dictionary<'a>,
    /// For each name: whether it is looked for, and what its values are.
    names: Vec<(bool, Option<ColumnType>)>,
}

impl<'a> Search<'a> {
    /// For documents with this dictionary.
    pub(super) fn new(
        columns: &Columns,
        table: &str,
        dictionary: &'a [u8],
    ) -> Result<Self, DocumentError> {
        let dictionary = Dictionary::parse(dictionary)?;
        let open = |id| Ok((columns.is_open(table, dictionary.name(id)?), None));
        let names = (0..dictionary.count).map(open).collect::<Result<_, DocumentError>>()?;
        Ok(Self { dictionary, names })
    }

    /// Looks at one more document.
    pub(super) fn look(&mut self, document: &'a [u8]) -> Result<(), DocumentError> {
        if self.names.iter().all(|(open, _)| !open) {
            return Ok(());
        }
        let (mut reader, node) = Reader::open(self.dictionary, document)?;
        let Node::Object(members) = node else { return Ok(()) };
        for index in 0..members.count {
            let id = reader.id(&members, index)?;
            let Some((true, seen)) = self.names.get_mut(id) else { continue };
            let node = reader.member(&members, index)?.node;
            // Such an object stands for a number or a set.
            if members.count == 1 && self.dictionary.name(id)?.starts_with('$') {
                continue;
            }
            if let Some(kind) = kind_of(&mut reader, &node)? {
                *seen = Some(seen.map_or(kind, |seen| joined(seen, kind)));
            }
        }
        Ok(())
    }

    /// Adds what was seen to `fields`, of which no more than `most` are told apart.
    pub(super) fn finish(self, most: usize, fields: &mut Fields) -> Result<(), DocumentError> {
        for (id, (_, seen)) in self.names.iter().enumerate() {
            let Some(kind) = *seen else { continue };
            let name = self.dictionary.name(id)?;
            if let Some(there) = fields.get_mut(name) {
                *there = joined(*there, kind);
            } else if fields.len() < most {
                fields.insert(name.to_owned(), kind);
            }
        }
        Ok(())
    }
}

/// The type of a value's column; none of a null, which could be of any.
fn kind_of<'a>(
    reader: &mut Reader<'a>,
    node: &Node<'a>,
) -> Result<Option<ColumnType>, DocumentError> {
    Ok(Some(match node {
        Node::Null => return Ok(None),
        Node::Bool(_) => ColumnType::Boolean,
        Node::Int(_) => ColumnType::Bigint,
        Node::Decimal { .. } => ColumnType::Numeric,
        Node::Float(_) | Node::Double(_) => ColumnType::Double,
        Node::String(_) => ColumnType::Text,
        Node::Binary(_) => ColumnType::Bytea,
        Node::TimestampMicros(_) => ColumnType::Timestamptz,
        Node::Object(members) if members.count == 1 && reader.name(members, 0)? == tags::NUMBER => {
            ColumnType::Numeric
        }
        Node::Array(_) | Node::Object(_) => ColumnType::Jsonb,
    }))
}

/// A type that holds what either holds.
fn joined(one: ColumnType, other: ColumnType) -> ColumnType {
    use ColumnType::{Bigint, Double, Jsonb, Numeric};
    let is_number = |kind| matches!(kind, Bigint | Numeric | Double);
    match () {
        () if one == other => one,
        () if is_number(one) && is_number(other) => Numeric,
        () => Jsonb,
    }
}

#[cfg(test)]
mod tests {
    use tidegate_proto::document;

    use super::*;
    use crate::config::parse;
    use crate::sinks::contract::shard;

    fn columns(settings: &str) -> Columns {
        let text = format!("url = \"postgres://u@h/d\"\n{settings}");
        let config = parse::<PostgresConfig>("[[sink]]", toml::from_str(&text).unwrap()).unwrap();
        config.validate().unwrap();
        Columns::new(&config, &shard(1))
    }

    fn found(columns: &Columns, documents: &[&str]) -> Fields {
        let mut fields = Fields::new();
        for json in documents {
            let value = document::parse_json(json.as_bytes()).unwrap();
            let encoded = document::encode(&value).unwrap();
            let mut search = Search::new(columns, "items", &encoded.dictionary).unwrap();
            search.look(&encoded.value).unwrap();
            search.finish(columns.fields_max(), &mut fields).unwrap();
        }
        fields
    }

    fn existing(name: &str, kind: &str, comment: Option<String>) -> Existing {
        Existing { name: name.to_owned(), kind: kind.to_owned(), comment }
    }

    fn kinds(fields: &Fields) -> Vec<(&str, ColumnType)> {
        fields.iter().map(|(name, kind)| (&name[..], *kind)).collect()
    }

    #[test]
    fn a_type_holds_all_values_that_were_seen() {
        let columns = columns("columns-inferred = true");
        let documents = [
            r#"{"a": 1, "b": true, "c": 1, "d": null, "e": "x", "f": {"g": 1}, "n": null}"#,
            r#"{"a": 2, "b": "no", "c": 1.5, "d": {"$timestamp": "2026-01-31T12:00:00Z"}}"#,
            r#"{"h": {"$number": "1e400"}, "i": {"$binary": "AAH/"}, "j": []}"#,
            r#"{"$number": "1e400"}"#,
            "[{\"k\": 1}]",
        ];
        let wanted = [
            ("a", ColumnType::Bigint),
            ("b", ColumnType::Jsonb),
            ("c", ColumnType::Numeric),
            ("d", ColumnType::Timestamptz),
            ("e", ColumnType::Text),
            ("f", ColumnType::Jsonb),
            ("h", ColumnType::Numeric),
            ("i", ColumnType::Bytea),
            ("j", ColumnType::Jsonb),
        ];
        assert_eq!(kinds(&found(&columns, &documents)), wanted);
        let doubles = [ColumnType::Double, ColumnType::Bigint];
        assert_eq!(joined(doubles[0], doubles[1]), ColumnType::Numeric);
        assert_eq!(joined(doubles[0], doubles[0]), ColumnType::Double);
    }

    #[test]
    fn declared_fields_and_decided_ones_are_not_looked_for() {
        let mut columns = columns(
            "columns-inferred = 2\ncolumns = [{ name = \"x\", type = \"text\", path = \"a\" }]",
        );
        let fields = found(&columns, &[r#"{"a": 1, "b": 1, "x": 1}"#]);
        assert_eq!(kinds(&fields), [("b", ColumnType::Bigint)]);
        let decision = columns.decide(&[], &fields).unwrap();
        assert_eq!(decision.add.len(), 1);
        columns.learn("items".to_owned(), decision.known);
        assert_eq!(kinds(&found(&columns, &[r#"{"b": 1, "c": 1}"#])), [("c", ColumnType::Bigint)]);
    }

    #[test]
    fn what_the_table_has_counts_and_foreign_columns_are_left_alone() {
        let columns = columns("columns-inferred = 2");
        let there = [
            existing("a", "numeric", Some(format!("{}\nprice", comment("a")))),
            existing("b", "text", Some("mine".to_owned())),
        ];
        let fields = found(&columns, &[r#"{"a": 1, "b": 1, "c": 1, "d": 1}"#]);
        let decision = columns.decide(&there, &fields).unwrap();
        let added: Vec<_> = decision.add.iter().map(Cell::name).collect();
        assert_eq!((added, &decision.foreign[..]), (vec!["c"], &["b".to_owned()][..]));
        assert!(decision.known.is_full(), "d has no room");
        let cells = decision.known.layout.cells.iter();
        let inferred: Vec<_> = cells
            .filter(|cell| matches!(cell, Cell::Inferred(_)))
            .map(|cell| (cell.name(), cell.sql_type()))
            .collect();
        assert_eq!(inferred, [("a", "numeric"), ("c", "bigint")]);
        let altered = existing("a", "money", Some(comment("a")));
        let error = columns.decide(&[altered], &fields).unwrap_err().to_string();
        assert!(error.contains("\"a\" is money"), "{error}");
    }

    #[test]
    fn a_comment_gives_any_name_back() {
        for field in ["", "a", "a\nb", "it's \"\\\"", "ü\0"] {
            let there = existing("x", "text", Some(comment(field)));
            assert_eq!(there.field().as_deref(), Some(field));
        }
        assert_eq!(existing("x", "text", Some("total".to_owned())).field(), None);
    }
}
