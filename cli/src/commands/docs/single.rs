//! `tidegate docs put`, `get` and `delete`.

use serde::Serialize;
use serde_json::Value;
use tidegate_proto::v1::DocumentWrite;
use tidegate_proto::v1::document_write::Kind;

use crate::commands::docs::store::Store;
use crate::commands::docs::{KeyArgs, PutArgs};
use crate::failure::{Failure, Result};
use crate::output::{self, Format};

#[derive(Debug, Serialize)]
struct WrittenView {
    revision: u64,
}

/// Writes one document.
pub(super) async fn put(args: &PutArgs, mut store: Store, format: Format) -> Result<()> {
    let json = if args.json == "-" { read_input()? } else { args.json.clone() };
    check(&json)?;
    let write = DocumentWrite {
        collection: args.at.collection.clone(),
        key: args.at.key.clone(),
        kind: Some(Kind::Json(json.into())),
        if_revision: args.if_revision,
    };
    written(store.write(vec![write]).await?, format)
}

/// Prints one document as JSON, whatever `--output` says.
pub(super) async fn get(args: &KeyArgs, mut store: Store) -> Result<()> {
    let KeyArgs { collection, key } = args;
    match store.get(collection, key).await? {
        Some(document) => output::lines([document.json]),
        None => {
            Err(Failure::refused(format!("there is no document \"{key}\" in \"{collection}\"")))
        }
    }
}

/// Removes one document.
pub(super) async fn delete(args: KeyArgs, mut store: Store, format: Format) -> Result<()> {
    let KeyArgs { collection, key } = args;
    let write =
        DocumentWrite { collection, key, kind: Some(Kind::Delete(true)), if_revision: None };
    written(store.write(vec![write]).await?, format)
}

fn written(revision: u64, format: Format) -> Result<()> {
    output::show(format, &WrittenView { revision }, |it| format!("revision {}", it.revision))
}

fn read_input() -> Result<String> {
    std::io::read_to_string(std::io::stdin())
        .map_err(|error| Failure::failed(format!("read standard input: {error}")))
}

fn check(json: &str) -> Result<()> {
    match serde_json::from_str::<Value>(json) {
        Ok(Value::Object(_)) => Ok(()),
        Ok(_) => Err(Failure::usage("a document is a JSON object, as {\"total\": 5}")),
        Err(error) => Err(Failure::usage(format!(
            "the document is no JSON: line {}, column {}; quote it for the shell, as '{{\"a\": 1}}'",
            error.line(),
            error.column()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_an_object_and_its_text_stays_out_of_errors() {
        assert_eq!(check("{\"a\": 1}"), Ok(()));
        assert!(check("[1]").unwrap_err().to_string().contains("JSON object"));
        let failure = check("{\"secret\": s3cret}").unwrap_err().to_string();
        assert!(failure.contains("column") && !failure.contains("s3cret"), "{failure}");
    }
}
