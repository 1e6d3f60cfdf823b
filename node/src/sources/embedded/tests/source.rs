//! The source, over gRPC on loopback: the contract, and what is its own.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use tidegate_proto::BatchBuilder;
use tidegate_proto::document::content_hash;
use tidegate_proto::v1::ShardSpec;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use super::*;
use crate::error::ErrorKind;
use crate::sources::contract::{
    Seen, any_position_resumes, capture, pages_give_each_row_once, seen,
    writes_after_the_anchor_are_streamed,
};
use crate::sources::embedded::chunk::key_of;
use crate::sources::{ChunkReader, Source};

/// A store that is served for as long as this lives.
struct Served {
    _dir: TempDir,
    store: Arc<Store>,
    endpoint: String,
    server: JoinHandle<()>,
}

impl Served {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let store = Arc::new(Store::open(options(&dir)).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let service = DocumentsService::new(Arc::clone(&store)).into_server();
        let incoming = TcpListenerStream::new(listener);
        let server = async move {
            let server = Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
        };
        Self { _dir: dir, store, endpoint, server: tokio::spawn(server) }
    }

    fn source(&self, shards: u32) -> Embedded {
        Embedded::open(&EmbeddedConfig { endpoint: self.endpoint.clone(), shards }).unwrap()
    }

    /// Rows `from..upto` of some 8 KiB each, so that a page is soon full.
    async fn fill(&self, rows: std::ops::Range<i64>) {
        for n in rows {
            let write = Write { document: Some(wide(n)), ..put("c", &format!("k{n:04}"), n) };
            self.store.write(vec![write]).await.unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn wide(n: i64) -> Encoded {
    let pad = Value::String("p".repeat(8_000));
    encode(&Value::Object(vec![("n".to_owned(), Value::Int(n)), ("pad".to_owned(), pad)])).unwrap()
}

fn row(n: i64) -> (Vec<u8>, Vec<u8>) {
    let (key, document) = (key(&format!("k{n:04}")), wide(n));
    (key, content_hash(&document.dictionary, &document.value).to_vec())
}

fn key(text: &str) -> Vec<u8> {
    key_of(text).unwrap().as_bytes().to_vec()
}

async fn only_shard(source: &Embedded) -> ShardSpec {
    source.discover().await.unwrap().swap_remove(0)
}

#[tokio::test]
async fn the_contract_holds() {
    let served = Served::start().await;
    let source = served.source(1);
    let shard = only_shard(&source).await;
    let anchor = source.anchor(&shard).await.unwrap();
    served.fill(0..300).await;
    served.fill(0..30).await;
    any_position_resumes(&source, &shard, &anchor.position).await;
    let rows = pages_give_each_row_once(&source, &shard, anchor.chunks).await;
    assert_eq!(rows, (0..300).map(row).collect::<BTreeMap<_, _>>());
    let write = || async {
        served.fill(500..502).await;
        served.store.write(vec![delete("c", "k0007")]).await.unwrap();
    };
    let keys: BTreeSet<_> = ["k0500", "k0501", "k0007"].map(key).into();
    writes_after_the_anchor_are_streamed(&source, &shard, write, &keys).await;
}

#[tokio::test]
async fn shards_hold_the_contract_each_and_the_store_together() {
    let served = Served::start().await;
    let source = served.source(3);
    let shards = source.discover().await.unwrap();
    assert_eq!(shards.len(), 3);
    let mut anchors = Vec::new();
    for shard in &shards {
        anchors.push(source.anchor(shard).await.unwrap());
    }
    served.fill(0..300).await;
    let (mut rows, mut streamed) = (BTreeMap::new(), Vec::new());
    for (shard, anchor) in shards.iter().zip(&anchors) {
        any_position_resumes(&source, shard, &anchor.position).await;
        rows.extend(pages_give_each_row_once(&source, shard, anchor.chunks).await);
        let mut stream = source.stream(shard, &anchor.position).await.unwrap();
        streamed.extend(capture(&mut *stream, 1_000).await.unwrap().changes);
    }
    assert_eq!(rows, (0..300).map(row).collect::<BTreeMap<_, _>>());
    let streamed: Vec<_> = streamed.into_iter().map(|change| (change.key, change.hash)).collect();
    assert_eq!(streamed.len(), 300, "no change is in two shards");
    assert_eq!(streamed.into_iter().collect::<BTreeMap<_, _>>(), rows);
}

/// The pages of a chunk: where each says it was read, and its rows.
async fn pages_of(reader: &mut dyn ChunkReader) -> Vec<(bytes::Bytes, Vec<Seen>)> {
    let (mut pages, mut done) = (Vec::new(), false);
    while !done {
        let mut rows = BatchBuilder::default();
        let page = reader.page(&mut rows, 1).await.unwrap();
        done = page.done;
        pages.push((page.seen, seen(&rows)));
    }
    pages
}

/// METHOD: writers race with a reader of the snapshot; each row must be as the
/// stream has it at the position the page names, not older and not newer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_shows_the_store_as_it_was_at_its_position() {
    let served = Served::start().await;
    let source = served.source(1);
    let shard = only_shard(&source).await;
    let anchor = source.anchor(&shard).await.unwrap();
    served.fill(0..100).await;
    let store = Arc::clone(&served.store);
    let writer = tokio::spawn(async move {
        for n in 0..400 {
            store.write(vec![put("c", &format!("k{:04}", n % 100), n)]).await.unwrap();
        }
    });
    let mut pages = Vec::new();
    for chunk in 0..anchor.chunks {
        let mut reader = source.chunk(&shard, chunk, &[]).await.unwrap();
        pages.extend(pages_of(&mut *reader).await);
    }
    writer.await.unwrap();
    let log = changes(&DocumentsService::new(Arc::clone(&served.store)), (0, 64), 0).await;
    let log = read_upto(log.unwrap(), 500).await;
    for (position, rows) in pages {
        let revision = client::Position::decode(&position).unwrap().revision;
        for found in rows {
            let of_key = |change: &&DocumentChange| key(&change.key) == found.key;
            let upto = log.iter().filter(|change| change.revision <= revision);
            let last = upto.filter(of_key).last().unwrap().document.as_ref().unwrap();
            assert_eq!(found.hash, content_hash(&last.dictionary, &last.value), "at {revision}");
        }
    }
}

async fn refusal<T>(outcome: impl Future<Output = crate::error::Result<T>>) -> (ErrorKind, String) {
    let Err(error) = outcome.await else { panic!("it is refused") };
    (error.kind(), error.to_string())
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_remedy() {
    let served = Served::start().await;
    let source = served.source(1);
    let shard = only_shard(&source).await;
    let anchor = source.anchor(&shard).await.unwrap();
    assert!(source.check().await.iter().all(|check| check.passed));

    let (kind, why) = refusal(served.source(65).discover()).await;
    assert_eq!(kind, ErrorKind::Config);
    assert!(why.contains("65") && why.contains("64 slots"), "{why}");

    let other = Served::start().await;
    let (kind, why) = refusal(other.source(1).stream(&shard, &anchor.position)).await;
    assert_eq!(kind, ErrorKind::Gone);
    assert!(why.contains("made anew"), "{why}");

    let (endpoint, store) = (served.endpoint.clone(), served.store.describe().store_id);
    let ahead = format!("{store}:9");
    let (kind, _) = refusal(source.stream(&shard, ahead.as_bytes())).await;
    assert_eq!(kind, ErrorKind::Gone, "the store was set back");
    let (kind, _) = refusal(source.stream(&shard, b"nonsense")).await;
    assert_eq!(kind, ErrorKind::Corrupt);

    drop(served);
    let source = Embedded::open(&EmbeddedConfig { endpoint, shards: 1 }).unwrap();
    let (kind, _) = refusal(source.discover()).await;
    assert_eq!(kind, ErrorKind::Unavailable);
    let checks = source.check().await;
    assert!(!checks[0].passed && checks[0].remedy.contains("tidegated documents"), "{checks:?}");
    let bad = EmbeddedConfig { endpoint: "no endpoint".to_owned(), shards: 1 };
    assert_eq!(Embedded::open(&bad).unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn fields_that_look_like_tags_come_through_as_they_were_put() {
    let served = Served::start().await;
    let source = served.source(1);
    let shard = only_shard(&source).await;
    let anchor = source.anchor(&shard).await.unwrap();
    let service = DocumentsService::new(Arc::clone(&served.store));
    let names = ["$number", "$set:string", "$set:number", "$set:binary"];
    let names = names.into_iter().chain(["$binary", "$timestamp", "$double", "$other"]);
    for name in names {
        // As the documentation of tags says; beside another field it needs no help.
        let alone = if name == "$other" { name.to_owned() } else { format!("${name}") };
        let own = format!(r#"{{"beside":{{"{name}":2,"a":1}},"in":{{"{alone}":"x"}}}}"#);
        write(&service, json("c", name, &own)).await.unwrap();
        let top = format!(r#"{{"{alone}":[1]}}"#);
        write(&service, json("top", &format!("top {name}"), &top)).await.unwrap();
        for (collection, key, put) in
            [("c", name.to_owned(), own), ("top", format!("top {name}"), top)]
        {
            let (collection, as_json) = (collection.to_owned(), true);
            let asked = GetRequest { collection, key, as_json };
            let got = service.get(Request::new(asked)).await.unwrap().into_inner();
            assert_eq!(got.document.unwrap().json, put);
        }
    }
    let rows = pages_give_each_row_once(&source, &shard, anchor.chunks).await;
    let mut stream = source.stream(&shard, &anchor.position).await.unwrap();
    let streamed = capture(&mut *stream, 16).await.unwrap().changes;
    let streamed: BTreeMap<_, _> = streamed.into_iter().map(|one| (one.key, one.hash)).collect();
    assert_eq!((rows.len(), rows), (16, streamed));
}

#[tokio::test]
async fn a_tag_put_with_what_it_cannot_hold_is_refused_with_the_way_out() {
    let dir = TempDir::new().unwrap();
    let service = service(&dir);
    for name in ["$number", "$set:string", "$binary", "$timestamp", "$double"] {
        let status = write(&service, json("c", "k", &format!(r#"{{"f":{{"{name}":{{}}}}}}"#)));
        let status = status.await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}");
        assert!(status.message().contains(&format!("${name}")), "{status}");
    }
}
