//! A table's changes: many stream shards, each in its order, as one stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodbstreams::types::Record;
use bytes::Bytes;
use tidegate_proto::BatchBuilder;
use tidegate_proto::v1::GapKind;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::async_trait;

use super::client::{Client, Fetched, Listing};
use super::config::DynamodbConfig;
use super::lineage::{Lineage, Listed, Place, loss};
use super::listing::Pace;
use super::look::{Look, Looking, look};
use super::problem::Problem;
use super::record;
use super::rounds::Rounds;
use super::table::Table;
use super::token::{Descriptor, Position};
use crate::error::{Error, ErrorKind, Result};
use crate::sources::{ChangeStream, Loss, Read};

/// Looks under way, or done and not yet taken: 1 MB each at most.
const LOOKS_MAX: usize = 16;
/// DynamoDB keeps records for a day.
pub(super) const RETENTION: Duration = Duration::from_millis(RETENTION_MS.unsigned_abs());
const RETENTION_MS: i64 = 24 * 3_600_000;
/// How much older a place may be in the position than in truth.
const CONFIRM_MS: i64 = 10 * 60_000;
/// Creation times are told to the second.
const SECOND_MS: i64 = 1000;
/// How long a shard that was not found, or was trimmed, is left alone.
const MISSING: Duration = Duration::from_millis(500);

/// Reads all stream shards whose parents have been read, side by side.
///
/// Decides nothing itself: what may be read is for [`Lineage`] to say, when for
/// [`Looking`] and [`Pace`]. Tasks only wait for the network; dropping the
/// stream ends them.
pub(super) struct DynamodbStream {
    client: Client,
    config: Arc<DynamodbConfig>,
    rounds: Arc<Rounds>,
    descriptor: Descriptor,
    position: Position,
    looking: BTreeMap<String, Looking>,
    pace: Pace,
    tasks: JoinSet<Done>,
    losses: Vec<Loss>,
    /// The position has moved since it was last handed out.
    moved: bool,
    /// Came up behind changes that had to be handed out first.
    failed: Option<Error>,
}

enum Done {
    Looked(Look),
    Listed(Result<Listing, Problem>),
}

impl DynamodbStream {
    pub(super) fn new(
        client: Client,
        config: Arc<DynamodbConfig>,
        rounds: Arc<Rounds>,
        descriptor: Descriptor,
        position: Position,
    ) -> Self {
        Self {
            client,
            config,
            rounds,
            descriptor,
            position,
            looking: BTreeMap::new(),
            pace: Pace::new(Instant::now()),
            tasks: JoinSet::new(),
            losses: Vec::new(),
            moved: false,
            failed: None,
        }
    }

    /// Takes what comes until `out` is full; waits only for the first change.
    async fn gather(
        &mut self,
        out: &mut BatchBuilder,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<()> {
        let (before, deadline) = (out.len(), Instant::now() + wait);
        while out.bytes() < bytes_max {
            let next = self.launch();
            let done = if out.len() > before {
                self.tasks.try_join_next()
            } else {
                let until = next.map_or(deadline, |next| next.min(deadline));
                self.join(until).await
            };
            match done {
                Some(Ok(done)) => self.take(done, out).await?,
                Some(Err(error)) => {
                    let why = "a task that reads a stream shard ended early";
                    return Err(Error::new(ErrorKind::Unknown, why).because(error));
                }
                None if out.len() > before || Instant::now() >= deadline => return Ok(()),
                None => {}
            }
        }
        Ok(())
    }

    async fn join(&mut self, until: Instant) -> Option<Result<Done, tokio::task::JoinError>> {
        if self.tasks.is_empty() {
            sleep_until(until).await;
            return None;
        }
        timeout_at(until, self.tasks.join_next()).await.ok().flatten()
    }

    /// Starts what is due; says when the next thing will be.
    fn launch(&mut self) -> Option<Instant> {
        let (now, wanted_ms) = (Instant::now(), self.rounds.wanted_ms());
        if self.pace.due().is_some_and(|due| due <= now) {
            self.pace.begin();
            let (client, stream) = (self.client.clone(), self.position.stream.clone());
            self.tasks.spawn(async move { Done::Listed(client.list(&stream).await) });
        }
        let mut waiting: Vec<(Instant, String)> = Vec::new();
        for (id, _) in self.position.lineage.readable() {
            let known = self.looking.get(id);
            let due = known.map_or(Some(now), |looking| looking.due(wanted_ms));
            waiting.extend(due.map(|due| (due, id.to_owned())));
        }
        // Who has waited longest goes first, so that none starves.
        waiting.sort();
        let mut later = waiting.into_iter().peekable();
        while self.tasks.len() < LOOKS_MAX
            && let Some((_, id)) = later.next_if(|(due, _)| *due <= now)
        {
            self.look_at(id);
        }
        let next_look = later.find(|(due, _)| *due > now).map(|(due, _)| due);
        next_look.into_iter().chain(self.pace.due()).min()
    }

    fn look_at(&mut self, shard: String) {
        let Some(place) = self.position.lineage.place(&shard).cloned() else { return };
        let iterator = self.looking.entry(shard.clone()).or_insert_with(Looking::new).begin();
        let (client, stream) = (self.client.clone(), self.position.stream.clone());
        let asked_ms = self.rounds.now_ms();
        self.tasks.spawn(async move {
            let result = look(&client, &stream, &shard, &place, iterator).await;
            Done::Looked(Look { shard, asked_ms, result })
        });
    }

    async fn take(&mut self, done: Done, out: &mut BatchBuilder) -> Result<()> {
        match done {
            Done::Looked(look) => self.take_look(look, out),
            Done::Listed(Ok(Listing::Growing(shards))) => self.learn(&shards),
            Done::Listed(Ok(Listing::Off(shards))) => {
                self.learn(&shards)?;
                let drained = self.position.lineage.unfinished().next().is_none();
                if drained { self.change_streams().await } else { Ok(()) }
            }
            Done::Listed(Ok(Listing::Missing)) => {
                self.pace.failed(Instant::now());
                self.change_streams().await
            }
            Done::Listed(Err(problem)) => {
                let too_often = self.pace.failed(Instant::now());
                let passes = problem.kind() == ErrorKind::Unavailable && !too_often;
                if passes { Ok(()) } else { Err(problem.into()) }
            }
        }
    }

    fn take_look(&mut self, look: Look, out: &mut BatchBuilder) -> Result<()> {
        let shard = look.shard.as_str();
        let Some(place) = self.position.lineage.place(shard).cloned() else {
            // A listing has given it up meanwhile.
            return Ok(());
        };
        let Some(looking) = self.looking.get_mut(shard) else { return Ok(()) };
        match look.result {
            Ok(Fetched::Page { records, next }) => {
                self.check_retention(shard, &place, look.asked_ms);
                let count = records.len();
                let newest_ms = self.take_records(shard, records, out)?;
                // All of it was seen before: nothing is known of what follows.
                let known = count == 0 || newest_ms.is_some();
                let asked_ms = if known { look.asked_ms } else { i64::MIN };
                let caught_up_ms = newest_ms.map_or(asked_ms, |ms| asked_ms.min(ms - SECOND_MS));
                self.go_on(shard, next, count, caught_up_ms);
            }
            Ok(Fetched::Expired) => looking.reopen(Duration::ZERO),
            Ok(Fetched::Missing) => {
                let gone = looking.missed(MISSING);
                self.pace.hurry(Instant::now());
                // One without a child may be too young to be found.
                if gone && self.position.lineage.has_child(shard) {
                    self.give_up(shard);
                }
            }
            Ok(Fetched::Trimmed) => {
                looking.reopen(MISSING);
                if let Place::After(last) = place {
                    let detail = format!("stream shard {shard} no longer has what follows {last}");
                    self.losses.push(loss(GapKind::Trimmed, detail));
                    let fresh = Place::Horizon { since_ms: look.asked_ms };
                    self.position.lineage.advance(shard, fresh);
                    self.moved = true;
                }
            }
            Err(problem) => looking.failed(problem)?,
        }
        Ok(())
    }

    /// Listings keep an old shard for longer than its records are kept.
    fn give_up(&mut self, shard: &str) {
        let detail = format!("stream shard {shard} is listed, but its records are there no more");
        self.losses.push(loss(GapKind::Vanished, detail));
        self.finish(shard);
    }

    /// Nothing more is to be read of `shard`: its children are next.
    fn finish(&mut self, shard: &str) {
        self.position.lineage.advance(shard, Place::Finished);
        self.moved = true;
        self.looking.remove(shard);
        self.pace.ended(shard, Instant::now());
    }

    /// Takes a page whole, or up to the first record that cannot be taken. Says
    /// when its newest record was made, if any was new.
    fn take_records(
        &mut self,
        shard: &str,
        records: Vec<Record>,
        out: &mut BatchBuilder,
    ) -> Result<Option<i64>> {
        let mut newest_ms = None;
        for record in records {
            let last = match self.position.lineage.place(shard) {
                Some(Place::After(last)) => Some(last),
                _ => None,
            };
            let collection = &self.config.table;
            let pushed = record::push(record, last, &self.descriptor, collection, out)?;
            if let Some(pushed) = pushed {
                newest_ms = Some(pushed.committed_ms);
                self.position.lineage.advance(shard, Place::After(pushed.sequence));
                self.moved = true;
            }
        }
        Ok(newest_ms)
    }

    /// A page was taken whole: the shard has ended, or is looked at again.
    fn go_on(&mut self, shard: &str, next: Option<String>, count: usize, caught_up_ms: i64) {
        let Some(next) = next else {
            self.finish(shard);
            return;
        };
        let closed = self.position.lineage.is_closed(shard);
        let pause_max = Duration::from_millis(self.config.poll_ms);
        if let Some(looking) = self.looking.get_mut(shard) {
            looking.page(next, count, pause_max);
            looking.caught_up(caught_up_ms);
            if closed && count == 0 {
                looking.near_end();
            }
        }
    }

    /// A shard of which nothing was read yet, looked at too late, may have lost
    /// its oldest records without a word. In time, it is good for another day.
    fn check_retention(&mut self, shard: &str, place: &Place, asked_ms: i64) {
        let Place::Horizon { since_ms } = *place else { return };
        let waited_ms = asked_ms.saturating_sub(since_ms);
        if waited_ms > RETENTION_MS {
            let detail =
                format!("stream shard {shard} was first read more than a day after it was known");
            self.losses.push(loss(GapKind::Trimmed, detail));
        }
        if waited_ms > CONFIRM_MS {
            let confirmed = Place::Horizon { since_ms: asked_ms };
            self.position.lineage.advance(shard, confirmed);
            self.moved = true;
        }
    }

    fn learn(&mut self, listing: &[Listed]) -> Result<()> {
        let lineage = &mut self.position.lineage;
        if !lineage.losses(listing).is_empty() && !self.pace.doubt(Instant::now()) {
            return Ok(());
        }
        let before = lineage.places().clone();
        self.losses.extend(lineage.learn(listing, self.rounds.now_ms())?);
        self.moved |= before != *lineage.places();
        self.looking.retain(|id, _| lineage.place(id).is_some());
        self.pace.believed(Instant::now(), |id| lineage.has_child(id));
        Ok(())
    }

    /// The stream was turned off and read to its end, or is gone: goes on with
    /// the one that took its place, if there is one.
    async fn change_streams(&mut self) -> Result<()> {
        let table = Box::pin(Table::find(&self.client, &self.config)).await?;
        self.descriptor.check_key(&table.descriptor)?;
        let (old, new) = (self.position.stream.clone(), table.descriptor.stream.clone());
        let listing = self.client.list(&new).await?;
        let (true, Listing::Growing(shards)) = (old != new, listing) else {
            let what = format!("dynamodb: the stream of table {} is changing", self.config.table);
            let remedy = "it is tried again".to_owned();
            return Err(Problem::new(ErrorKind::Unavailable, what, remedy).into());
        };
        let detail = format!("stream {old} was replaced by {new}");
        self.losses.push(loss(GapKind::Recreated, detail));
        let lineage = Lineage::whole(&shards, self.rounds.now_ms());
        self.position = Position { stream: new, lineage };
        self.descriptor = table.descriptor;
        self.looking.clear();
        self.pace = Pace::new(Instant::now());
        self.moved = true;
        Ok(())
    }
}

#[async_trait]
impl ChangeStream for DynamodbStream {
    async fn read(
        &mut self,
        out: &mut BatchBuilder,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Read> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if let Err(error) = self.gather(out, bytes_max, wait).await {
            if !self.moved && self.losses.is_empty() {
                return Err(error);
            }
            self.failed = Some(error);
        }
        let moved = std::mem::take(&mut self.moved);
        let position = if moved { self.position.encode() } else { Bytes::new() };
        Ok(Read { position, ended: false, losses: std::mem::take(&mut self.losses) })
    }

    fn passed(&self, seen: &[u8]) -> bool {
        let Some(read_ms) = Rounds::read_stamp(seen) else { return false };
        let mut unfinished = self.position.lineage.unfinished();
        let caught_up = |id| self.looking.get(id).is_some_and(|known| known.has_passed(read_ms));
        self.pace.is_settled() && unfinished.all(|(id, _)| caught_up(id))
    }
    fn kept_until_ms(&self) -> Option<i64> {
        let readable = self.position.lineage.readable();
        let known = readable.map(|(id, _)| self.looking.get(id).and_then(Looking::caught_up_ms));
        known.min().flatten().map(|ms| ms.saturating_add(RETENTION_MS))
    }
}
