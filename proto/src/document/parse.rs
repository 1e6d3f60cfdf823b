//! From JSON to a [`Value`].

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{BYTES_MAX, DocumentError, Value, tags};
use crate::decimal::Decimal;

/// Bytes of JSON above which no document can be within [`BYTES_MAX`] for any
/// but the oddest spelling; refused unread.
const TEXT_BYTES_MAX: usize = 4 * BYTES_MAX;

/// The name under which `serde_json` hands out a number as text, in an object
/// of its own (its feature `arbitrary_precision`). An object with just this
/// field is therefore taken for a number here too.
const NUMBER_AS_TEXT: &str = "$serde_json::private::Number";

/// Reads one JSON value. Numbers are exact: integers of 64 bits, else decimals
/// without zeros at their end (1.10 is 1.1), else a double if its shortest text
/// is the same number, else [`tags::NUMBER`]. Tagged objects become what they
/// stand for. Of two fields with one name the last counts; fields come sorted.
pub fn parse_json(text: &[u8]) -> Result<Value, DocumentError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(DocumentError::TooLarge { bytes: text.len() });
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    let parsed = Document.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    parsed.map_err(|error| {
        let text = error.to_string();
        // It counts as we do: the 128th object or array in one another is refused.
        if text.starts_with("recursion limit exceeded") {
            DocumentError::TooDeep
        } else {
            DocumentError::Json(text)
        }
    })
}

/// Takes any JSON value.
struct Document;

impl<'de> DeserializeSeed<'de> for Document {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, whole: i64) -> Result<Value, E> {
        Ok(Value::Int(whole))
    }

    fn visit_u64<E>(self, whole: u64) -> Result<Value, E> {
        Ok(Value::fixed(i128::from(whole), 0))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = members.next_element_seed(Self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some(name) = members.next_key::<String>()? {
            if name == NUMBER_AS_TEXT && fields.is_empty() {
                let text: String = members.next_value()?;
                return number(&text).ok_or_else(|| A::Error::custom("a number is out of range"));
            }
            fields.insert(name, members.next_value_seed(Self)?);
        }
        if fields.len() > 1 {
            return Ok(Value::Object(fields.into_iter().collect()));
        }
        match fields.pop_first() {
            Some((name, value)) => tags::from_json(name, value).map_err(A::Error::custom),
            None => Ok(Value::Object(Vec::new())),
        }
    }
}

/// The number that `text` writes; a double before a tagged one.
fn number(text: &str) -> Option<Value> {
    let exact = Value::number(text)?;
    if !matches!(exact, Value::Object(_)) {
        return Some(exact);
    }
    let double: f64 = text.parse().ok()?;
    let same = double.is_finite() && Decimal::parse(&format!("{double:e}")) == Decimal::parse(text);
    Some(if same { Value::Double(double) } else { exact })
}
