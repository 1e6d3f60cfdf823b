//! `tidegate docs export`.

use std::time::Duration;

use tidegate_proto::v1::{ScanRequest, SlotRange, StoredDocument};

use crate::commands::docs::store::Store;
use crate::failure::{Failure, FailureKind, Result};
use crate::output;

/// How often a broken scan is taken up again before it counts as failed.
const TRIES: u32 = 5;

/// Prints every document of `collection`, or of all when it is empty; takes a
/// broken scan up again where it broke.
pub(super) async fn run(collection: String, mut store: Store) -> Result<()> {
    let slots = SlotRange { from: 0, upto: store.slots().await? };
    let mut request =
        ScanRequest { slots: Some(slots), collection, as_json: true, ..ScanRequest::default() };
    let mut tries = 0;
    loop {
        let before = request.after.clone();
        let failure = match scan(&mut store, &mut request).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        tries = if request.after == before { tries + 1 } else { 1 };
        if failure.kind() == FailureKind::Closed || tries >= TRIES || !may_pass(&failure) {
            return Err(failure);
        }
        tokio::time::sleep(Duration::from_millis(200) * tries).await;
    }
}

/// A connection that broke, or nobody there for now.
fn may_pass(failure: &Failure) -> bool {
    matches!(failure.kind(), FailureKind::Unreachable | FailureKind::Failed)
}

async fn scan(store: &mut Store, request: &mut ScanRequest) -> Result<()> {
    let mut responses = store.scan(request).await?;
    while let Some(response) = responses.message().await.map_err(|it| store.failure(&it))? {
        output::lines(response.documents.iter().map(line))?;
        request.after = response.cursor;
        if response.done {
            break;
        }
    }
    Ok(())
}

/// The document's text is put in as the store gave it.
fn line(document: &StoredDocument) -> Vec<u8> {
    let [collection, key] = [&document.collection, &document.key]
        .map(|text| serde_json::Value::from(text.as_str()).to_string());
    let head =
        format!("{{\"collection\":{collection},\"key\":{key},\"revision\":{}", document.revision);
    [head.as_bytes(), b",\"document\":", document.json.as_ref(), b"}"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_and_keeps_the_text_of_the_document() {
        let document = StoredDocument {
            collection: "a\"b".to_owned(),
            key: "k\n1".to_owned(),
            revision: 9,
            json: r#"{"n":1.10}"#.into(),
            ..StoredDocument::default()
        };
        let line = String::from_utf8(line(&document)).unwrap();
        let wanted = r#"{"collection":"a\"b","key":"k\n1","revision":9,"document":{"n":1.10}}"#;
        assert_eq!(line, wanted);
    }
}
