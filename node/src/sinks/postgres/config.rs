//! The table of a PostgreSQL sink in an export file.

use std::time::Duration;

use serde::Deserialize;

use super::names;
use crate::config::{Secret, resolve};
use crate::error::{Error, ErrorKind, Result};

/// What errors of it are said of.
pub(super) const PLACE: &str = "[[sink]] of kind \"postgres\"";
/// Columns that a row has room for whatever they hold, where some are inferred: a value
/// of up to 24 bytes stays in the row, and a row has about 7800 for them.
const COLUMNS_MAX: usize = 320;
/// What `columns-inferred = true` stands for.
const INFERRED: u16 = 100;

/// Keys of a `[[sink]]` of kind `postgres`. Either `url`, or `host` and what
/// goes with it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PostgresConfig {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`; a password only as, or
    /// within, `${env:NAME}` or `${file:PATH}`.
    url: Option<Secret>,
    /// A name or address, or several in order of preference, with commas.
    host: Option<String>,
    /// Default 5432.
    port: Option<u16>,
    /// The role to write as.
    user: Option<String>,
    /// `${env:NAME}` or `${file:PATH}`, nothing else.
    password: Option<Secret>,
    /// The database.
    database: Option<String>,
    /// The schema of all tables. Made if it is missing. Default `public`.
    #[serde(default = "schema")]
    pub(super) schema: String,
    /// The name of a table; may hold `{export}`, `{shard}`, `{collection}`.
    /// Default `{collection}`.
    #[serde(default = "table")]
    pub(super) table: String,
    /// What a change does to its table. Default `upsert`.
    #[serde(default)]
    pub(super) mode: Mode,
    /// Parts of documents that get columns of their own.
    #[serde(default)]
    pub(super) columns: Vec<Column>,
    /// Top-level fields of documents that get columns without being declared, in
    /// one table at most: a number, or `true` for 100; with declared ones up to 320.
    /// Default `false`.
    #[serde(default)]
    columns_inferred: Inferred,
    /// Bytes of changes, as captured, that are committed together. Default
    /// 8 MiB; 64 KiB to 256 MiB.
    #[serde(default = "batch_bytes")]
    pub(super) batch_bytes: u64,
    /// The same in changes. Default 100,000; 1 to 1,000,000.
    #[serde(default = "batch_changes")]
    pub(super) batch_changes: u64,
    /// Milliseconds that accepted changes may wait for more. Default 1,000.
    #[serde(default = "delay_ms")]
    pub(super) delay_ms: u64,
    /// Default 10,000.
    #[serde(default = "connect_timeout_ms")]
    connect_timeout_ms: u64,
    /// How long one statement may take. Default 60,000.
    #[serde(default = "statement_timeout_ms")]
    pub(super) statement_timeout_ms: u64,
    /// Whether the connection is encrypted, and the server's certificate
    /// verified. Default true.
    #[serde(default = "tls")]
    pub(super) tls: bool,
    /// PEM of the authorities whose servers are trusted. Default: the machine's.
    pub(super) ca_file: Option<String>,
}

/// What a change does to its table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// One row for each key, as it is now.
    #[default]
    Upsert,
    /// One row for each change.
    Append,
}

/// A part of documents with a column of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Column {
    /// The column's name.
    pub(super) name: String,
    /// Where the value is in a document. Default: the field of that name.
    path: Option<Path>,
    /// What it holds.
    #[serde(rename = "type")]
    pub(super) kind: ColumnType,
}

/// Whether there are inferred columns, or how many.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Inferred {
    Switch(bool),
    Most(u16),
}

impl Default for Inferred {
    fn default() -> Self {
        Self::Switch(false)
    }
}

/// A way into a document: field names with points between, or in a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Path {
    Dotted(String),
    List(Vec<String>),
}

/// The types a column can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ColumnType {
    Text,
    Boolean,
    Integer,
    Bigint,
    Double,
    Numeric,
    Timestamptz,
    Jsonb,
    Bytea,
}

impl ColumnType {
    pub(super) const ALL: [Self; 9] = [
        Self::Text,
        Self::Boolean,
        Self::Integer,
        Self::Bigint,
        Self::Double,
        Self::Numeric,
        Self::Timestamptz,
        Self::Jsonb,
        Self::Bytea,
    ];

    /// As PostgreSQL itself writes it.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Bigint => "bigint",
            Self::Double => "double precision",
            Self::Numeric => "numeric",
            Self::Timestamptz => "timestamp with time zone",
            Self::Jsonb => "jsonb",
            Self::Bytea => "bytea",
        }
    }
}

impl Column {
    /// For a top-level field.
    pub(super) fn inferred(name: String, field: &str, kind: ColumnType) -> Self {
        Self { name, path: Some(Path::List(vec![field.to_owned()])), kind }
    }

    /// The names of the fields on the way to the value.
    pub(super) fn path(&self) -> Vec<&str> {
        match &self.path {
            None => vec![&self.name],
            Some(Path::Dotted(path)) => path.split('.').collect(),
            Some(Path::List(names)) => names.iter().map(String::as_str).collect(),
        }
    }
}

impl PostgresConfig {
    /// Says what cannot work, without asking any other system.
    pub(in crate::sinks) fn validate(&self) -> Result<()> {
        match (&self.url, &self.host) {
            (Some(_), Some(_)) => return Err(refuse("set `url` or `host`, not both")),
            (None, None) => return Err(refuse("set `url`, or `host`, `user` and `database`")),
            (Some(url), None) => self.validate_url(&url.0)?,
            (None, Some(_)) if self.user.is_none() || self.database.is_none() => {
                return Err(refuse("`host` goes with `user` and `database`"));
            }
            (None, Some(_)) => {}
        }
        if self.password.as_ref().is_some_and(|password| !is_reference(&password.0)) {
            return Err(refuse("write the password as ${env:NAME} or ${file:PATH}"));
        }
        if self.schema.is_empty() || self.schema.len() > names::NAME_BYTES_MAX {
            return Err(refuse("a schema's name has 1 to 63 bytes"));
        }
        if self.schema.contains('\0') || self.table.contains('\0') {
            return Err(refuse("names cannot hold U+0000"));
        }
        let bounds = [
            ("batch-bytes", self.batch_bytes, 64 << 10, 256 << 20),
            ("batch-changes", self.batch_changes, 1, 1_000_000),
            ("delay-ms", self.delay_ms, 1, 3_600_000),
            ("connect-timeout-ms", self.connect_timeout_ms, 100, 600_000),
            ("statement-timeout-ms", self.statement_timeout_ms, 1_000, 3_600_000),
        ];
        for (key, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                return Err(refuse(&format!("{key} must be from {least} to {most}")));
            }
        }
        let inferred = self.columns_inferred();
        if inferred > 0 && inferred + self.columns.len() > COLUMNS_MAX {
            let why = format!(
                "columns-inferred must be true, false or a number, with declared columns up to \
                 {COLUMNS_MAX}: more may not fit a row"
            );
            return Err(refuse(&why));
        }
        self.validate_table()?;
        self.validate_columns()
    }

    fn validate_url(&self, url: &str) -> Result<()> {
        let beside = [self.user.is_some(), self.password.is_some(), self.database.is_some()];
        if beside.contains(&true) || self.port.is_some() {
            return Err(refuse("port, user, password and database go with `host`, not with `url`"));
        }
        // What is not a reference must hold no secret.
        let mut plain = String::new();
        let mut rest = url;
        while let Some((before, after)) = rest.split_once("${") {
            plain.push_str(before);
            rest = after.split_once('}').map_or("", |(_, behind)| behind);
        }
        plain.push_str(rest);
        let parsed = plain.parse::<tokio_postgres::Config>();
        let password = parsed.as_ref().ok().and_then(tokio_postgres::Config::get_password);
        if password.is_some_and(|password| !password.is_empty()) {
            let why = "a password in `url` must be a reference: give all of it as ${env:NAME}";
            return Err(refuse(why));
        }
        if parsed.is_err() && plain == url {
            return Err(refuse("`url` is no postgres://USER@HOST:PORT/DATABASE"));
        }
        Ok(())
    }

    fn validate_table(&self) -> Result<()> {
        let words = names::words(&self.table);
        let words = words.ok_or_else(|| {
            refuse("`table` may hold {export}, {shard} and {collection}, and no other braces")
        })?;
        if self.mode == Mode::Upsert && !words.contains(&"collection") {
            return Err(refuse("`table` must hold {collection}: keys of two could be the same"));
        }
        Ok(())
    }

    fn validate_columns(&self) -> Result<()> {
        for (index, Column { name, .. }) in self.columns.iter().enumerate() {
            let wrong = |why: &str| Err(refuse(&format!("column \"{name}\" {why}")));
            if name.is_empty() || name.len() > names::NAME_BYTES_MAX || name.contains('\0') {
                return wrong("needs a name of 1 to 63 bytes");
            }
            if names::RESERVED.contains(&name.as_str()) || name.starts_with(names::OWN) {
                return wrong("is made by Tidegate itself; choose another name");
            }
            if names::SYSTEM.contains(&name.as_str()) {
                return wrong("is one of PostgreSQL's own; choose another name");
            }
            if self.columns[..index].iter().any(|column| column.name == *name) {
                return wrong("is declared twice");
            }
            if self.columns[index].path().contains(&"") {
                return wrong("has a path with an empty name in it");
            }
        }
        Ok(())
    }

    /// Where to connect, and as whom, with references put in.
    pub(super) fn place(&self) -> Result<tokio_postgres::Config> {
        match &self.url {
            // The parser's own words could repeat what it was given.
            Some(url) => resolve(&url.0)?.parse().map_err(|_| {
                refuse("what `url` stands for is no postgres://USER:PASSWORD@HOST:PORT/DATABASE")
            }),
            None => self.parts(),
        }
    }

    fn parts(&self) -> Result<tokio_postgres::Config> {
        let mut connection = tokio_postgres::Config::new();
        for host in self.host.iter().flat_map(|hosts| hosts.split(',')) {
            connection.host(host.trim());
        }
        connection.port(self.port.unwrap_or(5432));
        if let Some(user) = &self.user {
            connection.user(user);
        }
        if let Some(database) = &self.database {
            connection.dbname(database);
        }
        if let Some(password) = &self.password {
            connection.password(resolve(&password.0)?);
        }
        Ok(connection)
    }

    /// Inferred columns of a table, at most.
    pub(super) fn columns_inferred(&self) -> usize {
        usize::from(match self.columns_inferred {
            Inferred::Switch(false) => 0,
            Inferred::Switch(true) => INFERRED,
            Inferred::Most(most) => most,
        })
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }
}

/// The text is one reference and nothing else.
fn is_reference(text: &str) -> bool {
    let inside = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    inside.is_some_and(|inside| !inside.contains(['{', '}', '$']))
}

pub(super) fn refuse(why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{PLACE}: {why}"))
}

fn schema() -> String {
    "public".to_owned()
}

fn table() -> String {
    "{collection}".to_owned()
}

fn batch_bytes() -> u64 {
    8 << 20
}

fn batch_changes() -> u64 {
    100_000
}

fn delay_ms() -> u64 {
    1_000
}

fn connect_timeout_ms() -> u64 {
    10_000
}

fn statement_timeout_ms() -> u64 {
    60_000
}

fn tls() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn read(text: &str) -> Result<PostgresConfig> {
        let config: PostgresConfig = parse("[[sink]]", toml::from_str(text).unwrap())?;
        config.validate()?;
        Ok(config)
    }

    #[test]
    fn a_database_is_named_by_url_or_by_parts() {
        let by_parts = "host = \"a, b\"\nuser = \"u\"\ndatabase = \"d\"\n";
        let place = read(by_parts).unwrap().place().unwrap();
        assert_eq!((place.get_hosts().len(), place.get_ports()), (2, &[5432][..]));
        for wrong in ["", "host = \"a\"", "url = \"x\"\nhost = \"a\"", "url = \"nonsense\""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_is_given_by_reference_and_never_printed() {
        let parts = "host = \"h\"\nuser = \"u\"\ndatabase = \"d\"\npassword = ";
        assert!(read(&format!("{parts}\"${{env:PW}}\"")).is_ok());
        for wrong in ["hush", "${env:A}hush", "hush${env:A}", "${env:A}${env:B}"] {
            let error = read(&format!("{parts}\"{wrong}\"")).unwrap_err().to_string();
            assert!(error.contains("${env:NAME}") && !error.contains("hush"), "{error}");
        }
        for right in ["${env:DB}", "postgres://u:${env:PW}@h/d", "postgres://u@h/d"] {
            let config = read(&format!("url = \"{right}\"")).unwrap();
            assert!(!format!("{config:?}").contains("postgres://"), "{config:?}");
        }
        for wrong in ["postgres://u:hush@h/d", "postgres://u:hush@${env:HOST}/d"] {
            let error = read(&format!("url = \"{wrong}\"")).unwrap_err().to_string();
            assert!(!error.contains("hush"), "{error}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "host=hush nonsense=hush").unwrap();
        let config = read(&format!("url = \"${{file:{}}}\"", file.path().display())).unwrap();
        let error = config.place().unwrap_err().to_string();
        assert!(!error.contains("hush"), "{error}");
    }

    #[test]
    fn columns_and_tables_that_cannot_work_are_refused() {
        let with = |rest: &str| read(&format!("url = \"postgres://u@h/d\"\n{rest}"));
        let column = |name: &str, kind: &str| {
            with(&format!("columns = [{{ name = \"{name}\", type = \"{kind}\" }}]"))
        };
        assert!(column("total", "numeric").is_ok());
        for name in ["", "key", "document", "tidegate_x", "ctid", &"x".repeat(64)] {
            assert!(column(name, "text").is_err(), "{name}");
        }
        assert!(column("total", "money").is_err());
        let twice = "{ name = \"a\", type = \"text\" }";
        assert!(with(&format!("columns = [{twice}, {twice}]")).is_err());
        assert!(with("table = \"all\"").is_err(), "two collections may have one key");
        assert!(with("table = \"all\"\nmode = \"append\"").is_ok());
        assert!(with("table = \"{colection}\"").is_err());
        for (setting, most) in [("true", Some(100)), ("false", Some(0)), ("320", Some(320))]
            .into_iter()
            .chain([("321", None), ("-1", None), ("\"all\"", None)])
        {
            let config = with(&format!("columns-inferred = {setting}"));
            assert_eq!(config.ok().map(|config| config.columns_inferred()), most, "{setting}");
        }
        let declared = "columns = [{ name = \"a\", type = \"text\" }]\ncolumns-inferred = ";
        assert!(
            with(&format!("{declared}319")).is_ok() && with(&format!("{declared}320")).is_err()
        );
        assert!(with("batch-bytes = 1").is_err() && with("bach-bytes = 1").is_err());
        let config = with(
            "columns = [{ name = \"a\", type = \"text\", path = \"b.c\" }, \
             { name = \"d\", type = \"jsonb\", path = [\"e.f\"] }]",
        );
        let columns = config.unwrap().columns;
        assert_eq!((columns[0].path(), columns[1].path()), (vec!["b", "c"], vec!["e.f"]));
    }
}
