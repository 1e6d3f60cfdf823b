//! The end of a run: everything comes to rest, and what lies in every sink is
//! compared with what was made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::arena::{Arena, BANK, GENERATED, jsonl_folder};
use crate::Outcome;
use crate::feed::Seen;
use crate::lake::latest;
use crate::oracle::{
    Generated, JsonlChange, Ledger, Totals, bank_in_lake, generated_in_lake, jsonl,
};

/// How much was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verdict {
    /// Generated changes, each at its subscriber and in two sinks.
    pub generated: u64,
    /// Changes of the bank, likewise.
    pub bank: u64,
}

/// What is needed once the subscribers have ended.
struct Rest {
    generated: Seen<Generated>,
    bank: Seen<Ledger>,
    /// What the bank knows.
    accounts: Totals,
    /// Copied from the bucket.
    lake: PathBuf,
    jsonl: PathBuf,
    /// By shard, how far any node ever said that the lake is.
    delivered: BTreeMap<String, u64>,
}

/// Brings everything to rest and compares.
pub(super) async fn judge(mut arena: Arena) -> Outcome<Verdict> {
    arena.check()?;
    arena.cli(&["export", "pause", GENERATED]).await?;
    settle(&mut arena).await?;
    if arena.generated.ask(|judge| judge.rewinds) == 0 {
        let gaps = arena.watch.cluster().gaps.len();
        if gaps > 0 {
            return Err(format!("{gaps} gaps are recorded, and nothing was lost").into());
        }
    }
    let delivered = delivered(&arena);
    let Arena { world, generated, bank, teller, watch, .. } = arena;
    let accounts = teller.stop().await?;
    drop(watch);
    let copied = tempfile::tempdir()?;
    let lake = world.bucket.copy(copied.path(), "faults").await?;
    let jsonl = jsonl_folder(&world);
    let (generated, bank) = (generated.finish()?, bank.finish()?);
    let rest = Rest { generated, bank, accounts, lake, jsonl, delivered };
    let verdict = tokio::task::spawn_blocking(move || rest.judge()).await?;
    drop(world);
    verdict
}

/// Waits until nothing is under way: both sinks have what was captured, and so have
/// the subscribers.
async fn settle(arena: &mut Arena) -> Outcome<()> {
    arena.teller.pause();
    let mut still = 0;
    let mut before = BTreeMap::new();
    let end = tokio::time::Instant::now() + super::arena::PATIENCE;
    while still < 10 {
        arena.check()?;
        if tokio::time::Instant::now() > end {
            return Err(format!("the sinks did not come to rest: {before:?}").into());
        }
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let now = arena.sequences();
        let cluster = arena.watch.cluster();
        let even = cluster.shards.iter().all(|shard| {
            let name = shard.spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default();
            let captured = shard.captured.as_ref().map_or(0, |it| it.sequence);
            let sinks = shard.delivered.values().filter(|it| it.sequence == captured).count();
            sinks == 2 && now.get(&name) == Some(&captured)
        });
        still = if even && now == before { still + 1 } else { 0 };
        before = now;
    }
    Ok(())
}

/// By shard, the furthest that was ever said of the lake.
fn delivered(arena: &Arena) -> BTreeMap<String, u64> {
    let cluster = arena.watch.cluster();
    let of = |shard: &tidegate_proto::v1::Shard| {
        let name = shard.spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default();
        let export = shard.id.map_or(0, |id| id.export_id);
        let furthest = arena.watch.delivered(&format!("{export}/{name}"), "lake");
        (name, furthest)
    };
    cluster.shards.iter().map(of).collect()
}

impl Rest {
    fn judge(&self) -> Outcome<Verdict> {
        self.bank()?;
        self.generated()?;
        let count = |sequences: BTreeMap<String, u64>| sequences.values().sum();
        Ok(Verdict {
            generated: count(self.generated.sequences()),
            bank: count(self.bank.sequences()),
        })
    }

    fn bank(&self) -> Outcome<()> {
        let fed = &self.bank.judge;
        fed.balanced()?;
        same("the bank's feed", fed.accounts(), &self.accounts)?;
        let mut lines = Ledger::default();
        let last = jsonl(&self.jsonl.join(BANK), |change| {
            let key: String = serde_json::from_value(change.line["key"].clone())?;
            lines.take(&key, &change.line["document"])
        })?;
        lines.balanced()?;
        same("the bank in jsonl", lines.accounts(), &self.accounts)?;
        same("the bank's sequences in jsonl", &last, &self.bank.sequences())?;
        same("the bank in the lake", &bank_in_lake(&self.lake, BANK)?, &self.accounts)
    }

    fn generated(&self) -> Outcome<()> {
        let fed = self.generated.sequences();
        let in_lake = generated_in_lake(&self.lake, GENERATED, &self.generated.judge)?;
        same("the sequences in the lake", &in_lake, &fed)?;
        let beyond = self.delivered.iter().find(|(name, at)| in_lake.get(*name).is_some_and(|has| has < *at));
        if let Some((name, at)) = beyond {
            return Err(format!("{name}: a checkpoint was at {at}, beyond the lake").into());
        }
        let mut documents: BTreeMap<String, Value> = BTreeMap::new();
        let in_lines = jsonl(&self.jsonl.join(GENERATED), |change| {
            let expected = self.generated.judge.expected(&change.shard, change.sequence)?;
            let expected = expected.ok_or("jsonl: a change that nothing made")?;
            change.check(&expected)?;
            fold(&mut documents, change);
            Ok(())
        })?;
        same("the sequences in jsonl", &in_lines, &fed)?;
        same("the documents in the lake", &latest(&self.lake, GENERATED), &documents)
    }
}

fn fold(documents: &mut BTreeMap<String, Value>, change: &JsonlChange) {
    let key = change.line["key"].to_string();
    match &change.line["document"] {
        Value::Null => drop(documents.remove(&key)),
        document => drop(documents.insert(key, document.clone())),
    }
}

/// Fails where one map is not as the other.
fn same<V: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &BTreeMap<String, V>,
    wanted: &BTreeMap<String, V>,
) -> Outcome<()> {
    let keys = found.keys().chain(wanted.keys());
    match keys.into_iter().find(|key| found.get(*key) != wanted.get(*key)) {
        None => Ok(()),
        Some(key) => {
            let (has, should) = (found.get(key), wanted.get(key));
            Err(format!("{what}: {key} is {has:?} and should be {should:?}").into())
        }
    }
}
