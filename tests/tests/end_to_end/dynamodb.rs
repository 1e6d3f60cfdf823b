//! A DynamoDB table under write load, exported by three nodes, one of them killed.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, Delete, KeySchemaElement, KeyType, Put,
    PutRequest, ScalarAttributeType, StreamSpecification, StreamViewType, TransactWriteItem,
    WriteRequest,
};
use serde_json::{Value, json};
use tidegate_tests::cluster::{Cluster, alone};
use tidegate_tests::dynamodb_local::DynamoDbLocal;
use tidegate_tests::lake;

use crate::followed::changes;

pub(crate) const TABLE: &str = "items";
const ITEMS: u32 = 50_000;
const WRITERS: u32 = 20;
/// How fast the server's clock runs: its stream shards roll every 18 s, and its
/// records are trimmed after 108 s, far longer than any node is down.
const SPEED: u32 = 800;
/// How often a call is repeated, 20 ms apart.
const TRIES: usize = 500;

type Item = HashMap<String, AttributeValue>;

/// A snapshot of 50,000 items while 20 tasks put, update, delete and transact;
/// the owner is killed while it reads and comes back; stream shards roll twice;
/// in the end feed and lake equal the table, item by item, types included.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_arrives_whole_although_its_owner_is_killed() {
    let _alone = alone().await;
    let server = DynamoDbLocal::start_fast(SPEED).await;
    let client = client(server.endpoint());
    make_table(&client).await;
    load(&client, ITEMS).await;
    let mut cluster = Cluster::start(3).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(client.clone(), writer, Arc::clone(&stop))))
        .collect();
    let before = stream_shards(server.endpoint()).await;
    cluster.apply(&spec(&cluster, server.endpoint()));
    let followed = cluster.folder().join("feed.jsonl");
    let follower = cluster.follow(TABLE, &followed);

    let share = |it: &Cluster| {
        let shards = it.shards(TABLE);
        shards.first().map_or(0.0, |shard| shard["snapshot"]["share"].as_f64().unwrap_or(0.0))
    };
    cluster.until("the snapshot is under way", |it| share(it) > 0.1).await;
    let owner = cluster.busiest(TABLE);
    assert!(share(&cluster) < 1.0, "the owner is killed while it reads");
    cluster.kill(owner).await;
    let name = format!("node{owner}");
    let moved = |it: &Cluster| {
        it.shards(TABLE).first().is_some_and(|shard| shard["reader"] != name.as_str())
    };
    cluster.until("another node owns the table", moved).await;
    cluster.start_node(owner);
    cluster.until("the snapshot is complete", |it| share(it) >= 1.0).await;
    while stream_shards(server.endpoint()).await < before + 2 {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut written = 0;
    for writer in writers {
        written += writer.await.unwrap();
    }
    assert!(written > 100, "writes went on meanwhile: {written}");
    // The last write of all: once it has arrived, so has everything before it.
    put(&client, item(ITEMS + 1, 1)).await;
    let expected = table(&client).await;
    let last = key_text(ITEMS + 1);
    let in_lake = |it: &Cluster| lake::latest(&it.folder().join("lake"), TABLE);
    cluster.until("the last write is delivered", |it| in_lake(it).contains_key(&last)).await;
    compare("lake", &expected, &in_lake(&cluster));
    cluster.until("the last write is followed", |_| feed(&followed).contains_key(&last)).await;
    drop(follower);
    compare("feed", &expected, &feed(&followed));
    // The owner's spool is lost with it, the source's history is not.
    let gaps = cluster.gaps(TABLE);
    assert!(gaps.iter().all(|gap| gap["kind"] == "spool-lost"), "{gaps:?}");
}

/// How many shards the table's stream has, or had within its day.
async fn stream_shards(endpoint: &str) -> usize {
    let config = aws_sdk_dynamodbstreams::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "test"))
        .endpoint_url(endpoint)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    let streams = aws_sdk_dynamodbstreams::Client::from_conf(config);
    let call = streams.list_streams().table_name(TABLE);
    let listed = insist(|| call.clone().send()).await;
    let stream = listed.streams()[0].stream_arn().unwrap().to_owned();
    let call = streams.describe_stream().stream_arn(stream);
    let described = insist(|| call.clone().send()).await;
    described.stream_description.unwrap().shards().len()
}

/// Of the server at this endpoint.
pub(crate) fn client(endpoint: &str) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "test"))
        .endpoint_url(endpoint)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

pub(crate) fn spec(cluster: &Cluster, endpoint: &str) -> String {
    format!(
        "name = \"{TABLE}\"\n\
         [source]\nkind = \"dynamodb\"\ntable = \"{TABLE}\"\nregion = \"us-east-1\"\n\
         endpoint = \"{endpoint}\"\naccess-key = \"local\"\nsecret-key = \"local\"\n\
         [[sink]]\nkind = \"lake\"\npath = \"{}\"\ndelay-ms = 1000\n\
         [snapshot]\nrows-per-second = 2500\n",
        cluster.folder().join("lake").display()
    )
}

pub(crate) async fn make_table(client: &Client) {
    let attribute = |name: &str, kind| {
        AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap()
    };
    let key = |name: &str, kind| {
        KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap()
    };
    let stream = StreamSpecification::builder()
        .stream_enabled(true)
        .stream_view_type(StreamViewType::NewAndOldImages)
        .build()
        .unwrap();
    client
        .create_table()
        .table_name(TABLE)
        .attribute_definitions(attribute("pk", ScalarAttributeType::S))
        .attribute_definitions(attribute("sk", ScalarAttributeType::N))
        .key_schema(key("pk", KeyType::Hash))
        .key_schema(key("sk", KeyType::Range))
        .billing_mode(BillingMode::PayPerRequest)
        .stream_specification(stream)
        .send()
        .await
        .unwrap();
}

pub(crate) fn item(number: u32, version: u32) -> Item {
    let text = |text: String| AttributeValue::S(text);
    let number_of = |text: String| AttributeValue::N(text);
    let list = vec![text(format!("a{version}")), number_of("-7".to_owned())];
    let map = HashMap::from([("inner".to_owned(), AttributeValue::L(list))]);
    HashMap::from([
        ("pk".to_owned(), text(format!("item-{number:06}"))),
        ("sk".to_owned(), number_of(number.to_string())),
        ("version".to_owned(), number_of(version.to_string())),
        (
            "exact".to_owned(),
            number_of(format!("12345678901234567890123456789.{:09}", version * 2 + 1)),
        ),
        ("tags".to_owned(), AttributeValue::Ss(vec!["blue".to_owned(), format!("v{version}")])),
        ("blob".to_owned(), AttributeValue::B(Blob::new(vec![0, 255, 7]))),
        ("flag".to_owned(), AttributeValue::Bool(version.is_multiple_of(2))),
        ("nothing".to_owned(), AttributeValue::Null(true)),
        ("nested".to_owned(), AttributeValue::M(map)),
    ])
}

pub(crate) fn key(number: u32) -> Item {
    item(number, 0).into_iter().filter(|(name, _)| name == "pk" || name == "sk").collect()
}

pub(crate) async fn load(client: &Client, items: u32) {
    let mut tasks = Vec::new();
    for lane in 0..4 {
        let client = client.clone();
        tasks.push(tokio::spawn(async move {
            let numbers: Vec<u32> = (0..items).filter(|number| number % 4 == lane).collect();
            for numbers in numbers.chunks(25) {
                load_some(&client, numbers).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

async fn load_some(client: &Client, numbers: &[u32]) {
    let puts = numbers.iter().map(|number| {
        let put = PutRequest::builder().set_item(Some(item(*number, 0)));
        WriteRequest::builder().put_request(put.build().unwrap()).build()
    });
    let call = client.batch_write_item().request_items(TABLE, puts.collect());
    let answer = insist(|| call.clone().send()).await;
    assert!(answer.unprocessed_items.unwrap_or_default().is_empty());
}

pub(crate) async fn put(client: &Client, item: Item) {
    let put =
        async || client.put_item().table_name(TABLE).set_item(Some(item.clone())).send().await;
    insist(put).await;
}

pub(crate) async fn delete(client: &Client, key: Item) {
    let delete =
        async || client.delete_item().table_name(TABLE).set_key(Some(key.clone())).send().await;
    insist(delete).await;
}

/// Repeats a call until the server takes it: its patience with a lock and with
/// an idle connection runs by its fast clock, so it gives up after some
/// milliseconds of ours. To do any of these calls twice changes nothing.
async fn insist<T, E, F>(call: impl Fn() -> F) -> T
where
    E: Debug,
    F: Future<Output = Result<T, SdkError<E>>>,
{
    for _ in 0..TRIES {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => {
                let gave_up = error.raw_response().is_some_and(|it| it.status().is_server_error());
                let hung_up = matches!(error, SdkError::DispatchFailure(_));
                assert!(gave_up || hung_up, "{error:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the server did not take it in {TRIES} tries");
}

/// Puts, deletes and transactions over this writer's own items, in turn.
async fn write(client: Client, writer: u32, stop: Arc<AtomicBool>) -> u32 {
    let mut version = 0;
    while !stop.load(Ordering::Relaxed) {
        version += 1;
        let number = (version * 37 * WRITERS + writer) % ITEMS;
        match version % 4 {
            0 => {
                delete(&client, key(number)).await;
            }
            1 => transact(&client, number, version).await,
            _ => put(&client, item(number, version)).await,
        }
    }
    version
}

async fn transact(client: &Client, number: u32, version: u32) {
    let put = Put::builder().table_name(TABLE).set_item(Some(item(number, version)));
    let other = (number + WRITERS) % ITEMS;
    let delete = Delete::builder().table_name(TABLE).set_key(Some(key(other)));
    let put = TransactWriteItem::builder().put(put.build().unwrap()).build();
    let delete = TransactWriteItem::builder().delete(delete.build().unwrap()).build();
    let items = vec![put, delete];
    let transact =
        async || client.transact_write_items().set_transact_items(Some(items.clone())).send().await;
    insist(transact).await;
}

/// The table as it is, by key, as the documented mapping to JSON has it.
pub(crate) async fn table(client: &Client) -> BTreeMap<String, Value> {
    let mut items = BTreeMap::new();
    let mut from = None;
    loop {
        let call = client.scan().table_name(TABLE).consistent_read(true);
        let call = call.set_exclusive_start_key(from);
        let page = insist(|| call.clone().send()).await;
        for item in page.items.unwrap_or_default() {
            let key = json!([value(&item["pk"]), value(&item["sk"])]).to_string();
            items.insert(key, value(&AttributeValue::M(item)));
        }
        from = page.last_evaluated_key;
        if from.is_none() {
            return items;
        }
    }
}

fn key_text(number: u32) -> String {
    json!([format!("item-{number:06}"), number]).to_string()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the SDK's enum may grow")]
fn value(attribute: &AttributeValue) -> Value {
    match attribute {
        AttributeValue::S(text) => json!(text),
        AttributeValue::N(text) => serde_json::from_str(text).unwrap(),
        AttributeValue::Bool(truth) => json!(truth),
        AttributeValue::Null(_) => Value::Null,
        // 0, 255, 7
        AttributeValue::B(_) => json!({"$binary": "AP8H"}),
        AttributeValue::L(list) => list.iter().map(value).collect(),
        AttributeValue::M(map) => map.iter().map(|(name, it)| (name.clone(), value(it))).collect(),
        AttributeValue::Ss(set) => {
            let mut set = set.clone();
            set.sort();
            json!({"$set:string": set})
        }
        other => panic!("this test writes no {other:?}"),
    }
}

/// The latest of each key in the feed; within an epoch a key's versions only
/// grow. A line still being written is left out.
fn feed(followed: &Path) -> BTreeMap<String, Value> {
    let mut state = BTreeMap::new();
    let mut versions: HashMap<(String, u64), u64> = HashMap::new();
    for change in changes(followed) {
        let key = change["key"].to_string();
        if change["operation"] == "delete" {
            state.remove(&key);
            continue;
        }
        let version = change["document"]["version"].as_u64().unwrap();
        if change["operation"] != "snapshot" {
            let last =
                versions.entry((key.clone(), change["epoch"].as_u64().unwrap())).or_default();
            assert!(version >= *last, "a key's changes are in order: {version} after {last}");
            *last = version;
        }
        state.insert(key, change["document"].clone());
    }
    state
}

fn compare(what: &str, expected: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>) {
    let missing: Vec<_> = expected.keys().filter(|key| !found.contains_key(*key)).take(3).collect();
    let extra: Vec<_> = found.keys().filter(|key| !expected.contains_key(*key)).take(3).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{what}: missing {missing:?}, extra {extra:?}");
    for (key, document) in expected {
        assert_eq!(document, &found[key], "{what}: {key}");
    }
}
