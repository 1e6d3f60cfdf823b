//! What writes, its connection and the server's process, killed and frozen at
//! every place of a transaction, while another shard writes to the same table.
//!
//! METHOD A proxy that knows the protocol strikes at a named message. The faults
//! are all there are, shuffled by a seed, over and over. After each the tables
//! are compared with a map that took the same changes, and the checkpoint row
//! with the owners there were. Fields come up as it goes on, so columns are
//! added in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::inferred::WRONG;
use super::proxy::{Act, Fault, Point, Proxy};
use super::*;
use crate::asked::{number, tell};

/// Faults of a run of the tests; `make kills KILLS=200 SEED=7` asks for others.
const KILLS: usize = 40;
/// Keys of a shard that changes fall on.
const KEYS: u32 = 40;
/// Batches of a round; a transaction takes about three.
const BATCHES: usize = 8;
/// Changes until there is another field, and fields in all.
const FIELD_CHANGES: u64 = 300;
const FIELDS: u64 = 60;
/// No round takes longer, whatever is frozen in it.
const ROUND_MAX: Duration = Duration::from_secs(120);

/// What befalls whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    /// The connection breaks or the server's process dies; the owner goes on.
    Break,
    /// The connection or the server's process stands still for a while.
    Pause,
    /// The owner dies, another follows.
    Kill,
    /// The owner stands still, another follows, and the first one wakes up.
    Freeze,
}

/// How each is done: before the message gets to the server, or behind it.
const DEEDS: [(Deed, Act); 11] = [
    (Deed::Break, Act::Cut),
    (Deed::Break, Act::Swallow),
    (Deed::Break, Act::Terminate),
    (Deed::Break, Act::TerminateBehind),
    (Deed::Pause, Act::Hold),
    (Deed::Pause, Act::HoldBehind),
    (Deed::Pause, Act::Stop),
    (Deed::Kill, Act::Hold),
    (Deed::Kill, Act::HoldBehind),
    (Deed::Freeze, Act::Hold),
    (Deed::Freeze, Act::HoldBehind),
];

/// Before a transaction, at every message in it, and its end.
fn points(mode: Mode) -> Vec<Point> {
    let mut points = vec![Point::Begin, Point::Data, Point::Sent, Point::Statement(1)];
    if mode == Mode::Upsert {
        points.extend([Point::Statement(2), Point::Statement(3)]);
    }
    points.push(Point::Commit);
    points
}

/// What a shard captured, and what a reader should find of it.
struct Captured {
    shard: &'static str,
    rows: BTreeMap<String, u64>,
    last: u64,
    random: StdRng,
}

impl Captured {
    fn new(shard: &'static str, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { shard, rows: BTreeMap::new(), last: 0, random }
    }

    /// Some batches of drawn changes; a third are deletes.
    fn draw(&mut self) -> Vec<SinkBatch> {
        (0..BATCHES).map(|_| self.batch()).collect()
    }

    fn batch(&mut self) -> SinkBatch {
        let first = self.last + 1;
        self.last += self.random.random_range(1..20);
        let mut drawn = Vec::new();
        for sequence in first..=self.last {
            let key = format!("{} {}", self.shard, self.random.random_range(0..KEYS));
            let field = sequence / FIELD_CHANGES % FIELDS;
            let document = (self.random.random_range(0..3) > 0)
                .then(|| format!("{{\"n\": {sequence}, \"f{field}\": {sequence}}}"));
            match document {
                Some(_) => drop(self.rows.insert(key.clone(), sequence)),
                None => drop(self.rows.remove(&key)),
            }
            drawn.push((key, document));
        }
        let borrowed: Vec<_> =
            drawn.iter().map(|(key, document)| (&key[..], document.as_deref())).collect();
        changes(first, &borrowed)
    }

    /// Under `epoch` all of it came, and stands in its columns.
    fn is_in(&self, schema: &Schema, mode: Mode, epoch: u64) {
        let from = format!(
            "FROM items JOIN tidegate_checkpoint c ON c.id = tidegate_shard AND c.shard = '{}'",
            self.shard
        );
        let rows = match mode {
            Mode::Append => format!(
                "SELECT count(*), min(tidegate_sequence), max(tidegate_sequence), \
                 count(DISTINCT tidegate_sequence) {from}"
            ),
            Mode::Upsert => format!(
                "SELECT key, n, document->>'n', tidegate_sequence {from} ORDER BY key COLLATE \"C\""
            ),
        };
        // Only its own: what is beside it grows and grows.
        let found = schema.query(&format!(
            "SELECT epoch, sequence, records FROM tidegate_checkpoint WHERE shard = '{0}'; \
             {WRONG} AND tidegate_shard = \
             (SELECT id FROM tidegate_checkpoint WHERE shard = '{0}'); {rows}",
            self.shard
        ));
        let mut wanted = vec![format!("{epoch}|{0}|{0}", self.last), "0".to_owned()];
        match mode {
            Mode::Append => wanted.push(format!("{0}|1|{0}|{0}", self.last)),
            Mode::Upsert => {
                wanted.extend(self.rows.iter().map(|(key, n)| format!("{key}|{n}|{n}|{n}")));
            }
        }
        assert_eq!(found.lines().collect::<Vec<_>>(), wanted);
    }
}

/// Writes until all of `batches` are durable, as a writer does: after an error on
/// the same sink while it says `Unavailable`, else, or every other time, on a new one.
async fn own(
    config: PostgresConfig,
    shard: SinkShard,
    mut opened: Option<Opened>,
    batches: Arc<Vec<SinkBatch>>,
) -> Result<Opened> {
    for attempt in 0.. {
        let mut sink = match opened.take() {
            Some(sink) => sink,
            None => match open(&config, &shard).await {
                Ok(sink) => sink,
                Err(error) if error.kind() == ErrorKind::Unavailable => continue,
                Err(error) => return Err(error),
            },
        };
        let Err(error) = write(&mut sink, &batches).await else { return Ok(sink) };
        let again = error.kind() == ErrorKind::Unavailable;
        if !again && error.kind() != ErrorKind::Unknown {
            return Err(error);
        }
        opened = Some(sink).filter(|_| again && attempt % 2 == 0);
    }
    unreachable!("there is no last attempt")
}

async fn write(sink: &mut Opened, batches: &[SinkBatch]) -> Result<()> {
    for batch in batches {
        sink.sink.write(batch).await?;
    }
    sink.sink.flush().await.map(drop)
}

/// One shard whose owners are struck.
struct Struck {
    schema: Schema,
    proxy: Proxy,
    mode: Mode,
    captured: Captured,
    epoch: u64,
    opened: Option<Opened>,
    /// How often the row was claimed, when last seen.
    claims: u64,
}

impl Struck {
    /// One round with `fault` in wait; false if it did not come to pass.
    async fn round(&mut self, deed: Deed, fault: Fault) -> bool {
        let batches = Arc::new(self.captured.draw());
        self.proxy.arm(fault);
        let mut owner = self.owner(&batches);
        if deed == Deed::Break {
            self.opened = Some(owner.await.unwrap().unwrap());
            return !self.proxy.is_armed();
        }
        tokio::select! {
            () = self.proxy.held() => {}
            done = &mut owner => {
                self.opened = Some(done.unwrap().unwrap());
                return false;
            }
        }
        match deed {
            Deed::Break | Deed::Pause => {
                let pause = self.captured.random.random_range(10..100);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                self.proxy.release();
                self.opened = Some(owner.await.unwrap().unwrap());
            }
            Deed::Kill => self.kill(owner, &batches).await,
            Deed::Freeze => self.freeze(owner, &batches).await,
        }
        true
    }

    /// What it sent last may still arrive, before or after another follows.
    async fn kill(&mut self, owner: JoinHandle<Result<Opened>>, batches: &Arc<Vec<SinkBatch>>) {
        owner.abort();
        assert!(owner.await.is_err(), "it was held");
        let arrives = self.captured.random.random();
        if arrives {
            self.proxy.release();
        }
        self.epoch += 1;
        self.opened = Some(self.owner(batches).await.unwrap().unwrap());
        if !arrives {
            self.proxy.release();
        }
    }

    /// Awake again, it finds itself replaced: what it commits now would be seen.
    async fn freeze(&mut self, owner: JoinHandle<Result<Opened>>, batches: &Arc<Vec<SinkBatch>>) {
        self.epoch += 1;
        let config = self.schema.config(&self.proxy.url());
        let new = open(&config, &self.shard()).await.unwrap();
        let committed = new.committed.as_ref().map_or(0, |committed| committed.sequence.0);
        self.opened = Some(new);
        self.opened = Some(self.owner(batches).await.unwrap().unwrap());
        self.proxy.release();
        let error = match owner.await.unwrap() {
            Err(error) => error,
            Ok(mut old) => {
                assert_eq!(committed, self.captured.last, "it had all done when it froze");
                let more = batch(committed + 1, committed + 3);
                let mut error = write(&mut old, std::slice::from_ref(&more)).await.unwrap_err();
                while error.kind() == ErrorKind::Unavailable {
                    error = write(&mut old, std::slice::from_ref(&more)).await.unwrap_err();
                }
                error
            }
        };
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    }

    fn owner(&mut self, batches: &Arc<Vec<SinkBatch>>) -> JoinHandle<Result<Opened>> {
        let config = self.schema.config(&self.proxy.url());
        tokio::spawn(own(config, self.shard(), self.opened.take(), Arc::clone(batches)))
    }

    fn shard(&self) -> SinkShard {
        SinkShard { shard: self.captured.shard.to_owned(), ..shard(self.epoch) }
    }

    /// Compares tables and checkpoint row with what was captured.
    fn check(&mut self, before: u64) {
        self.captured.is_in(&self.schema, self.mode, self.epoch);
        let claims = format!(
            "SELECT opened FROM tidegate_checkpoint WHERE shard = '{}'",
            self.captured.shard
        );
        let claims = self.schema.query(&claims).parse().unwrap();
        assert!(claims >= self.claims + self.epoch - before, "every owner has claimed the row");
        self.claims = claims;
    }
}

/// Writes on and on beside it, under epoch 1, until it is told to stop.
async fn load(config: PostgresConfig, stop: Arc<AtomicBool>, seed: u64) -> Captured {
    let mut captured = Captured::new("load", seed);
    let mine = SinkShard { shard: captured.shard.to_owned(), ..shard(1) };
    let mut opened = None;
    while !stop.load(Ordering::Relaxed) {
        let batches = Arc::new(captured.draw());
        opened = Some(own(config.clone(), mine.clone(), opened, batches).await.unwrap());
    }
    captured
}

async fn strike(mode: Mode, seed: u64, kills: usize) {
    let stage = Stage::new().await;
    let schema = stage.schema(match mode {
        Mode::Upsert => "columns-inferred = true\nbatch-changes = 30",
        Mode::Append => "columns-inferred = true\nbatch-changes = 30\nmode = \"append\"",
    });
    let proxy = Proxy::start(&stage.server).await;
    let stop = Arc::new(AtomicBool::new(false));
    let loading =
        tokio::spawn(load(schema.config(&stage.server.url()), Arc::clone(&stop), seed + 1));
    let captured = Captured::new("struck", seed);
    let (opened, epoch, claims) = (None, 1, 0);
    let mut struck = Struck { schema, proxy, mode, captured, epoch, opened, claims };
    let all =
        points(mode).into_iter().flat_map(|point| DEEDS.map(|(deed, act)| (deed, act, point)));
    let mut faults: Vec<_> = all.collect();
    let mut random = StdRng::seed_from_u64(seed);
    let (mut done, mut kinds, mut longest) = (BTreeMap::new(), BTreeSet::new(), Duration::ZERO);
    let started = Instant::now();
    for number in 0..kills {
        if number % faults.len() == 0 {
            faults.shuffle(&mut random);
        }
        let (deed, act, point) = faults[number % faults.len()];
        let (before, round) = (struck.epoch, Instant::now());
        while !tokio::time::timeout(ROUND_MAX, struck.round(deed, Fault { point, act }))
            .await
            .unwrap_or_else(|_| panic!("{deed:?} {act:?} {point:?} is not over"))
        {}
        struck.check(before);
        *done.entry(deed).or_insert(0) += 1;
        kinds.insert((deed, act, point));
        longest = longest.max(round.elapsed());
    }
    let took = started.elapsed();
    stop.store(true, Ordering::Relaxed);
    let beside = loading.await.unwrap();
    beside.is_in(&struck.schema, mode, 1);
    struck.captured.is_in(&struck.schema, mode, struck.epoch);
    tell(&format!(
        "{mode:?}, seed {seed}: {kills} faults of {} kinds in {took:.1?}, {done:?}; the longest \
         round {longest:.1?}; epoch {}, the row claimed {} times; {} changes, {} beside them",
        kinds.len(),
        struck.epoch,
        struck.claims,
        struck.captured.last,
        beside.last,
    ));
    assert_eq!(kinds.len(), kills.min(faults.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_as_they_were_written_whatever_was_killed_or_frozen() {
    strike(Mode::Upsert, number("SEED").unwrap_or(1), kills()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_there_once_whatever_was_killed_or_frozen() {
    strike(Mode::Append, number("SEED").unwrap_or(2), kills()).await;
}

fn kills() -> usize {
    number("KILLS").map_or(KILLS, |kills| usize::try_from(kills).unwrap())
}
