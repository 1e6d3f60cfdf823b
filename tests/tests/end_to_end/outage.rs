//! A sink that is down for long, beside one that is not.

use std::io::Write as _;
use std::time::Duration;

use tidegate_tests::cluster::{Cluster, alone};
use tidegate_tests::oracle::Memory;
use tidegate_tests::postgres::Postgres;
use tokio::time::{Instant, sleep};

use crate::postgres::LOG_IS_WHOLE;

const EXPORT: &str = "outlasting";
const SHARDS: u64 = 3;
/// Changes a second, of each shard.
const RATE: u64 = 500;
/// How long the sink is down; `OUTAGE_SECONDS` says otherwise.
const OUTAGE_SECONDS: u64 = 12;
const LOOK: Duration = Duration::from_secs(1);
/// What the sink that is up may be behind: its delay, a commit, a starved machine.
const LAG_SECONDS: u64 = 8;
/// What a node may hold more in the end than early on: the spool's tables fill once.
const GROWTH_BYTES: u64 = 128 << 20;
const NO_BOUND: u64 = u64::MAX;

fn spec(server: &Postgres, cluster: &Cluster) -> String {
    format!(
        "name = \"{EXPORT}\"\n[source]\nkind = \"datagen\"\nshards = {SHARDS}\nkeys = 2000\n\
         document-bytes = 400\nrate-per-second = {RATE}\n\
         [[sink]]\nname = \"down\"\nkind = \"postgres\"\nurl = \"{}\"\ntls = false\n\
         schema = \"exported\"\nmode = \"append\"\ntable = \"log\"\ndelay-ms = 100\n\
         [[sink]]\nname = \"up\"\nkind = \"lake\"\npath = \"{}\"\ndelay-ms = 500\n",
        server.url(),
        cluster.folder().join("lake").display()
    )
}

/// METHOD: three shards make 500 changes a second each for a table and a lake, and the
/// database is stopped. Until it is back, changes are captured as fast as before, the lake
/// keeps up, nodes hold no more memory, and the database is asked ever more rarely. Then
/// the table gets what it missed many times as fast as that was made, each change once.
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_down_holds_up_nobody_and_catches_up() {
    let _alone = alone().await;
    let seconds = seconds();
    let mut server = Postgres::start(&["fsync=on"]).await;
    let cluster = Cluster::start(3).await;
    cluster.apply(&spec(&server, &cluster));
    cluster.until("the table fills", |it| delivered(it, "down") > SHARDS * RATE * 3).await;
    server.stop();
    let (down_at, before) = (Instant::now(), captured(&cluster));
    let asked = asked(&cluster);
    let (mut early, mut late) = (Memory::with_bound(NO_BOUND), Memory::with_bound(NO_BOUND));
    while down_at.elapsed() < Duration::from_secs(seconds) {
        sleep(LOOK).await;
        let half = down_at.elapsed() < Duration::from_secs(seconds) / 2;
        let memory = if half { &mut early } else { &mut late };
        (0..3).for_each(|number| memory.look(cluster.process(number).unwrap()).unwrap());
        let behind = captured(&cluster) - delivered(&cluster, "up");
        assert!(behind < SHARDS * RATE * LAG_SECONDS, "the lake is {behind} changes behind");
    }
    let down_for = down_at.elapsed().as_secs();
    let missed = captured(&cluster) - before;
    assert!(missed * 10 >= SHARDS * RATE * down_for * 8, "{missed} captured in {down_for} s");
    assert!(late.worst_bytes < early.worst_bytes + GROWTH_BYTES, "{early:?}, then {late:?}");
    let tries = self::asked(&cluster) - asked;
    assert!((SHARDS..=SHARDS * tries_most(down_for)).contains(&tries), "asked {tries} times");

    server.resume().await;
    let wanted = captured(&cluster);
    let is_back = |it: &Cluster| delivered(it, "down") > before + SHARDS * RATE;
    cluster.until("the table fills again", is_back).await;
    let (back_at, begun) = (Instant::now(), delivered(&cluster, "down"));
    cluster.until("it has what it missed", |it| delivered(it, "down") >= wanted).await;
    let caught_up = back_at.elapsed();
    let missing = wanted - begun.min(wanted);
    let said = format!(
        "{missed} changes missed in {down_for} s, {tries} tries, the last {missing} written in \
         {caught_up:.1?}; the largest node held {} MiB, then {}\n",
        early.worst_bytes >> 20,
        late.worst_bytes >> 20
    );
    std::io::stderr().write_all(said.as_bytes()).unwrap();
    assert!(caught_up < Duration::from_secs(2 + down_for / 2), "{said}");
    assert!(is_whole(&server), "each change once");
}

#[expect(clippy::disallowed_methods, reason = "`make test` has no other way to say it")]
fn seconds() -> u64 {
    std::env::var("OUTAGE_SECONDS").map_or(OUTAGE_SECONDS, |seconds| seconds.parse().unwrap())
}

/// Tries of one writer in so many seconds: from 100 ms on twice as long, at most 30 s, each
/// time at least half of that.
fn tries_most(seconds: u64) -> u64 {
    let growing = (seconds * 1000 / 50 + 1).ilog2() + 1;
    u64::from(growing.min(9)) + seconds / 15 + 1
}

/// How often a writer was started again.
fn asked(cluster: &Cluster) -> u64 {
    let again = |line: &&str| line.contains("trying again") && line.contains(" down\"");
    (0..3).map(|number| cluster.log(number).lines().filter(again).count() as u64).sum()
}

fn captured(cluster: &Cluster) -> u64 {
    cluster.captured(EXPORT)
}

fn delivered(cluster: &Cluster, sink: &str) -> u64 {
    cluster.delivered(EXPORT, sink)
}

/// Every shard's log has all sequences up to its checkpoint, each once.
fn is_whole(server: &Postgres) -> bool {
    let whole = format!("SELECT count(*) FROM exported.tidegate_checkpoint c WHERE {LOG_IS_WHOLE}");
    server.query(&whole) == SHARDS.to_string()
}
