//! What is done to the nodes and to the server, one after the other.

use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidegate_tests::Outcome;
use tidegate_tests::cluster::Cluster;
use tidegate_tests::redis_server::{RedisClient, RedisServer};
use tokio::time::{Instant, sleep};

use crate::load::{Commands, Load};
use crate::say;
use crate::way::Way;

/// The name of the export.
pub(crate) const EXPORT: &str = "cache";
/// What the server keeps of its stream; a cut is made to last longer.
pub(crate) const BACKLOG_BYTES: u64 = 32 << 20;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// All parts.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) server: RedisServer,
    pub(crate) way: Way,
    pub(crate) rate: u32,
    pub(crate) commands: Commands,
    pub(crate) load: Load,
    /// Commands of loads that have ended.
    pub(crate) sent: u64,
    pub(crate) lines: Vec<String>,
    /// What the servers log.
    pub(crate) logs: TempDir,
}

/// A server with the backlog that all of them have, which logs to a file of this name.
pub(crate) async fn server(logs: &TempDir, name: &str) -> RedisServer {
    let log = logs.path().join(name);
    let (backlog, log) = (BACKLOG_BYTES.to_string(), log.to_string_lossy());
    RedisServer::start(&["--repl-backlog-size", &backlog, "--logfile", &log]).await
}

impl Stage {
    /// Notes how long a step took, and shows it.
    fn note(&mut self, what: &str, took: Duration) {
        let line = format!("| {what} | {:.1} |", took.as_secs_f64());
        say(&line);
        self.lines.push(line);
    }

    pub(crate) fn captured(&self) -> u64 {
        self.cluster.captured(EXPORT)
    }

    /// Waits until `done` says so; how long that took.
    pub(crate) async fn until(
        &self,
        what: &str,
        done: impl Fn(&Self) -> bool,
    ) -> Outcome<Duration> {
        let begun = Instant::now();
        while !done(self) {
            if begun.elapsed() > PATIENCE {
                return Err(format!("waited for: {what}").into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(begun.elapsed())
    }

    /// Waits until some changes were captured since; how long that took.
    async fn goes_on(&self) -> Outcome<Duration> {
        let wanted = self.captured() + u64::from(self.rate / 20);
        self.until("changes are captured", |it| it.captured() >= wanted).await
    }

    fn in_sync(&self) -> usize {
        let shards = self.cluster.shards(EXPORT);
        let of = |shard: &Value| shard["in_sync"].as_array().map_or(0, Vec::len);
        shards.first().map_or(0, of)
    }

    pub(crate) async fn client(&self) -> RedisClient {
        self.server.client().await
    }

    /// Dumps that this server ever made.
    async fn dumps(&self) -> Outcome<u64> {
        let stats = String::from_utf8(self.client().await.say("INFO stats").await.text())?;
        let full = stats.lines().find_map(|line| line.strip_prefix("sync_full:"));
        Ok(full.ok_or("the server counts its dumps")?.trim().parse()?)
    }

    /// Clients that the servers cut since they did not take what was sent.
    pub(crate) fn overflows(&self) -> Outcome<usize> {
        let mut count = 0;
        for entry in std::fs::read_dir(self.logs.path())? {
            let text = std::fs::read_to_string(entry?.path())?;
            count += text.lines().filter(|line| line.contains("output buffer limits")).count();
        }
        Ok(count)
    }

    fn gaps(&self) -> usize {
        self.cluster.gaps(EXPORT).len()
    }

    fn without_loss(&self, gaps: usize) -> Outcome<()> {
        let is = self.cluster.gaps(EXPORT);
        if is.len() == gaps { Ok(()) } else { Err(format!("{gaps} gaps, not {is:?}").into()) }
    }

    async fn ended(&mut self) -> Outcome<()> {
        let port = self.server.port();
        let next = Load::start(port, self.rate, self.commands.clone()).await?;
        self.sent += std::mem::replace(&mut self.load, next).end().await?;
        Ok(())
    }

    /// The reader's node is killed, started again, and gets its shard back.
    pub(crate) async fn kill_owner(&mut self) -> Outcome<()> {
        let dumps = self.dumps().await?;
        let owner = self.cluster.busiest(EXPORT);
        self.cluster.kill(owner).await;
        let took = self.goes_on().await?;
        self.note("reader's node killed (SIGKILL)", took);
        self.cluster.start_node(owner);
        self.until("two copies are in sync", |it| it.in_sync() >= 2).await?;
        let shards = self.cluster.shards(EXPORT);
        let id = shards.first().and_then(|shard| shard["id"].as_str()).unwrap_or_default();
        let (shard, name) = (format!("{EXPORT}/{id}"), self.cluster.name(owner).to_owned());
        let begun = Instant::now();
        let moved = self.cluster.cli(&["shard", "move", &shard, "--reader", &name]);
        if !moved.status.success() {
            return Err(String::from_utf8_lossy(&moved.stderr).into());
        }
        self.goes_on().await?;
        self.note("shard moved back to it", begun.elapsed());
        self.without_loss(0)?;
        if self.dumps().await? == dumps { Ok(()) } else { Err("it was read again".into()) }
    }

    /// The link is cut, and found again at once.
    pub(crate) async fn cut_link(&mut self) -> Outcome<()> {
        self.client().await.say("CLIENT KILL TYPE replica").await;
        let took = self.goes_on().await?;
        self.note("link cut", took);
        self.without_loss(0)
    }

    /// A replica takes over, and its address.
    pub(crate) async fn fail_over(&mut self) -> Outcome<()> {
        let mut replica = server(&self.logs, "replica").await;
        let mut client = replica.client().await;
        client.say(&format!("REPLICAOF 127.0.0.1 {}", self.server.port())).await;
        loop {
            let info = String::from_utf8(client.say("INFO replication").await.text())?;
            if info.contains("master_link_status:up") {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        // What the replica had not got would be lost in any case.
        self.load.stop();
        sleep(Duration::from_millis(500)).await;
        while client.stream().await.1 < self.client().await.stream().await.1 {
            sleep(Duration::from_millis(20)).await;
        }
        client.say("REPLICAOF NO ONE").await;
        std::mem::swap(&mut self.server, &mut replica);
        replica.kill().await;
        self.way.turn(self.server.port());
        self.ended().await?;
        let took = self.goes_on().await?;
        self.note("Redis failed over to a replica", took);
        self.without_loss(0)?;
        // None but the replica's own, which it got from the server before.
        if self.dumps().await? == 0 { Ok(()) } else { Err("it was read again".into()) }
    }

    /// The link is cut for longer than the backlog lasts.
    pub(crate) async fn outlast_backlog(&mut self) -> Outcome<()> {
        let mut client = self.client().await;
        client.say("SAVE").await;
        client.say("SET only-now 1").await;
        self.way.close();
        let from = client.stream().await.1;
        while client.stream().await.1 < from + 2 * BACKLOG_BYTES {
            sleep(Duration::from_millis(200)).await;
        }
        let begun = Instant::now();
        self.way.turn(self.server.port());
        self.until("the gap is recorded", |it| it.gaps() == 1).await?;
        self.until("the gap is mended", |it| it.is_mended(0)).await?;
        self.goes_on().await?;
        self.note("link cut for twice the backlog: read anew, compared", begun.elapsed());
        Ok(())
    }

    fn is_mended(&self, gap: usize) -> bool {
        self.cluster.gaps(EXPORT).get(gap).is_some_and(|gap| gap["repair"] != "")
    }

    /// Redis is killed and has what it had saved before.
    pub(crate) async fn lose_writes(&mut self) -> Outcome<()> {
        self.server.kill().await;
        let begun = Instant::now();
        self.server.start_again().await;
        self.ended().await?;
        self.until("the gap is recorded", |it| it.gaps() == 2).await?;
        self.until("the gap is mended", |it| it.is_mended(1)).await?;
        self.goes_on().await?;
        self.note("Redis killed, started with older data: read anew, swept", begun.elapsed());
        Ok(())
    }
}
