//! Write-ahead logs that end in the middle of a record.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tonic::async_trait;

use super::{Arena, Before, Fault};
use crate::Outcome;

/// Folders of a node with a RocksDB in each.
const STORES: [&str; 2] = ["raft/db", "spool"];
/// A record of such a log is a CRC of four bytes, a length of two, little endian, a type
/// and a payload; none crosses the border of a block.
const BLOCK: usize = 32 << 10;
/// The type of a record that was not split.
const WHOLE: u8 = 1;

/// Nodes die while they write a record: all that was synced is there, and of the next
/// record a part. To cut off more would be a disk that lies, which no majority
/// survives.
pub(super) struct Torn {
    pick: usize,
    random: StdRng,
    nodes: Vec<usize>,
    /// Bytes that each store was left with of a record that it never wrote.
    parts: Vec<usize>,
    /// How far the log was applied.
    applied: u64,
    before: Before,
}

impl Torn {
    pub(super) fn of(pick: usize, seed: u64) -> Self {
        let (random, before) = (StdRng::seed_from_u64(seed), Before::default());
        Self { pick, random, nodes: Vec::new(), parts: Vec::new(), applied: 0, before }
    }
}

#[async_trait]
impl Fault for Torn {
    fn lasts(&self) -> Duration {
        Duration::from_millis(500)
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        let size = arena.world.size();
        self.nodes = match self.pick % 2 {
            0 => vec![arena.owner(self.pick / 2)?],
            _ => (0..size).collect(),
        };
        (self.before, self.applied) = (arena.before(), arena.watch.cluster().status.applied);
        for node in &self.nodes {
            arena.world.cluster.kill(*node).await;
        }
        for node in &self.nodes {
            for store in STORES {
                let log = newest_log(&arena.world.cluster.data(*node).join(store))?;
                self.parts.push(tear(&log, &mut self.random)?);
            }
        }
        Ok(format!("{:?} died while they wrote a record", self.nodes))
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        for node in &self.nodes {
            arena.world.cluster.start_node(*node);
        }
        Ok(())
    }

    async fn proof(&self, arena: &Arena) -> Outcome<String> {
        for node in &self.nodes {
            let applied = arena.watch.said_by(*node).status.applied;
            if applied < self.applied {
                let was = self.applied;
                return Err(format!("node{node} has applied {applied}, after {was}").into());
            }
        }
        let moved = self.before.moved(&arena.before(), |reader| self.nodes.contains(&reader))?;
        Ok(format!("records were torn after {:?} bytes, {moved} shards moved", self.parts))
    }
}

/// The log that a store wrote to last.
fn newest_log(folder: &Path) -> Outcome<PathBuf> {
    let mut newest = None;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if path.extension().is_some_and(|end| end == "log") {
            newest = newest.max(number.map(|number| (number, path)));
        }
    }
    let (_, path) = newest.ok_or_else(|| format!("{} has no log", folder.display()))?;
    Ok(path)
}

/// Writes the beginning of a record behind the last one. Returns how long it is.
fn tear(log: &Path, random: &mut StdRng) -> Outcome<usize> {
    let written = usize::try_from(std::fs::metadata(log)?.len())?;
    let record = record(random);
    let room = BLOCK - written % BLOCK;
    let part = random.random_range(1..record.len().min(room + 1));
    std::fs::File::options().append(true).open(log)?.write_all(&record[..part])?;
    Ok(part)
}

/// Whoever has a part of it cannot tell that its sum is wrong.
fn record(random: &mut StdRng) -> Vec<u8> {
    let length = random.random_range(100..4000_u16);
    let mut bytes = random.random::<[u8; 4]>().to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.push(WHOLE);
    bytes.extend((0..length).map(|_| random.random::<u8>()));
    bytes
}
