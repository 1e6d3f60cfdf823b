//! The items of a table are written again and again, each time one version further,
//! and deleted now and then. Wherever they are looked at, an item's versions come one
//! by one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use tidegate_proto::v1::{ChangeBatch, Operation};
use tidegate_proto::{Frame, Key};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Outcome;
use crate::feed::{Judge, document_of};
use crate::world::Table;

/// How many items are written.
const ITEMS: usize = 200;
/// Of ten writes to an item that is there, so many delete it.
const DELETES: f64 = 0.2;
/// Between two writes.
const PAUSE: Duration = Duration::from_millis(20);

/// The version of each item that is there, by its key as JSON.
pub type Versions = BTreeMap<String, u64>;

/// Follows the changes of a table.
#[derive(Clone, Debug, Default)]
pub struct Items {
    items: BTreeMap<String, Item>,
    /// Those of which what came before may come again.
    again: BTreeSet<String>,
    /// Sequences of a feed with which it began anew.
    anew: Vec<u64>,
    /// Changes taken.
    pub changes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    version: u64,
    is_there: bool,
}

impl Items {
    /// The next change of an item: the document as it is then, `None` if it is deleted.
    ///
    /// # Errors
    ///
    /// If a change of it is missing, doubled or out of order.
    pub fn take(&mut self, key: &str, document: Option<&Value>) -> Outcome<()> {
        let before = self.items.get(key).map_or(0, |it| it.version);
        let again = self.again.contains(key);
        let Some(document) = document else {
            // Which deletion it is, of those that may come again, the next write tells.
            let version = if again { before } else { before + 1 };
            self.put(key, Item { version, is_there: false });
            return Ok(());
        };
        let version = document["version"].as_u64().ok_or("a document that is no item")?;
        let most = if again { before + 2 } else { before + 1 };
        if version > most || !again && version < most {
            return Err(format!("version {version} came after version {before}").into());
        }
        self.again.remove(key);
        self.put(key, Item { version, is_there: true });
        Ok(())
    }

    fn put(&mut self, key: &str, item: Item) {
        self.items.insert(key.to_owned(), item);
        self.changes += 1;
    }

    /// All copies were lost: what comes next may have come before.
    pub fn rewind(&mut self) {
        self.again = self.items.keys().cloned().collect();
    }

    /// Whether its feed began anew with this sequence, behind a loss that was said.
    #[must_use]
    pub fn begins_anew(&self, sequence: u64) -> bool {
        self.anew.contains(&sequence)
    }

    /// The items that are there.
    #[must_use]
    pub fn versions(&self) -> Versions {
        let there = self.items.iter().filter(|(_, item)| item.is_there);
        there.map(|(key, item)| (key.clone(), item.version)).collect()
    }
}

impl Judge for Items {
    fn take(&mut self, shard: &str, frame: &Frame, batch: &ChangeBatch) -> Outcome<()> {
        if batch.rewound.is_some() {
            self.anew.push(frame.first().0);
            self.rewind();
        }
        let changes = (frame.first().0..).zip(&batch.changes);
        for (sequence, change) in changes.filter(|(_, it)| it.operation() != Operation::Gap) {
            let mut key = Vec::new();
            Key::from_bytes(change.key.clone()).write_json(&mut key)?;
            let key: Value = serde_json::from_slice(&key)?;
            let is_there = change.operation() != Operation::Delete;
            let document = is_there.then(|| document_of(batch, change)).transpose()?;
            self.take(&key.to_string(), document.as_ref())
                .map_err(|why| format!("{shard}: sequence {sequence}: {why}"))?;
        }
        Ok(())
    }
}

/// Writes items until it is stopped. The only one who writes to its table.
#[derive(Debug)]
pub struct Scribe {
    task: JoinHandle<Outcome<Versions>>,
    stop: watch::Sender<bool>,
}

impl Scribe {
    /// Begins.
    #[must_use]
    pub fn start(table: &Table, seed: u64) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(work(table.clone(), StdRng::seed_from_u64(seed), stopped));
        Self { task, stop }
    }

    /// # Errors
    ///
    /// If it has given up.
    pub fn alive(&self) -> Outcome<()> {
        let ended = self.task.is_finished() && !*self.stop.borrow();
        if ended { Err("the table's server does not answer".into()) } else { Ok(()) }
    }

    /// Writes nothing from now on; what is on its way ends first.
    pub fn pause(&self) {
        self.stop.send_replace(true);
    }

    /// As [`Scribe::pause`]. Returns what is in the table.
    ///
    /// # Errors
    ///
    /// If it had given up; says why.
    pub async fn stop(self) -> Outcome<Versions> {
        self.pause();
        self.task.await?
    }
}

async fn work(
    table: Table,
    mut random: StdRng,
    stopped: watch::Receiver<bool>,
) -> Outcome<Versions> {
    let mut items = Items::default();
    while !*stopped.borrow() {
        let name = format!("item-{:03}", random.random_range(0..ITEMS));
        let key = Value::from(name.clone()).to_string();
        let known = items.items.get(&key).copied();
        let item = known.unwrap_or(Item { version: 0, is_there: false });
        let is_there = !(item.is_there && random.random_bool(DELETES));
        let version = item.version + 1;
        match is_there {
            true => table.put(&name, version).await?,
            false => table.delete(&name).await?,
        }
        items.put(&key, Item { version, is_there });
        tokio::time::sleep(PAUSE).await;
    }
    Ok(items.versions())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(version: u64) -> Value {
        json!({"version": version})
    }

    #[test]
    fn versions_come_one_by_one_and_a_deletion_is_one() {
        let mut items = Items::default();
        items.take("a", Some(&at(1))).unwrap();
        items.take("a", None).unwrap();
        assert_eq!(items.versions(), Versions::new());
        let lost = items.clone().take("a", Some(&at(4))).unwrap_err().to_string();
        assert!(lost.contains("version 4 came after version 2"), "{lost}");
        assert!(items.clone().take("a", Some(&at(2))).is_err(), "it was that deletion");
        items.take("a", Some(&at(3))).unwrap();
        assert_eq!(items.versions(), Versions::from([("a".to_owned(), 3)]));
    }

    #[test]
    fn changes_come_again_after_a_rewind_and_only_then() {
        let mut items = Items::default();
        for version in 1..=3 {
            items.take("a", Some(&at(version))).unwrap();
        }
        assert!(items.clone().take("a", Some(&at(2))).is_err(), "twice without a rewind");
        items.rewind();
        items.take("a", Some(&at(2))).unwrap();
        assert!(items.clone().take("a", Some(&at(4))).is_err(), "it goes on where it is");
        items.take("a", Some(&at(3))).unwrap();
        items.rewind();
        assert!(items.take("a", Some(&at(6))).is_err(), "a rewind loses nothing");
    }
}
