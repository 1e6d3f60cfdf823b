//! A cluster under load with everybody who judges it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate_node::sources::datagen::DatagenConfig;
use tidegate_proto::v1::{Shard, SnapshotState};
use tokio::time::{Instant, sleep};

use super::before::{Before, SLOTS};
use crate::Outcome;
use crate::cluster::cli_of;
use crate::feed::Subscriber;
use crate::oracle::{Generated, Items, Ledger, Memory, Observed, Scribe, Teller, Watch};
use crate::world::{Extras, World};

/// The export of generated changes, and how many shards it has.
pub(super) const GENERATED: &str = "generated";
const SHARDS: u32 = 6;
/// The export of the bank; one shard, so that transfers stay in order.
pub(super) const BANK: &str = "bank";
/// The export of a table in DynamoDB.
pub(super) const ITEMS: &str = "items";
/// How long anything may take to be well again.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);
/// How long a write may take to its subscriber when all is well.
const FRESH: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// What a node may hold in memory under this load.
const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// What is put up before anything goes wrong.
#[derive(Clone, Debug)]
pub struct Scene {
    /// All that is drawn follows from it.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Generated changes per second and shard.
    pub rate: u32,
    /// What its faults need.
    pub extras: Extras,
    /// Where the binaries lie.
    pub binaries: PathBuf,
    /// Where those of another version lie, which F26 needs.
    pub next: Option<PathBuf>,
}

/// A cluster, its load, its subscribers and its watch.
#[derive(Debug)]
pub struct Arena {
    /// The machines.
    pub world: World,
    /// What the nodes say.
    pub watch: Watch,
    /// Follows the generated export.
    pub generated: Subscriber<Generated>,
    /// Follows the bank.
    pub bank: Subscriber<Ledger>,
    pub(super) teller: Teller,
    /// Writes to the table, if there is one, and follows it.
    pub(super) items: Option<(Scribe, Subscriber<Items>)>,
    /// Of the nodes.
    pub memory: Memory,
    /// Where the binaries of another version lie, if there are any.
    pub next: Option<PathBuf>,
}

impl Arena {
    /// Starts everything and waits until changes flow and every spool has its copies.
    ///
    /// # Errors
    ///
    /// If something does not start.
    pub async fn start(scene: &Scene) -> Outcome<Self> {
        let Scene { binaries, nodes, seed, extras, .. } = scene;
        let world = World::start(binaries, *nodes, *seed, extras).await?;
        let config = DatagenConfig {
            seed: scene.seed,
            shards: SHARDS,
            keys: 500,
            document_bytes: 320,
            rate_per_second: scene.rate,
            ..DatagenConfig::default()
        };
        let folder = jsonl_folder(&world);
        world.cluster.apply(&format!("{}{}", generated_source(&config), sinks(&world, GENERATED)));
        let endpoint = world.documents.endpoint();
        world.cluster.apply(&format!(
            "name = \"{BANK}\"\n[source]\nkind = \"embedded\"\nendpoint = \"{endpoint}\"\n\
             shards = 1\n{}",
            sinks(&world, BANK)
        ));
        let addresses = world.cluster.addresses();
        if let Some(table) = &world.table {
            let source = table.source();
            let sinks = sinks(&world, ITEMS);
            world.cluster.apply(&format!("name = \"{ITEMS}\"\n[source]\n{source}{sinks}"));
        }
        let watch = Watch::start(addresses.clone(), folder);
        let judge = Generated::new(&config)?;
        let generated = Subscriber::start(GENERATED, addresses.clone(), judge);
        let bank = Subscriber::start(BANK, addresses.clone(), Ledger::default());
        // Between rows of the snapshot transfers are in no order, so the first one waits.
        let read = || watch.cluster().shards.iter().filter(|it| snapshot_is_read(it)).count();
        let end = Instant::now() + PATIENCE;
        while read() < shard_count(&world) {
            if Instant::now() > end {
                return Err(format!("{} shards have read their snapshot", read()).into());
            }
            sleep(LOOK).await;
        }
        let teller = Teller::start(Arc::clone(&world.documents), scene.seed).await?;
        let items = world.table.as_ref().map(|table| {
            let follows = Subscriber::start(ITEMS, addresses, Items::default());
            (Scribe::start(table, scene.seed), follows)
        });
        let memory = Memory::with_bound(MEMORY_BYTES_MAX);
        let next = scene.next.clone();
        let mut arena = Self { world, watch, generated, bank, teller, items, memory, next };
        arena.whole().await?;
        arena.flowing().await?;
        Ok(arena)
    }

    /// What is so now.
    #[must_use]
    pub fn before(&self) -> Before {
        let cluster = self.watch.cluster();
        let place = |shard: &Shard| {
            let name = shard.spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default();
            (name, (shard.epoch, number_of(cluster.name_of(shard.reader))))
        };
        let shards = cluster.shards.iter().map(place).collect();
        let rescued = cluster.shards.iter().flat_map(|shard| {
            let of = |(sink, epoch): (&String, &u64)| ((place(shard).0, sink.clone()), *epoch);
            shard.rescued.iter().map(of).collect::<Vec<_>>()
        });
        let rescued = rescued.collect();
        Before { shards, rescued, term: cluster.status.term }
    }

    /// The number of the leader.
    ///
    /// # Errors
    ///
    /// If there is none for a long time.
    pub async fn leader(&mut self) -> Outcome<usize> {
        self.until("there is a leader", |it| number_of(it.watch.cluster().leader()).is_some())
            .await?;
        number_of(self.watch.cluster().leader()).ok_or_else(|| "the leader is gone".into())
    }

    /// The number of a node that reads shards: one of them by `pick`.
    ///
    /// # Errors
    ///
    /// If nobody reads any.
    pub fn owner(&self, pick: usize) -> Outcome<usize> {
        let mut owners: Vec<_> = self.before().shards.values().filter_map(|it| it.1).collect();
        owners.sort_unstable();
        owners.dedup();
        let at = pick.checked_rem(owners.len()).ok_or("no node reads a shard")?;
        Ok(owners[at])
    }

    /// Who reads the bank.
    ///
    /// # Errors
    ///
    /// If nobody does.
    pub fn teller_node(&self) -> Outcome<usize> {
        let shards = self.before().shards;
        let bank = shards.iter().find(|(name, _)| name.starts_with(SLOTS));
        bank.and_then(|(_, (_, reader))| *reader).ok_or_else(|| "nobody reads the bank".into())
    }

    /// Waits until all nodes are up, all vote, and all spools have two copies in sync.
    ///
    /// # Errors
    ///
    /// If it takes too long, or an oracle has found something.
    pub async fn whole(&mut self) -> Outcome<()> {
        self.until("all nodes are up and all spools have two copies in sync", |it| {
            let size = it.world.size();
            let is_whole = |cluster: &Observed| {
                let both = cluster.shards.iter().all(|shard| shard.in_sync.len() >= 2.min(size));
                // One that was just replaced is waited for until the group counts on it.
                let whole = cluster.up() == size && cluster.status.voters.len() == size;
                whole && cluster.shards.len() == shard_count(&it.world) && both
            };
            (0..size).all(|node| is_whole(&it.watch.said_by(node)))
        })
        .await
    }

    /// Waits until changes of every shard have come from now on. Returns how long
    /// each took, in milliseconds.
    ///
    /// # Errors
    ///
    /// As [`Arena::whole`].
    pub async fn flowing(&mut self) -> Outcome<BTreeMap<String, f64>> {
        let begun = Instant::now();
        let before = self.sequences();
        let mut took = BTreeMap::new();
        while took.len() < shard_count(&self.world) {
            self.check()?;
            if begun.elapsed() > PATIENCE {
                return Err(self.lost("every shard moves on"));
            }
            sleep(LOOK / 5).await;
            let mut now = self.sequences();
            now.retain(|shard, at| *at > before.get(shard).copied().unwrap_or(0));
            for shard in now.into_keys() {
                took.entry(shard).or_insert(begun.elapsed().as_secs_f64() * 1000.0);
            }
        }
        Ok(took)
    }

    /// A write made now reaches its subscriber soon. Returns after how long.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub async fn fresh(&mut self) -> Outcome<Duration> {
        let begun = Instant::now();
        let newest = self.teller.accounts()?.values().map(|it| it.transfer).max().unwrap_or(0);
        // The one after it is written from now on.
        while self.bank.ask(|ledger| ledger.transfer()) <= newest {
            self.check()?;
            if begun.elapsed() > FRESH {
                return Err(self.lost(&format!("a fresh write comes within {FRESH:?}")));
            }
            sleep(LOOK / 5).await;
        }
        Ok(begun.elapsed())
    }

    /// Fails if any oracle has found something.
    ///
    /// # Errors
    ///
    /// What it has found.
    pub fn check(&mut self) -> Outcome<()> {
        self.generated.alive()?;
        self.bank.alive()?;
        if let Some((scribe, items)) = &self.items {
            scribe.alive()?;
            items.alive()?;
        }
        self.watch.alive()?;
        self.teller.accounts()?;
        for number in 0..self.world.size() {
            if let Some(process) = self.world.cluster.process(number) {
                self.memory.look(process)?;
            }
        }
        Ok(())
    }

    /// Looks until `done` says so.
    ///
    /// # Errors
    ///
    /// As [`Arena::whole`].
    pub async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Outcome<()> {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            self.check()?;
            if Instant::now() > end {
                return Err(self.lost(what));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Whether what was lost with all copies may come again from now on.
    pub fn set_may_rewind(&self, may: bool) {
        self.generated.set_may_rewind(may);
        self.bank.set_may_rewind(may);
        if let Some((_, items)) = &self.items {
            items.set_may_rewind(may);
        }
        self.watch.set_may_rewind(may);
    }

    /// The last sequence each subscriber has of each shard.
    #[must_use]
    pub fn sequences(&self) -> BTreeMap<String, u64> {
        let items = self.items.iter().flat_map(|(_, items)| items.sequences());
        self.generated.sequences().into_iter().chain(self.bank.sequences()).chain(items).collect()
    }

    /// From now on the largest gaps of all subscribers count anew.
    pub(super) fn begin_round(&self) {
        self.generated.begin_round();
        self.bank.begin_round();
        if let Some((_, items)) = &self.items {
            items.begin_round();
        }
    }

    /// The largest gap of each shard since.
    pub(super) fn gaps(&self) -> BTreeMap<String, Duration> {
        let items = self.items.iter().flat_map(|(_, items)| items.gaps());
        self.generated.gaps().into_iter().chain(self.bank.gaps()).chain(items).collect()
    }

    /// Runs the CLI without holding anything up.
    ///
    /// # Errors
    ///
    /// What it says when it fails.
    pub async fn cli(&self, arguments: &[&str]) -> Outcome<String> {
        let endpoints = self.world.cluster.endpoints();
        let binaries = self.world.cluster.binaries().to_owned();
        let arguments: Vec<_> = arguments.iter().map(|&word| word.to_owned()).collect();
        let output = tokio::task::spawn_blocking(move || {
            let words: Vec<_> = arguments.iter().map(String::as_str).collect();
            cli_of(&binaries, &endpoints, &words, std::process::Stdio::null())
        });
        let output = output.await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into())
    }

    fn lost(&self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        let cluster = self.watch.cluster();
        let shard = |it: &Shard| {
            let name = it.spec.as_ref().map_or("", |spec| spec.name.as_str());
            let (epoch, reader) = (it.epoch, cluster.name_of(it.reader));
            format!(
                "\n  {name}: epoch {epoch} at {reader}, in sync {:?} {}",
                it.in_sync, it.failure
            )
        };
        let shards: String = cluster.shards.iter().map(shard).collect();
        let up = cluster.up();
        format!(
            "waited in vain until {what}; {up} nodes are up; fed {:?}{shards}",
            self.sequences()
        )
        .into()
    }
}

/// All rows of its snapshot are captured.
fn snapshot_is_read(shard: &Shard) -> bool {
    let progress = shard.captured.as_ref().and_then(|captured| captured.progress.as_ref());
    progress.is_some_and(|progress| progress.snapshot() == SnapshotState::Complete)
}

/// How many shards there are in all.
fn shard_count(world: &World) -> usize {
    // Of all exports but the generated one, one each.
    SHARDS as usize + exports_of(world).len() - 1
}

/// Where the sinks named `jsonl` keep their files.
pub(super) fn jsonl_folder(world: &World) -> PathBuf {
    world.cluster.folder().join("jsonl")
}

/// `node2` is 2, and so is `node2-1`, which took its place.
pub(super) fn number_of(name: &str) -> Option<usize> {
    name.strip_prefix("node")?.split('-').next()?.parse().ok()
}

/// What the node is called that takes the place of another.
pub(super) fn named(old: &str) -> String {
    let (name, count) = old.split_once('-').unwrap_or((old, "0"));
    format!("{name}-{}", count.parse().unwrap_or(0) + 1)
}

fn generated_source(config: &DatagenConfig) -> String {
    let DatagenConfig { seed, shards, keys, document_bytes, rate_per_second, .. } = config;
    format!(
        "name = \"{GENERATED}\"\n[source]\nkind = \"datagen\"\nseed = {seed}\nshards = {shards}\n\
         keys = {keys}\ndocument-bytes = {document_bytes}\nrate-per-second = {rate_per_second}\n"
    )
}

/// The names of the exports.
pub(super) fn exports_of(world: &World) -> Vec<&'static str> {
    let always = [GENERATED, BANK].into_iter();
    always.chain(world.table.is_some().then_some(ITEMS)).collect()
}

/// The names of the sinks of each export.
pub(super) fn sinks_of(world: &World) -> Vec<&'static str> {
    let always = ["lake", "jsonl"].into_iter();
    always.chain(world.database.is_some().then_some("postgres")).collect()
}

fn sinks(world: &World, export: &str) -> String {
    let folder: &Path = &jsonl_folder(world).join(export);
    let sink = |name: &&str| {
        let keys = match (*name, &world.database) {
            ("lake", _) => format!("delay-ms = 2000\n{}", world.bucket.table("faults")),
            ("postgres", Some(database)) => database.table(),
            _ => format!("path = \"{}\"\n", folder.display()),
        };
        format!("[[sink]]\nname = \"{name}\"\nkind = \"{name}\"\n{keys}")
    };
    sinks_of(world).iter().map(sink).collect()
}
