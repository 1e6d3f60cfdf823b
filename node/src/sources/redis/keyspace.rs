//! What every key holds at the place the stream has come to.
//!
//! Truth is what was captured: the last document of each key. Above it lies what
//! was changed since the last read was spooled, and, as far as memory goes, what
//! was looked at before.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use foldhash::quality::RandomState;
use tidegate_proto::document::Encoded;
use tidegate_proto::v1::Operation;
use tidegate_proto::{BatchBuilder, Draft, Key};

use super::apply::Stop;
use super::document;
use super::object::{Content, Entry, Object, Opaque};
use crate::error::Result;
use crate::sources::{Captured, Last};

/// Bytes of documents after which what was looked at is forgotten.
const SEEN_BYTES_MAX: usize = 64 << 20;

/// The keys of one primary.
pub(super) struct Keyspace {
    captured: Arc<dyn Captured>,
    /// Inserts are told from updates, which takes a look at what each key held.
    tells: bool,
    databases: BTreeMap<u32, Database>,
    seen_bytes: usize,
    changes: VecDeque<Change>,
}

/// The keys of one database.
struct Database {
    collection: Arc<str>,
    /// What was looked at; `None`: not there.
    seen: HashMap<Vec<u8>, Option<Entry>, RandomState>,
}

/// A change on its way into a batch.
struct Change {
    operation: Operation,
    collection: Arc<str>,
    key: Key,
    document: Option<Encoded>,
    /// The next is of the same command, which is done whole or not at all.
    tied: bool,
}

impl Database {
    fn of(number: u32) -> Self {
        Self { collection: document::collection(number).into(), seen: HashMap::default() }
    }
}

impl Keyspace {
    pub(super) fn new(captured: Arc<dyn Captured>, tells: bool) -> Self {
        let (databases, changes) = (BTreeMap::new(), VecDeque::new());
        Self { captured, tells, databases, seen_bytes: 0, changes }
    }

    pub(super) fn captured(&self) -> &dyn Captured {
        &*self.captured
    }

    /// All changes given so far are spooled: what they left here may go.
    pub(super) fn spooled(&mut self) {
        if self.seen_bytes > SEEN_BYTES_MAX && self.changes.is_empty() {
            self.forget();
        }
    }

    /// Forgets what was looked at. Only when all changes are spooled.
    pub(super) fn forget(&mut self) {
        self.databases.clear();
        self.seen_bytes = 0;
    }

    fn database(&mut self, number: u32) -> &mut Database {
        self.databases.entry(number).or_insert_with(|| Database::of(number))
    }

    /// Moves changes into `out` until it has about `bytes_max` bytes and the last is not
    /// tied to the next; says whether all are there.
    pub(super) fn give(&mut self, out: &mut BatchBuilder, bytes_max: usize) -> bool {
        let mut tied = false;
        while tied || out.bytes() < bytes_max || out.is_empty() {
            let Some(change) = self.changes.pop_front() else { return true };
            tied = change.tied;
            out.push(&Draft {
                operation: change.operation,
                collection: &change.collection,
                key: change.key.as_bytes(),
                document: change.document.as_ref().map(|it| (&it.dictionary[..], &it.value[..])),
                before: None,
                // Redis does not tell.
                committed_ms: 0,
            });
        }
        self.changes.is_empty()
    }

    /// How many changes wait to be given.
    pub(super) fn queued(&self) -> usize {
        self.changes.len()
    }

    /// What was changed since so many waited goes into one batch. Where a stream goes on
    /// after a failure, a command whose changes are not all spooled is applied once more.
    pub(super) fn tie(&mut self, queued: usize) {
        let last = self.changes.len().saturating_sub(1);
        self.changes.range_mut(queued.min(last)..last).for_each(|change| change.tied = true);
    }

    /// Takes back what was changed since so many waited; what is known of keys
    /// is no longer right.
    pub(super) fn unqueue(&mut self, queued: usize) {
        self.changes.truncate(queued);
    }

    /// What a key holds now.
    pub(super) fn get(&mut self, db: u32, key: &[u8]) -> Result<Option<&Entry>> {
        if !self.database(db).seen.contains_key(key) {
            let entry = self.load(db, key)?;
            self.remember(db, key, entry);
        }
        Ok(self.database(db).seen.get(key).and_then(Option::as_ref))
    }

    fn load(&mut self, db: u32, key: &[u8]) -> Result<Option<Entry>> {
        self.seen_bytes += key.len() + 100;
        let key = document::key(key)?;
        let collection = Arc::clone(&self.database(db).collection);
        match self.captured.last(&collection, key.as_bytes())? {
            Some(Last::Document { dictionary, value }) => {
                self.seen_bytes += value.len() * 2;
                document::decode(&dictionary, &value).map(Some)
            }
            // Of what is not known nothing can be computed; it is read anew.
            Some(Last::Unknown) => Ok(Some(Entry::of(Object::Opaque(Opaque::Pending)))),
            None => Ok(None),
        }
    }

    pub(super) fn exists(&mut self, db: u32, key: &[u8]) -> Result<bool> {
        Ok(self.get(db, key)?.is_some())
    }

    /// Takes what a key holds out of memory, to be put back changed; what stays in its
    /// place says only whether there was something.
    pub(super) fn take(&mut self, db: u32, key: &[u8]) -> Result<Option<Entry>> {
        let taken = || Entry::of(Object::List(VecDeque::new()));
        if let Some(seen) = self.database(db).seen.get_mut(key) {
            return Ok(seen.as_mut().map(|entry| std::mem::replace(entry, taken())));
        }
        let entry = self.load(db, key)?;
        self.remember(db, key, entry.is_some().then(taken));
        Ok(entry)
    }

    /// What it is to write a key.
    fn writing(&self, db: u32, key: &[u8]) -> Result<Operation> {
        if !self.tells {
            return Ok(Operation::Upsert);
        }
        let seen = self.databases.get(&db).and_then(|database| database.seen.get(key));
        let is_there = match seen {
            Some(seen) => seen.is_some(),
            None => {
                let collection = document::collection(db);
                match self.captured.last(&collection, document::key(key)?.as_bytes())? {
                    Some(Last::Document { .. }) => true,
                    Some(Last::Unknown) => return Ok(Operation::Upsert),
                    None => false,
                }
            }
        };
        Ok(if is_there { Operation::Update } else { Operation::Insert })
    }

    /// From now on `key` holds `entry`; a collection without members is no key.
    pub(super) fn put(&mut self, db: u32, key: &[u8], mut entry: Entry) -> Result<()> {
        if entry.object.is_nothing() {
            return self.delete(db, key);
        }
        let operation = self.writing(db, key)?;
        let document = document::encode(&mut entry)?;
        self.seen_bytes += document.value.len() * 2;
        self.change(db, key, operation, Some(document))?;
        self.remember(db, key, Some(entry));
        Ok(())
    }

    /// `key` is gone.
    pub(super) fn delete(&mut self, db: u32, key: &[u8]) -> Result<()> {
        self.change(db, key, Operation::Delete, None)?;
        self.remember(db, key, None);
        Ok(())
    }

    fn change(
        &mut self,
        db: u32,
        key: &[u8],
        operation: Operation,
        document: Option<Encoded>,
    ) -> Result<()> {
        self.seen_bytes += key.len() + 100;
        let (collection, key) = (Arc::clone(&self.database(db).collection), document::key(key)?);
        self.changes.push_back(Change { operation, collection, key, document, tied: false });
        Ok(())
    }

    /// Changes the content of `key`, which is made if there is none.
    pub(super) fn edit<C: Content, R>(
        &mut self,
        db: u32,
        key: &[u8],
        change: impl FnOnce(&mut C) -> Result<R, Stop>,
    ) -> Result<R, Stop> {
        let mut entry = self.take(db, key)?.unwrap_or_else(|| Entry::of(C::empty()));
        if let Object::Opaque(_) = entry.object {
            self.remember(db, key, Some(entry));
            return Err(Stop::Opaque);
        }
        let changed = match C::of(&mut entry.object) {
            Some(content) => change(content),
            None => Err(Stop::Reread("a key is of another type than its command needs")),
        };
        match changed {
            Ok(result) => {
                self.put(db, key, entry)?;
                Ok(result)
            }
            Err(stop) => {
                // What a command did that is not computed does not count.
                self.database(db).seen.remove(key);
                Err(stop)
            }
        }
    }

    /// A copy of the content of `key`; empty if there is none.
    pub(super) fn content<C: Content + Clone>(&mut self, db: u32, key: &[u8]) -> Result<C, Stop> {
        let mut entry = self.get(db, key)?.cloned().unwrap_or_else(|| Entry::of(C::empty()));
        if let Object::Opaque(_) = entry.object {
            return Err(Stop::Opaque);
        }
        let content = C::of(&mut entry.object).cloned();
        content.ok_or(Stop::Reread("a key is of another type than its command needs"))
    }

    /// A row of a dump: passes as a snapshot row, unless it is what was captured.
    pub(super) fn row(&mut self, db: u32, key: &[u8], mut entry: Entry, known: bool) -> Result<()> {
        let (collection, key) = (Arc::clone(&self.database(db).collection), document::key(key)?);
        let document = document::encode(&mut entry)?;
        let last = if known { self.captured.last(&collection, key.as_bytes())? } else { None };
        let same = last.is_some_and(|last| match last {
            Last::Document { dictionary, value } => {
                dictionary == document.dictionary && value == document.value
            }
            Last::Unknown => false,
        });
        if !same {
            self.changes.push_back(Change {
                operation: Operation::Snapshot,
                collection,
                key,
                document: Some(document),
                tied: false,
            });
        }
        Ok(())
    }

    /// A key that is named as its document is.
    pub(super) fn sweep(&mut self, collection: String, key: Vec<u8>) {
        let (operation, collection) = (Operation::Delete, collection.into());
        let key = Key::from_bytes(key.into());
        self.changes.push_back(Change { operation, collection, key, document: None, tied: false });
    }

    fn remember(&mut self, db: u32, key: &[u8], entry: Option<Entry>) {
        self.database(db).seen.insert(key.to_vec(), entry);
    }
}
