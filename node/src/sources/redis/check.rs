//! Looks at a server before an export begins. Nothing is changed.

use std::collections::HashMap;

use tidegate_proto::v1::Check;

use super::config::RedisConfig;
use super::output::{self, Limit};
use super::wire::{Reply, Wire};
use crate::error::{Error, ErrorKind, Result};

/// Dumps of older servers are not read.
const MAJOR_MIN: u32 = 6;
/// Clusters of older servers do not tell when a key ends.
const CLUSTER_MAJOR_MIN: u32 = 7;

/// What a server says of itself.
#[derive(Debug, Default)]
pub(super) struct Server {
    /// Keys in all databases.
    pub(super) keys: u64,
    /// Bytes of memory that they take.
    pub(super) keys_bytes: u64,
    /// It is a node of a cluster.
    pub(super) cluster: bool,
    pub(super) version: String,
    pub(super) major: u32,
    /// Size of the ring from which a replica that comes back is served.
    pub(super) backlog_bytes: u64,
    pub(super) writes_per_second: u64,
}

/// Asks a server about itself; fails if it cannot be exported.
pub(super) async fn describe(config: &RedisConfig) -> Result<Server> {
    let mut wire = Wire::connect(config).await?;
    let text = wire.ask_done(&["INFO"], "describe").await?;
    let fields: HashMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once(':')).collect();
    let field = |name: &str| fields.get(name).copied().unwrap_or_default();
    let refuse = |why: String| {
        Err(Error::new(ErrorKind::Config, format!("redis at {}: {why}", wire.address())))
    };
    let cluster = field("cluster_enabled") == "1";
    let version = field("redis_version").to_owned();
    let major = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    if major < MAJOR_MIN {
        return refuse(format!("version {version} is older than {MAJOR_MIN}; upgrade it"));
    }
    if cluster && major < CLUSTER_MAJOR_MIN {
        return refuse(format!("a cluster of version {version} is not read; upgrade it to 7"));
    }
    let keys =
        fields.iter().filter(|(name, _)| name.starts_with("db")).map(|(_, of)| keys(of)).sum();
    Ok(Server {
        keys,
        keys_bytes: field("used_memory_dataset").parse().unwrap_or(0),
        cluster,
        version,
        major,
        backlog_bytes: field("repl_backlog_size").parse().unwrap_or(0),
        writes_per_second: bytes_per_second(field("instantaneous_input_kbps")),
    })
}

/// As `keys=1,expires=0,avg_ttl=0`.
fn keys(of: &str) -> u64 {
    let count = of.strip_prefix("keys=").and_then(|rest| rest.split(',').next());
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// From `12.34` KiB.
fn bytes_per_second(kilobytes: &str) -> u64 {
    let whole: Option<u64> = kilobytes.split('.').next().and_then(|whole| whole.parse().ok());
    whole.unwrap_or(0).saturating_mul(1024)
}

/// That it is there, may be read, hands out its stream, and keeps enough of it.
pub(super) async fn checks(config: &RedisConfig) -> Vec<Check> {
    let server = match describe(config).await {
        Ok(server) => server,
        Err(error) => return vec![failed("source: server", error.to_string(), "see above")],
    };
    let detail = format!("version {}, {} keys", server.version, server.keys);
    let mut checks = vec![passed("source: server", detail)];
    checks.push(match replicates(config, server.major).await {
        Ok(()) => passed("source: replication", "REPLCONF and PSYNC are allowed".to_owned()),
        Err(error) => failed("source: replication", error.to_string(), "see above"),
    });
    checks.push(backlog(&server));
    checks.push(output_buffer(config, &server).await);
    checks
}

/// That it lets a replica that reads a dump fall behind far enough.
pub(super) async fn output_buffer(config: &RedisConfig, server: &Server) -> Check {
    let limit = async {
        let mut wire = Wire::connect(config).await?;
        wire.setting("client-output-buffer-limit").await
    };
    // A server that is gone is told of by the other checks.
    let limit = limit.await.ok().flatten();
    output::judge(server, limit.as_deref().and_then(Limit::parse))
}

/// Asks for a stream that cannot be, so that the answer is an error of one kind
/// or another and no dump begins.
pub(super) async fn replicates(config: &RedisConfig, major: u32) -> Result<()> {
    const DOING: &str = "replicate from";
    let mut wire = Wire::connect(config).await?;
    wire.ask_done(&["REPLCONF", "capa", "psync2"], DOING).await?;
    // Version 6 takes what is no number for a wish to have a dump.
    let wrong: &[&str] = if major > 6 { &["PSYNC", "?", "none"] } else { &["PSYNC", "?"] };
    match wire.ask(wrong).await? {
        Reply::Refused(why) if why.contains("wrong number of") || why.contains("an integer") => {
            Ok(())
        }
        Reply::Refused(why) => Err(wire.refused(DOING, &why)),
        Reply::Text(_) => Ok(()),
    }
}

pub(super) fn backlog(server: &Server) -> Check {
    const NAME: &str = "source: backlog";
    const SECONDS_MIN: u64 = 60;
    let (size, speed) = (server.backlog_bytes, server.writes_per_second);
    let mebibytes = size >> 20;
    match size.checked_div(speed) {
        Some(seconds) if seconds < SECONDS_MIN => failed(
            NAME,
            format!(
                "{mebibytes} MiB last {seconds} s at the speed of now: a longer break means a new dump"
            ),
            "CONFIG SET repl-backlog-size 1gb, or what a break of minutes needs",
        ),
        Some(seconds) => {
            passed(NAME, format!("{mebibytes} MiB last {seconds} s at the speed of now"))
        }
        None => passed(NAME, format!("{mebibytes} MiB; nothing is written now")),
    }
}

pub(super) fn passed(name: &str, detail: String) -> Check {
    Check { name: name.to_owned(), passed: true, detail, ..Check::default() }
}

pub(super) fn failed(name: &str, detail: String, remedy: &str) -> Check {
    Check { name: name.to_owned(), passed: false, detail, remedy: remedy.to_owned() }
}
