//! P5: a node's feed to one subscriber, against bare streams of bytes.
//!
//! METHOD A node holds a backlog; servers have one core, clients the other.
//! Rates are bytes on the wire for the opaque and the raw side, and changes for
//! the decoded one, whose other side sends messages of 1000 typed documents.

use std::time::Duration;

use tidegate_node::sources::datagen::state_after;

use crate::bare::{self, Bare};
use crate::bench::{Bench, Better, Goal, Outcome, float, require, timed};
use crate::machine::pinned;
use crate::node::{Node, Start, captured, generated};
use crate::stock;
use crate::subscriber::{Effort, Seen, Wish, drain};

const BLOBS: Goal = goal("P5.blobs", "feed to bare tonic streaming 64 KiB blobs", 0.85, "MB/s");
const RAW: Goal = goal("P5.raw", "feed to raw TCP", 0.75, "MB/s");
const TYPED: Goal = goal(
    "P5.decoded",
    "feed, decoded, to bare tonic with 1000 typed changes a message",
    0.8,
    "changes/s",
);

const CHANGES: u64 = 1_500_000;
const DOCUMENT_BYTES: u64 = 1024;
/// The core of servers, and that of clients.
pub(super) const SERVER: &str = "0";
pub(super) const CLIENT: u32 = 1;

const fn goal(id: &'static str, what: &'static str, goal: f64, unit: &'static str) -> Goal {
    Goal { id, what, goal, better: Better::Higher, unit }
}

pub(crate) async fn run(bench: &mut Bench) -> Outcome<()> {
    let folder = bench.folder()?;
    let node = backlog(&folder, CHANGES).await?;
    let wish = |effort| Wish {
        address: node.address.clone(),
        export: "backlog".to_owned(),
        effort,
        upto: None,
    };
    // Once with every document: later runs must bring the same frames.
    let whole = measured(wish(Effort::Fold)).await?.1;
    let config = stock::generated(usize::try_from(DOCUMENT_BYTES)?, CHANGES);
    require(whole.state == state_after(&config, 0, CHANGES)?, "the feed's state is the source's")?;
    let feed = async |effort| {
        let (seconds, seen) = measured(wish(effort)).await?;
        require(seen.tiling == whole.tiling, "the feed brings the same frames each time")?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((seconds, seen))
    };
    let rate = async || {
        let (seconds, seen) = feed(Effort::Take).await?;
        Ok(float(seen.bytes) / 1e6 / seconds)
    };
    let grpc = Bare::start("grpc", SERVER)?;
    let tcp = Bare::start("tcp", SERVER)?;
    let bytes = whole.bytes;
    let blobs = async || {
        let address = grpc.address.clone();
        let read = move || timed(async move { bare::read_blobs(&address, bytes).await });
        Ok(float(bytes) / 1e6 / pinned(CLIENT, read).await?.0)
    };
    bench.pair(&BLOBS, rate, blobs).await?;
    let raw = async || bare::raw_rate(CLIENT, &tcp.address, bytes).await;
    bench.pair(&RAW, rate, raw).await?;
    let decoded = async || {
        let (seconds, seen) = feed(Effort::Decode).await?;
        Ok(float(seen.changes) / seconds)
    };
    let typed = async || {
        let address = grpc.address.clone();
        let read =
            move || timed(async move { bare::read_typed(&address, CHANGES, DOCUMENT_BYTES).await });
        Ok(float(CHANGES) / pinned(CLIENT, read).await?.0)
    };
    bench.pair(&TYPED, decoded, typed).await?;
    node.stop().await
}

/// A node that holds `changes` captured changes of an export named `backlog`.
pub(super) async fn backlog(folder: &std::path::Path, changes: u64) -> Outcome<Node> {
    let mut node = Node::start(folder, Start { cores: SERVER, ..Start::default() }).await?;
    let source = format!("document-bytes = {DOCUMENT_BYTES}\nchanges = {changes}");
    node.apply(&generated("backlog", &source, "")).await?;
    let done = |shards: &[_]| captured(shards) == changes;
    node.until("backlog", Duration::from_millis(100), done).await?;
    Ok(node)
}

/// One subscriber on the clients' core: seconds, and what it saw.
pub(super) async fn measured(wish: Wish) -> Outcome<(f64, Seen)> {
    pinned(CLIENT, move || timed(drain(wish))).await
}
