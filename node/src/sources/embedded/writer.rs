//! The one that writes: takes what is queued, commits it with one fsync, then
//! answers everybody.

use std::sync::Arc;

use tidegate_proto::Key;
use tidegate_proto::document::Encoded;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::commit::Commit;
use super::error::StoreError;
use super::keys::{self, Revision};
use super::rows::Head;
use super::store::{Core, Write};

/// Bytes of documents after which a commit takes no further request.
const COMMIT_BYTES: usize = 8 << 20;

/// Somebody's writes, and where the answer goes.
pub(super) struct Request {
    pub(super) writes: Vec<Staged>,
    pub(super) reply: oneshot::Sender<Result<Revision, StoreError>>,
    /// Given back when the request is done with.
    pub(super) room: OwnedSemaphorePermit,
}

/// A write whose key was checked.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) collection: String,
    pub(super) key: Key,
    pub(super) slot: u16,
    pub(super) document: Option<Encoded>,
    pub(super) if_revision: Option<Revision>,
}

/// The writer's thread.
pub(super) struct Writer {
    core: Arc<Core>,
    told: watch::Sender<Head>,
}

/// Where the store is after a commit, and the answer to each of its requests.
type Written = (Head, Vec<Result<Revision, StoreError>>);

impl Staged {
    /// Checks the write at `index` of a request.
    pub(super) fn new((index, write): (usize, Write)) -> Result<Self, StoreError> {
        let refuse = |why: &str| StoreError::Request(format!("write {index}: {why}"));
        if write.collection.is_empty() {
            return Err(refuse("the collection has no name"));
        }
        if write.key.is_empty() {
            return Err(refuse("the key is empty"));
        }
        let key = keys::document_key(&write.collection, &write.key)
            .map_err(|error| refuse(&format!("collection and key together: {error}")))?;
        Ok(Self {
            slot: keys::slot(&key),
            collection: write.collection,
            key,
            document: write.document,
            if_revision: write.if_revision,
        })
    }

    /// What it keeps in memory, about.
    pub(super) fn bytes(&self) -> usize {
        let document = self.document.as_ref();
        let document =
            document.map_or(0, |document| document.dictionary.len() + document.value.len());
        self.collection.len() + self.key.as_bytes().len() + document
    }
}

impl Writer {
    pub(super) fn new(core: Arc<Core>, told: watch::Sender<Head>) -> Self {
        Self { core, told }
    }

    /// Commits until the store is dropped, or until a commit does not reach the
    /// disk: what is durable is then unknown, so nothing more is taken.
    pub(super) fn run(self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let group = gather(first, &mut requests);
            if let Err(error) = self.commit(group) {
                tracing::error!(error = %error, "the document store stops taking writes");
                return;
            }
        }
    }

    fn commit(&self, group: Vec<Request>) -> Result<(), StoreError> {
        let before = *self.told.borrow();
        let outcome = self.write(before, &group);
        let (head, answers) = match outcome {
            Ok(written) => written,
            Err(error) => {
                answer(group, std::iter::repeat(Err(error.clone())));
                return Err(error);
            }
        };
        assert!(head.last >= before.last, "revisions only grow");
        self.told.send_replace(head);
        answer(group, answers.into_iter());
        Ok(())
    }

    /// Writes what is not refused; the answer to each request.
    fn write(&self, head: Head, group: &[Request]) -> Result<Written, StoreError> {
        let mut commit = Commit::begin(&self.core, head);
        let mut answers = Vec::with_capacity(group.len());
        for request in group {
            answers.push(match commit.steps(&request.writes) {
                Ok(steps) => Ok(commit.take(steps)),
                Err(refused @ StoreError::Precondition { .. }) => Err(refused),
                Err(broken) => return Err(broken),
            });
        }
        Ok((commit.finish()?, answers))
    }
}

/// `first` and what waits behind it, up to the bound of a commit.
fn gather(first: Request, requests: &mut mpsc::Receiver<Request>) -> Vec<Request> {
    let size = |request: &Request| request.writes.iter().map(Staged::bytes).sum::<usize>();
    let mut bytes = size(&first);
    let mut group = vec![first];
    while bytes < COMMIT_BYTES
        && let Ok(next) = requests.try_recv()
    {
        bytes += size(&next);
        group.push(next);
    }
    group
}

fn answer(group: Vec<Request>, answers: impl Iterator<Item = Result<Revision, StoreError>>) {
    for (request, answer) in group.into_iter().zip(answers) {
        let Request { reply, room, .. } = request;
        drop(room);
        // Nobody listening is nobody's harm: the write is done all the same.
        reply.send(answer).ok();
    }
}
