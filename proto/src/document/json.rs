//! From Variant bytes to JSON, without a [`Value`](super::Value) between.

use std::io::Write as _;

use super::dictionary::Dictionary;
use super::reader::{Members, Node, Reader};
use super::{DocumentError, base64, tags, time};
use crate::decimal::Decimal;

/// Appends the JSON of a document to `out`: compact, fields by name, numbers
/// exact, the rest as [`tags`] say. [`parse_json`](super::parse_json) takes it
/// back to the same document, but that a finite double comes back as an exact
/// number of the same size. On error `out` is as it was.
pub fn write_json(dictionary: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), DocumentError> {
    let start = out.len();
    let written = Dictionary::parse(dictionary).and_then(|dictionary| {
        let (mut reader, node) = Reader::open(dictionary, value)?;
        write(&mut reader, node, out)?;
        reader.finish()
    });
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// Appends `text` as a JSON string.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, text).expect("text is always JSON and a Vec takes all");
}

/// Appends `bytes` as the object that stands for them.
pub(crate) fn write_binary(bytes: &[u8], out: &mut Vec<u8>) {
    open_tag(tags::BINARY, out);
    out.push(b'"');
    base64::encode(bytes, out);
    out.extend_from_slice(b"\"}");
}

fn write<'a>(
    reader: &mut Reader<'a>,
    node: Node<'a>,
    out: &mut Vec<u8>,
) -> Result<(), DocumentError> {
    match node {
        Node::Null => out.extend_from_slice(b"null"),
        Node::Bool(truth) => push(out, format_args!("{truth}")),
        Node::Int(whole) => push(out, format_args!("{whole}")),
        Node::Decimal { unscaled, scale } => {
            push(out, format_args!("{}", Decimal::from_parts(unscaled, i16::from(scale))));
        }
        Node::Float(number) => write_double(f64::from(number), out),
        Node::Double(number) => write_double(number, out),
        Node::String(text) => write_string(text, out),
        Node::Binary(bytes) => write_binary(bytes, out),
        Node::TimestampMicros(micros) => write_timestamp(micros, out),
        Node::Array(members) => write_array(reader, &members, out)?,
        Node::Object(members) => write_object(reader, &members, out)?,
    }
    Ok(())
}

fn write_array<'a>(
    reader: &mut Reader<'a>,
    members: &Members<'a>,
    out: &mut Vec<u8>,
) -> Result<(), DocumentError> {
    out.push(b'[');
    for index in 0..members.count {
        if index > 0 {
            out.push(b',');
        }
        let node = reader.member(members, index)?.node;
        write(reader, node, out)?;
    }
    out.push(b']');
    Ok(())
}

fn write_object<'a>(
    reader: &mut Reader<'a>,
    members: &Members<'a>,
    out: &mut Vec<u8>,
) -> Result<(), DocumentError> {
    out.push(b'{');
    for index in 0..members.count {
        if index > 0 {
            out.push(b',');
        }
        let name = reader.name(members, index)?;
        if members.count == 1 && tags::is_escaped_in_json(name) {
            write_string(&format!("${name}"), out);
        } else {
            write_string(name, out);
        }
        out.push(b':');
        let node = reader.member(members, index)?.node;
        write(reader, node, out)?;
    }
    out.push(b'}');
    Ok(())
}

fn write_double(number: f64, out: &mut Vec<u8>) {
    if number.is_finite() {
        // The shortest text that reads back as the same double.
        serde_json::to_writer(&mut *out, &number).expect("it is finite and a Vec takes all");
        return;
    }
    open_tag(tags::DOUBLE, out);
    push(out, format_args!("\"{}\"}}", tags::double_text(number)));
}

fn write_timestamp(micros: i64, out: &mut Vec<u8>) {
    open_tag(tags::TIMESTAMP, out);
    out.push(b'"');
    if time::write(micros, out) {
        out.extend_from_slice(b"\"}");
    } else {
        out.pop();
        push(out, format_args!("{micros}}}"));
    }
}

fn open_tag(tag: &str, out: &mut Vec<u8>) {
    push(out, format_args!("{{\"{tag}\":"));
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes all");
}
