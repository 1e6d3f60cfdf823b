//! A key's entry as a document, and back.
//!
//! | type     | `value`                                                          |
//! | -------- | ---------------------------------------------------------------- |
//! | `string` | text                                                             |
//! | `list`   | array of texts                                                   |
//! | `set`    | `$set:string` of texts, or `$set:binary` if one of them is bytes |
//! | `zset`   | array of `{member, score}` in their order; `score` is a double   |
//! | `hash`   | object; `pairs`, an array of `[field, value]`, if a field is bytes |
//! | `stream` | array of `{id, fields}`, `fields` names and values in turn; beside it `last_id` |
//!
//! A text is a string if it is UTF-8, else bytes. `expire_at` is there if the key
//! ends: a time, or a number of milliseconds beyond the times documents have. A
//! value that is not carried has `omitted` in place of `value`.

use tidegate_proto::document::{self, Encoded, Plain, TIMESTAMP_MICROS, Value, encode_plain, tags};
use tidegate_proto::{DocumentError, Key, KeyPart};

use super::object::{Entry, Object, Opaque, Stream, StreamId, Zset};
use crate::error::{Error, ErrorKind, Result};

/// Bytes a document of ours may have: several fit into one batch.
const BYTES_MAX: usize = 8 << 20;
/// Bytes of a Redis key that stand in the document's key as they are.
const KEY_BYTES_MAX: usize = 3500;
/// Of a longer one, so many stand there, and a hash of all.
const KEY_BYTES_SHOWN: usize = 1024;

/// Why a value is omitted.
const MODULE: &str = "module";
const PENDING: &str = "pending";

/// The name of a database's collection.
pub(super) fn collection(db: u32) -> String {
    format!("db{db}")
}

/// The document's key: the Redis key as a string if it is UTF-8, else as bytes; of
/// one over 3,500 bytes the first 1,024 and the BLAKE3 hash, both as bytes.
pub(super) fn key(key: &[u8]) -> Result<Key> {
    let encoded = match std::str::from_utf8(key) {
        _ if key.len() > KEY_BYTES_MAX => {
            let hash = blake3::hash(key).as_bytes().to_vec();
            let shown = key[..KEY_BYTES_SHOWN].to_vec();
            Key::encode(&[KeyPart::Bytes(shown), KeyPart::Bytes(hash)])
        }
        Ok(text) => Key::string(text),
        Err(_) => Key::bytes(key),
    };
    encoded.map_err(|error| Error::new(ErrorKind::Corrupt, "encode a Redis key").because(error))
}

/// The Redis key stands in the document's key as it is.
pub(super) fn is_whole(key: &[u8]) -> bool {
    key.len() <= KEY_BYTES_MAX
}

/// The Redis key of a document, if it is whole there.
pub(super) fn redis_key(key: &[u8]) -> Option<Vec<u8>> {
    let mut parts = Key::from_bytes(bytes::Bytes::copy_from_slice(key)).parts().ok()?;
    match (parts.pop()?, parts.is_empty()) {
        (KeyPart::String(text), true) => Some(text.into_bytes()),
        (KeyPart::Bytes(bytes), true) => Some(bytes),
        _ => None,
    }
}

/// The document of an entry. One that would be too large becomes opaque.
pub(super) fn encode(entry: &mut Entry) -> Result<Encoded> {
    let encoded = match &entry.object {
        Object::String(bytes) => string(bytes, entry.expire_ms),
        Object::List(_)
        | Object::Set(_)
        | Object::Zset(_)
        | Object::Hash(_)
        | Object::Stream(_)
        | Object::Opaque(_) => document::encode(&to_value(entry)?),
    };
    if let Ok(encoded) = encoded
        && encoded.dictionary.len() + encoded.value.len() <= BYTES_MAX
    {
        return Ok(encoded);
    }
    tracing::warn!(limit = BYTES_MAX, "a value is too large for a document; it is left out");
    entry.object = Object::Opaque(Opaque::TooLarge);
    document::encode(&to_value(entry)?)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "encode a Redis value").because(error))
}

/// The document of a string, of which there are many: as [`to_value`] has it.
fn string(bytes: &[u8], expire_ms: Option<i64>) -> Result<Encoded, DocumentError> {
    let kind = ("type", Plain::String("string"));
    let value = ("value", plain(bytes));
    match expire_ms {
        Some(ms) => encode_plain([("expire_at", end(ms)), kind, value]),
        None => encode_plain([kind, value]),
    }
}

/// When a key ends: a time, if documents have such a one.
fn end(ms: i64) -> Plain<'static> {
    let micros = ms.checked_mul(1000).filter(|micros| TIMESTAMP_MICROS.contains(micros));
    micros.map_or(Plain::Int(ms), Plain::TimestampMicros)
}

fn plain(bytes: &[u8]) -> Plain<'_> {
    std::str::from_utf8(bytes).map_or(Plain::Binary(bytes), Plain::String)
}

/// The entry that a document of ours stands for.
pub(super) fn decode(dictionary: &[u8], value: &[u8]) -> Result<Entry> {
    let why = "a captured document is not one of a Redis source";
    let document = document::decode(dictionary, value)
        .map_err(|error| Error::new(ErrorKind::Corrupt, why).because(error))?;
    from_value(document).ok_or_else(|| Error::new(ErrorKind::Corrupt, why))
}

fn to_value(entry: &Entry) -> Result<Value> {
    let mut fields = Vec::with_capacity(4);
    let mut add = |name: &str, value: Value| fields.push((name.to_owned(), value));
    let name = match &entry.object {
        Object::String(bytes) => {
            add("value", text(bytes));
            "string"
        }
        Object::List(list) => {
            add("value", Value::Array(list.iter().map(|element| text(element)).collect()));
            "list"
        }
        Object::Set(members) => {
            add("value", set(members.iter().map(Vec::as_slice).collect())?);
            "set"
        }
        Object::Zset(zset) => {
            add("value", Value::Array(zset.sorted().into_iter().map(scored).collect()));
            "zset"
        }
        Object::Hash(hash) => {
            let pairs = hash.iter().map(|(field, value)| (&field[..], &value[..])).collect();
            let (name, value) = hash_value(pairs);
            add(name, value);
            "hash"
        }
        Object::Stream(stream) => {
            add("last_id", Value::String(stream.last.to_string()));
            add("value", Value::Array(stream.entries.iter().map(stream_entry).collect()));
            "stream"
        }
        Object::Opaque(why) => {
            let why = match why {
                Opaque::Module => MODULE,
                Opaque::TooLarge => "too large",
                Opaque::Pending => PENDING,
            };
            add("omitted", Value::String(why.to_owned()));
            "unknown"
        }
    };
    add("type", Value::String(name.to_owned()));
    if let Some(ms) = entry.expire_ms {
        add("expire_at", end(ms).into());
    }
    Ok(Value::Object(fields))
}

fn text(bytes: &[u8]) -> Value {
    plain(bytes).into()
}

fn set(members: Vec<&[u8]>) -> Result<Value> {
    let texts: Vec<Value> = members.iter().map(|member| text(member)).collect();
    let all_text = texts.iter().all(|text| matches!(text, Value::String(_)));
    let set = if all_text {
        tags::set(tags::SET_STRING, texts)
    } else {
        let bytes = members.into_iter().map(|member| Value::Binary(member.to_vec())).collect();
        tags::set(tags::SET_BINARY, bytes)
    };
    set.map_err(|error| Error::new(ErrorKind::Corrupt, "encode a Redis set").because(error))
}

fn scored((member, score): (&[u8], f64)) -> Value {
    let fields = [("member", text(member)), ("score", Value::Double(score))];
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).into())
}

fn stream_entry((id, fields): (&StreamId, &Vec<Vec<u8>>)) -> Value {
    let fields = Value::Array(fields.iter().map(|field| text(field)).collect());
    let entry = [("id", Value::String(id.to_string())), ("fields", fields)];
    Value::Object(entry.map(|(name, value)| (name.to_owned(), value)).into())
}

fn hash_value(pairs: Vec<(&[u8], &[u8])>) -> (&'static str, Value) {
    let alone = pairs.len() == 1;
    let named = |(field, value): &(&[u8], &[u8])| {
        let name = std::str::from_utf8(field).ok()?;
        let name = if alone { tags::escape(name).into_owned() } else { name.to_owned() };
        Some((name, text(value)))
    };
    match pairs.iter().map(named).collect() {
        Some(fields) => ("value", Value::Object(fields)),
        None => {
            let pair = |(field, value)| Value::Array(vec![text(field), text(value)]);
            ("pairs", Value::Array(pairs.into_iter().map(pair).collect()))
        }
    }
}

fn from_value(document: Value) -> Option<Entry> {
    let Value::Object(mut fields) = document else { return None };
    let mut take = |name: &str| {
        let at = fields.iter().position(|field| field.0 == name)?;
        Some(fields.swap_remove(at).1)
    };
    let expire_ms = match take("expire_at") {
        None => None,
        Some(Value::TimestampMicros(micros)) => Some(micros / 1000),
        Some(Value::Int(ms)) => Some(ms),
        Some(_) => return None,
    };
    let Value::String(name) = take("type")? else { return None };
    let object = match name.as_str() {
        "string" => Object::String(bytes(take("value")?)?),
        "list" => Object::List(texts(take("value")?)?.into()),
        "set" => Object::Set(members(take("value")?)?.into_iter().collect()),
        "zset" => Object::Zset(zset(take("value")?)?),
        "hash" => Object::Hash(match take("value") {
            Some(value) => hash_fields(value)?,
            None => array(take("pairs")?)?.into_iter().map(pair).collect::<Option<_>>()?,
        }),
        "stream" => {
            let last = stream_id(take("last_id")?)?;
            let entries = array(take("value")?)?.into_iter().map(from_stream_entry);
            Object::Stream(Stream { entries: entries.collect::<Option<_>>()?, last })
        }
        "unknown" => {
            let Value::String(why) = take("omitted")? else { return None };
            Object::Opaque(match why.as_str() {
                MODULE => Opaque::Module,
                PENDING => Opaque::Pending,
                _ => Opaque::TooLarge,
            })
        }
        _ => return None,
    };
    Some(Entry { object, expire_ms })
}

fn array(value: Value) -> Option<Vec<Value>> {
    if let Value::Array(members) = value { Some(members) } else { None }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    if let Value::String(text) = value {
        return Some(text.into_bytes());
    }
    if let Value::Binary(bytes) = value { Some(bytes) } else { None }
}

fn texts(value: Value) -> Option<Vec<Vec<u8>>> {
    array(value)?.into_iter().map(bytes).collect()
}

fn members(value: Value) -> Option<Vec<Vec<u8>>> {
    let Value::Object(mut fields) = value else { return None };
    texts(fields.pop()?.1)
}

fn hash_fields(value: Value) -> Option<std::collections::BTreeMap<Vec<u8>, Vec<u8>>> {
    let Value::Object(fields) = value else { return None };
    let alone = fields.len() == 1;
    let field = |(name, value): (String, Value)| {
        // The only field was escaped if it looked like a tag.
        let plain = name.strip_prefix('$').filter(|plain| alone && tags::escape(plain) == name);
        Some((plain.unwrap_or(&name).as_bytes().to_vec(), bytes(value)?))
    };
    fields.into_iter().map(field).collect()
}

fn pair(value: Value) -> Option<(Vec<u8>, Vec<u8>)> {
    let [field, value] = <[Vec<u8>; 2]>::try_from(texts(value)?).ok()?;
    Some((field, value))
}

fn zset(value: Value) -> Option<Zset> {
    let member = |value: Value| {
        let [(_, member), (_, score)] = two(value, ["member", "score"])?;
        let Value::Double(score) = score else { return None };
        Some((bytes(member)?, score))
    };
    Some(Zset(array(value)?.into_iter().map(member).collect::<Option<_>>()?))
}

fn from_stream_entry(value: Value) -> Option<(StreamId, Vec<Vec<u8>>)> {
    let [(_, fields), (_, id)] = two(value, ["fields", "id"])?;
    Some((stream_id(id)?, texts(fields)?))
}

fn stream_id(value: Value) -> Option<StreamId> {
    let Value::String(text) = value else { return None };
    StreamId::parse(text.as_bytes(), 0)
}

/// The two fields of an object, sorted by name.
fn two(value: Value, names: [&str; 2]) -> Option<[(String, Value); 2]> {
    let Value::Object(fields) = value else { return None };
    let fields = <[(String, Value); 2]>::try_from(fields).ok()?;
    (fields[0].0 == names[0] && fields[1].0 == names[1]).then_some(fields)
}

#[cfg(test)]
#[path = "document/tests.rs"]
mod tests;
