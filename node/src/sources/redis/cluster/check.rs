//! Looks at a cluster before an export begins. Nothing is changed.

use tidegate_proto::v1::Check;

use super::nodes::Role;
use super::slots::{SLOTS, SlotSet};
use super::{Seen, nodes};
use crate::error::Result;
use crate::sources::redis::check::{
    Server, backlog, describe, failed, output_buffer, passed, replicates,
};
use crate::sources::redis::config::RedisConfig;
use crate::sources::redis::wire::{Raw, Wire};

/// That each slot has a primary, and that each primary can be read.
pub(in crate::sources::redis) async fn checks(config: &RedisConfig, seen: &Seen) -> Vec<Check> {
    const SERVER: &str = "source: server";
    let nodes = match nodes(config, seen).await {
        Ok(nodes) => nodes,
        Err(error) => return vec![failed(SERVER, error.to_string(), "see above")],
    };
    let primaries: Vec<_> = nodes.iter().filter(|node| node.role == Role::Primary).collect();
    let mut servers = Vec::new();
    for node in &primaries {
        match describe(&config.at(&node.address)).await {
            Ok(server) => servers.push((node.address.clone(), server)),
            Err(error) => return vec![failed(SERVER, error.to_string(), "see above")],
        }
    }
    if servers.is_empty() {
        return vec![failed(SERVER, "no primary is up".to_owned(), "start the cluster's nodes")];
    }
    let keys: u64 = servers.iter().map(|(_, server)| server.keys).sum();
    let version = servers.first().map_or("", |(_, server)| &server.version);
    let detail =
        format!("version {version}, a cluster of {} primaries, {keys} keys", servers.len());
    let covered = primaries.iter().flat_map(|node| node.slots.iter()).collect();
    let mut buffers = Vec::new();
    for (address, server) in &servers {
        buffers.push((address.clone(), output_buffer(&config.at(address), server).await));
    }
    vec![
        passed(SERVER, detail),
        slots(&covered),
        each(
            "source: replication",
            "REPLCONF and PSYNC are allowed",
            &replication(config, &servers).await,
        ),
        each(
            "source: read-back",
            "keys on the move can be read",
            &read_back(config, &servers).await,
        ),
        worst(servers.iter().map(|(address, server)| (address.clone(), backlog(server)))),
        worst(buffers),
    ]
}

fn slots(covered: &SlotSet) -> Check {
    const NAME: &str = "source: slots";
    let missing: SlotSet = (0..SLOTS).filter(|slot| !covered.contains(*slot)).collect();
    if missing.is_empty() {
        return passed(NAME, "each has a primary".to_owned());
    }
    failed(
        NAME,
        format!("no primary has {missing}"),
        "redis-cli --cluster fix, or CLUSTER ADDSLOTS",
    )
}

fn each(name: &str, detail: &str, outcome: &Result<()>) -> Check {
    match outcome {
        Ok(()) => passed(name, detail.to_owned()),
        Err(error) => failed(name, error.to_string(), "see above"),
    }
}

async fn replication(config: &RedisConfig, servers: &[(String, Server)]) -> Result<()> {
    for (address, server) in servers {
        replicates(&config.at(address), server.major).await?;
    }
    Ok(())
}

/// Asks for a key as for one that is on the move; that there is none is no matter.
async fn read_back(config: &RedisConfig, servers: &[(String, Server)]) -> Result<()> {
    const KEY: &str = "tidegate";
    for (address, _) in servers {
        let mut wire = Wire::connect(&config.at(address)).await?;
        for command in [&["ASKING"][..], &["DUMP", KEY], &["PEXPIRETIME", KEY]] {
            let command: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
            wire.send(&[&command]).await?;
            match wire.raw(1 << 20).await? {
                Raw::Refused(why) if !why.starts_with("MOVED") && !why.starts_with("ASK ") => {
                    return Err(wire.refused("read a key of", &why));
                }
                Raw::Refused(_) | Raw::Text(_) | Raw::Bytes(_) | Raw::Nothing => {}
            }
        }
    }
    Ok(())
}

/// Of a check of each primary the first that fails, else the first.
fn worst(checks: impl IntoIterator<Item = (String, Check)>) -> Check {
    let named = |(address, check): (String, Check)| {
        let detail = format!("{address}: {}", check.detail);
        Check { detail, ..check }
    };
    let mut checks: Vec<Check> = checks.into_iter().map(named).collect();
    let worst = checks.iter().position(|check| !check.passed).unwrap_or(0);
    checks.swap_remove(worst)
}
