//! Against a real server: the contract, and what is its own.

mod faults;
mod inferred;
mod kills;
mod proxy;
#[path = "../../../../tests/src/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of whole clusters")]
mod server;
mod values;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tidegate_proto::v1::Operation;
use tidegate_proto::{BatchBuilder, Draft, Key, KeyPart, document};

use self::config::Mode;
use self::server::Postgres;
use super::*;
use crate::config::parse;
use crate::sinks::contract::{self, Target, batch, batch_of, shard};

/// A schema of its own, which the sink makes.
struct Schema {
    server: Arc<Postgres>,
    name: String,
    /// Further keys of the table in the export file.
    settings: &'static str,
}

#[async_trait]
impl Target for Schema {
    async fn open(&self, shard: &SinkShard) -> Result<Opened> {
        open(&self.config(&self.server.url()), shard).await
    }

    async fn read(&self, shard: &SinkShard) -> Vec<u64> {
        let table = names::table(&self.config("postgres://h").table, shard, "orders");
        let found = self.query(&format!(
            "SELECT tidegate_sequence FROM \"{table}\" r JOIN tidegate_checkpoint c \
             ON c.id = r.tidegate_shard WHERE c.shard = '{}' ORDER BY 1",
            shard.shard
        ));
        found.lines().map(|line| line.parse().unwrap()).collect()
    }
}

impl Schema {
    fn config(&self, url: &str) -> PostgresConfig {
        let text = format!(
            "url = \"{url}\"\ntls = false\nschema = \"{}\"\nstatement-timeout-ms = 20000\n{}",
            self.name, self.settings
        );
        let config: PostgresConfig = parse("[[sink]]", toml::from_str(&text).unwrap()).unwrap();
        config.validate().unwrap();
        config
    }

    fn query(&self, sql: &str) -> String {
        self.server.query(&format!("SET search_path = \"{}\"; {sql}", self.name))
    }
}

/// A server, and schemas on it.
struct Stage {
    server: Arc<Postgres>,
    schemas: AtomicU32,
}

impl Stage {
    async fn new() -> Self {
        let server = Arc::new(Postgres::start(&[]).await);
        Self { server, schemas: AtomicU32::new(0) }
    }

    fn schema(&self, settings: &'static str) -> Schema {
        let number = self.schemas.fetch_add(1, Ordering::Relaxed);
        Schema { server: Arc::clone(&self.server), name: format!("Schema {number}"), settings }
    }
}

/// A batch of changes of `items`, the first with sequence `first`: a key and the
/// JSON of its document, or none for a delete.
fn changes(first: u64, changes: &[(&str, Option<&str>)]) -> SinkBatch {
    let mut builder = BatchBuilder::default();
    for (key, json) in changes {
        let value = json.map(|json| document::parse_json(json.as_bytes()).unwrap());
        let encoded = value.as_ref().map(|value| document::encode(value).unwrap());
        let key = Key::encode(&[KeyPart::String((*key).to_owned())]).unwrap();
        builder.push(&Draft {
            operation: if encoded.is_some() { Operation::Upsert } else { Operation::Delete },
            collection: "items",
            key: key.as_bytes(),
            document: encoded.as_ref().map(|encoded| (&encoded.dictionary[..], &encoded.value[..])),
            before: None,
            committed_ms: 1_700_000_000_123,
        });
    }
    batch_of(&builder, first)
}

async fn put(opened: &mut Opened, batch: &SinkBatch) -> Result<()> {
    opened.sink.write(batch).await?;
    opened.sink.flush().await.map(drop)
}

/// The sink could not be opened, or the batch not be written.
fn refused<T>(outcome: Result<T>, kind: ErrorKind, words: &[&str]) {
    let Err(error) = outcome else { panic!("it was let in") };
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{words:?} are not all in: {text}");
}

#[tokio::test]
async fn the_tables_keep_the_contract() {
    let stage = Stage::new().await;
    // The suite gives two shards one key, which no source does.
    let upsert = "table = \"{collection} {shard}\"";
    contract::keeps_the_contract(|| stage.schema(upsert)).await;
    contract::keeps_the_contract(|| stage.schema("mode = \"append\"\ntable = \"all of it\"")).await;
}

#[tokio::test]
async fn a_key_has_the_row_of_its_last_change() {
    let stage = Stage::new().await;
    let schema = stage.schema("");
    let mut opened = schema.open(&shard(1)).await.unwrap();
    let first = [
        ("a", Some("1")),
        ("b", Some("1")),
        ("a", None),
        ("b", Some("{\"n\": 2}")),
        ("c", None),
        ("a", Some("3")),
    ];
    put(&mut opened, &changes(1, &first)).await.unwrap();
    let rows = "SELECT key, document, tidegate_sequence FROM items ORDER BY key";
    assert_eq!(schema.query(rows), "a|3|6\nb|{\"n\": 2}|4");
    put(&mut opened, &changes(7, &[("b", None), ("a", None), ("a", Some("9"))])).await.unwrap();
    assert_eq!(schema.query(rows), "a|9|9");
    let row = "SELECT sequence, records, epoch, export, shard, sink FROM tidegate_checkpoint";
    assert_eq!(schema.query(row), "9|9|1|orders|table/0|out");
    let at = "SELECT extract(epoch FROM tidegate_committed_at) FROM items";
    assert_eq!(schema.query(at), "1700000000.123000");
}

#[tokio::test]
async fn what_is_full_is_written_while_the_next_is_gathered() {
    let stage = Stage::new().await;
    let schema = stage.schema("batch-changes = 10");
    let mut opened = schema.open(&shard(1)).await.unwrap();
    assert_eq!(opened.sink.write(&batch(1, 9)).await.unwrap(), Written::Accepted);
    assert_eq!(opened.sink.write(&batch(10, 10)).await.unwrap(), Written::Accepted);
    assert_eq!(opened.sink.write(&batch(11, 15)).await.unwrap(), Written::Accepted);
    // While the next one is gathered, the first is written; the third waits for it.
    let durable = opened.sink.write(&batch(16, 22)).await.unwrap();
    assert_eq!(durable, Written::Durable(Durable::vouch(Sequence(10))));
    let all = opened.sink.flush().await.unwrap();
    assert_eq!(all, Some(Durable::vouch(Sequence(22))));
    assert_eq!(schema.read(&shard(1)).await, (1..=22).collect::<Vec<_>>());
    assert_eq!(schema.query("SELECT records FROM tidegate_checkpoint"), "22");
}

#[tokio::test]
async fn a_shard_that_was_split_off_goes_on_with_the_rows_of_the_one_before() {
    let stage = Stage::new().await;
    let schema = stage.schema("");
    let child = SinkShard { shard: "table/0-1".into(), ..shard(1) };
    let mut parent = schema.open(&shard(1)).await.unwrap();
    let rows = [("a", Some("1")), ("b", Some("1")), ("c", Some("1")), ("a", Some("2"))];
    put(&mut parent, &changes(1, &rows)).await.unwrap();
    // Its sequences begin anew, below those of the rows.
    let mut child = schema.open(&child).await.unwrap();
    put(&mut child, &changes(1, &[("a", Some("3")), ("b", None)])).await.unwrap();
    assert_eq!(schema.query("SELECT key, document FROM items ORDER BY key"), "a|3\nc|1");
}

#[tokio::test]
async fn a_database_that_was_set_back_is_told_and_not_filled_up() {
    let stage = Stage::new().await;
    let schema = stage.schema("");
    let mut opened = schema.open(&shard(1)).await.unwrap();
    put(&mut opened, &changes(1, &[("a", Some("1")), ("b", Some("1"))])).await.unwrap();
    // A restored backup: behind what was delivered.
    schema.query("UPDATE tidegate_checkpoint SET sequence = 1");
    let mut opened = schema.open(&shard(2)).await.unwrap();
    let behind = opened.sink.write(&changes(3, &[("c", Some("1"))])).await;
    refused(behind, ErrorKind::Config, &["changes 2 to 2", "was set back", "`sequence` of row 1"]);
    // A row of the table is newer than the checkpoint: no change may be lost on it.
    let again = changes(2, &[("b", Some("0"))]);
    refused(put(&mut opened, &again).await, ErrorKind::Config, &["newer than its checkpoint row"]);
    assert_eq!(schema.query("SELECT document FROM items WHERE key = 'b'"), "1");
    // To begin anew is to delete the row: then older rows are overwritten.
    schema.query("DELETE FROM tidegate_checkpoint");
    let mut opened = schema.open(&shard(3)).await.unwrap();
    assert!(opened.committed.is_none());
    put(&mut opened, &changes(1, &[("a", Some("5"))])).await.unwrap();
    assert_eq!(schema.query("SELECT document FROM items WHERE key = 'a'"), "5");
}

#[tokio::test]
async fn tables_and_columns_are_made_and_mended_and_foreign_ones_left_alone() {
    let stage = Stage::new().await;
    let mut schema = stage.schema("");
    let mut opened = schema.open(&shard(1)).await.unwrap();
    put(&mut opened, &changes(1, &[("a", Some("{\"n\": 1}"))])).await.unwrap();
    schema.settings = "columns = [{ name = \"n\", type = \"bigint\" }]";
    let mut opened = schema.open(&shard(1)).await.unwrap();
    put(&mut opened, &changes(2, &[("b", Some("{\"n\": 2}"))])).await.unwrap();
    assert_eq!(schema.query("SELECT key, n FROM items ORDER BY key"), "a|\nb|2");
    // Somebody drops the column, then the table, while the sink is open.
    for (sequence, drop, left) in
        [(3, "ALTER TABLE items DROP COLUMN n", "a|\nb|\nc|3"), (4, "DROP TABLE items", "c|3")]
    {
        schema.query(drop);
        let again = changes(sequence, &[("c", Some("{\"n\": 3}"))]);
        refused(put(&mut opened, &again).await, ErrorKind::Unavailable, &["42"]);
        opened.sink.flush().await.unwrap();
        assert_eq!(schema.query("SELECT key, n FROM items ORDER BY key"), left);
    }
    // Somebody alters it: no value is rounded to what it holds now.
    schema.query("ALTER TABLE items ALTER COLUMN n TYPE smallint");
    let small = changes(5, &[("c", Some("{\"n\": 4}"))]);
    refused(put(&mut opened, &small).await, ErrorKind::Unavailable, &["\"n\"", "was altered"]);
    let still = opened.sink.flush().await;
    refused(still, ErrorKind::Config, &["column \"n\"", "is smallint, and should be bigint"]);
    schema.query("ALTER TABLE items ALTER COLUMN n TYPE bigint");
    assert_eq!(schema.query("SELECT key, n FROM items"), "c|3");
    schema.settings = "columns = [{ name = \"n\", type = \"text\" }]";
    let mut opened = schema.open(&shard(1)).await.unwrap();
    let other = put(&mut opened, &changes(5, &[("d", Some("1"))])).await;
    refused(other, ErrorKind::Config, &["column \"n\"", "is bigint, and should be text"]);
    let foreign = stage.schema("");
    drop(foreign.open(&shard(1)).await.unwrap());
    foreign.query("CREATE TABLE items (key text, document jsonb)");
    let mut opened = foreign.open(&shard(1)).await.unwrap();
    let other = put(&mut opened, &changes(1, &[("d", Some("1"))])).await;
    refused(other, ErrorKind::Config, &["is there already", "tidegate_key"]);
}

#[tokio::test]
async fn a_table_has_the_keys_of_one_export() {
    let stage = Stage::new().await;
    let mut schema = stage.schema("");
    let others = [
        SinkShard { export: "it's another".into(), ..shard(1) },
        SinkShard { sink: "second".into(), ..shard(1) },
    ];
    let rows = changes(1, &[("a", Some("1"))]);
    put(&mut schema.open(&shard(1)).await.unwrap(), &rows).await.unwrap();
    for other in &others {
        let mut opened = schema.open(other).await.unwrap();
        let mixed = put(&mut opened, &changes(1, &[("a", None)])).await;
        refused(mixed, ErrorKind::Config, &["export \"orders\", sink \"out\"", "{export}"]);
    }
    assert_eq!(schema.query("SELECT key FROM items"), "a");
    schema.settings = "table = \"{export} {collection}\"";
    put(&mut schema.open(&others[0]).await.unwrap(), &rows).await.unwrap();
    assert_eq!(schema.query("SELECT key FROM \"it's another items\""), "a");
    schema.settings = "mode = \"append\"\ntable = \"all\"";
    for (other, first) in others.iter().zip([2, 1]) {
        let again = changes(first, &[("a", Some("2"))]);
        put(&mut schema.open(other).await.unwrap(), &again).await.unwrap();
    }
    assert_eq!(schema.query("SELECT count(*) FROM \"all\""), "2");
}

#[tokio::test]
async fn a_checkpoint_table_of_before_goes_on() {
    let stage = Stage::new().await;
    let schema = stage.schema("");
    let mut opened = schema.open(&shard(1)).await.unwrap();
    put(&mut opened, &changes(1, &[("a", Some("1"))])).await.unwrap();
    schema.query("ALTER TABLE tidegate_checkpoint DROP COLUMN uid");
    for epoch in 2..5 {
        let committed = schema.open(&shard(epoch)).await.unwrap().committed.unwrap();
        assert_eq!(committed.sequence, Sequence(1));
    }
    // Nobody who finds a row takes a number from those for new ones.
    let next = SinkShard { shard: "table/1".into(), ..shard(1) };
    drop(schema.open(&next).await.unwrap());
    let rows = schema.query("SELECT id, uid FROM tidegate_checkpoint ORDER BY id");
    assert_eq!(rows, "1|c/1\n2|c/1");
    // Another export of the name is not let in by a shard that is called otherwise.
    let other = SinkShard { uid: "c/2".into(), shard: "cluster".into(), ..shard(1) };
    let refused = schema.open(&other).await.map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Config);
    assert!(refused.to_string().contains("DELETE FROM"), "{refused}");
}

#[tokio::test]
async fn of_two_exports_that_have_delivered_nothing_only_one_writes() {
    let stage = Stage::new().await;
    let schema = stage.schema("");
    let mut one = schema.open(&shard(1)).await.unwrap();
    let other = SinkShard { uid: "c/2".into(), shard: "cluster".into(), ..shard(1) };
    let mut two = schema.open(&other).await.unwrap();
    let late = put(&mut one, &changes(1, &[("a", Some("1"))])).await;
    refused(late, ErrorKind::Unknown, &["open the postgres sink anew"]);
    put(&mut two, &changes(1, &[("b", Some("1"))])).await.unwrap();
    let late = schema.open(&shard(1)).await.map(drop).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Config, "{late}");
    assert_eq!(schema.query("SELECT key FROM items"), "b");
}

#[tokio::test]
async fn a_host_that_says_nothing_does_not_hide_the_next() {
    let stage = Stage::new().await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let schema = stage.schema("connect-timeout-ms = 100");
    let ports = [silent.local_addr().unwrap().port(), stage.server.port()];
    let hosts = ports.map(|port| format!("127.0.0.1:{port}")).join(",");
    let url = stage.server.url().replace(&format!("127.0.0.1:{}", ports[1]), &hosts);
    assert!(url.contains(','), "{url}");
    let mut opened = open(&schema.config(&url), &shard(1)).await.unwrap();
    put(&mut opened, &changes(1, &[("a", Some("1"))])).await.unwrap();
    assert_eq!(schema.query("SELECT key FROM items"), "a");
}

/// Until `done` says so; fails after a minute.
async fn wait_until(done: impl Fn() -> bool) {
    for _ in 0..1200 {
        if done() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it did not come to that");
}

#[tokio::test]
async fn an_error_says_nothing_of_a_row_or_a_secret() {
    let stage = Stage::new().await;
    let schema = stage.schema("columns = [{ name = \"n\", type = \"text\" }]");
    let mut opened = schema.open(&shard(1)).await.unwrap();
    put(&mut opened, &changes(1, &[("a", Some("{\"n\": \"hush\"}"))])).await.unwrap();
    schema.query("ALTER TABLE items ADD CONSTRAINT one_each UNIQUE (n)");
    let twice = put(&mut opened, &changes(2, &[("b", Some("{\"n\": \"hush\"}"))])).await;
    let text = twice.as_ref().unwrap_err().to_string();
    assert!(!text.contains("hush"), "{text}");
    refused(twice, ErrorKind::Config, &["table items", "\"one_each\"", "SQLSTATE 23505"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let port = stage.server.port();
    std::fs::write(file.path(), format!("postgres://nobody:hush@127.0.0.1:{port}/x")).unwrap();
    let Err(error) =
        open(&schema.config(&format!("${{file:{}}}", file.path().display())), &shard(1)).await
    else {
        panic!("nobody was let in")
    };
    assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

#[tokio::test]
async fn the_check_says_what_is_missing() {
    let stage = Stage::new().await;
    let schema = stage.schema("");
    let told = check(&schema.config(&stage.server.url())).await;
    let failed: Vec<_> = told.iter().filter(|check| !check.passed).collect();
    assert!(told.len() == 3 && failed.len() == 1, "{told:?}");
    assert!(failed[0].detail.contains("fsync"), "these tests do not sync: {failed:?}");
    let down = check(&schema.config("postgres://postgres@127.0.0.1:1/postgres")).await;
    assert!(down.len() == 1 && !down[0].passed, "{down:?}");
}

#[tokio::test]
async fn the_check_says_whose_tables_get_no_columns() {
    let stage = Stage::new().await;
    let schema = stage.schema("columns-inferred = true");
    let mut opened = schema.open(&shard(1)).await.unwrap();
    put(&mut opened, &changes(1, &[("a", Some("{\"n\": 1}"))])).await.unwrap();
    schema.query("CREATE ROLE other LOGIN");
    let url = stage.server.url();
    let (own, other) = (schema.config(&url), schema.config(&url.replace("postgres@", "other@")));
    let owned = async |config| {
        let told = check(config).await;
        told.into_iter().find(|check| check.name == "postgres ownership").unwrap()
    };
    let mine = owned(&own).await;
    assert!(mine.passed, "{mine:?}");
    let foreign = owned(&other).await;
    assert!(!foreign.passed && foreign.detail.contains("items"), "{foreign:?}");
    schema.query("ALTER TABLE items OWNER TO other");
    assert!(owned(&other).await.passed);
}

#[tokio::test]
async fn a_server_is_spoken_to_only_if_its_certificate_is_good() {
    let server = Postgres::start_tls().await;
    let config = |rest: &str| {
        let text = format!("url = \"{}\"\n{rest}", server.url());
        parse::<PostgresConfig>("[[sink]]", toml::from_str(&text).unwrap()).unwrap()
    };
    let trusted = config(&format!("ca-file = {:?}", server.authority()));
    let mut opened = open(&trusted, &shard(1)).await.unwrap();
    put(&mut opened, &changes(1, &[("a", Some("1"))])).await.unwrap();
    let encrypted = "SELECT ssl FROM pg_stat_ssl JOIN tidegate_checkpoint ON pid = backend";
    assert_eq!(server.query(encrypted), "t");
    refused(open(&config(""), &shard(1)).await, ErrorKind::Unavailable, &["UnknownIssuer"]);
    let named = server.url().replace("127.0.0.1", "localhost");
    let text = format!("url = \"{named}\"\nca-file = {:?}", server.authority());
    let elsewhere: PostgresConfig = parse("[[sink]]", toml::from_str(&text).unwrap()).unwrap();
    refused(open(&elsewhere, &shard(1)).await, ErrorKind::Unavailable, &["certificate"]);
}
