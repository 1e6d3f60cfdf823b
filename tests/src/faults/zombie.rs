//! A node that stands still between the data of a batch and its commit, at every
//! kind of sink at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tidegate_proto::v1::Shard;
use tokio::time::Instant;
use tonic::async_trait;

use super::arena::{GENERATED, exports_of, jsonl_folder, number_of, sinks_of};
use super::process::stands_still;
use super::{Arena, Before, Fault};
use crate::Outcome;
use crate::world::{Gate, Held, Mood, node};

/// How long it stands still.
const FROZEN: Duration = Duration::from_secs(10);
/// How long its successors may take until their sinks move on.
const TAKEN_OVER: Duration = Duration::from_secs(30);
/// In the path of a position of the `jsonl` sink that is written and not yet in place.
const POSITION: &str = "/new.json";

/// What it had begun is let go once others have taken over and it is thawed.
pub(super) struct Zombie {
    pick: usize,
    node: usize,
    before: Before,
    /// By sink, what is known of gates before; the syncs held before.
    gates: BTreeMap<&'static str, Held>,
    syncs: (u64, u64),
    /// From the freeze until every sink had moved on without it.
    took: Duration,
    /// Files of lines that no owner may add to any more, and how long they are.
    closed: Closed,
}

/// By stem, the newest opening; and the files of those before, with their lengths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Closed {
    newest: BTreeMap<String, u64>,
    files: BTreeMap<PathBuf, u64>,
}

impl Zombie {
    pub(super) fn of(pick: usize) -> Self {
        Self {
            pick,
            node: 0,
            before: Before::default(),
            gates: BTreeMap::new(),
            syncs: (0, 0),
            took: Duration::ZERO,
            closed: Closed::default(),
        }
    }

    /// Everything the node is about to commit is held from now on.
    fn hold(&mut self, arena: &Arena) -> Outcome<()> {
        arena.world.bucket.proxy.set(Mood::Gated);
        for (sink, gate) in gates(arena)? {
            self.gates.insert(sink, gate.held());
            gate.close(node(self.node));
        }
        let disk = arena.world.disk(self.node)?;
        self.syncs = (disk.disturbed(), 0);
        disk.hold(POSITION)
    }

    fn is_met(&self, arena: &Arena) -> bool {
        let since = |(sink, gate): (&'static str, &Gate)| {
            self.gates.get(sink).is_some_and(|before| gate.held().met > before.met)
        };
        let synced = arena.world.disk(self.node).is_ok_and(|it| it.disturbed() > self.syncs.0);
        synced && gates(arena).is_ok_and(|all| all.into_iter().all(since))
    }

    /// Freezes it, and waits until every shard moves on at every sink.
    async fn freeze(&mut self, arena: &mut Arena) -> Outcome<()> {
        let frozen = Instant::now();
        arena.world.cluster.signal(self.node, "STOP");
        let process = arena.world.cluster.process(self.node).ok_or("the node does not run")?;
        if !stands_still(process).await {
            return Err(format!("node{} goes on", self.node).into());
        }
        let mark = delivered(arena);
        let count = mark.len();
        arena
            .until("every sink moves on without the frozen node", |it| {
                let now = delivered(it);
                let on = mark.iter().filter(|(of, at)| now.get(*of).is_some_and(|now| now > *at));
                on.count() == count || frozen.elapsed() > TAKEN_OVER
            })
            .await?;
        self.took = frozen.elapsed();
        if self.took > TAKEN_OVER {
            let now = delivered(arena);
            let still: Vec<_> = mark.iter().filter(|(of, at)| now.get(*of) <= Some(*at)).collect();
            return Err(format!("after {TAKEN_OVER:?} these stand still: {still:?}").into());
        }
        Ok(())
    }

    /// What became of what was held: all of it refused, or it fails.
    fn refused(&self, arena: &Arena) -> Outcome<String> {
        let mut said = Vec::new();
        for (sink, gate) in gates(arena)? {
            let (now, before) = (gate.held(), self.gates.get(sink).copied().unwrap_or_default());
            let (met, done) = (now.met - before.met, now.done - before.done);
            if done > 0 || met == 0 || met != now.refused - before.refused {
                return Err(format!("{sink}: of {met} commits held, {done} were done").into());
            }
            said.push(format!("{met} of {sink}"));
        }
        let syncs = self.syncs.1 - self.syncs.0;
        said.push(format!("{syncs} of jsonl"));
        Ok(said.join(", "))
    }
}

#[async_trait]
impl Fault for Zombie {
    fn lasts(&self) -> Duration {
        FROZEN.saturating_sub(self.took)
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        let sinks = sinks_of(&arena.world).len();
        arena
            .until("every sink has something of every shard", |it| {
                let has = |shard: &Shard| {
                    shard.delivered.values().filter(|at| at.sequence > 0).count() == sinks
                };
                it.watch.cluster().shards.iter().all(has)
            })
            .await?;
        self.node = writer(arena, self.pick).await?;
        self.before = arena.before();
        self.hold(arena)?;
        let zombie = &*self;
        arena.until("a commit to every sink is held", |it| zombie.is_met(it)).await?;
        self.freeze(arena).await?;
        let took = self.took.as_millis();
        Ok(format!("node{} froze with commits in hand, replaced in {took} ms", self.node))
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        self.closed = Closed::now(arena)?;
        self.syncs.1 = arena.world.disk(self.node)?.disturbed();
        arena.world.cluster.signal(self.node, "CONT");
        for (_, gate) in gates(arena)? {
            gate.open();
        }
        arena.world.disk(self.node)?.obey();
        let ended = |it: &Arena| {
            let over = |held: Held| held.met == held.done + held.refused;
            gates(it).is_ok_and(|all| all.into_iter().all(|(_, gate)| over(gate.held())))
        };
        arena.until("what was held has come to its end", ended).await?;
        let number = self.node;
        arena
            .until("the thawed node votes, and its copies are in sync", |it| {
                let cluster = it.watch.cluster();
                let own = |id: &u64| number_of(cluster.name_of(*id)) == Some(number);
                // It has none if it was away for so long that others keep them now.
                let lacks =
                    |shard: &Shard| shard.copies.iter().any(own) && !shard.in_sync.iter().any(own);
                cluster.status.voters.iter().any(own) && !cluster.shards.iter().any(lacks)
            })
            .await?;
        arena.world.bucket.proxy.set(Mood::Fair);
        Ok(())
    }

    async fn proof(&self, arena: &Arena) -> Outcome<String> {
        let (refused, zombie) = (self.refused(arena)?, self.node);
        let moved = self.before.moved(&arena.before(), |reader| reader == zombie)?;
        let now = Closed::upto(&self.closed.newest, arena)?;
        if now != self.closed || now.files.is_empty() {
            return Err(format!("closed files are {:?}, were {:?}", now, self.closed).into());
        }
        let failed = arena.watch.cluster().shards.into_iter().find(|it| !it.failure.is_empty());
        if let Some(Shard { failure, .. }) = failed {
            return Err(format!("a shard has failed: {failure}").into());
        }
        let files = self.closed.files.len();
        Ok(format!("{moved} shards moved, held and refused: {refused}; {files} files are closed"))
    }
}

impl Closed {
    fn now(arena: &Arena) -> Outcome<Self> {
        let mut newest = BTreeMap::new();
        for path in listed(arena)? {
            if let Some(stem) = name_of(&path).strip_suffix(".position.json") {
                let position: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
                newest.insert(stem.to_owned(), position["opening"].as_u64().unwrap_or(0));
            }
        }
        Self::upto(&newest, arena)
    }

    /// The files before these openings.
    fn upto(newest: &BTreeMap<String, u64>, arena: &Arena) -> Outcome<Self> {
        let mut files = BTreeMap::new();
        for path in listed(arena)? {
            let name = name_of(&path);
            let mut parts = name.strip_suffix(".jsonl").unwrap_or_default().rsplitn(3, '-');
            let (_, opening, stem) = (parts.next(), parts.next(), parts.next());
            let bound = stem.and_then(|stem| newest.get(stem)).copied().unwrap_or(0);
            if opening.and_then(|text| text.parse::<u64>().ok()).is_some_and(|it| it < bound) {
                let bytes = std::fs::metadata(&path)?.len();
                files.insert(path, bytes);
            }
        }
        Ok(Self { newest: newest.clone(), files })
    }
}

/// All that lies in the folders of the `jsonl` sinks.
fn listed(arena: &Arena) -> Outcome<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for export in exports_of(&arena.world) {
        for entry in std::fs::read_dir(jsonl_folder(&arena.world).join(export))? {
            paths.push(entry?.path());
        }
    }
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Where commits can be held, by sink.
fn gates(arena: &Arena) -> Outcome<[(&'static str, &Gate); 2]> {
    let database = arena.world.database.as_ref();
    let database = database.ok_or("this world was made without a database")?;
    Ok([("lake", arena.world.bucket.proxy.gate()), ("postgres", database.doubter.gate())])
}

/// How far each sink is with each shard.
fn delivered(arena: &Arena) -> BTreeMap<(u64, String, String), u64> {
    let mut all = BTreeMap::new();
    for shard in &arena.watch.cluster().shards {
        let export = shard.id.map_or(0, |id| id.export_id);
        let name = shard.spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default();
        for (sink, checkpoint) in &shard.delivered {
            all.insert((export, name.clone(), sink.clone()), checkpoint.sequence);
        }
    }
    all
}

/// The number of a node that writes to every sink: one of them by `pick`. If there is
/// none, since nodes did not see sinks before, the reader of a shard becomes one.
pub(super) async fn writer(arena: &mut Arena, pick: usize) -> Outcome<usize> {
    if writers(arena).is_empty() {
        gather(arena, pick).await?;
    }
    let all = writers(arena);
    let at = pick.checked_rem(all.len()).ok_or("no node writes to every sink")?;
    Ok(all[at])
}

/// The numbers of the nodes that write to every sink, of one shard or another.
fn writers(arena: &Arena) -> Vec<usize> {
    let (cluster, sinks) = (arena.watch.cluster(), sinks_of(&arena.world));
    let writes = |number: &usize, sink: &str| {
        let ids = cluster.shards.iter().filter_map(|shard| shard.writers.get(sink));
        ids.into_iter().any(|id| number_of(cluster.name_of(*id)) == Some(*number))
    };
    (0..arena.world.size()).filter(|it| sinks.iter().all(|sink| writes(it, sink))).collect()
}

/// Has the node that reads a shard write to all its sinks.
async fn gather(arena: &mut Arena, pick: usize) -> Outcome<()> {
    let cluster = arena.watch.cluster();
    let of = |it: &&Shard| it.spec.as_ref().is_some_and(|spec| spec.name.starts_with("datagen-"));
    let shards: Vec<_> = cluster.shards.iter().filter(of).collect();
    let at = pick.checked_rem(shards.len()).ok_or("there are no shards")?;
    let name = shards[at].spec.as_ref().map_or("", |spec| spec.name.as_str());
    let reader = cluster.name_of(shards[at].reader);
    let elsewhere = |sink: &&&str| shards[at].writers.get(**sink) != Some(&shards[at].reader);
    let mut words = vec!["shard".to_owned(), "move".to_owned(), format!("{GENERATED}/{name}")];
    for sink in sinks_of(&arena.world).iter().filter(elsewhere) {
        words.extend(["--writer".to_owned(), format!("{sink}={reader}")]);
    }
    arena.cli(&words.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    arena.until("a node writes to every sink", |it| !writers(it).is_empty()).await
}
