//! P2's lag: from a write to Redis until a subscriber has it.
//!
//! METHOD One connection writes SETs of 200 bytes at a steady rate, each with the time it
//! is sent in its value. What follows is either a bare client of the replication stream, or
//! a node with a subscriber of its feed, which decodes every change. All share the machine.
//! Of a run's changes the median and the 99th percentile count; the first second does not.

use std::time::Duration;

use tidegate_tests::figures::Figures;
use tidegate_tests::redis_server::{RedisClient, RedisServer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};

use super::redis::{EXPORT, SETTINGS, VALUE_BYTES, replicate, start};
use crate::bench::{Bench, Better, Goal, Outcome, require};
use crate::subscriber::{Effort, Wish, follow};

const MEDIAN: Goal = goal("P2.lag-p50", "lag of a change to that of a bare client, median", 1.5);
const TAIL: Goal = goal("P2.lag-p99", "lag of a change to that of a bare client, p99", 3.0);
/// SETs a second, for so many seconds.
const RATE: u64 = 100_000;
const SECONDS: u64 = 15;
/// Between two packets of commands.
const TICK: Duration = Duration::from_millis(1);
/// How long a server may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);
/// Digits of a stamp, and what stands before it.
const DIGITS: usize = 20;
const MARK: &[u8] = b"sent at ";

const fn goal(id: &'static str, what: &'static str, goal: f64) -> Goal {
    Goal { id, what, goal, better: Better::Lower, unit: "ms" }
}

/// Milliseconds from write to receipt.
struct Lags {
    since: Instant,
    all: Vec<f64>,
    count: u64,
}

pub(crate) async fn run(bench: &mut Bench) -> Outcome<()> {
    let (mut ours, mut theirs) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..bench.rounds {
        let (bare, fed) = (bare().await?, fed(bench).await?);
        for (at, goal) in [MEDIAN, TAIL].iter().enumerate() {
            bench.round(goal, round, fed[at], bare[at]);
            ours[at].push(fed[at]);
            theirs[at].push(bare[at]);
        }
    }
    let note = format!("{RATE} SETs/s; server, writer, node and subscriber share two cores");
    bench.line(&MEDIAN, &ours[0], &theirs[0], &note)?;
    bench.line(&TAIL, &ours[1], &theirs[1], &note)
}

/// Median and p99 of a bare client.
async fn bare() -> Outcome<[f64; 2]> {
    let server = RedisServer::start(&SETTINGS).await;
    let mut client = server.client().await;
    // A server keeps a backlog once somebody has asked for its stream.
    let mut socket = TcpStream::connect(("127.0.0.1", server.port())).await?;
    socket.write_all(b"PSYNC ? -1\r\n").await?;
    let until = Instant::now() + PATIENCE;
    while !backlog(&mut client).await {
        require(Instant::now() < until, "the server keeps a backlog")?;
        sleep(TICK).await;
    }
    drop(socket);
    let from = client.stream().await;
    let since = Instant::now();
    let mut lags = Lags::new(since);
    let port = server.port();
    let follows = tokio::spawn(async move {
        replicate(port, from, |command, is_set| !is_set || lags.take(command)).await?;
        lags.figures()
    });
    write(client, since).await?;
    follows.await?
}

/// Whether the server keeps what it sends.
async fn backlog(client: &mut RedisClient) -> bool {
    let told = client.say("INFO replication").await.text();
    String::from_utf8_lossy(&told).contains("repl_backlog_active:1")
}

/// Median and p99 of a subscriber.
async fn fed(bench: &mut Bench) -> Outcome<[f64; 2]> {
    let (server, node) = start(bench, "").await?;
    let since = Instant::now();
    let mut lags = Lags::new(since);
    let wish = Wish {
        address: node.address.clone(),
        export: EXPORT.to_owned(),
        effort: Effort::Take,
        // With the key that is there already.
        upto: Some(RATE * SECONDS + 1),
    };
    let follows = tokio::spawn(async move {
        follow(wish, |frame| {
            for change in frame.decode()?.changes {
                lags.take(&change.document);
            }
            Ok(())
        })
        .await?;
        lags.figures()
    });
    write(server.client().await, since).await?;
    let figures = follows.await??;
    node.stop().await?;
    Ok(figures)
}

impl Lags {
    fn new(since: Instant) -> Self {
        Self { since, all: Vec::new(), count: 0 }
    }

    /// Of a change that has come now; whether more are to come.
    fn take(&mut self, change: &[u8]) -> bool {
        let at = change.windows(MARK.len()).position(|it| it == MARK).map(|at| at + MARK.len());
        let stamp = at.and_then(|at| std::str::from_utf8(change.get(at..at + DIGITS)?).ok());
        let Some(sent) = stamp.and_then(|stamp| stamp.parse().ok()) else { return true };
        self.count += 1;
        if self.count > RATE {
            let lag = self.since.elapsed().saturating_sub(Duration::from_nanos(sent));
            self.all.push(lag.as_secs_f64() * 1000.0);
        }
        self.count < RATE * SECONDS
    }

    fn figures(&self) -> Outcome<[f64; 2]> {
        require(self.count == RATE * SECONDS, "every change has come, once")?;
        let figures = Figures::of(self.all.iter().copied());
        let of = |percent| figures.percentile(percent).ok_or("nothing was measured");
        Ok([of(50)?, of(99)?])
    }
}

/// Writes at the rate, or as fast as it can if that is less.
async fn write(mut client: RedisClient, since: Instant) -> Outcome<()> {
    let together = RATE * u64::try_from(TICK.as_millis())? / 1000;
    let mut next = Instant::now();
    for first in (0..RATE * SECONDS).step_by(usize::try_from(together)?) {
        sleep_until(next).await;
        next += TICK;
        let stamp = format!("{:0DIGITS$}", since.elapsed().as_nanos());
        let mut value = [MARK, stamp.as_bytes()].concat();
        value.resize(VALUE_BYTES, b'x');
        let set = |at: u64| vec![b"SET".to_vec(), format!("{at:012}").into_bytes(), value.clone()];
        client.send(&(first..first + together).map(set).collect::<Vec<_>>()).await?;
        for _ in 0..together {
            client.answer().await?;
        }
    }
    Ok(())
}
