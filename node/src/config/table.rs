//! Reads one table of a TOML file into a struct, with errors that help.

use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};

/// Reads `table` as a `T`. `place` names the table in errors, as `[source]`.
/// An unknown key is refused with the nearest one there is.
pub fn parse<T: DeserializeOwned>(place: &str, table: toml::Table) -> Result<T> {
    toml::Value::Table(table).try_into().map_err(|error: toml::de::Error| explain(place, &error))
}

/// Turns a parser's error into one that names the nearest known key.
pub(super) fn explain(place: &str, error: &toml::de::Error) -> Error {
    let message = error.message();
    let hint = nearest(message).map_or_else(String::new, |key| format!("; did you mean `{key}`?"));
    Error::new(ErrorKind::Config, format!("{place}: {message}{hint}"))
}

/// The known key that is most like the unknown one, from serde's own words:
/// "unknown field `a`, expected one of `b`, `c`".
fn nearest(message: &str) -> Option<&str> {
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next().filter(|_| message.starts_with("unknown "))?;
    let likeness = |name: &str| strsim::jaro_winkler(unknown, name);
    let best = names.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.7).then_some(best)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    struct Sample {
        #[serde(rename = "target-file-bytes")]
        _bytes: u64,
        #[serde(default, rename = "delay-ms")]
        _delay: u64,
    }

    #[test]
    fn a_wrong_key_is_refused_with_the_nearest_right_one() {
        let table = toml::toml! { targetfile-bytes = 3 };
        let error = parse::<Sample>("[[sink]] \"lake\"", table).unwrap_err().to_string();
        assert!(error.contains("`targetfile-bytes`"), "{error}");
        assert!(error.contains("did you mean `target-file-bytes`?"), "{error}");
    }

    #[test]
    fn nothing_is_suggested_when_nothing_is_near() {
        let table = toml::toml! { zzz = 3 };
        let error = parse::<Sample>("[source]", table).unwrap_err().to_string();
        assert!(!error.contains("did you mean"), "{error}");
    }
}
