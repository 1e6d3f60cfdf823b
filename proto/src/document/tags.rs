//! Objects that stand for what JSON or Variant have no type for.
//!
//! Each is an object with one field, whose name is the tag:
//!
//! | tag            | holds                    | stands for                           | where           |
//! | -------------- | ------------------------ | ------------------------------------ | --------------- |
//! | `$number`      | text                     | a number beyond 38 digits or places  | Variant, JSON   |
//! | `$set:string`  | array of strings         | a set, sorted by bytes               | Variant, JSON   |
//! | `$set:number`  | array of numbers         | a set, sorted by size                | Variant, JSON   |
//! | `$set:binary`  | array of bytes           | a set, sorted by bytes               | Variant, JSON   |
//! | `$binary`      | text, standard base64    | bytes                                | JSON only       |
//! | `$timestamp`   | text, RFC 3339 in UTC; a number of microseconds outside the years 0 to 9999 | a point in time | JSON only |
//! | `$double`      | `NaN`, `Infinity`, `-Infinity` | a double that JSON cannot write | JSON only     |
//!
//! Somebody's own object that happens to look like one has its `$` doubled:
//! `{"$$binary": 5}` is an object with the field `$binary`, `{"$$$binary": 5}`
//! one with `$$binary`, and so on. For the tags that are JSON only this happens
//! on the way to JSON and back. The others are told apart within Variant too, so
//! a source gives the only field of an object through [`escape`].

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{DocumentError, Value};
use crate::decimal::Decimal;

/// A number beyond what decimals hold.
pub const NUMBER: &str = "$number";
/// A set of strings.
pub const SET_STRING: &str = "$set:string";
/// A set of numbers.
pub const SET_NUMBER: &str = "$set:number";
/// A set of byte strings.
pub const SET_BINARY: &str = "$set:binary";
/// Bytes, in JSON.
pub const BINARY: &str = "$binary";
/// A point in time, in JSON.
pub const TIMESTAMP: &str = "$timestamp";
/// A double that is not finite, in JSON.
pub const DOUBLE: &str = "$double";

const IN_VARIANT: [&str; 4] = [NUMBER, SET_STRING, SET_NUMBER, SET_BINARY];
const IN_JSON: [&str; 3] = [BINARY, TIMESTAMP, DOUBLE];

/// The name that an object's *only* field has in a [`Value`], so that nobody
/// takes the object for a number or a set.
#[must_use]
pub fn escape(name: &str) -> Cow<'_, str> {
    if looks_like(name, &IN_VARIANT) { Cow::Owned(format!("${name}")) } else { Cow::Borrowed(name) }
}

/// The set of `members`, tagged `tag`, one of the `SET_` constants: in order,
/// each once. Fails if a member is of another type.
pub fn set(tag: &'static str, members: Vec<Value>) -> Result<Value, DocumentError> {
    let wrong = || DocumentError::Json(format!("a \"{tag}\" holds a member of another type"));
    let mut sorted = BTreeMap::new();
    for member in members {
        let place = match (tag, &member) {
            (SET_STRING, Value::String(text)) => (None, text.as_bytes().to_vec()),
            (SET_BINARY, Value::Binary(bytes)) => (None, bytes.clone()),
            (SET_NUMBER, number) => (Some(size(number).ok_or_else(wrong)?), Vec::new()),
            _ => return Err(wrong()),
        };
        sorted.insert(place, member);
    }
    Ok(tagged(tag, Value::Array(sorted.into_values().collect())))
}

/// An object with the one field `tag`.
pub(super) fn tagged(tag: &str, value: Value) -> Value {
    Value::Object(vec![(tag.to_owned(), value)])
}

/// Whether an object whose only field has this name needs another `$` in JSON.
pub(super) fn is_escaped_in_json(name: &str) -> bool {
    looks_like(name, &IN_JSON)
}

/// What the JSON object `{name: value}` stands for.
pub(super) fn from_json(name: String, value: Value) -> Result<Value, DocumentError> {
    match name.as_str() {
        NUMBER => number(&value).ok_or_else(|| misused(NUMBER, "a number as text")),
        SET_STRING => members(SET_STRING, value),
        SET_NUMBER => members(SET_NUMBER, value),
        SET_BINARY => members(SET_BINARY, value),
        BINARY => binary(&value).ok_or_else(|| misused(BINARY, "padded base64 text")),
        TIMESTAMP => timestamp(&value)
            .ok_or_else(|| misused(TIMESTAMP, "a time as 2026-01-31T12:00:00.000000Z")),
        DOUBLE => double(&value).ok_or_else(|| misused(DOUBLE, "NaN, Infinity or -Infinity")),
        _ if is_escaped_in_json(&name) => Ok(tagged(&name[1..], value)),
        _ => Ok(Value::Object(vec![(name, value)])),
    }
}

/// The words for a double that is not finite.
pub(super) fn double_text(number: f64) -> &'static str {
    match (number.is_nan(), number > 0.0) {
        (true, _) => "NaN",
        (false, true) => "Infinity",
        (false, false) => "-Infinity",
    }
}

fn members(tag: &'static str, value: Value) -> Result<Value, DocumentError> {
    let Value::Array(members) = value else { return Err(misused(tag, "an array")) };
    set(tag, members)
}

fn number(value: &Value) -> Option<Value> {
    let Value::String(text) = value else { return None };
    Value::number(text)
}

fn binary(value: &Value) -> Option<Value> {
    let Value::String(text) = value else { return None };
    super::base64::decode(text).map(Value::Binary)
}

fn timestamp(value: &Value) -> Option<Value> {
    if let Value::Int(micros) = value {
        return Some(Value::TimestampMicros(*micros));
    }
    let Value::String(text) = value else { return None };
    super::time::parse(text).map(Value::TimestampMicros)
}

fn double(value: &Value) -> Option<Value> {
    let Value::String(text) = value else { return None };
    let all = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    all.into_iter().find(|number| double_text(*number) == text).map(Value::Double)
}

/// The exact size of what may stand in a set of numbers.
fn size(value: &Value) -> Option<Decimal> {
    if let Value::Int(whole) = value {
        return Some(Decimal::from_parts(i128::from(*whole), 0));
    }
    if let Value::Decimal { unscaled, scale } = value {
        return Some(Decimal::from_parts(*unscaled, i16::from(*scale)));
    }
    let Value::Object(fields) = value else { return None };
    match fields.as_slice() {
        [(name, Value::String(text))] if name == NUMBER => Decimal::parse(text),
        _ => None,
    }
}

/// `name` is one of `tags`, perhaps with further `$` before it.
fn looks_like(name: &str, tags: &[&str]) -> bool {
    let Some(rest) = name.strip_prefix('$') else { return false };
    let bare = rest.trim_start_matches('$');
    tags.iter().any(|tag| &tag[1..] == bare)
}

fn misused(tag: &str, wanted: &str) -> DocumentError {
    DocumentError::Json(format!(
        "a \"{tag}\" object holds {wanted}; if the field is your own, write \"${tag}\""
    ))
}
