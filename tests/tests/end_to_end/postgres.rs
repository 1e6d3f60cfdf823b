//! Generated changes into a PostgreSQL database, by nodes that are killed and frozen.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_node::sources::datagen::{DatagenConfig, state_after};
use tidegate_proto::{content_hash, document};
use tidegate_tests::cluster::{Cluster, alone};
use tidegate_tests::postgres::Postgres;

const EXPORT: &str = "orders";
const SHARDS: u32 = 3;
const CHANGES: u64 = 15_000;
/// Longer than a lease and the wait for a silent node.
const FROZEN: Duration = Duration::from_secs(4);

/// Of a checkpoint `c` of an `append` sink: its log has all sequences up to there, each once.
pub(crate) const LOG_IS_WHOLE: &str = "c.records = c.sequence \
    AND (SELECT (count(*), min(tidegate_sequence), max(tidegate_sequence)) \
         FROM exported.log WHERE tidegate_shard = c.id) = (c.sequence, 1::bigint, c.sequence)";

/// Key in hexadecimal, and the hash of its document.
type State = BTreeMap<String, [u8; 16]>;

fn config() -> DatagenConfig {
    DatagenConfig {
        shards: SHARDS,
        keys: 2_000,
        snapshot_rows: 1_500,
        document_bytes: 400,
        rate_per_second: 500,
        changes: CHANGES,
        ..DatagenConfig::default()
    }
}

/// One sink has a row for each key, the other one for each change; both in one
/// schema.
fn spec(server: &Postgres) -> String {
    let sink = |name: &str, rest: &str| {
        format!(
            "[[sink]]\nname = \"{name}\"\nkind = \"postgres\"\nurl = \"{}\"\ntls = false\n\
             schema = \"exported\"\ndelay-ms = 100\n{rest}\n",
            server.url()
        )
    };
    let DatagenConfig { keys, document_bytes, rate_per_second, snapshot_rows, .. } = config();
    format!(
        "name = \"{EXPORT}\"\n[source]\nkind = \"datagen\"\nshards = {SHARDS}\nkeys = {keys}\n\
         document-bytes = {document_bytes}\nrate-per-second = {rate_per_second}\n\
         changes = {CHANGES}\nsnapshot-rows = {snapshot_rows}\n{}{}",
        sink("rows", "columns = [{ name = \"status\", type = \"text\" }]"),
        sink("log", "mode = \"append\"\ntable = \"log\""),
    )
}

/// METHOD: while three shards make 500 changes a second each, the busiest node is
/// killed and comes back, then another is stopped for longer than it is waited
/// for, and goes on: a zombie with transactions under way. In the end the table
/// has what the generator computes, and the log each sequence once.
#[tokio::test(flavor = "multi_thread")]
async fn tables_hold_what_was_made_although_writers_are_killed_and_frozen() {
    let _alone = alone().await;
    // One that does not sync is refused.
    let server = Postgres::start(&["fsync=on"]).await;
    let mut cluster = Cluster::start(3).await;
    cluster.apply(&spec(&server));
    cluster.until("changes arrive", |_| moved(&server) > 2_000).await;
    let killed = cluster.busiest(EXPORT);
    cluster.kill(killed).await;
    let before = moved(&server);
    cluster.until("they go on arriving", |_| moved(&server) > before + 3_000).await;
    cluster.start_node(killed);
    let frozen = (killed + 1) % 3;
    cluster.signal(frozen, "STOP");
    let before = moved(&server);
    tokio::time::sleep(FROZEN).await;
    cluster.until("they go on without it", |_| moved(&server) > before + 3_000).await;
    cluster.signal(frozen, "CONT");
    let wanted = expected();
    cluster.until("the table is as it should be", |_| rows(&server) == wanted).await;
    cluster.until("the log is whole", |_| is_whole(&server)).await;
    let epochs = server.query("SELECT max(epoch) FROM exported.tidegate_checkpoint");
    assert!(epochs.parse::<u64>().unwrap() > 1, "owners were replaced: {epochs}");
    let status = "SELECT count(*) FROM exported.orders WHERE status IS DISTINCT FROM \
                  document->>'status' OR tidegate_problems IS NOT NULL";
    assert_eq!(server.query(status), "0");
    assert_eq!(cluster.json(&["gap", "list"])["gaps"].as_array().map(Vec::len), Some(0));
}

/// Changes that the database says it has, of both sinks.
fn moved(server: &Postgres) -> u64 {
    let there = "SELECT to_regclass('exported.tidegate_checkpoint') IS NOT NULL";
    if server.query(there) == "f" {
        return 0;
    }
    let sum = server.query("SELECT coalesce(sum(records), 0) FROM exported.tidegate_checkpoint");
    sum.parse().unwrap()
}

/// Every shard's log ends at one place with its table, has all sequences to there,
/// and the latest changes of all keys are those of the table.
fn is_whole(server: &Postgres) -> bool {
    let tiles = format!(
        "SELECT count(*) FROM exported.tidegate_checkpoint c \
         JOIN exported.tidegate_checkpoint r ON r.shard = c.shard AND r.sink = 'rows' \
         WHERE c.sink = 'log' AND c.sequence = r.sequence AND {LOG_IS_WHOLE}"
    );
    let latest = "SELECT count(*) FROM (SELECT DISTINCT ON (tidegate_key) tidegate_key, document \
        FROM exported.log ORDER BY tidegate_key, tidegate_sequence DESC) l \
        FULL JOIN exported.orders o USING (tidegate_key) \
        WHERE l.document IS DISTINCT FROM o.document";
    server.query(&tiles) == SHARDS.to_string() && server.query(latest) == "0"
}

fn rows(server: &Postgres) -> State {
    let rows = server.query("SELECT encode(tidegate_key, 'hex'), document FROM exported.orders");
    let state = rows.lines().map(|line| {
        let (key, json) = line.split_once('|').unwrap();
        let encoded = document::encode(&document::parse_json(json.as_bytes()).unwrap()).unwrap();
        (key.to_owned(), content_hash(&encoded.dictionary, &encoded.value))
    });
    state.collect()
}

fn expected() -> State {
    let shards = (0..SHARDS).flat_map(|shard| state_after(&config(), shard, CHANGES).unwrap());
    shards.map(|(key, hash)| (hex(&key), hash)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
