//! The store over gRPC: `tidegate.v1.Documents`.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tidegate_proto::document::{self, BYTES_MAX, DocumentError, Encoded, Value};
use tidegate_proto::v1::document_write::Kind;
use tidegate_proto::v1::documents_server::{Documents, DocumentsServer};
use tidegate_proto::v1::{
    ChangesRequest, ChangesResponse, CountRequest, CountResponse, DescribeRequest,
    DescribeResponse, DocumentWrite, GetRequest, GetResponse, ScanRequest, ScanResponse,
    StoredDocument, WriteRequest, WriteResponse,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Request, Response, Status, async_trait};

use super::error::StoreError;
use super::keys::{Revision, Slots};
use super::rows::Head;
use super::scan::{self, ScanQuery};
use super::store::{Store, Write};

/// Bytes of a request: a document of the largest size and what goes around it.
const REQUEST_BYTES_MAX: usize = BYTES_MAX + (64 << 10);
/// A subscriber with nothing to get hears at least so often how far it is.
const TELL: Duration = Duration::from_millis(200);

/// Serves a [`Store`].
#[derive(Clone, Debug)]
pub struct DocumentsService {
    store: Arc<Store>,
}

impl DocumentsService {
    /// The service of `store`.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// For a tonic server, with the limits requests have here.
    #[must_use]
    pub fn into_server(self) -> DocumentsServer<Self> {
        DocumentsServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX)
    }
}

#[async_trait]
impl Documents for DocumentsService {
    type ScanStream = BoxStream<'static, Result<ScanResponse, Status>>;
    type ChangesStream = BoxStream<'static, Result<ChangesResponse, Status>>;

    async fn write(
        &self,
        request: Request<WriteRequest>,
    ) -> Result<Response<WriteResponse>, Status> {
        let writes = request.into_inner().writes;
        // Parsing 16 MiB of JSON takes too long for a thread that serves others.
        let prepared = tokio::task::spawn_blocking(move || {
            writes.into_iter().enumerate().map(prepare).collect::<Result<Vec<_>, _>>()
        });
        let writes = prepared.await.map_err(|_| StoreError::Stopped)??;
        let revision = self.store.write(writes).await?;
        Ok(Response::new(WriteResponse { revision: revision.0 }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let GetRequest { collection, key, as_json } = request.into_inner();
        let mut stored = self.store.get(collection, key).await?;
        if let (true, Some(stored)) = (as_json, &mut stored) {
            let document = stored.document.take().unwrap_or_default();
            stored.json = scan::json(&document.dictionary, &document.value)?.into();
        }
        Ok(Response::new(GetResponse { found: stored.is_some(), document: stored }))
    }

    async fn scan(
        &self,
        request: Request<ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        let request = request.into_inner();
        let scan = Scan {
            store: Arc::clone(&self.store),
            query: ScanQuery {
                slots: Slots::asked(request.slots)?,
                collection: request.collection,
                after: request.after.to_vec(),
                bytes: request.limit_bytes,
                as_json: request.as_json,
            },
            done: false,
        };
        let pages = stream::try_unfold(scan, |mut scan| async {
            Ok(scan.next().await?.map(|page| (page, scan)))
        });
        Ok(Response::new(pages.boxed()))
    }

    async fn count(
        &self,
        request: Request<CountRequest>,
    ) -> Result<Response<CountResponse>, Status> {
        Ok(Response::new(self.store.count(request.into_inner().collection).await?))
    }

    async fn changes(
        &self,
        request: Request<ChangesRequest>,
    ) -> Result<Response<Self::ChangesStream>, Status> {
        let request = request.into_inner();
        let after = Revision(request.after);
        let head = self.store.watch();
        head.borrow().check(after)?;
        let tail = Tail {
            slots: Slots::asked(request.slots)?,
            read: after,
            told: after,
            told_at: Instant::now(),
            head,
            store: Arc::clone(&self.store),
        };
        let pages = stream::try_unfold(tail, |mut tail| async {
            let page = tail.next().await?;
            Ok(Some((page, tail)))
        });
        Ok(Response::new(pages.boxed()))
    }

    async fn describe(
        &self,
        _request: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        Ok(Response::new(self.store.describe()))
    }
}

/// A scan under way. Between pages it holds nothing of the store.
struct Scan {
    store: Arc<Store>,
    query: ScanQuery,
    done: bool,
}

impl Scan {
    async fn next(&mut self) -> Result<Option<ScanResponse>, StoreError> {
        if self.done {
            return Ok(None);
        }
        let page = self.store.scan(self.query.clone()).await?;
        self.query.after = page.cursor.to_vec();
        self.done = page.done;
        if self.query.bytes > 0 {
            let sent = page.documents.iter().map(bytes).sum::<usize>();
            let sent = u64::try_from(sent).unwrap_or(u64::MAX);
            self.query.bytes = self.query.bytes.saturating_sub(sent.max(1));
            self.done |= self.query.bytes == 0;
        }
        Ok(Some(page))
    }
}

/// A subscription to changes. Between pages it holds nothing of the store.
struct Tail {
    store: Arc<Store>,
    slots: Slots,
    head: watch::Receiver<Head>,
    /// All changes of the slots up to here have been sent.
    read: Revision,
    /// The subscriber knows that of this revision.
    told: Revision,
    told_at: Instant,
}

impl Tail {
    /// The next changes; without any, how far the store has come.
    async fn next(&mut self) -> Result<ChangesResponse, StoreError> {
        loop {
            let last = self.head.borrow_and_update().last;
            let page = if self.read < last {
                self.store.changes(self.slots, self.read).await?
            } else {
                ChangesResponse { revision: self.read.0, ..ChangesResponse::default() }
            };
            self.read = Revision(page.revision);
            if !page.changes.is_empty() {
                return Ok(self.tell(page));
            }
            let moved = self.read > self.told;
            let tell_at = self.told_at + TELL;
            if moved && Instant::now() >= tell_at {
                let revision = self.read.0;
                return Ok(self.tell(ChangesResponse { revision, ..ChangesResponse::default() }));
            }
            tokio::select! {
                changed = self.head.changed() => changed.map_err(|_| StoreError::Stopped)?,
                () = tokio::time::sleep_until(tell_at), if moved => {}
            }
        }
    }

    fn tell(&mut self, page: ChangesResponse) -> ChangesResponse {
        assert!(page.revision > self.told.0, "every page brings its reader on");
        self.told = Revision(page.revision);
        self.told_at = Instant::now();
        page
    }
}

fn bytes(document: &StoredDocument) -> usize {
    let encoded = document.document.as_ref();
    document.json.len() + encoded.map_or(0, |one| one.dictionary.len() + one.value.len())
}

/// The write at `index` of a request, its document in canonical form.
fn prepare((index, write): (usize, DocumentWrite)) -> Result<Write, StoreError> {
    let refuse = |why: String| StoreError::Request(format!("write {index}: {why}"));
    let parsed = match write.kind {
        Some(Kind::Json(json)) => document::parse_json(&json).map(Some),
        Some(Kind::Document(one)) => document::decode(&one.dictionary, &one.value).map(Some),
        Some(Kind::Delete(true)) => Ok(None),
        Some(Kind::Delete(false)) | None => {
            return Err(refuse("it has neither a document nor delete = true".to_owned()));
        }
    };
    let document = parsed.and_then(|value| value.as_ref().map(canonical).transpose());
    Ok(Write {
        collection: write.collection,
        key: write.key,
        document: document.map_err(|error| refuse(error.to_string()))?,
        if_revision: write.if_revision.map(Revision),
    })
}

fn canonical(value: &Value) -> Result<Encoded, DocumentError> {
    if matches!(value, Value::Object(_)) {
        return document::encode(value);
    }
    Err(DocumentError::Json("it is not an object".to_owned()))
}
