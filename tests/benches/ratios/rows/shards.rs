//! P9: what shards cost.
//!
//! METHOD Ten exports of 1000 generated shards each, against one export with
//! one shard, at the same total rate. Idle shards are those of a document store
//! that nobody writes to.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tidegate_proto::v1::Shard;
use tidegate_tests::cluster::binary;
use tidegate_tests::ports::free_address;
use tokio::time::Instant;

use crate::bench::{Bench, Better, Goal, Outcome, float, median, require};
use crate::node::{Node, Start, captured, generated};

const EVENT: Goal = Goal {
    id: "P9.event",
    what: "processor time per event with 10,000 shards to 1 shard, same total rate",
    goal: 1.3,
    better: Better::Lower,
    unit: "µs",
};
const ASSIGN: Goal = Goal {
    id: "P9.assign",
    what: "seconds to assign 10,000 new shards to 2 s",
    goal: 1.0,
    unit: "s",
    ..EVENT
};
const MEMORY: Goal = Goal {
    id: "P9.memory",
    what: "resident memory of an idle shard to 8 KiB",
    unit: "KiB",
    ..ASSIGN
};
const IDLE: Goal = Goal {
    id: "P9.idle",
    what: "processor time with idle shards to 0.5 % of a core",
    unit: "% of a core",
    ..ASSIGN
};
const EXPORTS: u32 = 10;
const SHARDS_EACH: u32 = 1000;
/// A document store has 64 slots, each at most a shard.
const IDLE_EXPORTS: u32 = 157;
const IDLE_EACH: u32 = 64;
/// Events per second, over all shards.
const RATE: u32 = 10_000;
const SPAN: Duration = Duration::from_secs(8);
const SETTLE: Duration = Duration::from_secs(4);
const LOOK: Duration = Duration::from_millis(50);
/// Of rounds: each starts nodes with 10,000 shards.
const ROUNDS_MAX: usize = 3;
const ASSIGN_SECONDS: f64 = 2.0;
const SHARD_KIB: f64 = 8.0;
const IDLE_PERCENT: f64 = 0.5;

pub(crate) async fn run(bench: &mut Bench) -> Outcome<()> {
    let rounds = bench.rounds.min(ROUNDS_MAX);
    let (mut many, mut one, mut assigned, mut rates) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        let all = events(bench, EXPORTS, SHARDS_EACH).await?;
        let single = events(bench, 1, 1).await?;
        bench.say(&format!(
            "P9 {}: {:.1} to {:.1} µs per event at {:.0} and {:.0} events/s, {:.1} s to assign",
            round + 1,
            all.cost,
            single.cost,
            all.rate,
            single.rate,
            all.assigned
        ));
        many.push(all.cost);
        rates.push(all.rate);
        one.push(single.cost);
        assigned.push(all.assigned);
    }
    let kept = format!("{:.0} of {RATE} events/s with 10,000 shards", median(&rates)?);
    bench.line(&EVENT, &many, &one, &kept)?;
    bench.line(
        &ASSIGN,
        &assigned,
        &vec![ASSIGN_SECONDS; assigned.len()],
        "from the exports to the last shard's first checkpoint",
    )?;
    idle(bench, rounds).await
}

struct Events {
    /// Microseconds of processor time each.
    cost: f64,
    /// How many a second, of those that were due.
    rate: f64,
    /// Seconds until every shard had its first checkpoint.
    assigned: f64,
}

async fn events(bench: &mut Bench, exports: u32, shards: u32) -> Outcome<Events> {
    let mut node = Node::start(&bench.folder()?, Start::default()).await?;
    let rate = RATE / exports / shards;
    let started = Instant::now();
    for number in 0..exports {
        let source = format!(
            "document-bytes = 512\nkeys = 1000\nshards = {shards}\nrate-per-second = {rate}"
        );
        node.apply(&generated(&format!("e{number}"), &source, "")).await?;
    }
    let wanted = usize::try_from(exports * shards)?;
    let begun =
        |found: &[Shard]| found.iter().filter(|shard| shard.captured.is_some()).count() == wanted;
    node.until("", LOOK, begun).await?;
    let assigned = started.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let (cpu, events) = (node.cpu()?, captured(&node.shards("").await?));
    tokio::time::sleep(SPAN).await;
    let shards = node.shards("").await?;
    let events = captured(&shards) - events;
    let cpu = node.cpu()? - cpu;
    let failed = shards.iter().find(|shard| !shard.failure.is_empty());
    let failure = failed.map_or("", |shard| &shard.failure);
    require(failed.is_none(), &format!("a shard has failed: {failure}"))?;
    let rate = float(events) / SPAN.as_secs_f64();
    Ok(Events { cost: cpu * 1e6 / float(events), rate, assigned })
}

async fn idle(bench: &mut Bench, rounds: usize) -> Outcome<()> {
    let (mut kib, mut percent, mut moved) = (Vec::new(), Vec::new(), 0);
    let all = usize::try_from(IDLE_EXPORTS * IDLE_EACH)?;
    for _ in 0..rounds {
        let store = Store::start(&bench.folder()?)?;
        let mut node = Node::start(&bench.folder()?, Start::default()).await?;
        tokio::time::sleep(SETTLE).await;
        let before = node.memory("VmRSS")?;
        for number in 0..IDLE_EXPORTS {
            let endpoint = format!("endpoint = \"http://{}\"", store.address);
            let source = format!("kind = \"embedded\"\n{endpoint}\nshards = {IDLE_EACH}");
            node.apply(&format!("name = \"i{number}\"\n[source]\n{source}\n")).await?;
        }
        let begun =
            |found: &[Shard]| found.iter().filter(|shard| shard.captured.is_some()).count() == all;
        node.until("", LOOK, begun).await?;
        tokio::time::sleep(SETTLE).await;
        kib.push((node.memory("VmRSS")? - before) / 1024.0 / float(all));
        let (cpu, applied) = (node.cpu()?, node.status().await?.applied);
        tokio::time::sleep(SPAN).await;
        percent.push((node.cpu()? - cpu) / SPAN.as_secs_f64() * 100.0);
        moved += node.status().await?.applied - applied;
        let captured = captured(&node.shards("").await?);
        require(captured == 0, "nothing was captured from an empty store")?;
    }
    let shards = format!("{all} shards of an empty document store");
    bench.line(&MEMORY, &kib, &vec![SHARD_KIB; kib.len()], &shards)?;
    let entries = format!("{shards}; {moved} log entries, each an fsync, in all rounds");
    bench.line(&IDLE, &percent, &vec![IDLE_PERCENT; percent.len()], &entries)
}

/// An empty document store; dropping it kills it.
pub(crate) struct Store {
    process: Child,
    pub(crate) address: String,
}

impl Store {
    pub(crate) fn start(folder: &std::path::Path) -> Outcome<Self> {
        let address = free_address();
        let process = Command::new(binary("tidegated"))
            .args(["documents", "--listen", &address, "--data"])
            .arg(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { process, address })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
