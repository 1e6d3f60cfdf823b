//! Stream records as changes.

use aws_sdk_dynamodbstreams::types::{OperationType, Record};
use tidegate_proto::document::Encoded;
use tidegate_proto::v1::Operation;
use tidegate_proto::{BatchBuilder, Draft};

use super::decode::{self, Item};
use super::sequence::SequenceNumber;
use super::token::Descriptor;
use crate::error::{Error, ErrorKind, Result};

/// What was pushed.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) sequence: SequenceNumber,
    /// DynamoDB tells it to the second; 0 if it does not.
    pub(super) committed_ms: i64,
}

/// Pushes `record` unless it is at or before `last`, which a source may repeat.
///
/// A delete by time-to-live is a delete like any other; `userIdentity` would
/// tell it from a user's.
pub(super) fn push(
    record: Record,
    last: Option<&SequenceNumber>,
    descriptor: &Descriptor,
    collection: &str,
    out: &mut BatchBuilder,
) -> Result<Option<Pushed>> {
    let operation = operation(record.event_name.as_ref())?;
    let Some(change) = record.dynamodb else { return Err(odd("holds no change")) };
    let sequence = change.sequence_number.as_deref().and_then(SequenceNumber::parse);
    let Some(sequence) = sequence else { return Err(odd("has no sequence number")) };
    if last.is_some_and(|last| sequence <= *last) {
        return Ok(None);
    }
    let keys = decode::from_stream(change.keys.unwrap_or_default())?;
    if keys.len() > 1 + descriptor.sort_key.iter().len() {
        return Err(odd("has a key of more attributes than the table's"));
    }
    let key = decode::key(&keys, descriptor)?;
    let document = match (operation, change.new_image) {
        (Operation::Delete, _) => None,
        (_, Some(image)) => Some(encode(decode::from_stream(image)?)?),
        (_, None) => return Err(no_image()),
    };
    let before = match change.old_image {
        Some(image) => Some(encode(decode::from_stream(image)?)?),
        None => None,
    };
    let created = change.approximate_creation_date_time;
    let committed_ms = created.and_then(|time| time.to_millis().ok()).unwrap_or(0);
    out.push(&Draft {
        operation,
        collection,
        key: key.as_bytes(),
        document: document.as_ref().map(parts),
        before: before.as_ref().map(parts),
        committed_ms,
    });
    Ok(Some(Pushed { sequence, committed_ms }))
}

fn encode(item: Item) -> Result<Encoded> {
    decode::encode(item)
}

fn parts(encoded: &Encoded) -> (&[u8], &[u8]) {
    (&encoded.dictionary, &encoded.value)
}

fn operation(name: Option<&OperationType>) -> Result<Operation> {
    match name {
        Some(OperationType::Insert) => Ok(Operation::Insert),
        Some(OperationType::Modify) => Ok(Operation::Update),
        Some(OperationType::Remove) => Ok(Operation::Delete),
        _ => Err(odd("is of a kind this release does not know")),
    }
}

fn odd(what: &str) -> Error {
    let why = format!("a dynamodb stream record {what}; update tidegate, or report this");
    Error::new(ErrorKind::Corrupt, why)
}

fn no_image() -> Error {
    let why = "a dynamodb stream record has no new image; the stream's view type must be \
               NEW_IMAGE or NEW_AND_OLD_IMAGES: turn the stream off and on again with that";
    Error::new(ErrorKind::Config, why)
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodbstreams::types::{AttributeValue, StreamRecord};

    use super::*;

    fn descriptor() -> Descriptor {
        Descriptor {
            table: String::new(),
            stream: String::new(),
            partition_key: "p".to_owned(),
            sort_key: None,
            segments: 1,
        }
    }

    fn record(name: Option<OperationType>, change: Option<StreamRecord>) -> Record {
        Record::builder().set_event_name(name).set_dynamodb(change).build()
    }

    fn change(sequence: &str) -> StreamRecord {
        let value = AttributeValue::S("a".to_owned());
        StreamRecord::builder()
            .sequence_number(sequence)
            .keys("p", value.clone())
            .new_image("p", value)
            .build()
    }

    fn pushed(record: Record, last: Option<&str>) -> Result<Option<Pushed>> {
        let last = last.and_then(SequenceNumber::parse);
        push(record, last.as_ref(), &descriptor(), "t", &mut BatchBuilder::default())
    }

    #[test]
    fn a_record_read_before_is_left_out() {
        let again = |last| pushed(record(Some(OperationType::Insert), Some(change("10"))), last);
        assert!(again(Some("10")).unwrap().is_none());
        assert!(again(Some("11")).unwrap().is_none());
        assert_eq!(again(Some("9")).unwrap().unwrap().sequence.as_str(), "10");
    }

    #[test]
    fn odd_records_are_refused_not_skipped() {
        let insert = Some(OperationType::Insert);
        let keyless = StreamRecord::builder().sequence_number("1").build();
        let imageless =
            StreamRecord::builder().sequence_number("1").keys("p", AttributeValue::S("a".into()));
        let longer = StreamRecord::builder()
            .sequence_number("1")
            .keys("p", AttributeValue::S("a".into()))
            .keys("s", AttributeValue::S("b".into()));
        let cases = [
            (record(insert.clone(), Some(longer.build())), "more attributes"),
            (record(None, Some(change("1"))), "kind"),
            (record(Some(OperationType::from("X")), Some(change("1"))), "kind"),
            (record(insert.clone(), None), "no change"),
            (record(insert.clone(), Some(change("-1"))), "sequence"),
            (record(insert.clone(), Some(keyless)), "lacks its key"),
            (record(insert, Some(imageless.build())), "NEW_IMAGE"),
        ];
        for (record, why) in cases {
            let error = pushed(record, None).unwrap_err().to_string();
            assert!(error.contains(why), "{error} should say {why}");
        }
    }
}
