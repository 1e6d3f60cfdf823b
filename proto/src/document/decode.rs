//! From Variant bytes to a [`Value`].

use super::dictionary::Dictionary;
use super::reader::{Members, Node, Reader};
use super::{DocumentError, Value};

/// The document that Variant metadata and value hold, all of it checked. Fields
/// come sorted by name, numbers in canonical form; a `float` becomes a double.
pub fn decode(dictionary: &[u8], value: &[u8]) -> Result<Value, DocumentError> {
    let (mut reader, node) = Reader::open(Dictionary::parse(dictionary)?, value)?;
    let document = build(&mut reader, node)?;
    reader.finish()?;
    Ok(document)
}

fn build<'a>(reader: &mut Reader<'a>, node: Node<'a>) -> Result<Value, DocumentError> {
    Ok(match node {
        Node::Null => Value::Null,
        Node::Bool(truth) => Value::Bool(truth),
        Node::Int(whole) => Value::Int(whole),
        Node::Decimal { unscaled, scale } => Value::fixed(unscaled, scale),
        Node::Float(number) => Value::Double(f64::from(number)),
        Node::Double(number) => Value::Double(number),
        Node::String(text) => Value::String(text.to_owned()),
        Node::Binary(bytes) => Value::Binary(bytes.to_vec()),
        Node::TimestampMicros(micros) => Value::TimestampMicros(micros),
        Node::Array(members) => array(reader, &members)?,
        Node::Object(members) => object(reader, &members)?,
    })
}

// Neither reserves room: a count says nothing until its members have been read.

fn array<'a>(reader: &mut Reader<'a>, members: &Members<'a>) -> Result<Value, DocumentError> {
    let mut values = Vec::new();
    for index in 0..members.count {
        let node = reader.member(members, index)?.node;
        values.push(build(reader, node)?);
    }
    Ok(Value::Array(values))
}

fn object<'a>(reader: &mut Reader<'a>, members: &Members<'a>) -> Result<Value, DocumentError> {
    let mut fields = Vec::new();
    for index in 0..members.count {
        let name = reader.name(members, index)?;
        let node = reader.member(members, index)?.node;
        fields.push((name.to_owned(), build(reader, node)?));
    }
    Ok(Value::Object(fields))
}
