//! P11: a node's memory with a backlog nobody takes.
//!
//! METHOD The sink writes to a pipe that nobody reads: it takes the first
//! batches and never another, as a dead target does, while the source goes on
//! at full rate into the spool. Peaks are `VmHWM` of fresh processes. The row
//! runs once or twice, not seven times: a large backlog takes a minute.

use std::time::Duration;

use tidegate_node::sources::datagen::state_after;

use crate::bench::{Bench, Better, Goal, Outcome, bytes_below, require};
use crate::node::{Node, Start, captured, delivered, generated};
use crate::stock;
use crate::subscriber::{Effort, Wish, drain};

const BACKLOG: Goal = Goal {
    id: "P11.backlog",
    what: "peak memory with a backlog of 10 GB of documents to one of 100 MB",
    goal: 1.1,
    better: Better::Lower,
    unit: "MiB",
};
const ABSOLUTE: Goal = Goal {
    id: "P11.absolute",
    what: "peak memory with a backlog of 10 GB of documents to 256 MiB",
    goal: 1.0,
    ..BACKLOG
};
const DEAD: Goal = Goal {
    id: "P11.dead-sink",
    what: "memory at the end to that at a tenth, the sink dead, the source at full rate",
    goal: 1.05,
    ..BACKLOG
};
const MIB: f64 = 1024.0 * 1024.0;
const LIMIT_MIB: f64 = 256.0;
const SMALL: u64 = 100_000;
const LARGE: u64 = 10_000_000;
/// Of rounds: each takes more than a minute.
const ROUNDS_MAX: usize = 2;

pub(crate) async fn run(bench: &mut Bench) -> Outcome<()> {
    let (mut small, mut large, mut early, mut late) = (vec![], vec![], vec![], vec![]);
    for round in 0..bench.rounds.min(ROUNDS_MAX) {
        let hold = held(bench, LARGE).await?;
        small.push(held(bench, SMALL).await?.peak);
        large.push(hold.peak);
        early.push(hold.early);
        late.push(hold.late);
        bench.say(&format!(
            "P11 {}: {:.0} MiB to {:.0} MiB; {:.0} MiB at a tenth, {:.0} MiB at the end",
            round + 1,
            large[round],
            small[round],
            early[round],
            late[round]
        ));
    }
    bench.line(&BACKLOG, &large, &small, "")?;
    bench.line(&ABSOLUTE, &large, &vec![LIMIT_MIB; large.len()], "at defaults")?;
    bench.line(&DEAD, &late, &early, "for the time the backlog takes, not for 10 minutes")
}

/// Memory of one process, in MiB.
struct Held {
    peak: f64,
    /// Resident when a tenth of the backlog was there.
    early: f64,
    /// Resident when all of it was.
    late: f64,
}

async fn held(bench: &mut Bench, changes: u64) -> Outcome<Held> {
    let folder = bench.folder()?;
    let mut node = Node::start(&folder, Start::default()).await?;
    let source = format!("document-bytes = 1024\nchanges = {changes}");
    let sink = "[[sink]]\nkind = \"jsonl\"\nstdout = true";
    node.apply(&generated("held", &source, sink)).await?;
    let every = Duration::from_millis(20);
    node.until("held", every, |shards| captured(shards) >= changes / 10).await?;
    let early = node.memory("VmRSS")? / MIB;
    node.until("held", every, |shards| captured(shards) == changes).await?;
    let (late, peak) = (node.memory("VmRSS")? / MIB, node.memory("VmHWM")? / MIB);
    let shards = node.shards("held").await?;
    require(delivered(&shards, "jsonl") < changes / 20, "the sink stands still")?;
    let large = changes > SMALL;
    let wish = Wish {
        address: node.address.clone(),
        export: "held".to_owned(),
        // All documents of the small one; of the large one that none is missing.
        effort: if large { Effort::Take } else { Effort::Fold },
        upto: None,
    };
    let seen = drain(wish).await?;
    require(seen.tiling.last == changes && seen.changes == changes, "the backlog is whole")?;
    if !large {
        let config = stock::generated(1024, changes);
        require(seen.state == state_after(&config, 0, changes)?, "the backlog is the source's")?;
    }
    let disk = bytes_below(&folder)? >> 20;
    bench.say(&format!("P11: {changes} changes, {disk} MiB on disk"));
    drop(node);
    std::fs::remove_dir_all(folder)?;
    Ok(Held { peak, early, late })
}
