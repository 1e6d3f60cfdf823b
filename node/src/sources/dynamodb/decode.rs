//! Items and attributes as documents and keys, exactly.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_dynamodbstreams::types::AttributeValue as StreamValue;
use tidegate_proto::document::{self, Encoded, Value, tags};
use tidegate_proto::{Key, KeyPart};

use super::token::Descriptor;
use crate::error::{Error, ErrorKind, Result};

/// An item, or the part of one that is its key.
pub(super) type Item = HashMap<String, AttributeValue>;

/// DynamoDB nests 32 levels deep; this many are followed before giving up.
const DEPTH_MAX: usize = 64;

/// The item as a document. Sets and large numbers are tagged as
/// [`document::tags`] says; equal items give equal bytes.
pub(super) fn encode(item: Item) -> Result<Encoded> {
    let value = object(item, 0)?;
    document::encode(&value)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "encode a dynamodb item").because(error))
}

/// The key of `item`: its partition key, then its sort key if there is one.
pub(super) fn key(item: &Item, descriptor: &Descriptor) -> Result<Key> {
    let names = [Some(&descriptor.partition_key), descriptor.sort_key.as_ref()];
    let mut parts = Vec::with_capacity(2);
    for name in names.into_iter().flatten() {
        parts.push(key_part(item.get(name))?);
    }
    Key::encode(&parts)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "encode a dynamodb key").because(error))
}

/// The streams' client has the same values under types of its own.
pub(super) fn from_stream(item: HashMap<String, StreamValue>) -> Result<Item> {
    item.into_iter().map(|(name, value)| Ok((name, stream_value(value, 0)?))).collect()
}

fn object(fields: Item, depth: usize) -> Result<Value> {
    let alone = fields.len() == 1;
    let mut values = Vec::with_capacity(fields.len());
    for (name, attribute) in fields {
        let name = if alone { tags::escape(&name).into_owned() } else { name };
        values.push((name, value(attribute, depth + 1)?));
    }
    Ok(Value::Object(values))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "AWS may add types")]
fn value(attribute: AttributeValue, depth: usize) -> Result<Value> {
    check_depth(depth)?;
    Ok(match attribute {
        AttributeValue::S(text) => Value::String(text),
        AttributeValue::N(text) => number(&text)?,
        AttributeValue::B(bytes) => Value::Binary(bytes.into_inner()),
        AttributeValue::Bool(truth) => Value::Bool(truth),
        AttributeValue::Null(_) => Value::Null,
        AttributeValue::M(fields) => object(fields, depth)?,
        AttributeValue::L(members) => {
            let members = members.into_iter().map(|member| value(member, depth + 1));
            Value::Array(members.collect::<Result<_>>()?)
        }
        AttributeValue::Ss(members) => {
            set(tags::SET_STRING, members.into_iter().map(Value::String).collect())?
        }
        AttributeValue::Ns(members) => {
            let members: Result<_> = members.iter().map(|member| number(member)).collect();
            set(tags::SET_NUMBER, members?)?
        }
        AttributeValue::Bs(members) => {
            let members = members.into_iter().map(|bytes| Value::Binary(bytes.into_inner()));
            set(tags::SET_BINARY, members.collect())?
        }
        _ => return Err(unknown_type()),
    })
}

fn number(text: &str) -> Result<Value> {
    Value::number(text).ok_or_else(not_a_number)
}

fn set(tag: &'static str, members: Vec<Value>) -> Result<Value> {
    tags::set(tag, members)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "read a dynamodb set").because(error))
}

fn key_part(attribute: Option<&AttributeValue>) -> Result<KeyPart> {
    match attribute {
        Some(AttributeValue::S(text)) => Ok(KeyPart::String(text.clone())),
        Some(AttributeValue::B(bytes)) => Ok(KeyPart::Bytes(bytes.as_ref().to_vec())),
        Some(AttributeValue::N(text)) => {
            KeyPart::number(text).map_err(|error| not_a_number().because(error))
        }
        _ => {
            let why = "a dynamodb record lacks its key; if the table was recreated with another \
                       key, delete the export and create it again";
            Err(Error::new(ErrorKind::Corrupt, why))
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "AWS may add types")]
fn stream_value(attribute: StreamValue, depth: usize) -> Result<AttributeValue> {
    check_depth(depth)?;
    Ok(match attribute {
        StreamValue::S(text) => AttributeValue::S(text),
        StreamValue::N(text) => AttributeValue::N(text),
        StreamValue::B(bytes) => AttributeValue::B(bytes),
        StreamValue::Bool(truth) => AttributeValue::Bool(truth),
        StreamValue::Null(null) => AttributeValue::Null(null),
        StreamValue::Ss(members) => AttributeValue::Ss(members),
        StreamValue::Ns(members) => AttributeValue::Ns(members),
        StreamValue::Bs(members) => AttributeValue::Bs(members),
        StreamValue::M(fields) => {
            let fields = fields.into_iter();
            let fields = fields.map(|(name, field)| Ok((name, stream_value(field, depth + 1)?)));
            AttributeValue::M(fields.collect::<Result<_>>()?)
        }
        StreamValue::L(members) => {
            let members = members.into_iter().map(|member| stream_value(member, depth + 1));
            AttributeValue::L(members.collect::<Result<_>>()?)
        }
        _ => return Err(unknown_type()),
    })
}

fn check_depth(depth: usize) -> Result<()> {
    if depth <= DEPTH_MAX {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Corrupt, "a dynamodb item is nested deeper than dynamodb allows"))
}

fn unknown_type() -> Error {
    let why = "a dynamodb item holds a type this release does not know; update tidegate";
    Error::new(ErrorKind::Corrupt, why)
}

fn not_a_number() -> Error {
    Error::new(ErrorKind::Corrupt, "a dynamodb number is not one; report this")
}

#[cfg(test)]
#[path = "decode/tests.rs"]
mod tests;
