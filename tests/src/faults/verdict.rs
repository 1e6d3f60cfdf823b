//! The end of a run: what lies in every sink is compared with what was made.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_node::sources::datagen::ExpectedChange;
use tidegate_proto::Key;
use tidegate_proto::document::{self, Encoded};
use tidegate_proto::v1::{Checkpoint, Shard};
use tokio::time::sleep;

use super::arena::{Arena, BANK, GENERATED, ITEMS, exports_of, jsonl_folder, sinks_of};
use crate::Outcome;
use crate::feed::Seen;
use crate::lake::latest;
use crate::oracle::{
    Generated, Items, JsonChange, Ledger, Totals, Versions, bank_in_lake, generated_in_lake,
    items_in_lake, jsonl, table, table_checkpoints,
};
use crate::world::Database;

/// How much was compared.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// Generated changes, each at its subscriber and in all sinks.
    pub generated: u64,
    /// Changes of the bank, likewise.
    pub bank: u64,
    /// Changes of the table in DynamoDB, likewise; 0 if there was none.
    #[serde(default)]
    pub items: u64,
}

/// What is needed once nothing runs any more.
struct Rest {
    generated: Seen<Generated>,
    bank: Seen<Ledger>,
    /// What the bank knows.
    accounts: Totals,
    /// What was fed of the table, and what is in it; `None` if there is none.
    items: Option<(Seen<Items>, Versions)>,
    /// Copied from the bucket.
    lake: PathBuf,
    jsonl: PathBuf,
    database: Option<Database>,
    /// By sink and shard, what each must have at least.
    wanted: BTreeMap<&'static str, BTreeMap<String, u64>>,
}

/// What reads a sink that shows its changes as JSON, given the export: `begins_anew`
/// and `each` are as [`jsonl`] takes them.
type Read<'a> = &'a dyn Fn(
    &str,
    &dyn Fn(&str, u64) -> bool,
    &mut dyn FnMut(&JsonChange) -> Outcome<()>,
) -> Outcome<BTreeMap<String, u64>>;

/// Fails if a checkpoint of the sink `postgres` is beyond what its table has.
pub(super) fn table_has_all(arena: &Arena) -> Outcome<()> {
    let Some(database) = &arena.world.database else { return Ok(()) };
    // What was said is looked at before what is there.
    let said = said(arena, "postgres");
    let mut held = BTreeMap::new();
    for export in exports_of(&arena.world) {
        held.extend(table_checkpoints(&database.server, export)?);
    }
    match said.iter().find(|(shard, said)| held.get(*shard).copied().unwrap_or(0) < **said) {
        None => Ok(()),
        Some((shard, said)) => {
            let held = held.get(shard);
            Err(format!("{shard}: {said} is delivered, and its table has {held:?}").into())
        }
    }
}

/// Waits until the sinks have all that was fed by now, ends the nodes, and compares.
pub(super) async fn judge(mut arena: Arena) -> Outcome<Verdict> {
    let fed = settle(&mut arena).await?;
    let sinks = sinks_of(&arena.world).into_iter();
    let wanted = sinks.map(|sink| (sink, delivered(&arena, sink, &fed))).collect();
    let Arena { mut world, generated, bank, teller, items, watch, .. } = arena;
    let accounts = teller.stop().await?;
    let items = match items {
        Some((scribe, follows)) => Some((follows.finish()?, scribe.stop().await?)),
        None => None,
    };
    drop(watch);
    // Its sinks are read as a crash leaves them.
    for number in 0..world.size() {
        world.cluster.kill(number).await;
    }
    let copied = tempfile::tempdir()?;
    let lake = world.bucket.copy(copied.path(), "faults").await?;
    let (jsonl, database) = (jsonl_folder(&world), world.database.take());
    let (generated, bank) = (generated.finish()?, bank.finish()?);
    let rest = Rest { generated, bank, accounts, items, lake, jsonl, database, wanted };
    let verdict = tokio::task::spawn_blocking(move || rest.judge()).await?;
    drop(world);
    verdict
}

/// Ends the transfers, and waits until all sinks have all of them and whatever else
/// was fed by now. Returns that.
async fn settle(arena: &mut Arena) -> Outcome<BTreeMap<String, u64>> {
    arena.check()?;
    arena.teller.pause();
    if let Some((scribe, _)) = &arena.items {
        scribe.pause();
    }
    // What is written last ends and comes.
    sleep(Duration::from_secs(1)).await;
    let wanted = arena.sequences();
    let (last, count) = (wanted.clone(), sinks_of(&arena.world).len());
    arena
        .until("all sinks have what was fed", move |it| {
            let cluster = it.watch.cluster();
            cluster.shards.iter().all(|shard| {
                let wanted = shard.spec.as_ref().and_then(|spec| last.get(&spec.name));
                let has = |at: &&Checkpoint| wanted.is_some_and(|wanted| at.sequence >= *wanted);
                shard.delivered.values().filter(has).count() == count
            })
        })
        .await?;
    Ok(wanted)
}

/// By shard, the furthest that any node ever said that a sink is.
fn said(arena: &Arena, sink: &str) -> BTreeMap<String, u64> {
    let of = |shard: &Shard| {
        let name = shard.spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default();
        let export = shard.id.map_or(0, |id| id.export_id);
        let furthest = arena.watch.delivered(&format!("{export}/{name}"), sink);
        (name, furthest)
    };
    arena.watch.cluster().shards.iter().map(of).collect()
}

/// As [`said`]; what was fed at least.
fn delivered(arena: &Arena, sink: &str, fed: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut wanted = said(arena, sink);
    for (shard, wanted) in &mut wanted {
        *wanted = (*wanted).max(fed.get(shard).copied().unwrap_or(0));
    }
    wanted
}

impl Rest {
    fn judge(&self) -> Outcome<Verdict> {
        self.bank.judge.balanced()?;
        same("the bank's feed", self.bank.judge.accounts(), &self.accounts)?;
        same("the bank in the lake", &bank_in_lake(&self.lake, BANK)?, &self.accounts)?;
        self.generated_in_lake()?;
        if let Some((fed, written)) = &self.items {
            same("the table's feed", &fed.judge.versions(), written)?;
            same("the table in the lake", &items_in_lake(&self.lake, ITEMS)?, written)?;
        }
        self.sink("jsonl", &|export, anew, each| jsonl(&self.jsonl.join(export), anew, each))?;
        if let Some(database) = &self.database {
            self.sink("postgres", &|export, anew, each| {
                table(&database.server, export, anew, each)
            })?;
        }
        Ok(Verdict {
            generated: self.generated.judge.changes(),
            bank: self.bank.judge.changes,
            items: self.items.as_ref().map_or(0, |(fed, _)| fed.judge.changes),
        })
    }

    /// All exports in a sink that shows each change.
    fn sink(&self, name: &str, read: Read<'_>) -> Outcome<()> {
        let fed = &self.bank.judge;
        let mut lines = Ledger::default();
        let last = read(BANK, &|_, sequence| fed.begins_anew(sequence), &mut |change| {
            if fed.begins_anew(change.sequence) {
                lines.rewind();
            }
            let key: String = serde_json::from_value(change.line["key"].clone())?;
            lines.take(&key, &change.line["document"])
        })?;
        lines.balanced()?;
        same(&format!("the bank in {name}"), lines.accounts(), &self.accounts)?;
        same(&format!("the bank's sequences in {name}"), &last, &self.bank.sequences())?;
        self.items_in(name, read)?;
        let judge = &self.generated.judge;
        let anew = |shard: &str, sequence| judge.begins_anew(shard, sequence);
        let last = read(GENERATED, &anew, &mut |change| {
            let checked = change.check(&judge.expected(&change.shard, change.sequence)?);
            checked.map_err(|why| format!("{name}: {why}").into())
        })?;
        self.has_enough(name, &last)
    }

    fn items_in(&self, name: &str, read: Read<'_>) -> Outcome<()> {
        let Some((fed, written)) = &self.items else { return Ok(()) };
        let mut lines = Items::default();
        let last = read(ITEMS, &|_, sequence| fed.judge.begins_anew(sequence), &mut |change| {
            if fed.judge.begins_anew(change.sequence) {
                lines.rewind();
            }
            let document = Some(&change.line["document"]).filter(|it| !it.is_null());
            lines.take(&change.line["key"].to_string(), document)
        })?;
        same(&format!("the table in {name}"), &lines.versions(), written)?;
        same(&format!("the table's sequences in {name}"), &last, &fed.sequences())
    }

    fn generated_in_lake(&self) -> Outcome<()> {
        let judge = &self.generated.judge;
        let in_lake = generated_in_lake(&self.lake, GENERATED, judge)?;
        self.has_enough("lake", &in_lake)?;
        let mut documents = BTreeMap::new();
        for (shard, last) in &in_lake {
            for number in 0..=judge.number_of(shard, *last)? {
                fold(&mut documents, judge.made(shard, number)?);
            }
        }
        let documents: Outcome<BTreeMap<_, _>> = documents.into_iter().map(as_json).collect();
        same("the documents in the lake", &latest(&self.lake, GENERATED), &documents?)
    }

    /// Fails if a sink has less of a shard than was fed, or than a checkpoint said.
    fn has_enough(&self, sink: &str, last: &BTreeMap<String, u64>) -> Outcome<()> {
        for shard in self.generated.sequences().keys() {
            let wanted = self.wanted.get(sink).and_then(|wanted| wanted.get(shard));
            let has = last.get(shard);
            if has < wanted {
                return Err(format!("{sink}: {shard} ends at {has:?}, before {wanted:?}").into());
            }
        }
        Ok(())
    }
}

fn fold(documents: &mut BTreeMap<Vec<u8>, Encoded>, change: ExpectedChange) {
    match change.document {
        None => drop(documents.remove(&change.key)),
        Some(document) => drop(documents.insert(change.key, document)),
    }
}

/// A document under its key, both as JSON.
fn as_json((key, document): (Vec<u8>, Encoded)) -> Outcome<(String, Value)> {
    let (mut name, mut text) = (Vec::new(), Vec::new());
    Key::from_bytes(key.into()).write_json(&mut name)?;
    document::write_json(&document.dictionary, &document.value, &mut text)?;
    let key: Value = serde_json::from_slice(&name)?;
    Ok((key.to_string(), serde_json::from_slice(&text)?))
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
