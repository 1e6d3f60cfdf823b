//! Against DynamoDB Local, the real jar.

#[allow(unreachable_pub, dead_code, reason = "shared with the crate of integration tests")]
#[path = "../../../../tests/src/dynamodb_local.rs"]
mod dynamodb_local;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, PutRequest,
    ScalarAttributeType, StreamSpecification, StreamViewType, WriteRequest,
};
use tidegate_proto::document::{self, Value};
use tidegate_proto::v1::GapKind;
use tidegate_proto::{BatchBuilder, content_hash};
use tokio::time::Instant;

use super::decode::{self, Item};
use super::*;
use crate::sources::contract::{
    any_position_resumes, pages_give_each_row_once, seen, writes_after_the_anchor_are_streamed,
};
use crate::sources::{Loss, Page};
use dynamodb_local::DynamoDbLocal;

const BATCH: usize = 256 << 10;
const WAIT: Duration = Duration::from_millis(20);

async fn open(server: &DynamoDbLocal, table: &str) -> Dynamodb {
    let config = toml::toml! {
        region = "eu-central-1"
        access-key = "key"
        secret-key = "secret"
        segments = 4
        poll-ms = 200
    };
    let mut config: toml::Table = config;
    config.insert("table".to_owned(), table.into());
    config.insert("endpoint".to_owned(), server.endpoint().into());
    Dynamodb::open(&crate::config::parse("[source]", config).unwrap()).await.unwrap()
}

async fn create(source: &Dynamodb, view: Option<StreamViewType>) {
    let key = AttributeDefinition::builder()
        .attribute_name("id")
        .attribute_type(ScalarAttributeType::S)
        .build();
    let schema = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build();
    let stream = view.map(|view| {
        StreamSpecification::builder().stream_enabled(true).stream_view_type(view).build().unwrap()
    });
    let asked = source.client.tables.create_table().table_name(&source.config.table);
    let asked = asked.attribute_definitions(key.unwrap()).key_schema(schema.unwrap());
    let asked = asked.billing_mode(BillingMode::PayPerRequest).set_stream_specification(stream);
    asked.send().await.unwrap();
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn number(text: &str) -> AttributeValue {
    AttributeValue::N(text.to_owned())
}

/// An item with every type there is.
fn item(id: usize, version: usize) -> Item {
    let inner = Item::from([("deep".to_owned(), AttributeValue::L(vec![number("1.10")]))]);
    let fields = [
        ("id", text(&format!("item-{id:06}"))),
        ("version", number(&version.to_string())),
        ("large", number("99999999999999999999999999999999999999")),
        ("tiny", number("1E-130")),
        ("empty", text("")),
        ("bytes", AttributeValue::B(Blob::new([0, 255]))),
        ("truth", AttributeValue::Bool(true)),
        ("nothing", AttributeValue::Null(true)),
        ("map", AttributeValue::M(inner)),
        ("list", AttributeValue::L(vec![text("x"), number("-5")])),
        ("texts", AttributeValue::Ss(vec!["b".to_owned(), "a".to_owned()])),
        ("numbers", AttributeValue::Ns(vec!["10".to_owned(), "9".to_owned()])),
        ("blobs", AttributeValue::Bs(vec![Blob::new([2]), Blob::new([1])])),
    ];
    fields.map(|(name, value)| (name.to_owned(), value)).into()
}

fn hash(item: Item) -> Vec<u8> {
    let encoded = decode::encode(item).unwrap();
    content_hash(&encoded.dictionary, &encoded.value).to_vec()
}

async fn put(source: &Dynamodb, id: usize, version: usize) {
    let asked = source.client.tables.put_item().table_name(&source.config.table);
    asked.set_item(Some(item(id, version))).send().await.unwrap();
}

async fn delete(source: &Dynamodb, id: usize) {
    let asked = source.client.tables.delete_item().table_name(&source.config.table);
    asked.key("id", text(&format!("item-{id:06}"))).send().await.unwrap();
}

async fn fill(source: &Dynamodb, ids: std::ops::Range<usize>) {
    for batch in ids.collect::<Vec<_>>().chunks(25) {
        let put = |id: &usize| {
            let request = PutRequest::builder().set_item(Some(item(*id, 0))).build().unwrap();
            WriteRequest::builder().put_request(request).build()
        };
        let requests: Vec<_> = batch.iter().map(put).collect();
        let asked = source.client.tables.batch_write_item();
        asked.request_items(&source.config.table, requests).send().await.unwrap();
    }
}

fn key(source: &Dynamodb, id: usize) -> Vec<u8> {
    let descriptor = Descriptor {
        table: String::new(),
        stream: String::new(),
        partition_key: "id".to_owned(),
        sort_key: None,
        segments: 1,
    };
    assert_eq!(source.config.segments, 4);
    decode::key(&item(id, 0), &descriptor).unwrap().as_bytes().to_vec()
}

async fn refusal(source: &Dynamodb) -> (ErrorKind, String) {
    let error = source.discover().await.unwrap_err();
    (error.kind(), error.to_string())
}

#[tokio::test]
async fn what_is_missing_is_named_with_its_remedy() {
    let server = DynamoDbLocal::start().await;
    let source = open(&server, "absent").await;
    let (kind, why) = refusal(&source).await;
    assert_eq!(kind, ErrorKind::Config);
    assert!(why.contains("absent") && why.contains("create the table"), "{why}");
    let checks = source.check().await;
    assert!(!checks[0].passed && checks[0].remedy.contains("create the table"), "{checks:?}");

    let source = open(&server, "streamless").await;
    create(&source, None).await;
    let (kind, why) = refusal(&source).await;
    assert_eq!(kind, ErrorKind::Config);
    let command = "aws dynamodb update-table --region eu-central-1 --table-name streamless \
                   --stream-specification StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES";
    assert!(why.contains(command), "{why}");
    let checks = source.check().await;
    let failed: Vec<_> = checks.iter().filter(|check| !check.passed).collect();
    assert_eq!((failed.len(), failed[0].name.as_str()), (1, "stream"), "{checks:?}");

    let source = open(&server, "keys").await;
    create(&source, Some(StreamViewType::KeysOnly)).await;
    let (kind, why) = refusal(&source).await;
    assert_eq!(kind, ErrorKind::Config);
    assert!(why.contains("KEYS_ONLY") && why.contains("StreamEnabled=false"), "{why}");

    let source = open(&server, "good").await;
    create(&source, Some(StreamViewType::NewImage)).await;
    let checks = source.check().await;
    assert!(checks.len() == 4 && checks.iter().all(|check| check.passed), "{checks:?}");
    drop(server);
    let (kind, why) = refusal(&source).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{why}");
    assert!(why.contains("endpoint"), "{why}");
}

#[tokio::test]
async fn the_contract_holds() {
    let server = DynamoDbLocal::start().await;
    let source = open(&server, "orders").await;
    create(&source, Some(StreamViewType::NewAndOldImages)).await;
    fill(&source, 0..2_500).await;
    let shard = source.discover().await.unwrap().remove(0);
    let anchor = source.anchor(&shard).await.unwrap();
    any_position_resumes(&source, &shard, &anchor.position).await;
    let rows = pages_give_each_row_once(&source, &shard, anchor.chunks).await;
    let wanted: BTreeMap<_, _> =
        (0..2_500).map(|id| (key(&source, id), hash(item(id, 0)))).collect();
    assert_eq!(rows, wanted);
    let write = || async {
        put(&source, 1000, 0).await;
        delete(&source, 5).await;
    };
    let keys: BTreeSet<_> = [key(&source, 1000), key(&source, 5)].into();
    writes_after_the_anchor_are_streamed(&source, &shard, write, &keys).await;
}

/// What an export does, in small: the stream, the snapshot, and rule A.
struct Export<'a> {
    source: &'a Dynamodb,
    shard: ShardSpec,
    stream: Box<dyn ChangeStream>,
    position: bytes::Bytes,
    /// Chunks to read, the one being read first.
    chunks: VecDeque<Box<dyn ChunkReader>>,
    held: Option<(BatchBuilder, Page)>,
    touched: HashSet<Vec<u8>>,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    changes: usize,
    losses: Vec<Loss>,
}

impl<'a> Export<'a> {
    async fn start(source: &'a Dynamodb) -> Self {
        let shard = source.discover().await.unwrap().remove(0);
        let anchor = source.anchor(&shard).await.unwrap();
        let mut chunks = VecDeque::new();
        for chunk in 0..anchor.chunks {
            chunks.push_back(source.chunk(&shard, chunk, &[]).await.unwrap());
        }
        Self {
            stream: source.stream(&shard, &anchor.position).await.unwrap(),
            position: anchor.position,
            source,
            shard,
            chunks,
            held: None,
            touched: HashSet::new(),
            rows: BTreeMap::new(),
            changes: 0,
            losses: Vec::new(),
        }
    }

    async fn reopen(&mut self) {
        self.stream = self.source.stream(&self.shard, &self.position).await.unwrap();
    }

    /// Reads the stream once, and takes or reads a page.
    async fn step(&mut self) {
        let mut out = BatchBuilder::default();
        let read = self.stream.read(&mut out, BATCH, WAIT).await.unwrap();
        self.losses.extend(read.losses);
        if !read.position.is_empty() {
            self.position = read.position;
        }
        for change in seen(&out) {
            self.changes += 1;
            self.touched.insert(change.key.clone());
            match change.hash.is_empty() {
                true => drop(self.rows.remove(&change.key)),
                false => drop(self.rows.insert(change.key, change.hash)),
            }
        }
        match self.held.take() {
            Some((rows, page)) if self.stream.passed(&page.seen) => {
                for row in seen(&rows).into_iter().filter(|row| !self.touched.contains(&row.key)) {
                    self.rows.insert(row.key, row.hash);
                }
                if page.done {
                    self.chunks.pop_front();
                }
            }
            Some(held) => self.held = Some(held),
            None => {
                if let Some(chunk) = self.chunks.front_mut() {
                    let mut rows = BatchBuilder::default();
                    let page = chunk.page(&mut rows, 64 << 10).await.unwrap();
                    self.held = Some((rows, page));
                }
            }
        }
    }

    async fn until(&mut self, wanted: &BTreeMap<Vec<u8>, Vec<u8>>, limit: Duration) {
        let started = Instant::now();
        while !self.chunks.is_empty() || self.rows != *wanted {
            let (have, left) = (self.rows.len(), self.chunks.len());
            assert!(
                started.elapsed() < limit,
                "{have} of {} rows after {} changes, {left} chunks left",
                wanted.len(),
                self.changes
            );
            self.step().await;
        }
    }
}

/// METHOD 5,000 items; while they are scanned, every third is written again and
/// every seventh deleted. In the end the export must hold what the table does.
#[tokio::test]
async fn an_export_ends_with_what_the_table_holds() {
    let server = DynamoDbLocal::start().await;
    let source = open(&server, "orders").await;
    create(&source, Some(StreamViewType::NewAndOldImages)).await;
    fill(&source, 0..5_000).await;
    let mut export = Export::start(&source).await;
    let writes = async {
        for id in (0..5_000).step_by(21) {
            put(&source, id, 1).await;
            put(&source, id + 1, 1).await;
            delete(&source, id + 2).await;
            put(&source, id, 2).await;
        }
    };
    let mut wanted: BTreeMap<_, _> =
        (0..5_000).map(|id| (key(&source, id), hash(item(id, 0)))).collect();
    for id in (0..5_000).step_by(21) {
        wanted.insert(key(&source, id), hash(item(id, 2)));
        wanted.insert(key(&source, id + 1), hash(item(id + 1, 1)));
        wanted.remove(&key(&source, id + 2));
    }
    let reads = export.until(&wanted, Duration::from_secs(120));
    tokio::join!(writes, reads);
    assert_eq!(export.losses, []);
    let left_ms = export.stream.kept_until_ms().unwrap() - clock::now_ms();
    let hours = 3_600_000;
    assert!((23 * hours..=24 * hours).contains(&left_ms), "{left_ms} ms are left of a day");
    let pages_alone = pages_give_each_row_once(&source, &export.shard, 4).await;
    assert_eq!(export.rows, pages_alone, "as a scan of the table at rest has it");
}

#[tokio::test]
async fn every_type_comes_through_the_stream_as_it_does_through_the_scan() {
    let server = DynamoDbLocal::start().await;
    let source = open(&server, "types").await;
    create(&source, Some(StreamViewType::NewAndOldImages)).await;
    let shard = source.discover().await.unwrap().remove(0);
    let anchor = source.anchor(&shard).await.unwrap();
    put(&source, 1, 0).await;
    put(&source, 1, 1).await;
    delete(&source, 1).await;
    let mut stream = source.stream(&shard, &anchor.position).await.unwrap();
    let (mut out, started) = (BatchBuilder::default(), Instant::now());
    while out.len() < 3 && started.elapsed() < Duration::from_secs(10) {
        stream.read(&mut out, BATCH, WAIT).await.unwrap();
    }
    let frame = out.encode(tidegate_proto::Stamp::default(), tidegate_proto::Codec::None);
    let batch = frame.decode().unwrap();
    let operations: Vec<i32> = batch.changes.iter().map(|change| change.operation).collect();
    use tidegate_proto::v1::Operation::{Delete, Insert, Update};
    assert_eq!(operations, [Insert, Update, Delete].map(i32::from));
    assert!(batch.changes.iter().all(|change| change.committed_ms > 1_600_000_000_000));
    assert_eq!(batch.changes[1].content_hash, hash(item(1, 1)));
    assert_eq!(batch.changes[2].before, batch.changes[1].document);
    let update = &batch.changes[1];
    let dictionary = &batch.dictionaries[usize::try_from(update.dictionary).unwrap()];
    let Value::Object(fields) = document::decode(dictionary, &update.document).unwrap() else {
        panic!("an item is an object")
    };
    let field = |name: &str| &fields.iter().find(|(field, _)| field == name).unwrap().1;
    let nines = 99_999_999_999_999_999_999_999_999_999_999_999_999;
    assert_eq!(*field("large"), Value::Decimal { unscaled: nines, scale: 0 });
    assert_eq!(*field("version"), Value::Int(1));
    assert_eq!(*field("bytes"), Value::Binary(vec![0, 255]));
    assert_eq!(*field("empty"), Value::String(String::new()));
    assert!(matches!(field("tiny"), Value::Object(tagged) if tagged[0].0 == "$number"));
}

#[tokio::test]
async fn a_recreated_table_is_a_recorded_loss_and_is_read_on() {
    let server = DynamoDbLocal::start().await;
    let source = open(&server, "orders").await;
    create(&source, Some(StreamViewType::NewImage)).await;
    put(&source, 1, 0).await;
    let mut export = Export::start(&source).await;
    let wanted = BTreeMap::from([(key(&source, 1), hash(item(1, 0)))]);
    export.until(&wanted, Duration::from_secs(20)).await;
    let asked = source.client.tables.delete_table().table_name("orders");
    asked.send().await.unwrap();
    create(&source, Some(StreamViewType::NewImage)).await;
    put(&source, 2, 0).await;
    export.reopen().await;
    let started = Instant::now();
    while !export.rows.contains_key(&key(&source, 2)) {
        assert!(started.elapsed() < Duration::from_secs(60), "the new stream is not read");
        export.step().await;
    }
    let kinds: Vec<GapKind> = export.losses.iter().map(|loss| loss.kind).collect();
    assert_eq!(kinds, [GapKind::Recreated]);
}

/// METHOD A second is ten minutes, so stream shards roll every 24 seconds. One
/// item is written again and again for two and a half shards, most of it before
/// anything is read; every version must come, in order, with the stream opened
/// anew in between.
#[tokio::test]
async fn order_holds_while_stream_shards_roll() {
    let server = DynamoDbLocal::start_fast(600).await;
    let source = open(&server, "rolling").await;
    create(&source, Some(StreamViewType::NewImage)).await;
    let shard = source.discover().await.unwrap().remove(0);
    let anchor = source.anchor(&shard).await.unwrap();
    let (mut written, mut versions, mut position) = (0, Vec::new(), anchor.position.clone());
    let mut stream = source.stream(&shard, &position).await.unwrap();
    let (mut out, started) = (BatchBuilder::default(), Instant::now());
    while started.elapsed() < Duration::from_secs(50) {
        put(&source, 1, written).await;
        written += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut reopened = Instant::now();
    while started.elapsed() < Duration::from_secs(70) || versions.len() < written {
        let have = versions.len();
        assert!(started.elapsed() < Duration::from_secs(100), "{have} of {written} versions");
        if started.elapsed() < Duration::from_secs(65) {
            put(&source, 1, written).await;
            written += 1;
        }
        out.clear();
        let read = stream.read(&mut out, BATCH, Duration::from_millis(100)).await.unwrap();
        assert_eq!(read.losses, []);
        versions.extend(seen(&out).into_iter().map(|change| change.hash));
        if !read.position.is_empty() {
            position = read.position;
        }
        if reopened.elapsed() > Duration::from_secs(3) {
            reopened = Instant::now();
            stream = source.stream(&shard, &position).await.unwrap();
        }
    }
    let wanted: Vec<_> = (0..written).map(|version| hash(item(1, version))).collect();
    assert_eq!(versions, wanted);
    let places = Position::decode(&position).unwrap().lineage.places().len();
    assert!(places >= 3, "stream shards have rolled: {places} are known");
}

/// METHOD A second is an hour, so stream shards roll every 4 seconds and records
/// are trimmed after 24. A position from before that must not be resumed without
/// a word.
#[tokio::test]
async fn what_was_trimmed_is_a_recorded_loss_and_the_rest_is_read() {
    let server = DynamoDbLocal::start_fast(3600).await;
    let source = open(&server, "trimmed").await;
    create(&source, Some(StreamViewType::NewImage)).await;
    put(&source, 1, 0).await;
    let mut export = Export::start(&source).await;
    let wanted = BTreeMap::from([(key(&source, 1), hash(item(1, 0)))]);
    export.until(&wanted, Duration::from_secs(20)).await;
    let (started, mut version) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(28) {
        version += 1;
        put(&source, 1, version).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    export.reopen().await;
    let wanted = BTreeMap::from([(key(&source, 1), hash(item(1, version)))]);
    export.until(&wanted, Duration::from_secs(20)).await;
    assert!(!export.losses.is_empty(), "records were trimmed and nobody says so");
    let lost = [GapKind::Trimmed, GapKind::Vanished];
    assert!(export.losses.iter().all(|loss| lost.contains(&loss.kind)), "{:?}", export.losses);
    let read = export.changes;
    assert!(read > 2 && read < version, "{read} of {version} changes were left to read");
}
