//! What cannot work is refused with its name and its remedy, and harms nothing
//! that works.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType, StreamSpecification, StreamViewType,
};
use serde_json::{Value, json};
use tidegate_proto::{Sequence, Token};
use tidegate_tests::cluster::{Cluster, alone};
use tidegate_tests::dynamodb_local::DynamoDbLocal;
use tidegate_tests::lake;
use tidegate_tests::ports::free_address;
use tokio::time::Instant;

use crate::dynamodb::client;
use crate::stage::{COLLECTION, Held, Stage, refused};

/// The CLI's exit codes.
const USAGE: i32 = 2;
const REFUSED: i32 = 3;

#[tokio::test]
async fn a_wrong_export_file_is_refused_with_the_remedy() {
    let _alone = alone().await;
    let cluster = Cluster::start(1).await;
    let not =
        |spec: &str, code, words: &[&str]| refused(&cluster.try_apply(spec, &[]), code, words);
    not("name = \"a\"\n[sauce]\n", REFUSED, &["sauce", "did you mean `source`?"]);
    let bad_name = "name = \"A b\"\n[source]\nkind = \"embedded\"\n";
    not(bad_name, REFUSED, &["name", "lower-case"]);
    let nowhere = format!("http://{}", free_address());
    let unreachable =
        format!("name = \"a\"\n[source]\nkind = \"embedded\"\nendpoint = \"{nowhere}\"\n");
    let words =
        ["1 of 1 check did not pass", &nowhere, "remedy: ", "tidegated documents", "--force"];
    not(&unreachable, USAGE, &words);
    let sink = "[[sink]]\nkind = \"lake\"\npath = \"/tmp/x\"\ntarget-file-byte = 1\n";
    let words = ["target-file-byte", "did you mean `target-file-bytes`?"];
    not(&format!("{unreachable}{sink}"), REFUSED, &words);
    assert_eq!(cluster.json(&["export", "list"])["exports"], json!([]));
    let missing = cluster.cli(&["feed", "tail", "nothing", "--until-now"]);
    refused(&missing, REFUSED, &["no export \"nothing\"", "there are: none"]);
}

/// For scripts a refused `apply` shows its checks as `plan` does.
#[tokio::test]
async fn a_table_that_cannot_be_exported_is_refused_and_keys_of_every_type_arrive() {
    let _alone = alone().await;
    let server = DynamoDbLocal::start().await;
    let client = client(server.endpoint());
    let cluster = Cluster::start(1).await;
    let expected = keys_of_every_type();
    for (table, keys) in &expected {
        make_table(&client, table, &keys[0].0, Some(StreamViewType::NewImage)).await;
        // One by the snapshot, the others by the stream.
        put(&client, table, &keys[0].0).await;
        cluster.apply(&spec(&cluster, server.endpoint(), table));
        for (key, _) in &keys[1..] {
            put(&client, table, key).await;
        }
    }
    let text = AttributeValue::S(String::new());
    make_table(&client, "keys-only", &text, Some(StreamViewType::KeysOnly)).await;
    make_table(&client, "streamless", &text, None).await;

    let nowhere = format!("http://{}", free_address());
    let not = |table: &str, endpoint: &str, words: &[&str]| {
        let output = cluster.try_apply(&spec(&cluster, endpoint, table), &[]);
        refused(&output, USAGE, words);
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = plan["checks"].as_array().unwrap();
        let failed = checks.iter().find(|check| check["passed"] == false).unwrap();
        assert!(!failed["remedy"].as_str().unwrap().is_empty(), "{plan}");
    };
    not("absent", server.endpoint(), &["table: ", "absent", "remedy: create the table"]);
    let words = ["stream: ", "KEYS_ONLY", "remedy: turn it off and on again: aws dynamodb"];
    not("keys-only", server.endpoint(), &words);
    not("streamless", server.endpoint(), &["is off", "remedy: turn it on: aws dynamodb"]);
    not("text", &nowhere, &["remedy: ", "check [source] endpoint"]);

    assert_eq!(cluster.json(&["export", "list"])["exports"].as_array().unwrap().len(), 3);
    for (table, keys) in &expected {
        let mut wanted: Vec<_> = keys.iter().map(|(_, json)| json.to_string()).collect();
        wanted.sort();
        let found = || lake::latest(&cluster.folder().join("lake"), table);
        cluster.until("all keys arrive", |_| found().len() >= wanted.len()).await;
        assert_eq!(found().into_keys().collect::<Vec<_>>(), wanted, "{table}");
    }
}

/// By table: keys of one type, each with the JSON it becomes.
fn keys_of_every_type() -> BTreeMap<&'static str, Vec<(AttributeValue, Value)>> {
    let text = |text: &str| (AttributeValue::S(text.to_owned()), json!(text));
    let number = |text: &str| {
        (AttributeValue::N(text.to_owned()), serde_json::from_str::<Value>(text).unwrap())
    };
    let bytes = |bytes: [u8; 3], base64: &str| {
        (AttributeValue::B(Blob::new(bytes)), json!({"$binary": base64}))
    };
    // As long as a partition key may be, and at its worst for an encoding.
    let long = "\0".repeat(2048);
    let digits = "12345678901234567890123456789012345678";
    BTreeMap::from([
        ("text", vec![text("a"), text("ключ 🗝"), text("nul\0nul"), text("\"\\\n"), text(&long)]),
        ("number", vec![number("0"), number("-1.5"), number(digits), number("0.001")]),
        ("bytes", vec![bytes([0, 255, 7], "AP8H"), bytes([255; 3], "////")]),
    ])
}

fn spec(cluster: &Cluster, endpoint: &str, table: &str) -> String {
    format!(
        "name = \"{table}\"\n\
         [source]\nkind = \"dynamodb\"\ntable = \"{table}\"\nregion = \"us-east-1\"\n\
         endpoint = \"{endpoint}\"\naccess-key = \"local\"\nsecret-key = \"local\"\n\
         [[sink]]\nkind = \"lake\"\npath = \"{}\"\ndelay-ms = 500\n",
        cluster.folder().join("lake").display()
    )
}

async fn make_table(
    client: &Client,
    table: &str,
    key: &AttributeValue,
    view: Option<StreamViewType>,
) {
    let kind = match (key.is_n(), key.is_b()) {
        (true, _) => ScalarAttributeType::N,
        (_, true) => ScalarAttributeType::B,
        _ => ScalarAttributeType::S,
    };
    let key = AttributeDefinition::builder().attribute_name("id").attribute_type(kind).build();
    let schema = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build();
    let stream = view.map(|view| {
        StreamSpecification::builder().stream_enabled(true).stream_view_type(view).build().unwrap()
    });
    let call = client.create_table().table_name(table).attribute_definitions(key.unwrap());
    let call = call.key_schema(schema.unwrap()).billing_mode(BillingMode::PayPerRequest);
    call.set_stream_specification(stream).send().await.unwrap();
}

async fn put(client: &Client, table: &str, key: &AttributeValue) {
    client.put_item().table_name(table).item("id", key.clone()).send().await.unwrap();
}

#[tokio::test]
async fn a_store_and_a_feed_say_why_they_refuse_and_odd_keys_arrive() {
    let _alone = alone().await;
    let stage = Stage::new(Cluster::start(1).await).await;
    let keys = ["plain", "ключ 🗝", "nul\0nul", "\"\\\n", &"k".repeat(1900)];
    let written = keys.map(|key| (key.to_owned(), "{\"n\":1}".to_owned()));
    stage.documents.write(COLLECTION, written).await.unwrap();
    stage.cluster.apply(&stage.spec("odd", 500));
    stage.cluster.apply(&stage.spec("other", 500));
    let expected: Held = keys.map(|key| (json!(key).to_string(), json!({"n": 1}))).into();
    stage.cluster.until("all keys arrive", |_| stage.lake("odd").len() >= keys.len()).await;
    assert_eq!(stage.lake("odd"), expected);

    refused_documents(&stage).await;
    refused_tokens(&stage);
    let tail = ["feed", "tail", "odd", "--until-now", "--collection", "itmes"];
    let nothing = stage.cluster.cli(&tail);
    assert!(nothing.status.success() && nothing.stdout.is_empty(), "{nothing:?}");
    let note = String::from_utf8_lossy(&nothing.stderr);
    assert!(note.contains("nothing matches --collection itmes at all: 5 changes"), "{note}");
    assert_eq!(stage.lake("odd"), expected, "what was delivered is there still");
}

async fn refused_documents(stage: &Stage) {
    let documents = &stage.documents;
    let write = |key: &str, json: String| documents.write(COLLECTION, [(key.to_owned(), json)]);
    let empty = write("", "{}".to_owned()).await.unwrap_err();
    assert!(empty.message().contains("the key is empty"), "{empty}");
    let long = write(&"k".repeat(9000), "{}".to_owned()).await.unwrap_err();
    assert!(long.message().contains("over the limit of"), "{long}");
    assert!(long.message().contains("shorten it"), "{long}");

    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(20 << 20));
    let words = "is over the limit of 16777216 bytes; split it";
    let refusal = write("large", large.clone()).await.unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::InvalidArgument);
    assert!(refusal.message().contains(words), "{refusal}");
    let file = stage.cluster.folder().join("large.json");
    std::fs::write(&file, large).unwrap();
    refused(&documents.cli(&["docs", "put", COLLECTION, "large", "-"], &file), REFUSED, &[words]);
    let import = documents.cli(&["docs", "import", COLLECTION, "-", "--key", "text"], &file);
    refused(&import, 1, &["line 1", "longer than 15 MiB"]);
    refused(
        &documents.cli(&["docs", "get", COLLECTION, "large"], &file),
        REFUSED,
        &["no document"],
    );
}

fn refused_tokens(stage: &Stage) {
    let tail = |arguments: &[&str]| {
        stage.cluster.cli(&[&["feed", "tail", "odd", "--until-now"], arguments].concat())
    };
    let end = |export: &str| {
        let output = stage.cluster.cli(&["feed", "tail", export, "--until-now"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.trim().strip_prefix("token: ").expect(&text).to_owned()
    };
    assert!(tail(&["--from", &end("odd")]).status.success(), "its own token is taken");
    let foreign = tail(&["--from", &end("other")]);
    refused(&foreign, REFUSED, &["the token is from export number", "use a token of this export"]);

    let mut token = Token::decode(&bytes(&end("odd"))).unwrap();
    token.sequences.values_mut().for_each(|at| *at = Sequence(at.0 + 1_000));
    let started = Instant::now();
    let ahead = tail(&["--from", &hex(&token.encode())]);
    refused(&ahead, REFUSED, &["is at sequence 1005", "ends at 5", "start from earliest"]);
    assert!(started.elapsed() < Duration::from_secs(20), "it is not tried again and again");
    token.cluster_id = "elsewhere".to_owned();
    refused(&tail(&["--from", &hex(&token.encode())]), REFUSED, &["from cluster elsewhere"]);
    refused(&tail(&["--from", &end("odd")[2..]]), USAGE, &["use earliest, latest, or a token"]);
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
