//! P10: what an event costs by the size of its document.
//!
//! METHOD For each size a document store of its own holds documents of random
//! bytes, which nothing can pack, and an export of it stands ready as a
//! backlog. One subscriber takes each backlog in turn; ns/event = a + b·n is
//! fitted by least squares of the relative errors, so that small documents
//! count as much as large ones. The other side is memcpy of the same bytes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tidegate_proto::document::{self, Value};
use tidegate_proto::v1::documents_client::DocumentsClient;
use tidegate_proto::v1::{
    DescribeRequest, DocumentWrite, EncodedDocument, WriteRequest, document_write,
};
use tidegate_proto::{Key, KeyPart, content_hash};
use tidegate_tests::cluster::binary;
use tidegate_tests::ports::free_address;
use tokio::time::Instant;

use super::feed::{CLIENT, SERVER, measured};
use crate::bare::{self, Bare};
use crate::bench::{Bench, Better, Goal, Outcome, float, median, require, short, timed};
use crate::machine::pinned;
use crate::node::{Node, Start, captured, channel};
use crate::subscriber::{Effort, Wish};
use tidegate_tests::latest::State;

const FIXED: Goal =
    goal("P10.fixed", "feed: a of ns/event = a + b·n, to 250 ns", 1.0, Better::Lower, "ns");
const SLOPE: Goal =
    goal("P10.slope", "feed: b of ns/event = a + b·n, to memcpy", 3.0, Better::Lower, "ns/B");
const DECODED: Goal = goal(
    "P10.decoded",
    "feed, decoded: b of ns/event = a + b·n, to memcpy",
    3.0,
    Better::Lower,
    "ns/B",
);
const RAW: Goal =
    goal("P10.raw-64k", "feed of 64 KB documents to raw TCP", 0.6, Better::Higher, "MB/s");
const LARGEST: Goal = goal(
    "P10.largest",
    "feed of 16 MB documents: those that arrive whole",
    1.0,
    Better::Higher,
    "documents",
);
/// What a may be, in nanoseconds.
const FIXED_NS: f64 = 250.0;
/// Bytes of a document's value, and how many there are.
const SIZES: [(usize, u64); 5] =
    [(100, 400_000), (1 << 10, 150_000), (16 << 10, 10_000), (64 << 10, 3_000), (1 << 20, 200)];
const RAW_SIZE: usize = 64 << 10;
const LARGEST_SIZE: (usize, u64) = (16_000_000, 4);
/// How long a store may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of documents in one write.
const WRITE_BYTES: usize = 1 << 20;

const fn goal(
    id: &'static str,
    what: &'static str,
    goal: f64,
    better: Better,
    unit: &'static str,
) -> Goal {
    Goal { id, what, goal, better, unit }
}

pub(crate) async fn run(bench: &mut Bench) -> Outcome<()> {
    let folder = bench.folder()?;
    let mut node = Node::start(&folder, Start { cores: SERVER, ..Start::default() }).await?;
    let mut stores = Vec::new();
    for (bytes, count) in SIZES.into_iter().chain([LARGEST_SIZE]) {
        let store = Store::fill(&folder, bytes, count).await?;
        capture(&mut node, &store).await?;
        stores.push(store);
    }
    let largest = stores.pop().ok_or("the largest documents")?;
    bench.line(&LARGEST, &[float(largest.count)], &[float(LARGEST_SIZE.1)], "")?;
    let tcp = Bare::start("tcp", SERVER)?;
    let mut found: [Vec<f64>; 5] = Default::default();
    let mut raw = Vec::new();
    for round in 0..bench.rounds {
        let (mut taken, mut decoded) = (Vec::new(), Vec::new());
        for store in &stores {
            let size = float(store.bytes);
            let seconds = store.take(&node, Effort::Take).await?;
            taken.push((size, seconds * 1e9 / float(store.count)));
            decoded
                .push((size, store.take(&node, Effort::Decode).await? * 1e9 / float(store.count)));
            if store.bytes == RAW_SIZE {
                let bytes = u64::try_from(store.bytes)? * store.count;
                found[4].push(float(bytes) / 1e6 / seconds);
                raw.push(bare::raw_rate(CLIENT, &tcp.address, bytes).await?);
            }
        }
        let ((a, b), (_, decoded)) = (fit(&taken), fit(&decoded));
        let copy = pinned(CLIENT, || async { memcpy().await }).await?;
        for (all, value) in found.iter_mut().zip([a, b, decoded, copy]) {
            all.push(value);
        }
        bench.say(&format!("P10 {}: {a:.0} ns + {b:.3} ns/B, memcpy {copy:.3}", round + 1));
        bench.say(&format!("  ns/event: {}", table(&taken)));
    }
    let [fixed, slope, decoded, copy, feed] = found;
    bench.line(&FIXED, &fixed, &vec![FIXED_NS; fixed.len()], "")?;
    bench.line(&SLOPE, &slope, &copy, "")?;
    bench.line(&DECODED, &decoded, &copy, "")?;
    bench.line(&RAW, &feed, &raw, &format!("memcpy at {} ns/B", short(median(&copy)?)))?;
    node.stop().await
}

/// A document store in a process of its own; dropping it kills it.
struct Store {
    process: Child,
    address: String,
    bytes: usize,
    count: u64,
    state: State,
}

impl Store {
    /// Starts one and writes `count` documents of `bytes` bytes.
    async fn fill(folder: &Path, bytes: usize, count: u64) -> Outcome<Self> {
        let address = free_address();
        let log = std::fs::File::create(folder.join(format!("docs{bytes}.log")))?;
        let process = Command::new(binary("tidegated"))
            .args(["documents", "--listen", &address, "--data"])
            .arg(folder.join(format!("docs{bytes}")))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut store = Self { process, address, bytes, count, state: State::new() };
        store.write().await?;
        Ok(store)
    }

    async fn write(&mut self) -> Outcome<()> {
        let mut client = DocumentsClient::new(channel(&self.address)?);
        let started = Instant::now();
        while client.describe(DescribeRequest {}).await.is_err() {
            require(started.elapsed() < PATIENCE, "a document store comes up")?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut random = Random(self.count);
        let mut writes = Vec::new();
        for n in 0..self.count {
            let (key, payload) = (format!("d{n:09}"), random.bytes(self.bytes));
            let value = Value::Object(vec![("payload".to_owned(), Value::Binary(payload))]);
            let encoded = document::encode(&value)?;
            let hash = content_hash(&encoded.dictionary, &encoded.value);
            let stored = Key::encode(&[KeyPart::String(key.clone())])?;
            self.state.insert(stored.as_bytes().to_vec(), hash);
            let document = EncodedDocument {
                dictionary: encoded.dictionary.into(),
                value: encoded.value.into(),
            };
            let kind = Some(document_write::Kind::Document(document));
            writes.push(DocumentWrite {
                collection: "sized".to_owned(),
                key,
                kind,
                if_revision: None,
            });
            if writes.len() * self.bytes >= WRITE_BYTES
                || writes.len() == 1000
                || n + 1 == self.count
            {
                client.write(WriteRequest { writes: std::mem::take(&mut writes) }).await?;
            }
        }
        Ok(())
    }

    fn export(&self) -> String {
        format!("size{}", self.bytes)
    }

    fn wish(&self, node: &Node, effort: Effort) -> Wish {
        Wish { address: node.address.clone(), export: self.export(), effort, upto: None }
    }

    /// Seconds for all of its documents, through the node's feed.
    async fn take(&self, node: &Node, effort: Effort) -> Outcome<f64> {
        let (seconds, seen) = measured(self.wish(node, effort)).await?;
        require(
            seen.changes == self.count && seen.tiling.last == self.count,
            "every document comes",
        )?;
        Ok(seconds)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Captures a store, and checks what came by its documents' hashes.
async fn capture(node: &mut Node, store: &Store) -> Outcome<()> {
    let (name, address) = (store.export(), &store.address);
    let spec = format!(
        "name = \"{name}\"\n[source]\nkind = \"embedded\"\nendpoint = \"http://{address}\"\nshards = 1\n"
    );
    node.apply(&spec).await?;
    let all = |shards: &[_]| captured(shards) == store.count;
    node.until(&name, Duration::from_millis(50), all).await?;
    let (_, seen) = measured(store.wish(node, Effort::Fold)).await?;
    require(seen.state == store.state, &format!("documents of {} bytes arrive whole", store.bytes))
}

/// Nanoseconds per byte of copying more than any cache holds.
async fn memcpy() -> Outcome<f64> {
    let from = vec![7_u8; 256 << 20];
    let mut to = vec![0_u8; from.len()];
    let copies = 4;
    let (seconds, ()) = timed(async {
        for _ in 0..copies {
            to.copy_from_slice(std::hint::black_box(&from));
            std::hint::black_box(&mut to);
        }
        Ok(())
    })
    .await?;
    Ok(seconds * 1e9 / float(from.len() * copies))
}

/// The line a + b·n through (n, y) with the least sum of squared relative errors.
fn fit(points: &[(f64, f64)]) -> (f64, f64) {
    let (mut w, mut wx, mut wy, mut wxx, mut wxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (x, y) in points {
        let weight = 1.0 / (y * y);
        w += weight;
        wx += weight * x;
        wy += weight * y;
        wxx += weight * x * x;
        wxy += weight * x * y;
    }
    let b = (w * wxy - wx * wy) / (w * wxx - wx * wx);
    ((wy - b * wx) / w, b)
}

fn table(points: &[(f64, f64)]) -> String {
    let one = |(size, ns): &(f64, f64)| format!("{} B {}", short(*size), short(*ns));
    points.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Bytes that do not repeat (xorshift; Marsaglia, 2003).
struct Random(u64);

impl Random {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(count + 8);
        while out.len() < count {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut next = self.0;
            next ^= next << 13;
            next ^= next >> 7;
            next ^= next << 17;
            out.extend_from_slice(&next.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
        }
        out.truncate(count);
        out
    }
}
