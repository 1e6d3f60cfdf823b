//! Columns that nobody declared, on the server itself.

use super::*;

/// Names and types of a table's inferred columns, in order.
const INFERRED: &str = "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute \
    WHERE attrelid = 'items'::regclass AND col_description(attrelid, attnum) LIKE 'tidegate: field %' \
    AND NOT attisdropped ORDER BY attname";
/// Rows whose inferred columns are not what their documents say.
pub(super) const WRONG: &str = "SELECT count(*) FROM items r WHERE document <> \
    jsonb_strip_nulls(to_jsonb(r) - ARRAY['key', 'document', 'before', 'tidegate_key', \
    'tidegate_shard', 'tidegate_sequence', 'tidegate_epoch', 'tidegate_operation', \
    'tidegate_collection', 'tidegate_committed_at', 'tidegate_captured_at', 'tidegate_problems'])";

#[tokio::test]
async fn inferred_columns_keep_the_contract() {
    let stage = Stage::new().await;
    let upsert = "columns-inferred = true\ntable = \"{collection} {shard}\"";
    contract::keeps_the_contract(|| stage.schema(upsert)).await;
    let append = "columns-inferred = true\nmode = \"append\"\ntable = \"all of it\"";
    contract::keeps_the_contract(|| stage.schema(append)).await;
}

#[tokio::test]
async fn fields_become_columns_of_the_type_of_their_first_values() {
    let stage = Stage::new().await;
    let schema = stage.schema("columns-inferred = true");
    let mut opened = schema.open(&shard(1)).await.unwrap();
    let first = r#"{"on": true, "count": 9007199254740993, "sum": 1.10, "name": "Käthe",
        "at": {"$timestamp": "2026-01-31T12:00:00Z"}, "written": "2026-01-31T12:00:00Z",
        "raw": {"$binary": "AAH/"}, "tags": [1, "x"], "part": {"a": 1}, "later": null}"#;
    put(&mut opened, &changes(1, &[("a", Some(first)), ("b", None)])).await.unwrap();
    let wanted = "at|timestamp with time zone\ncount|bigint\nname|text\non|boolean\npart|jsonb\n\
                  raw|bytea\nsum|numeric\ntags|jsonb\nwritten|text";
    assert_eq!(schema.query(INFERRED), wanted);
    let row = "SELECT \"on\", count, sum, name, at AT TIME ZONE 'UTC', written, raw, tags, \
               part->>'a', tidegate_problems IS NULL FROM items";
    let values = "t|9007199254740993|1.1|Käthe|2026-01-31 12:00:00|2026-01-31T12:00:00Z|\\x0001ff|\
                  [1, \"x\"]|1|t";
    assert_eq!(schema.query(row), values);
    // A null has no type: its column comes with the first value.
    let later = [("b", Some(r#"{"later": 5}"#)), ("c", Some(r#"{"count": 7, "later": null}"#))];
    put(&mut opened, &changes(3, &later)).await.unwrap();
    let rows = "SELECT key, count, later FROM items ORDER BY key";
    assert_eq!(schema.query(rows), "a|9007199254740993|\nb||5\nc|7|");
    // What does not fit is in the document alone, and the row says so.
    let other = [("a", Some(r#"{"count": 1.5, "on": "yes", "name": 3}"#))];
    put(&mut opened, &changes(5, &other)).await.unwrap();
    let row = "SELECT count, \"on\", name, later, tidegate_problems, document FROM items \
               WHERE key = 'a'";
    let told = "||3||{\"count: is not a whole number\",\"on: is of another type\"}|\
                {\"on\": \"yes\", \"name\": 3, \"count\": 1.5}";
    assert_eq!(schema.query(row), told);
}

#[tokio::test]
async fn every_owner_comes_to_the_same_columns() {
    let stage = Stage::new().await;
    let mut schema = stage.schema("columns-inferred = true");
    let mut opened = schema.open(&shard(1)).await.unwrap();
    let both = r#"{"n": 1, "gone": "x"}"#;
    put(&mut opened, &changes(1, &[("a", Some(both)), ("b", Some(both))])).await.unwrap();
    let columns = schema.query(INFERRED);
    // Another owner has seen neither field, and must empty what the document lost.
    let mut opened = schema.open(&shard(2)).await.unwrap();
    put(&mut opened, &changes(3, &[("a", Some("{\"other\": true}"))])).await.unwrap();
    let rows = "SELECT key, n, gone, other FROM items ORDER BY key";
    assert_eq!(schema.query(rows), "a|||t\nb|1|x|");
    // What was there first counts, even where its values say something else.
    let mut opened = schema.open(&shard(3)).await.unwrap();
    put(&mut opened, &changes(4, &[("a", Some("{\"n\": \"many\"}"))])).await.unwrap();
    assert_eq!(schema.query(INFERRED), format!("{columns}\nother|boolean"));
    let told = "SELECT tidegate_problems FROM items WHERE key = 'a'";
    assert_eq!(schema.query(told), "{\"n: is of another type\"}");
    // Somebody drops a column, then the table, while the sink is open.
    for (sequence, drop) in [(5, "ALTER TABLE items DROP COLUMN n"), (6, "DROP TABLE items")] {
        schema.query(drop);
        let again = changes(sequence, &[("c", Some("{\"n\": 3}"))]);
        refused(put(&mut opened, &again).await, ErrorKind::Unavailable, &["42"]);
        opened.sink.flush().await.unwrap();
        assert_eq!(schema.query("SELECT n FROM items WHERE key = 'c'"), "3");
        assert_eq!(schema.query(INFERRED), format!("{columns}\nother|boolean"));
    }
    // Altered, it holds more, from the next opening on.
    schema.query(
        "ALTER TABLE items ALTER COLUMN n TYPE numeric; \
         SELECT pg_terminate_backend(backend) FROM tidegate_checkpoint",
    );
    let half = changes(7, &[("c", Some("{\"n\": 0.5}"))]);
    refused(put(&mut opened, &half).await, ErrorKind::Unavailable, &[]);
    refused(opened.sink.flush().await, ErrorKind::Unknown, &["\"n\"", "was altered"]);
    let mut opened = schema.open(&shard(3)).await.unwrap();
    put(&mut opened, &half).await.unwrap();
    assert_eq!(schema.query("SELECT n FROM items"), "0.5");
    // Declared later, it is the same column.
    schema.settings = "columns-inferred = true\ncolumns = [{ name = \"n\", type = \"numeric\" }]";
    let mut opened = schema.open(&shard(4)).await.unwrap();
    put(&mut opened, &changes(8, &[("c", Some("{\"n\": 4, \"gone\": \"y\"}"))])).await.unwrap();
    assert_eq!(schema.query("SELECT n, gone FROM items"), "4|y");
}

#[tokio::test]
async fn beyond_the_limit_fields_stay_in_the_document() {
    let stage = Stage::new().await;
    let schema = stage.schema("columns-inferred = 2");
    let mut opened = schema.open(&shard(1)).await.unwrap();
    put(&mut opened, &changes(1, &[("a", Some(r#"{"b": 1}"#))])).await.unwrap();
    for (epoch, first) in [(1, 2), (2, 4)] {
        let more = [("a", Some(r#"{"b": 2, "c": 1, "d": 1}"#)), ("e", Some(r#"{"f": 1}"#))];
        put(&mut opened, &changes(first, &more)).await.unwrap();
        assert_eq!(schema.query(INFERRED), "b|bigint\nc|bigint");
        let rows = "SELECT b, c, document->>'d' FROM items ORDER BY key";
        assert_eq!(schema.query(rows), "2|1|1\n||");
        opened = schema.open(&shard(epoch + 1)).await.unwrap();
    }
}

#[tokio::test]
async fn fields_of_any_name_have_their_own_columns_and_no_foreign_ones() {
    let stage = Stage::new().await;
    let schema = stage.schema(
        "columns-inferred = true\n\
         columns = [{ name = \"total\", type = \"bigint\", path = \"sum.total\" }]",
    );
    let mut opened = schema.open(&shard(1)).await.unwrap();
    put(&mut opened, &changes(1, &[("z", Some("1"))])).await.unwrap();
    schema.query("ALTER TABLE items ADD COLUMN note text DEFAULT 'mine'");
    let long = "x".repeat(80);
    let names = [
        "key",
        "document",
        "ctid",
        "tidegate_key",
        "select",
        "a\"; --",
        "it's \\\\",
        "a b",
        "A b",
        "n\\u0000",
        "",
        &long,
        &format!("{long}y"),
    ];
    let fields: Vec<_> = names
        .iter()
        .zip(0..)
        .map(|(name, value)| format!("\"{}\": {value}", name.replace('"', "\\\"")))
        .collect();
    let json = format!("{{{}, \"total\": 9, \"note\": \"theirs\"}}", fields.join(", "));
    put(&mut opened, &changes(2, &[("a", Some(&json))])).await.unwrap();
    let columns = schema.query(INFERRED);
    assert_eq!(columns.lines().count(), names.len(), "{columns}");
    let values = "SELECT value FROM items r, jsonb_each_text(to_jsonb(r)) AS field (name, value) \
                  WHERE r.key = 'a' AND value ~ '^[0-9]+$' AND name !~ '^tidegate_s' \
                  ORDER BY value::int";
    let wanted: Vec<_> = (0..names.len()).map(|value| value.to_string()).collect();
    assert_eq!(schema.query(values).lines().collect::<Vec<_>>(), wanted);
    assert_eq!(schema.query("SELECT note, total FROM items ORDER BY key"), "mine|\nmine|");
    let mut opened = schema.open(&shard(2)).await.unwrap();
    put(&mut opened, &changes(3, &[("b", Some(&json))])).await.unwrap();
    assert_eq!(schema.query(INFERRED), columns);
}

#[tokio::test]
async fn a_column_is_added_between_long_transactions_and_holds_up_nobody() {
    let stage = Stage::new().await;
    let schema = stage.schema("columns-inferred = true");
    let mut opened = schema.open(&shard(1)).await.unwrap();
    put(&mut opened, &changes(1, &[("a", Some("{\"b\": 1}"))])).await.unwrap();
    let (server, name) = (Arc::clone(&schema.server), schema.name.clone());
    let reader = std::thread::spawn(move || {
        server.query(&format!("SELECT count(*), pg_sleep(5) FROM \"{name}\".items"))
    });
    let reads = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
                 AND query LIKE '%pg_sleep(5)%' AND pid <> pg_backend_pid()";
    wait_until(|| schema.query(reads) == "1").await;
    let more = changes(2, &[("a", Some("{\"b\": 1, \"c\": 2}"))]);
    refused(put(&mut opened, &more).await, ErrorKind::Unavailable, &["long transaction"]);
    assert_eq!(schema.query("SELECT count(*) FROM items"), "1", "others read on");
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while let Err(error) = opened.sink.flush().await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(tokio::time::Instant::now() < until, "{error}");
    }
    reader.join().unwrap();
    assert_eq!(schema.query("SELECT b, c FROM items"), "1|2");
}

#[tokio::test]
async fn the_widest_row_fits_a_page() {
    let stage = Stage::new().await;
    for (mode, epoch) in ["upsert", "append"].into_iter().zip(1..) {
        let mut schema = stage.schema("columns-inferred = 320");
        let appended = "columns-inferred = 320\nmode = \"append\"";
        if mode == "append" {
            schema.settings = appended;
        }
        let mut opened = schema.open(&shard(epoch)).await.unwrap();
        // The first are moved out of the row, the second are just too small for that.
        for (first, length, key) in [(1, 128, 1900), (2, 23, 20)] {
            let value = |field: usize| blake3::hash(&field.to_le_bytes()).to_hex().repeat(2);
            let field = |at: usize| format!("\"f{at}\": \"{}\"", &value(at)[..length]);
            let json = format!("{{{}}}", (0..320).map(field).collect::<Vec<_>>().join(", "));
            put(&mut opened, &changes(first, &[(&"k".repeat(key), Some(&json))])).await.unwrap();
        }
        assert_eq!(schema.query(INFERRED).lines().count(), 320);
        assert_eq!(schema.query(WRONG), "0");
    }
}

/// Brings a field of its own and one that all writers bring, over and over.
async fn see_fields(mut opened: Opened, writer: u64) {
    // Half of them take it for a number.
    let value = if writer.is_multiple_of(2) { "7" } else { "\"seven\"" };
    for round in 0..20 {
        let json = format!("{{\"shared{round}\": {value}, \"own{writer}{round}\": 1}}");
        let key = format!("{writer} {round}");
        put(&mut opened, &changes(round + 1, &[(&key, Some(&json))])).await.unwrap();
    }
}

#[tokio::test]
async fn writers_of_one_table_that_see_a_field_at_once_agree_on_its_column() {
    let stage = Stage::new().await;
    let schema = stage.schema("columns-inferred = 320\nbatch-changes = 2");
    let mut writers = Vec::new();
    for writer in 0..4 {
        let mine = SinkShard { shard: format!("table/{writer}"), ..shard(1) };
        let opened = schema.open(&mine).await.unwrap();
        writers.push(tokio::spawn(see_fields(opened, writer)));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(schema.query(INFERRED).lines().count(), 20 + 4 * 20);
    assert_eq!(schema.query("SELECT count(*), count(DISTINCT key) FROM items"), "80|80");
    // Of a value either the column has it, or the row says why not.
    let told = "SELECT count(*) FROM items WHERE tidegate_problems IS NOT NULL";
    let told: usize = schema.query(told).parse().unwrap();
    let numbers = schema.query(INFERRED);
    let is_shared = |line: &&str| line.starts_with("shared") && line.ends_with("|bigint");
    assert_eq!(told, 2 * numbers.lines().filter(is_shared).count());
    let fitting = format!(
        "{WRONG} AND tidegate_problems IS NULL \
                           AND document::text NOT LIKE '%: 7%'"
    );
    assert_eq!(schema.query(&fitting), "0");
}
