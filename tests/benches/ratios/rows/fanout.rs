//! P6: one shard to many subscribers.
//!
//! METHOD `cpu`: the node captures at a fixed rate and feeds one subscriber,
//! then nine; what the eight more add to its processor time is compared with
//! what it spends on the first, capture included, per delivered byte.
//! `aggregate`: a backlog to 64 subscribers at once, against as many raw
//! connections. `stalled`: eight subscribers, while a ninth, a process of its
//! own, is stopped by SIGSTOP after its first bytes.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::future::try_join_all;
use tidegate_node::sources::datagen::state_after;

use super::feed::{CLIENT, SERVER, backlog};
use crate::bare::{self, Bare};
use crate::bench::{Bench, Better, Goal, Outcome, float, require, timed};
use crate::machine::pinned;
use crate::node::{Node, Start, generated, signal};
use crate::stock;
use crate::subscriber::{Effort, Seen, Wish, drain};

const CPU: Goal = Goal {
    id: "P6.cpu",
    what: "processor time per delivered byte of subscribers 2 to 9 to that of the first",
    goal: 0.25,
    better: Better::Lower,
    unit: "ns/B",
};
const AGGREGATE: Goal = Goal {
    id: "P6.aggregate",
    what: "feed to 64 subscribers of one shard to raw TCP with 64 connections",
    goal: 0.8,
    better: Better::Higher,
    unit: "MB/s",
};
const STALLED: Goal = Goal {
    id: "P6.stalled",
    what: "feed to eight subscribers beside a stopped one to the same without it",
    goal: 0.98,
    better: Better::Higher,
    unit: "MB/s",
};
const MANY: usize = 64;
const FEW: usize = 8;
const BACKLOG: u64 = 200_000;
const RATE: u64 = 40_000;
const LIVE: u64 = 200_000;
/// Until the stopped subscriber has its first bytes.
const HEAD_START: Duration = Duration::from_millis(300);

pub(crate) async fn run(bench: &mut Bench) -> Outcome<()> {
    cpu(bench).await?;
    let folder = bench.folder()?;
    let node = backlog(&folder, BACKLOG).await?;
    let state = state_after(&stock::generated(1024, BACKLOG), 0, BACKLOG)?;
    let whole = one(wish(&node.address, "backlog", Effort::Fold)).await?;
    require(whole.state == state, "the feed's state is the source's")?;
    let bytes = whole.bytes;
    let tcp = Bare::start("tcp", SERVER)?;
    let feed = async |count: usize| {
        let wish = wish(&node.address, "backlog", Effort::Take);
        let (seconds, seen) = several(wish, count).await?;
        let same = seen.iter().all(|seen| seen.tiling == whole.tiling);
        require(same, "every subscriber gets every frame")?;
        Ok::<f64, Box<dyn std::error::Error + Send + Sync>>(
            float(bytes) * float(count) / 1e6 / seconds,
        )
    };
    let raw = async || {
        let address = tcp.address.clone();
        let read = move || {
            timed(async move {
                let one = |_| bare::read_raw(&address, bytes);
                try_join_all((0..MANY).map(one)).await
            })
        };
        Ok(float(bytes) * float(MANY) / 1e6 / pinned(CLIENT, read).await?.0)
    };
    bench.pair(&AGGREGATE, async || feed(MANY).await, raw).await?;
    let beside = async || {
        let stopped = Stopped::start(&node.address).await?;
        let rate = feed(FEW).await?;
        drop(stopped);
        Ok(rate)
    };
    bench.pair(&STALLED, beside, async || feed(FEW).await).await?;
    node.stop().await
}

async fn cpu(bench: &mut Bench) -> Outcome<()> {
    let folder = bench.folder()?;
    let mut node = Node::start(&folder, Start { cores: SERVER, ..Start::default() }).await?;
    let state = state_after(&stock::generated(1024, LIVE), 0, LIVE)?;
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        let alone = live(&mut node, &format!("one{round}"), 1).await?;
        let together = live(&mut node, &format!("nine{round}"), 1 + FEW).await?;
        require(together.1.state == state, "the feed's state is the source's")?;
        let bytes = float(alone.1.bytes);
        first.push(alone.0 / bytes * 1e9);
        others.push((together.0 - alone.0).max(0.0) / (bytes * float(FEW)) * 1e9);
        bench.say(&format!(
            "P6.cpu {}: {:.2} to {:.2} ns/B",
            round + 1,
            others[round],
            first[round]
        ));
    }
    node.stop().await?;
    bench.line(&CPU, &others, &first, "the first pays for capture, spool and checkpoints too")
}

/// The node's seconds of processor time for a live export with `count`
/// subscribers, and what one of them saw.
async fn live(node: &mut Node, name: &str, count: usize) -> Outcome<(f64, Seen)> {
    let before = node.cpu()?;
    let source = format!("document-bytes = 1024\nchanges = {LIVE}\nrate-per-second = {RATE}");
    node.apply(&generated(name, &source, "")).await?;
    let until = Some(LIVE);
    let mut last = None;
    let wish = Wish { upto: until, ..wish(&node.address, name, Effort::Fold) };
    let (_, seen) = several(wish, count).await?;
    for seen in seen {
        require(seen.changes == LIVE && seen.tiling.last == LIVE, "every change comes")?;
        last = Some(seen);
    }
    let used = node.cpu()? - before;
    node.delete(name).await?;
    Ok((used, last.ok_or("there are subscribers")?))
}

fn wish(address: &str, export: &str, effort: Effort) -> Wish {
    Wish { address: address.to_owned(), export: export.to_owned(), effort, upto: None }
}

async fn one(wish: Wish) -> Outcome<Seen> {
    pinned(CLIENT, move || drain(wish)).await
}

/// So many subscribers at once on the clients' core; the last one only makes
/// the effort that is wished for.
async fn several(wish: Wish, count: usize) -> Outcome<(f64, Vec<Seen>)> {
    let one = move |number: usize| {
        let effort = if number + 1 == count { wish.effort } else { Effort::Take };
        drain(Wish { effort, ..wish.clone() })
    };
    pinned(CLIENT, move || timed(try_join_all((0..count).map(one)))).await
}

/// A subscriber in a process of its own, stopped in the middle.
struct Stopped(Child);

impl Stopped {
    async fn start(address: &str) -> Outcome<Self> {
        let process = Command::new("taskset")
            .args(["-c", &CLIENT.to_string()])
            .arg(std::env::current_exe()?)
            .args(["--subscribe", address])
            .stdout(Stdio::null())
            .spawn()?;
        let stopped = Self(process);
        tokio::time::sleep(HEAD_START).await;
        signal(stopped.0.id(), "STOP")?;
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What a stopped subscriber runs: takes the backlog over and over.
pub(crate) async fn subscribe(address: &str) -> Outcome<()> {
    loop {
        drain(wish(address, "backlog", Effort::Take)).await?;
    }
}
