//! P7 and P8: the checkpoint log, against etcd and a loop of fsyncs.
//!
//! METHOD Proposals go to the leader over gRPC, one at a time, each with one
//! checkpoint for so many shards; nobody works on the shards. The fsync loop
//! and etcd run on the same disk between the rounds. Fsyncs are counted by the
//! kernel (`perf stat`) while a checkpoint is proposed every 100 ms.

use std::process::Command;
use std::time::Duration;

use crate::bench::{Bench, Better, Goal, Outcome, float, median, percentile, short, timed};
use crate::etcd::Etcd;
use crate::log::{Log, fsync_loop};

const FSYNCS: Goal = Goal {
    id: "P7.fsyncs",
    what: "fsyncs per second of the leader with 10,000 shards to 1 shard",
    goal: 1.1,
    better: Better::Lower,
    unit: "fsyncs/s",
};
const ONE: Goal = Goal {
    id: "P7.one-node",
    what: "shard checkpoints per second, one node, to etcd's puts",
    goal: 50.0,
    better: Better::Higher,
    unit: "per second",
};
const THREE: Goal = Goal {
    id: "P7.three-nodes",
    what: "shard checkpoints per second, three nodes on one disk, to etcd's puts",
    goal: 20.0,
    ..ONE
};
const ROUNDS_THREE: Goal = Goal {
    id: "P7.rounds",
    what: "rounds per second of three nodes to a third of the fsync loop",
    goal: 0.6,
    ..ONE
};
const P50: Goal = Goal {
    id: "P8.one-node-p50",
    what: "checkpoint latency p50, one node, to an fsync's p50",
    goal: 1.3,
    better: Better::Lower,
    unit: "µs",
};
const P99: Goal = Goal {
    id: "P8.one-node-p99",
    what: "checkpoint latency p99, one node, to an fsync's p99",
    goal: 2.0,
    ..P50
};
const P50_THREE: Goal = Goal {
    id: "P8.three-nodes-p50",
    what: "checkpoint latency p50, three nodes, to 2.6 times an fsync's p50 and 100 µs",
    goal: 1.0,
    ..P50
};
const SHARDS: u32 = 10_000;
const COUNTS: [usize; 5] = [1, 10, 100, 1000, 10_000];
const SPAN: Duration = Duration::from_millis(1500);
/// How long fsyncs are counted, and how often a checkpoint is proposed then.
const COUNTED: Duration = Duration::from_secs(4);
const TICK: Duration = Duration::from_millis(100);
/// Light load: so many proposals, with a pause between.
const PINGS: usize = 300;
const PAUSE: Duration = Duration::from_millis(2);

/// P7: throughput.
pub(crate) async fn throughput(bench: &mut Bench) -> Outcome<()> {
    let most = usize::try_from(SHARDS)?;
    let etcd = Etcd::start(&bench.folder()?).await?;
    let folder = bench.folder()?;
    let mut log = Log::start(bench, 1, SHARDS).await?;
    let mut rates = Vec::new();
    for count in COUNTS {
        let seconds = log.rounds(count, SPAN).await?;
        rates.push(format!("{count}: {}", short(float(count) / median(&seconds)?)));
    }
    log.check(most).await?;
    let note = format!("shard checkpoints/s by shards: {}", rates.join(", "));
    bench.say(&note);
    fsyncs(bench, &mut log).await?;
    let peer = match &etcd {
        Some(_) => "",
        None => "; etcd is not installed, so the other side is the fsync loop",
    };
    let other = async || match &etcd {
        Some(etcd) => etcd.rate(SPAN).await,
        None => Ok(1.0 / median(&fsync_loop(&folder, SPAN).await?)?),
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        ours.push(float(most) / median(&log.rounds(most, SPAN).await?)?);
        theirs.push(other().await?);
    }
    log.check(most).await?;
    drop(log);
    bench.line(&ONE, &ours, &theirs, &format!("{note}{peer}"))?;

    let mut log = Log::start(bench, 3, SHARDS).await?;
    let (mut ours, mut theirs, mut rounds, mut thirds) = (vec![], vec![], vec![], vec![]);
    for _ in 0..bench.rounds {
        ours.push(float(most) / median(&log.rounds(most, SPAN).await?)?);
        theirs.push(other().await?);
        log.checkpoint(most).await?;
        rounds.push(1.0 / median(&log.rounds(1, SPAN).await?)?);
        thirds.push(1.0 / median(&fsync_loop(&folder, SPAN).await?)? / 3.0);
    }
    log.checkpoint(most).await?;
    log.check(most).await?;
    bench.line(&THREE, &ours, &theirs, peer.trim_start_matches("; "))?;
    bench.line(&ROUNDS_THREE, &rounds, &thirds, "one checkpoint in flight")
}

async fn fsyncs(bench: &mut Bench, log: &mut Log) -> Outcome<()> {
    let (mut many, mut one) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds.min(3) {
        many.push(counted(log, usize::try_from(SHARDS)?).await?);
        one.push(counted(log, 1).await?);
        // The others catch up, for the next check.
        log.checkpoint(usize::try_from(SHARDS)?).await?;
    }
    bench.line(&FSYNCS, &many, &one, "a checkpoint every 100 ms")
}

/// Fsyncs per second of the leader while `count` shards move every tick.
async fn counted(log: &mut Log, count: usize) -> Outcome<f64> {
    let pid = log.nodes[0].pid.to_string();
    let seconds = COUNTED.as_secs().to_string();
    let counting = tokio::task::spawn_blocking(move || {
        let events = "syscalls:sys_enter_fsync,syscalls:sys_enter_fdatasync";
        Command::new("perf")
            .args(["stat", "-x", ",", "-e", events, "-p", &pid, "sleep", &seconds])
            .output()
    });
    let mut ticks = tokio::time::interval(TICK);
    while !counting.is_finished() {
        ticks.tick().await;
        log.checkpoint(count).await?;
    }
    let output = counting.await??;
    let text = String::from_utf8_lossy(&output.stderr);
    let counts: Vec<f64> = text
        .lines()
        .filter(|line| line.contains("sys_enter_f"))
        .filter_map(|line| line.split(',').next()?.parse().ok())
        .collect();
    if counts.len() != 2 {
        return Err(format!("perf stat did not count fsyncs (run as root): {text}").into());
    }
    Ok(counts.iter().sum::<f64>() / COUNTED.as_secs_f64())
}

/// P8: latency.
pub(crate) async fn latency(bench: &mut Bench) -> Outcome<()> {
    let folder = bench.folder()?;
    let mut log = Log::start(bench, 1, 1).await?;
    let (mut p50, mut p99, mut sync50, mut sync99) = (vec![], vec![], vec![], vec![]);
    for _ in 0..bench.rounds {
        let seconds = pings(&mut log).await?;
        p50.push(percentile(&seconds, 50)? * 1e6);
        p99.push(percentile(&seconds, 99)? * 1e6);
        let syncs = fsync_loop(&folder, SPAN).await?;
        sync50.push(percentile(&syncs, 50)? * 1e6);
        sync99.push(percentile(&syncs, 99)? * 1e6);
    }
    log.check(1).await?;
    drop(log);
    let note = "with the gRPC call that proposes it";
    bench.line(&P50, &p50, &sync50, note)?;
    bench.line(&P99, &p99, &sync99, note)?;
    let mut log = Log::start(bench, 3, 1).await?;
    let (mut ours, mut allowed) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        ours.push(percentile(&pings(&mut log).await?, 50)? * 1e6);
        allowed.push(2.6 * percentile(&fsync_loop(&folder, SPAN).await?, 50)? * 1e6 + 100.0);
    }
    log.check(1).await?;
    bench.line(&P50_THREE, &ours, &allowed, note)
}

async fn pings(log: &mut Log) -> Outcome<Vec<f64>> {
    let mut seconds = Vec::new();
    for _ in 0..PINGS {
        tokio::time::sleep(PAUSE).await;
        seconds.push(timed(log.checkpoint(1)).await?.0);
    }
    Ok(seconds)
}
