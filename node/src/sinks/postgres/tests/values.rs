//! What becomes of values, on the server itself.

use super::*;

const COLUMNS: &str = r#"columns = [
  { name = "name", type = "text" },
  { name = "on", type = "boolean" },
  { name = "small", type = "integer" },
  { name = "big", type = "bigint" },
  { name = "ratio", type = "double" },
  { name = "total", type = "numeric", path = "sum.total" },
  { name = "at", type = "timestamptz" },
  { name = "part", type = "jsonb", path = "sum" },
  { name = "raw", type = "bytea" },
]"#;

#[tokio::test]
async fn declared_columns_hold_what_fits() {
    let stage = Stage::new().await;
    let schema = stage.schema(COLUMNS);
    let mut opened = schema.open(&shard(1)).await.unwrap();
    let most = "99999999999999999999999999999999999999";
    let json = format!(
        r#"{{"name": "Käthe", "on": true, "small": -5, "big": 9007199254740993, "ratio": 0.1,
            "sum": {{"total": -{most}, "n": 1e-30}}, "raw": {{"$binary": "AAH/"}},
            "at": {{"$timestamp": "2026-01-31T12:00:00.000001Z"}}}}"#
    );
    put(&mut opened, &changes(1, &[("a", Some(&json))])).await.unwrap();
    let row = "SELECT name, \"on\", small, big, ratio, total, at AT TIME ZONE 'UTC', raw, \
               part->>'total', document#>>'{sum,total}', part->>'n', tidegate_problems IS NULL \
               FROM items";
    let tiny = format!("0.{}1", "0".repeat(29));
    let wanted = format!(
        "Käthe|t|-5|9007199254740993|0.1|-{most}|2026-01-31 12:00:00.000001|\\x0001ff|-{most}|\
         -{most}|{tiny}|t"
    );
    assert_eq!(schema.query(row), wanted);
}

#[tokio::test]
async fn what_does_not_fit_keeps_the_document_whole_and_says_so() {
    let stage = Stage::new().await;
    let schema = stage.schema(COLUMNS);
    let mut opened = schema.open(&shard(1)).await.unwrap();
    let json = r#"{"name": "a\u0000b", "on": 1, "small": 2147483648, "big": 1.5,
                   "ratio": {"$number": "1e400"}, "sum": {"total": "much", "x": "\\u0000"},
                   "raw": "AAH/", "at": "soon", "tab\u0000": [null]}"#;
    put(&mut opened, &changes(1, &[("a", Some(json)), ("b", Some("{\"on\": null}"))]))
        .await
        .unwrap();
    let lost = "SELECT num_nonnulls(name, \"on\", small, big, ratio, total, at, raw) FROM items \
                ORDER BY key";
    assert_eq!(schema.query(lost), "0\n0");
    let part = "SELECT part->>'x' FROM items WHERE key = 'a'";
    assert_eq!(schema.query(part), "\\u0000", "text that only looks like it is kept");
    let told = schema.query("SELECT unnest(tidegate_problems) FROM items");
    let wanted = [
        "document: holds U+0000",
        "name: holds U+0000",
        "on: is of another type",
        "small: is out of range",
        "big: is not a whole number",
        "ratio: is out of range",
        "total: is of another type",
        "at: is of another type",
        "raw: is of another type",
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), wanted);
    // The document is whole: its JSON is there as text, exactly.
    let text = schema.query("SELECT document->>'$json' FROM items WHERE key = 'a'");
    let whole = document::parse_json(text.as_bytes()).unwrap();
    assert_eq!(
        document::encode(&whole).unwrap(),
        document::encode(&document::parse_json(json.as_bytes()).unwrap()).unwrap()
    );
}

#[tokio::test]
async fn every_number_and_time_that_fits_is_exact() {
    let stage = Stage::new().await;
    let schema = stage.schema(COLUMNS);
    let mut opened = schema.open(&shard(1)).await.unwrap();
    let numbers = [
        "0",
        "1",
        "-1",
        "9999",
        "10000",
        "10001",
        "123456789",
        "0.1",
        "0.0001",
        "0.00001",
        "-1234.5678",
        "1000000000000.0000000000001",
        "0.00000000000000000000000000000000000001",
    ];
    let keys: Vec<_> = (0..numbers.len()).map(|index| format!("{index:02}")).collect();
    let documents: Vec<_> =
        numbers.iter().map(|number| format!("{{\"sum\": {{\"total\": {number}}}}}")).collect();
    let rows: Vec<_> =
        keys.iter().zip(&documents).map(|(key, json)| (&key[..], Some(&json[..]))).collect();
    put(&mut opened, &changes(1, &rows)).await.unwrap();
    let same = "SELECT total::text, total = (part->>'total')::numeric FROM items ORDER BY key";
    let wanted: Vec<_> = numbers.iter().map(|number| format!("{number}|t")).collect();
    assert_eq!(schema.query(same), wanted.join("\n"));
    let huge = changes(
        20,
        &[
            ("x", Some(r#"{"sum": {"total": {"$number": "-1.5e130"}}}"#)),
            ("y", Some(r#"{"at": {"$timestamp": "0000-01-01T00:00:00Z"}}"#)),
            ("z", Some(r#"{"at": {"$timestamp": 8210266876799999999}}"#)),
        ],
    );
    drop(opened);
    schema.query("UPDATE tidegate_checkpoint SET sequence = 19");
    let mut opened = schema.open(&shard(1)).await.unwrap();
    put(&mut opened, &huge).await.unwrap();
    let total = "SELECT total = -1.5e130 FROM items WHERE key = 'x'";
    assert_eq!(schema.query(total), "t");
    let years = "SELECT extract(year FROM at AT TIME ZONE 'UTC') FROM items WHERE at IS NOT NULL \
                 ORDER BY at";
    assert_eq!(schema.query(years), "-1\n262142");
}

#[tokio::test]
async fn keys_of_every_type_and_length_have_their_own_rows() {
    let stage = Stage::new().await;
    let schema = stage.schema("");
    let mut opened = schema.open(&shard(1)).await.unwrap();
    let long = "k".repeat(4000);
    let keys: Vec<Vec<KeyPart>> = vec![
        vec![KeyPart::String("1".into())],
        vec![KeyPart::Number { unscaled: 1, scale: 0 }],
        vec![KeyPart::Bytes(b"1".to_vec())],
        vec![KeyPart::Bool(true)],
        vec![KeyPart::Null],
        vec![],
        vec![KeyPart::String("a\0b".into())],
        vec![KeyPart::String("1".into()), KeyPart::Number { unscaled: 15, scale: 1 }],
        vec![KeyPart::String(long.clone())],
        vec![KeyPart::String(format!("{long}x"))],
        vec![KeyPart::String(format!("{long}y"))],
    ];
    let builder = |json: &str| {
        let mut builder = BatchBuilder::default();
        let value = document::parse_json(json.as_bytes()).unwrap();
        let encoded = document::encode(&value).unwrap();
        for key in &keys {
            builder.push(&Draft {
                operation: Operation::Insert,
                collection: "items",
                key: Key::encode(key).unwrap().as_bytes(),
                document: Some((&encoded.dictionary, &encoded.value)),
                before: None,
                committed_ms: 0,
            });
        }
        builder
    };
    put(&mut opened, &batch_of(&builder("1"), 1)).await.unwrap();
    let next = keys.len() as u64 + 1;
    put(&mut opened, &batch_of(&builder("2"), next)).await.unwrap();
    let count = "SELECT count(*), count(DISTINCT tidegate_key), min(document::int) FROM items";
    assert_eq!(schema.query(count), format!("{0}|{0}|2", keys.len()));
    let short = "SELECT key FROM items WHERE length(key) < 100 ORDER BY tidegate_key";
    let wanted =
        ["[]", "null", "true", "1", "{\"$binary\":\"MQ==\"}", "1", "[\"1\",1.5]", "\"a\\u0000b\""];
    assert_eq!(schema.query(short).lines().collect::<Vec<_>>(), wanted);
    let told = "SELECT tidegate_problems FROM items WHERE tidegate_problems IS NOT NULL";
    assert_eq!(schema.query(told), "{\"key: holds U+0000\"}");
}

#[tokio::test]
async fn names_of_any_kind_become_tables() {
    let stage = Stage::new().await;
    let schema = stage.schema("");
    let mut opened = schema.open(&shard(1)).await.unwrap();
    let long = "x".repeat(64);
    let names =
        ["select", "a\"; DROP TABLE b; --", "Ünï.cödé", &long, "tidegate_checkpoint", "n\0"];
    let mut builder = BatchBuilder::default();
    let encoded = document::encode(&document::parse_json(b"1").unwrap()).unwrap();
    for collection in names {
        builder.push(&Draft {
            operation: Operation::Insert,
            collection,
            key: Key::encode(&[KeyPart::Null]).unwrap().as_bytes(),
            document: Some((&encoded.dictionary, &encoded.value)),
            before: None,
            committed_ms: 0,
        });
    }
    put(&mut opened, &batch_of(&builder, 1)).await.unwrap();
    let count = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = \
                 (SELECT oid FROM pg_namespace WHERE nspname = current_schema())";
    assert_eq!(schema.query(count), "7", "one for each, and the checkpoints");
    assert_eq!(schema.query("SELECT key FROM \"a\"\"; DROP TABLE b; --\""), "null");
    let append = stage.schema("mode = \"append\"\ntable = \"log\"");
    let mut opened = append.open(&shard(1)).await.unwrap();
    put(&mut opened, &batch_of(&builder, 1)).await.unwrap();
    let log = "SELECT tidegate_collection FROM log WHERE tidegate_operation = 'insert' \
               ORDER BY tidegate_sequence LIMIT 3";
    assert_eq!(append.query(log), names[..3].join("\n"));
}
