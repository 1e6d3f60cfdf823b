//! COST: what many shards cost three nodes, idle and busy. A table of its own,
//! `deploy/bench/cost.md`: there is nothing to divide by.
//!
//! METHOD Three nodes on one machine, two copies of every spool. Idle shards are
//! those of a document store that nobody writes to; busy ones are generated, all
//! together at one rate. Processor time and bytes are taken over one span, fsyncs
//! over the next, since counting them slows the nodes down. Without shards, what
//! is left is heartbeats, pings and Raft's own.

use std::process::{Command, Stdio};
use std::time::Duration;

use tidegate_proto::v1::Shard;
use tokio::time::Instant;

use crate::bench::{Bench, Outcome, float, require};
use crate::machine;
use crate::node::{Node, Start, captured, generated, signal};
use crate::rows::shards::Store;

/// A document store has 64 slots, each at most a shard.
const SLOTS: u32 = 64;
const EACH: u32 = 1000;
/// Changes per second over all busy shards.
const RATE: u32 = 10_000;
const NODES: usize = 3;
const SPAN: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_secs(8);
const LOOK: Duration = Duration::from_millis(100);

/// What one line of the table says.
struct Cost {
    what: String,
    /// Seconds from the exports to the last shard with its copies in sync.
    ready: f64,
    /// Percent of the shards that have two copies in sync in the end.
    in_sync: f64,
    /// Percent of a core: the leader, and the mean of the others.
    leader: f64,
    others: f64,
    /// Per second, all nodes together.
    kib: f64,
    fsyncs: f64,
    entries: f64,
    changes: f64,
    /// Resident, of the largest node.
    mib: f64,
}

pub(crate) async fn run(bench: &mut Bench) -> Outcome<()> {
    let mut costs = vec![measure(bench, "no shards", &[]).await?];
    for shards in [1_000, 10_000] {
        let store = Store::start(&bench.folder()?)?;
        let idle: Vec<String> = (0..shards / SLOTS + 1)
            .map(|number| {
                let left = (shards - number * SLOTS).min(SLOTS);
                let source =
                    format!("kind = \"embedded\"\nendpoint = \"http://{}\"", store.address);
                format!("name = \"i{number}\"\n[source]\n{source}\nshards = {left}\n")
            })
            .collect();
        costs.push(measure(bench, &format!("{shards} shards, idle"), &idle).await?);
        drop(store);
        let rate = RATE / shards;
        let busy: Vec<String> = (0..shards / EACH)
            .map(|number| {
                let source = format!(
                    "document-bytes = 512\nkeys = 1000\nshards = {EACH}\nrate-per-second = {rate}"
                );
                generated(&format!("e{number}"), &source, "")
            })
            .collect();
        costs.push(measure(bench, &format!("{shards} shards, busy"), &busy).await?);
    }
    bench.write("cost.md", &table(&costs))
}

async fn measure(bench: &mut Bench, what: &str, exports: &[String]) -> Outcome<Cost> {
    let mut nodes = vec![Node::start(&bench.folder()?, Start::default()).await?];
    while nodes.len() < NODES {
        let join = Some(nodes[0].address.clone());
        nodes.push(Node::start(&bench.folder()?, Start { join, ..Start::default() }).await?);
    }
    let started = Instant::now();
    for export in exports {
        nodes[0].apply(export).await?;
    }
    let wanted = shards_of(exports)?;
    let whole = |found: &[Shard]| {
        found.iter().filter(|shard| shard.in_sync.len() == 2 && shard.anchor.is_some()).count()
    };
    nodes[0].until("", LOOK, |found| whole(found) == wanted).await?;
    let ready = started.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;

    let status = nodes[0].status().await?;
    let changes = captured(&nodes[0].shards("").await?);
    let (cpu, bytes) = (cpus(&nodes)?, machine::loopback_bytes()?);
    tokio::time::sleep(SPAN).await;
    let (cpu_after, bytes_after) = (cpus(&nodes)?, machine::loopback_bytes()?);
    let seconds = SPAN.as_secs_f64();
    let shards = nodes[0].shards("").await?;
    let status_after = nodes[0].status().await?;
    require(shards.iter().all(|shard| shard.failure.is_empty()), "a shard has failed")?;
    let used: Vec<f64> =
        cpu.iter().zip(cpu_after).map(|(a, b)| (b - a) / seconds * 100.0).collect();
    let resident: Outcome<Vec<f64>> = nodes.iter().map(|node| node.memory("VmRSS")).collect();
    let cost = Cost {
        what: what.to_owned(),
        ready,
        in_sync: 100.0 - float(wanted - whole(&shards)) / float(wanted.max(1)) * 100.0,
        leader: used[0],
        others: used[1..].iter().sum::<f64>() / float(used.len() - 1),
        kib: float(bytes_after - bytes) / 1024.0 / seconds,
        entries: float(status_after.applied - status.applied) / seconds,
        changes: float(captured(&shards) - changes) / seconds,
        mib: resident?.into_iter().fold(0.0, f64::max) / 1024.0 / 1024.0,
        fsyncs: fsyncs(&nodes).await?,
    };
    bench.say(&line(&cost));
    Ok(cost)
}

/// The shards that exports ask for.
fn shards_of(exports: &[String]) -> Outcome<usize> {
    let mut wanted = 0;
    for line in exports.iter().flat_map(|export| export.lines()) {
        if let Some(shards) = line.strip_prefix("shards = ") {
            wanted += shards.parse::<usize>()?;
        }
    }
    Ok(wanted)
}

fn cpus(nodes: &[Node]) -> Outcome<Vec<f64>> {
    nodes.iter().map(Node::cpu).collect()
}

/// fsync and fdatasync calls per second of all nodes.
async fn fsyncs(nodes: &[Node]) -> Outcome<f64> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-e", "trace=fsync,fdatasync,sync_file_range"]);
    for node in nodes {
        strace.args(["-p", &node.pid.to_string()]);
    }
    let counter = strace.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    tokio::time::sleep(SPAN).await;
    signal(counter.id(), "INT")?;
    let told = counter.wait_with_output()?;
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    let calls = told.lines().filter(|line| line.trim_end().ends_with("sync"));
    let calls: u64 =
        calls.filter_map(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok()).sum();
    Ok(float(calls) / SPAN.as_secs_f64())
}

fn line(cost: &Cost) -> String {
    format!(
        "{}: ready in {:.1} s, {:.1} % in sync; leader {:.1} %, others {:.1} % of a core; {:.0} KiB/s, \
         {:.1} fsyncs/s, {:.1} entries/s, {:.0} changes/s; {:.0} MiB",
        cost.what,
        cost.ready,
        cost.in_sync,
        cost.leader,
        cost.others,
        cost.kib,
        cost.fsyncs,
        cost.entries,
        cost.changes,
        cost.mib
    )
}

fn table(costs: &[Cost]) -> String {
    let mut text = String::from(
        "# What shards cost three nodes\n\n\
         All three on one machine, two copies of each spool; `make bench ROWS=COST`. Without shards, what \
         is left is heartbeats (10 a second and node), pings and Raft. Processor time is in percent of one \
         core; bytes are those on loopback; fsyncs, entries and changes are those of all nodes.\n\n\
         | | ready, s | in sync in the end, % | leader, % | others, % each | KiB/s | fsyncs/s | log entries/s | changes/s | MiB, largest node |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for cost in costs {
        text.push_str(&format!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} | {:.1} | {:.1} | {:.0} | {:.0} |\n",
            cost.what,
            cost.ready,
            cost.in_sync,
            cost.leader,
            cost.others,
            cost.kib,
            cost.fsyncs,
            cost.entries,
            cost.changes,
            cost.mib
        ));
    }
    text
}
