//! Gap marks: a recorded loss as a change of its own, where it lies in a shard's order.
//!
//! ```text
//!   changes   41 42 43 [gap 2] 45 46 ...      44 is the mark
//! ```
//!
//! Whoever reads on from 43 sees that something is missing before it sees what follows.
//! The mark is appended with the position behind the loss, so whoever dies when, it is there.
//! A source that meets the same loss again, as its repair did not come to its end, has it
//! marked again, under the same number.

use tidegate_proto::document::{self, Value};
use tidegate_proto::v1::{Gap, GapKind, Operation};
use tidegate_proto::{BatchBuilder, Draft};

use crate::error::{Error, ErrorKind, Result};

/// Puts the marks of recorded gaps in front of what was read behind them. A mark has no
/// collection and no key; its document is
/// `{"gap": number, "kind": "trimmed", "detail": "...", "repair": "..."}`, where `repair`
/// is absent from a gap that is open.
pub(super) fn mark(out: &mut BatchBuilder, gaps: &[Gap]) -> Result<()> {
    for gap in gaps.iter().rev() {
        let document = document::encode(&told(gap)).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "a gap whose detail is too long").because(error)
        })?;
        out.push_front(&Draft {
            operation: Operation::Gap,
            collection: "",
            key: &[],
            document: Some((&document.dictionary, &document.value)),
            before: None,
            committed_ms: 0,
        });
    }
    Ok(())
}

fn told(gap: &Gap) -> Value {
    let text = |text: &str| Value::String(text.to_owned());
    let mut fields = vec![
        ("gap".to_owned(), Value::Int(gap.number.cast_signed())),
        ("kind".to_owned(), text(&kind(gap.kind()))),
        ("detail".to_owned(), text(&gap.detail)),
    ];
    if !gap.repair.is_empty() {
        fields.push(("repair".to_owned(), text(&gap.repair)));
    }
    Value::Object(fields)
}

/// In small letters: `spool-lost`.
fn kind(kind: GapKind) -> String {
    let name = kind.as_str_name();
    name.strip_prefix("GAP_KIND_").unwrap_or(name).to_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use tidegate_proto::v1::Change;
    use tidegate_proto::{Codec, Stamp};

    use super::*;

    #[test]
    fn marks_stand_in_their_order_before_what_follows_the_loss() {
        let mut out = BatchBuilder::default();
        out.push(&Draft {
            operation: Operation::Delete,
            collection: "orders",
            key: b"k",
            document: None,
            before: None,
            committed_ms: 7,
        });
        let gap = |number: u64, repair: &str| Gap {
            number,
            kind: GapKind::SpoolLost.into(),
            detail: "d".to_owned(),
            repair: repair.to_owned(),
            ..Gap::default()
        };
        mark(&mut out, &[gap(1, ""), gap(2, "read again")]).unwrap();
        let batch = out.encode(Stamp::default(), Codec::None).decode().unwrap();
        let operations: Vec<_> = batch.changes.iter().map(Change::operation).collect();
        assert_eq!(operations, [Operation::Gap, Operation::Gap, Operation::Delete]);
        let text = |at: usize| {
            let change = &batch.changes[at];
            let mut text = Vec::new();
            let dictionary = &batch.dictionaries[change.dictionary as usize];
            document::write_json(dictionary, &change.document, &mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        assert_eq!(text(0), r#"{"detail":"d","gap":1,"kind":"spool-lost"}"#);
        assert_eq!(text(1), r#"{"detail":"d","gap":2,"kind":"spool-lost","repair":"read again"}"#);
        assert_eq!(batch.collections[batch.changes[2].collection as usize], "orders");
    }
}
