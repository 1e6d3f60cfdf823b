use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use proptest::prelude::*;
use tempfile::TempDir;
use tidegate_proto::document::{Encoded, Value, encode};
use tidegate_proto::v1::document_write::Kind;
use tidegate_proto::v1::documents_server::Documents as _;
use tidegate_proto::v1::{
    ChangesRequest, ChangesResponse, DocumentChange, DocumentWrite, GetRequest, ScanRequest,
    ScanResponse, SlotRange, StoredDocument, WriteRequest,
};
use tokio::time::timeout;
use tonic::{Code, Request, Status};

use super::*;

mod source;

const SOON: Duration = Duration::from_secs(20);

fn options(dir: &TempDir) -> StoreOptions {
    StoreOptions::new(dir.path(), || 1_700_000_000_000)
}

fn service(dir: &TempDir) -> DocumentsService {
    DocumentsService::new(Arc::new(Store::open(options(dir)).unwrap()))
}

fn document(n: i64) -> Encoded {
    encode(&Value::Object(vec![("n".to_owned(), Value::Int(n))])).unwrap()
}

fn put(collection: &str, key: &str, n: i64) -> Write {
    Write {
        collection: collection.to_owned(),
        key: key.to_owned(),
        document: Some(document(n)),
        if_revision: None,
    }
}

fn delete(collection: &str, key: &str) -> Write {
    Write { document: None, ..put(collection, key, 0) }
}

fn only_if(revision: u64, write: Write) -> Write {
    Write { if_revision: Some(Revision(revision)), ..write }
}

fn json(collection: &str, key: &str, json: &str) -> DocumentWrite {
    DocumentWrite {
        collection: collection.to_owned(),
        key: key.to_owned(),
        kind: Some(Kind::Json(json.to_owned().into())),
        if_revision: None,
    }
}

async fn write(service: &DocumentsService, write: DocumentWrite) -> Result<u64, Status> {
    let request = Request::new(WriteRequest { writes: vec![write] });
    Ok(service.write(request).await?.into_inner().revision)
}

async fn get(store: &Store, collection: &str, key: &str) -> Option<StoredDocument> {
    store.get(collection.to_owned(), key.to_owned()).await.unwrap()
}

async fn changes(
    service: &DocumentsService,
    (from, upto): (u32, u32),
    after: u64,
) -> Result<impl Stream<Item = Result<ChangesResponse, Status>> + Unpin + use<>, Status> {
    let slots = Some(SlotRange { from, upto });
    Ok(service.changes(Request::new(ChangesRequest { slots, after })).await?.into_inner())
}

/// Reads until all changes up to `upto` have come.
async fn read_upto(
    mut stream: impl Stream<Item = Result<ChangesResponse, Status>> + Unpin,
    upto: u64,
) -> Vec<DocumentChange> {
    let (mut all, mut told) = (Vec::new(), 0);
    while told < upto {
        let page = timeout(SOON, stream.next()).await.unwrap().unwrap().unwrap();
        assert!(page.revision > told, "every response brings its reader on");
        assert!(page.changes.iter().all(|change| change.revision <= page.revision));
        told = page.revision;
        all.extend(page.changes);
    }
    all
}

async fn scan(service: &DocumentsService, request: ScanRequest) -> Vec<ScanResponse> {
    let pages = service.scan(Request::new(request)).await.unwrap().into_inner();
    pages.try_collect().await.unwrap()
}

#[tokio::test]
async fn a_document_is_put_read_replaced_and_deleted() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    assert_eq!(store.write(vec![put("a", "k", 1)]).await, Ok(Revision(1)));
    assert_eq!(store.write(vec![put("a", "k", 2)]).await, Ok(Revision(2)));
    let found = get(&store, "a", "k").await.unwrap();
    assert_eq!((found.revision, found.written_ms), (2, 1_700_000_000_000));
    assert_eq!(found.document.unwrap().value, document(2).value);
    assert_eq!(get(&store, "ak", "").await, None);
    assert_eq!(store.write(vec![delete("a", "k")]).await, Ok(Revision(3)));
    assert_eq!(get(&store, "a", "k").await, None);
    assert_eq!(store.write(vec![delete("a", "k")]).await, Ok(Revision(3)), "no change");
    assert_eq!(store.write(vec![]).await, Ok(Revision(3)));
}

#[tokio::test]
async fn a_refused_write_refuses_its_whole_request_and_no_other() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    store.write(vec![put("a", "k", 1)]).await.unwrap();
    let refused = vec![put("a", "new", 1), only_if(7, put("orders", "secret", 2))];
    let others = vec![only_if(1, put("a", "k", 3)), only_if(2, put("a", "k", 4))];
    let (refused, others) = tokio::join!(store.write(refused), store.write(others));
    let error = refused.unwrap_err();
    assert_eq!(error, StoreError::Precondition { collection: "orders".to_owned(), index: 1 });
    let status = Status::from(error);
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(!status.message().contains("secret"), "{status}");
    assert_eq!(others, Ok(Revision(3)), "a request sees its own writes");
    assert_eq!(get(&store, "a", "new").await, None);
    assert_eq!(store.count(String::new()).await.unwrap().documents, 1);

    let fresh = |revision| vec![only_if(revision, put("a", "fresh", 1))];
    assert!(store.write(fresh(1)).await.is_err());
    assert_eq!(store.write(fresh(0)).await, Ok(Revision(4)));
    assert!(store.write(fresh(0)).await.is_err());
    assert!(store.write(vec![only_if(3, delete("a", "fresh"))]).await.is_err());
    assert_eq!(store.write(vec![only_if(4, delete("a", "fresh"))]).await, Ok(Revision(5)));
}

/// METHOD: requests that wait for the same fsync are one commit; each must see
/// the ones before it there, or more than one of them would be the first.
#[tokio::test]
async fn of_many_that_make_the_same_document_one_succeeds() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    for round in 0..5 {
        let key = format!("k{round}");
        let attempts = (0..20).map(|n| store.write(vec![only_if(0, put("c", &key, n))]));
        let written = futures::future::join_all(attempts).await;
        assert_eq!(written.iter().filter(|one| one.is_ok()).count(), 1, "{written:?}");
    }
    assert_eq!(store.describe().revision, 5);
    assert_eq!(store.count("c".to_owned()).await.unwrap().documents, 5);
}

#[tokio::test]
async fn json_is_taken_exactly_and_given_back() {
    let dir = TempDir::new().unwrap();
    let service = service(&dir);
    let text = r#"{"b":1.10,"a":{"$binary":"AQI="},"n":12345678901234567890.5}"#;
    assert_eq!(write(&service, json("c", "k", text)).await.unwrap(), 1);
    let asked = GetRequest { collection: "c".to_owned(), key: "k".to_owned(), as_json: true };
    let found = service.get(Request::new(asked)).await.unwrap().into_inner();
    let kept = r#"{"a":{"$binary":"AQI="},"b":1.1,"n":12345678901234567890.5}"#;
    assert_eq!(&found.document.as_ref().unwrap().json[..], kept.as_bytes());
    assert_eq!(found.document.unwrap().document, None);
    // The same document as Variant with a dictionary in another order.
    let theirs = [&[0x01, 2, 0, 1, 2, b'z', b'n'][..], &[0x02, 1, 1, 0, 2, 0x0c, 5]];
    let given = tidegate_proto::v1::EncodedDocument {
        dictionary: theirs[0].to_vec().into(),
        value: theirs[1].to_vec().into(),
    };
    let kind = Some(Kind::Document(given));
    write(&service, DocumentWrite { kind, ..json("c", "v", "") }).await.unwrap();
    let stored = service.scan(Request::new(ScanRequest::default())).await.unwrap().into_inner();
    let pages: Vec<_> = stored.try_collect().await.unwrap();
    let stored = pages[0].documents.iter().find(|one| one.key == "v").unwrap();
    let stored = stored.document.clone().unwrap();
    assert_eq!(
        (&stored.dictionary[..], &stored.value[..]),
        (&document(5).dictionary[..], &document(5).value[..])
    );
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_with_its_place_and_limit() {
    let dir = TempDir::new().unwrap();
    let service = service(&dir);
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(20 << 20));
    let wrong = [
        (json("c", "k", &large), "16777216"),
        (json("c", "k", "[1]"), "not an object"),
        (json("c", "k", "{secret"), "not a JSON document"),
        (json("", "k", "{}"), "collection"),
        (json("c", "", "{}"), "key"),
        (json("c", &"k".repeat(8192), "{}"), "8192"),
        (DocumentWrite { kind: None, ..json("c", "k", "") }, "delete"),
    ];
    for (one, word) in wrong {
        let status = write(&service, one).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().starts_with("write 0: "), "{status}");
        assert!(status.message().contains(word), "{status}");
        assert!(!status.message().contains("secret"), "{status}");
    }
    let slots = Some(SlotRange { from: 5, upto: 5 });
    let asked = ScanRequest { slots, ..ScanRequest::default() };
    let status = service.scan(Request::new(asked)).await.err().unwrap();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_scan_sees_each_document_once_however_it_is_cut() {
    let dir = TempDir::new().unwrap();
    let service = service(&dir);
    let text = format!(r#"{{"pad":"{}"}}"#, "p".repeat(900));
    for collection in ["a", "ab", "b"] {
        let writes = (0..400).map(|n| json(collection, &format!("{n}"), &text)).collect();
        service.write(Request::new(WriteRequest { writes })).await.unwrap();
    }
    let whole = scan(&service, ScanRequest::default()).await;
    assert!(whole.len() >= 4, "pages end after some 256 KiB");
    assert!(whole.iter().all(|page| page.revision == 1200));
    let name = |one: &StoredDocument| (one.collection.clone(), one.key.clone());
    let all: Vec<_> = whole.iter().flat_map(|page| &page.documents).map(name).collect();
    assert_eq!(all.len(), 1200);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 1200);

    let (mut parts, mut calls) = (Vec::new(), 0);
    for (from, upto) in [(0, 20), (20, 64)] {
        let (mut after, mut done) = (bytes::Bytes::new(), false);
        while !done {
            let slots = Some(SlotRange { from, upto });
            let limit_bytes = 10_000;
            let request =
                ScanRequest { slots, after, limit_bytes, as_json: true, ..ScanRequest::default() };
            let pages = scan(&service, request).await;
            calls += 1;
            parts.extend(pages.iter().flat_map(|page| &page.documents).map(name));
            after = pages.last().unwrap().cursor.clone();
            done = pages.last().unwrap().done;
        }
    }
    assert_eq!(parts, all, "in the same order");
    assert!(calls > 90, "each call ended after some 10 documents: {calls}");

    let collection = "ab".to_owned();
    let some = scan(&service, ScanRequest { collection, ..ScanRequest::default() }).await;
    let some: Vec<_> = some.iter().flat_map(|page| &page.documents).collect();
    assert_eq!(some.len(), 400);
    assert!(some.iter().all(|one| one.collection == "ab"));

    let after = bytes::Bytes::from_static(b"nonsense");
    let asked = ScanRequest { after, ..ScanRequest::default() };
    let mut pages = service.scan(Request::new(asked)).await.unwrap().into_inner();
    let status = pages.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

async fn write_all(service: &DocumentsService, writer: i64, each: i64) {
    for n in 0..each {
        let writes = three_writes(writer, n);
        service.write(Request::new(WriteRequest { writes })).await.unwrap();
    }
}

/// Writer `writer` puts a document, another that it often puts, and deletes the
/// first again.
fn three_writes(writer: i64, n: i64) -> Vec<DocumentWrite> {
    let (key, other) = (format!("{writer}-{n}"), format!("{writer}-{}", n % 7));
    let body = format!(r#"{{"n":{n}}}"#);
    let gone = DocumentWrite { kind: Some(Kind::Delete(true)), ..json("c", &key, "") };
    vec![json("c", &key, &body), json("d", &other, &body), gone]
}

/// METHOD: eight writers race while one reader follows all slots and three
/// follow a part each. Revisions must be dense, nobody may miss or reorder one,
/// and the parts together must be the whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_come_in_order_and_complete_while_eight_write() {
    const WRITERS: i64 = 8;
    const EACH: i64 = 40;
    let dir = TempDir::new().unwrap();
    let service = service(&dir);
    let upto = u64::try_from(WRITERS * EACH * 3).unwrap();
    let ranges = [(0, 64), (0, 10), (10, 40), (40, 64)];
    let readers = ranges.map(|range| {
        let service = service.clone();
        tokio::spawn(
            async move { read_upto(changes(&service, range, 0).await.unwrap(), upto).await },
        )
    });
    let writers = (0..WRITERS).map(|writer| {
        let service = service.clone();
        tokio::spawn(async move { write_all(&service, writer, EACH).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let mut streams = Vec::new();
    for reader in readers {
        streams.push(reader.await.unwrap());
    }
    let [all, parts @ ..] = streams.as_slice() else { unreachable!() };
    let revisions: Vec<_> = all.iter().map(|change| change.revision).collect();
    assert_eq!(revisions, (1..=upto).collect::<Vec<_>>());
    for part in parts {
        assert!(part.is_sorted_by_key(|change| change.revision) && !part.is_empty());
    }
    let mut union = parts.concat();
    union.sort_by_key(|change| change.revision);
    assert_eq!(&union, all);
    let deleted = all.iter().filter(|change| change.deleted);
    assert_eq!(deleted.count(), usize::try_from(WRITERS * EACH).unwrap());
    assert!(all.iter().all(|change| change.deleted == change.document.is_none()));
    assert!(all.iter().all(|change| change.collection == "d" || change.created != change.deleted));
}

#[tokio::test]
async fn a_reader_of_idle_slots_hears_how_far_the_store_is() {
    let dir = TempDir::new().unwrap();
    let service = service(&dir);
    let slot = keys::slot(&keys::document_key("c", "k").unwrap());
    let idle = if slot < 32 { (32, 64) } else { (0, 32) };
    let mut stream = changes(&service, idle, 0).await.unwrap();
    let mut next = tokio::spawn(async move { stream.next().await });
    assert!(timeout(Duration::from_millis(400), &mut next).await.is_err(), "nothing has moved");
    write(&service, json("c", "k", "{}")).await.unwrap();
    let page = timeout(Duration::from_secs(2), next).await.unwrap().unwrap().unwrap().unwrap();
    assert_eq!((page.changes.len(), page.revision), (0, 1));
}

#[tokio::test]
async fn changes_that_are_not_there_are_refused_with_the_bound() {
    let dir = TempDir::new().unwrap();
    let options = StoreOptions { log_changes_max: 10, ..options(&dir) };
    let store = Arc::new(Store::open(options).unwrap());
    for n in 0..50 {
        store.write(vec![put("c", &n.to_string(), n)]).await.unwrap();
    }
    let gone = store.changes(Slots::ALL, Revision(39)).await;
    assert_eq!(gone, Err(StoreError::Trimmed { oldest: Revision(41) }), "as a slow reader finds");
    let ahead = store.changes(Slots::ALL, Revision(51)).await;
    assert_eq!(ahead, Err(StoreError::Ahead { last: Revision(50) }));
    let service = DocumentsService::new(Arc::clone(&store));
    let known = store.describe();
    assert_eq!((known.revision, known.oldest_revision, known.documents), (50, 41, 50));

    let ahead = changes(&service, (0, 64), 51).await.err().unwrap();
    assert_eq!(ahead.code(), Code::OutOfRange);
    assert!(ahead.message().contains("50"), "{ahead}");
    let trimmed = changes(&service, (0, 64), 39).await.err().unwrap();
    assert_eq!(trimmed.code(), Code::OutOfRange);
    assert!(trimmed.message().contains("41"), "{trimmed}");
    let kept = read_upto(changes(&service, (0, 64), 40).await.unwrap(), 50).await;
    assert_eq!(
        kept.iter().map(|one| one.revision).collect::<Vec<_>>(),
        (41..=50).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_log_is_bounded_by_bytes_and_counts_what_it_holds() {
    let dir = TempDir::new().unwrap();
    let bounded = StoreOptions { log_bytes_max: 5_000, ..options(&dir) };
    for round in 0..3 {
        let store = Store::open(bounded.clone()).unwrap();
        for n in 0..300 {
            store.write(vec![put("c", &n.to_string(), n)]).await.unwrap();
        }
        let head = *store.watch().borrow();
        assert!((4_500..=5_000).contains(&head.log_bytes), "round {round}: {head:?}");
        let kept = store.changes(Slots::ALL, Revision(head.oldest.0 - 1)).await.unwrap();
        assert_eq!(kept.changes.first().unwrap().revision, head.oldest.0);
        let bytes = kept.changes.iter().map(row_bytes).sum::<usize>();
        assert_eq!(u64::try_from(bytes).unwrap(), head.log_bytes, "round {round}: {head:?}");
    }
}

/// What a put's change takes on the disk, key and value.
fn row_bytes(change: &DocumentChange) -> usize {
    let document = change.document.as_ref().unwrap();
    let key = keys::document_key(&change.collection, &change.key).unwrap();
    let row = rows::ChangeRow {
        kind: rows::ChangeKind::Update,
        written_ms: change.written_ms,
        key: key.as_bytes(),
        dictionary: &document.dictionary,
        value: &document.value,
    };
    keys::RowKey::Change(0, Revision(change.revision)).encode().len() + row.encode().len()
}

#[tokio::test]
async fn a_page_of_changes_ends_after_256_kib_and_the_next_goes_on() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    let body = Value::Object(vec![("pad".to_owned(), Value::String("p".repeat(10_000)))]);
    let document = Some(encode(&body).unwrap());
    let writes =
        (0..100).map(|n| Write { document: document.clone(), ..put("c", &n.to_string(), 0) });
    store.write(writes.collect()).await.unwrap();
    let (mut after, mut pages, mut seen) = (Revision(0), 0, 0);
    while after < Revision(100) {
        let page = store.changes(Slots::ALL, after).await.unwrap();
        assert!(page.changes.len() < 30);
        seen += page.changes.len();
        after = Revision(page.revision);
        pages += 1;
    }
    assert_eq!((seen, pages), (100, 4));
}

#[tokio::test]
async fn a_store_goes_on_where_it_was() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(options(&dir)).unwrap();
    store.write(vec![put("c", "a", 1), put("c", "b", 2), delete("c", "a")]).await.unwrap();
    let known = store.describe();
    drop(store);
    let store = Store::open(options(&dir)).unwrap();
    assert_eq!(store.describe(), known);
    assert_eq!(store.write(vec![only_if(2, put("c", "b", 3))]).await, Ok(Revision(4)));
    assert_eq!(store.count("c".to_owned()).await.unwrap().documents, 1);
    assert_eq!(store.count("none".to_owned()).await.unwrap().documents, 0);

    let other = TempDir::new().unwrap();
    let made_later = Store::open(options(&other)).unwrap();
    assert_ne!(made_later.describe().store_id, known.store_id);
}

#[tokio::test]
async fn a_store_that_is_open_is_not_opened_again() {
    let dir = TempDir::new().unwrap();
    let _open = Store::open(options(&dir)).unwrap();
    let error = Store::open(options(&dir)).unwrap_err().to_string();
    assert!(error.contains("is open already"), "{error}");
    assert!(error.contains(&dir.path().display().to_string()), "{error}");
}

/// One request of the model test: writes to few keys, so that they meet.
fn any_request() -> impl Strategy<Value = Vec<(u8, u8, Option<i64>, Option<u64>)>> {
    let write = (
        0_u8..2,
        0_u8..5,
        prop::option::weighted(0.7, 0_i64..100),
        prop::option::weighted(0.2, 0_u64..20),
    );
    prop::collection::vec(write, 1..5)
}

/// What a store must be, told with a map.
#[derive(Clone, Default)]
struct Model {
    documents: BTreeMap<(String, String), (u64, i64)>,
    log: Vec<(String, String, bool, Option<i64>)>,
}

impl Model {
    /// The model after a request; `None` if it is refused.
    fn after(&self, writes: &[Write], numbers: &[Option<i64>]) -> Option<Self> {
        let mut next = self.clone();
        for (write, n) in writes.iter().zip(numbers) {
            let name = (write.collection.clone(), write.key.clone());
            let before = next.documents.get(&name).map(|found| found.0);
            if write.if_revision.is_some_and(|wanted| wanted.0 != before.unwrap_or(0)) {
                return None;
            }
            if n.is_none() && before.is_none() {
                continue;
            }
            let created = n.is_some() && before.is_none();
            next.log.push((name.0.clone(), name.1.clone(), created, *n));
            match n {
                Some(n) => next.documents.insert(name, (next.revision(), *n)),
                None => next.documents.remove(&name),
            };
        }
        Some(next)
    }

    fn revision(&self) -> u64 {
        u64::try_from(self.log.len()).unwrap()
    }
}

async fn agree(store: &Store, model: &Model) {
    let query = ScanQuery {
        slots: Slots::ALL,
        collection: String::new(),
        after: Vec::new(),
        bytes: 0,
        as_json: false,
    };
    let page = store.scan(query).await.unwrap();
    let found: BTreeMap<_, _> = page
        .documents
        .into_iter()
        .map(|one| ((one.collection, one.key), (one.revision, one.document.unwrap().value)))
        .collect();
    let wanted: BTreeMap<_, _> = model
        .documents
        .iter()
        .map(|(name, (revision, n))| (name.clone(), (*revision, document(*n).value.into())))
        .collect();
    assert_eq!(found, wanted);
    for collection in ["c0", "c1", ""] {
        let all = |name: &&(String, String)| collection.is_empty() || name.0 == collection;
        let wanted = u64::try_from(model.documents.keys().filter(all).count()).unwrap();
        let count = store.count(collection.to_owned()).await.unwrap();
        assert_eq!((count.documents, count.revision), (wanted, model.revision()));
    }
    let page = store.changes(Slots::ALL, Revision(0)).await.unwrap();
    assert_eq!(page.changes.len(), model.log.len());
    for ((place, change), (collection, key, created, n)) in (1..).zip(page.changes).zip(&model.log)
    {
        assert_eq!((change.revision, &change.collection, &change.key), (place, collection, key));
        assert_eq!((change.created, change.deleted), (*created, n.is_none()));
        let value = change.document.map(|one| one.value);
        assert_eq!(value, n.map(|n| document(n).value.into()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_store_does_what_a_map_does(requests in prop::collection::vec(any_request(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        runtime.block_on(async {
            let dir = TempDir::new().unwrap();
            let mut store = Store::open(options(&dir)).unwrap();
            let mut model = Model::default();
            let half = requests.len() / 2;
            for (place, request) in requests.into_iter().enumerate() {
                let numbers: Vec<_> = request.iter().map(|write| write.2).collect();
                let writes: Vec<_> = request.into_iter().map(|(collection, key, n, wanted)| Write {
                    if_revision: wanted.map(Revision),
                    document: n.map(document),
                    ..delete(&format!("c{collection}"), &format!("k{key}"))
                }).collect();
                let next = model.after(&writes, &numbers);
                let written = store.write(writes).await;
                assert_eq!(written.ok(), next.as_ref().map(|next| Revision(next.revision())));
                model = next.unwrap_or(model);
                if place == half {
                    drop(store);
                    store = Store::open(options(&dir)).unwrap();
                }
            }
            agree(&store, &model).await;
        });
    }
}
