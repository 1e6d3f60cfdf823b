//! Values of documents in columns of their own: what fits, and what to say of the rest.

use tidegate_proto::document::{self, tags};
use tidegate_proto::{Decimal, Value};

use super::config::ColumnType;
use super::numeric;

/// Microseconds from 1970 to 2000, where PostgreSQL counts from.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// What a `timestamptz` holds, in its own count: from 4714-11-24 BC on.
const TIMESTAMP_LEAST: i64 = -211_813_488_000_000_000;

/// Why a value is not in its column. Never what the value is.
pub(super) const NUL: &str = "holds U+0000";
const TYPE: &str = "is of another type";
const RANGE: &str = "is out of range";
const WHOLE: &str = "is not a whole number";

/// Appends `value` as a column of this type has it on the wire; true if there is
/// anything but null. After an error `out` may hold part of it.
pub(super) fn write(
    kind: ColumnType,
    value: Option<&Value>,
    out: &mut Vec<u8>,
) -> Result<bool, &'static str> {
    let Some(value) = value.filter(|value| **value != Value::Null) else { return Ok(false) };
    match kind {
        ColumnType::Text => out.extend_from_slice(text(value)?.as_bytes()),
        ColumnType::Boolean => {
            let Value::Bool(truth) = value else { return Err(TYPE) };
            out.push(u8::from(*truth));
        }
        ColumnType::Integer => {
            let whole = i32::try_from(whole(value)?).map_err(|_| RANGE)?;
            out.extend_from_slice(&whole.to_be_bytes());
        }
        ColumnType::Bigint => out.extend_from_slice(&whole(value)?.to_be_bytes()),
        ColumnType::Double => out.extend_from_slice(&double(value)?.to_be_bytes()),
        ColumnType::Numeric => {
            let text = number(value).ok_or(TYPE)?;
            out.extend_from_slice(&numeric::encode(&text).ok_or(RANGE)?);
        }
        ColumnType::Timestamptz => out.extend_from_slice(&timestamp(value)?.to_be_bytes()),
        ColumnType::Jsonb => {
            out.push(JSONB_VERSION);
            let start = out.len();
            json(value, out)?;
            if has_nul(&out[start..]) {
                return Err(NUL);
            }
        }
        ColumnType::Bytea => {
            let Value::Binary(bytes) = value else { return Err(TYPE) };
            out.extend_from_slice(bytes);
        }
    }
    Ok(true)
}

/// The byte before the text of a `jsonb` on the wire.
pub(super) const JSONB_VERSION: u8 = 1;

/// What lies at `path` in a document. A list has no names, so no path leads on.
pub(super) fn find<'a>(document: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(document, |value, name| {
        let Value::Object(fields) = value else { return None };
        fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    })
}

/// The JSON text has an escaped U+0000, which `jsonb` refuses.
pub(super) fn has_nul(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        if rest[at..].starts_with(b"\\u0000") {
            return true;
        }
        // What follows a backslash is escaped, be it another one.
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    false
}

/// Milliseconds since 1970 as a `timestamptz`.
pub(super) fn milliseconds(milliseconds: i64) -> Option<i64> {
    from_micros(milliseconds.checked_mul(1000)?)
}

fn from_micros(micros: i64) -> Option<i64> {
    micros.checked_sub(EPOCH_MICROS).filter(|micros| *micros >= TIMESTAMP_LEAST)
}

fn text(value: &Value) -> Result<String, &'static str> {
    let text = if let Value::String(text) = value {
        text.clone()
    } else if let Value::Bool(truth) = value {
        truth.to_string()
    } else {
        number(value).ok_or(TYPE)?
    };
    if text.contains('\0') { Err(NUL) } else { Ok(text) }
}

/// A number's exact text; a double's shortest.
fn number(value: &Value) -> Option<String> {
    if let Value::Int(whole) = value {
        return Some(whole.to_string());
    }
    if let Value::Decimal { unscaled, scale } = value {
        return Some(Decimal::from_parts(*unscaled, i16::from(*scale)).to_string());
    }
    if let Value::Double(number) = value {
        // NaN and the infinities are no decimals.
        return Decimal::parse(&format!("{number:e}")).map(|number| number.to_string());
    }
    let Value::Object(fields) = value else { return None };
    match fields.as_slice() {
        [(name, Value::String(text))] if name == tags::NUMBER => Some(text.clone()),
        _ => None,
    }
}

fn whole(value: &Value) -> Result<i64, &'static str> {
    if let Value::Int(whole) = value {
        return Ok(*whole);
    }
    let number = number(value).and_then(|text| Decimal::parse(&text)).ok_or(TYPE)?;
    let Some((unscaled, scale)) = number.to_parts() else { return Err(RANGE) };
    if scale > 0 {
        return Err(WHOLE);
    }
    let zeros = u32::from(scale.unsigned_abs());
    let whole = 10_i128.checked_pow(zeros).and_then(|power| unscaled.checked_mul(power));
    whole.and_then(|whole| i64::try_from(whole).ok()).ok_or(RANGE)
}

/// The nearest double; that decimals are rounded is what the column asks for.
fn double(value: &Value) -> Result<f64, &'static str> {
    if let Value::Double(number) = value {
        return Ok(*number);
    }
    let number: f64 = number(value).and_then(|text| text.parse().ok()).ok_or(TYPE)?;
    if number.is_finite() { Ok(number) } else { Err(RANGE) }
}

/// A time, or a text that writes one as `2026-01-31T12:00:00Z`.
fn timestamp(value: &Value) -> Result<i64, &'static str> {
    let written = if let Value::String(text) = value { written_time(text) } else { None };
    let Value::TimestampMicros(micros) = written.as_ref().unwrap_or(value) else {
        return Err(TYPE);
    };
    from_micros(*micros).ok_or(RANGE)
}

fn written_time(text: &str) -> Option<Value> {
    let tagged = serde_json::json!({ tags::TIMESTAMP: text }).to_string();
    document::parse_json(tagged.as_bytes()).ok()
}

fn json(value: &Value, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let encoded = document::encode(value).map_err(|_| RANGE)?;
    document::write_json(&encoded.dictionary, &encoded.value, out).map_err(|_| RANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(kind: ColumnType, value: &Value) -> Result<Vec<u8>, &'static str> {
        let mut out = Vec::new();
        write(kind, Some(value), &mut out).map(|_| out)
    }

    fn number(text: &str) -> Value {
        Value::number(text).unwrap()
    }

    #[test]
    fn whole_numbers_fit_whatever_they_are_written_as() {
        for text in ["42", "42.0", "4.2e1"] {
            assert_eq!(fits(ColumnType::Integer, &number(text)), Ok(42_i32.to_be_bytes().into()));
        }
        assert_eq!(fits(ColumnType::Bigint, &Value::Double(7.0)), Ok(7_i64.to_be_bytes().into()));
        assert_eq!(fits(ColumnType::Integer, &number("2147483648")), Err(RANGE));
        assert_eq!(fits(ColumnType::Bigint, &number("9223372036854775808")), Err(RANGE));
        assert_eq!(fits(ColumnType::Bigint, &number("1e400")), Err(RANGE));
        assert_eq!(fits(ColumnType::Bigint, &number("1.5")), Err(WHOLE));
        assert_eq!(fits(ColumnType::Bigint, &Value::String("1".into())), Err(TYPE));
    }

    #[test]
    fn text_takes_scalars_but_no_nul() {
        assert_eq!(fits(ColumnType::Text, &Value::String("ü".into())), Ok("ü".into()));
        assert_eq!(fits(ColumnType::Text, &number("1.10")), Ok("1.1".into()));
        assert_eq!(fits(ColumnType::Text, &Value::Double(0.1)), Ok("0.1".into()));
        assert_eq!(fits(ColumnType::Text, &Value::String("a\0b".into())), Err(NUL));
        assert_eq!(fits(ColumnType::Text, &Value::Array(vec![])), Err(TYPE));
    }

    #[test]
    fn times_come_as_times_or_as_text() {
        let at = Value::TimestampMicros(EPOCH_MICROS + 1);
        assert_eq!(fits(ColumnType::Timestamptz, &at), Ok(1_i64.to_be_bytes().into()));
        let text = Value::String("2000-01-01T00:00:00.000001Z".into());
        assert_eq!(fits(ColumnType::Timestamptz, &text), Ok(1_i64.to_be_bytes().into()));
        let long_ago = Value::TimestampMicros(*document::TIMESTAMP_MICROS.start());
        assert_eq!(fits(ColumnType::Timestamptz, &long_ago), Err(RANGE));
        let late = Value::TimestampMicros(*document::TIMESTAMP_MICROS.end());
        assert!(fits(ColumnType::Timestamptz, &late).is_ok());
        assert_eq!(fits(ColumnType::Timestamptz, &Value::String("soon".into())), Err(TYPE));
    }

    #[test]
    fn a_nul_in_json_is_told_from_text_that_looks_like_one() {
        for (json, there) in [
            (r#""a\u0000""#, true),
            (r#""\\\u0000""#, true),
            (r#""\\u0000""#, false),
            (r#""\u0001\n""#, false),
            (r#""\"#, false),
        ] {
            assert_eq!(has_nul(json.as_bytes()), there, "{json}");
        }
        assert_eq!(fits(ColumnType::Jsonb, &Value::String("\0".into())), Err(NUL));
        let object = Value::Object(vec![("a".into(), Value::Int(1))]);
        assert_eq!(fits(ColumnType::Jsonb, &object), Ok(b"\x01{\"a\":1}".to_vec()));
    }

    #[test]
    fn doubles_round_and_do_not_overflow() {
        assert_eq!(fits(ColumnType::Double, &number("0.1")), Ok(0.1_f64.to_be_bytes().into()));
        assert_eq!(fits(ColumnType::Double, &number("1e309")), Err(RANGE));
        assert!(fits(ColumnType::Double, &Value::Double(f64::NAN)).is_ok());
        assert_eq!(fits(ColumnType::Numeric, &Value::Double(f64::NAN)), Err(TYPE));
    }

    #[test]
    fn a_path_leads_through_objects() {
        let inner = Value::Object(vec![("b".into(), Value::Int(1)), ("c".into(), Value::Null)]);
        let document = Value::Object(vec![("a".into(), inner)]);
        assert_eq!(find(&document, &["a", "b"]), Some(&Value::Int(1)));
        assert_eq!(find(&document, &["a", "b", "x"]), None);
        assert_eq!(find(&document, &["x"]), None);
        let mut out = Vec::new();
        assert_eq!(write(ColumnType::Text, find(&document, &["a", "c"]), &mut out), Ok(false));
        assert_eq!(write(ColumnType::Text, None, &mut out), Ok(false));
    }
}
