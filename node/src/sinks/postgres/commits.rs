//! Transactions in their order: one is written while the next is gathered.

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_proto::Sequence;
use tokio::task::JoinHandle;

use super::config::PostgresConfig;
use super::gather::{Sealed, Shape};
use super::write::{Failure, Link};
use crate::error::{Error, ErrorKind, Result};
use crate::sinks::Durable;

/// Where transactions go.
pub(super) struct Place {
    pub(super) config: PostgresConfig,
    pub(super) shape: Arc<Shape>,
    /// The checkpoint row's number, which rows name their shard by.
    pub(super) row: i32,
}

/// What was sealed and is not known to be in the database.
///
/// A transaction that failed stays, and the next call tries it again before
/// anything else, on a connection of its own that first asks whether the one
/// before made it after all.
pub(super) struct Commits {
    place: Arc<Place>,
    /// The last sequence the database has.
    committed: u64,
    sealed: VecDeque<Arc<Sealed>>,
    /// `None` after a failure, and while a job has it.
    link: Option<Link>,
    /// Brings the first one sealed.
    job: Option<Job>,
}

/// A link that is still good, and what became of the transaction.
type Brought = (Option<Link>, Result<()>);

/// Ended when it is dropped: whoever opens next asks how far it came.
struct Job(JoinHandle<Brought>);

impl Drop for Job {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Commits {
    /// Nothing yet; the database has all up to where `link` found it.
    pub(super) fn new(place: Place, link: Link) -> Self {
        let (place, committed) = (Arc::new(place), link.claim.sequence);
        Self { place, committed, sealed: VecDeque::new(), link: Some(link), job: None }
    }

    /// The last sequence known to be in the database.
    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    /// How many are not known to be in the database.
    pub(super) fn len(&self) -> usize {
        self.sealed.len()
    }

    /// The first one was tried and failed.
    pub(super) fn failed(&self) -> bool {
        self.job.is_none() && !self.sealed.is_empty()
    }

    /// Puts one behind the others; it is brought when they are.
    pub(super) fn push(&mut self, sealed: Sealed) {
        let last = self.sealed.back().map_or(self.committed, |last| last.upto);
        assert!(sealed.before == last, "transactions follow one another");
        self.sealed.push_back(Arc::new(sealed));
        if self.sealed.len() == 1 {
            self.start();
        }
    }

    /// Waits for the first one; `None` if there is none. A call that is dropped
    /// changes nothing.
    pub(super) async fn first(&mut self) -> Result<Option<Durable>> {
        if self.failed() {
            self.start();
        }
        let Some(job) = &mut self.job else { return Ok(None) };
        let brought = (&mut job.0).await;
        self.job = None;
        let (link, outcome) = brought.map_err(|_| {
            Error::new(ErrorKind::Unknown, "a call to the postgres sink did not end; open it anew")
        })?;
        self.link = link;
        outcome?;
        if let Some(sealed) = self.sealed.pop_front() {
            self.committed = sealed.upto;
        }
        self.start();
        Ok(Some(Durable::vouch(Sequence(self.committed))))
    }

    fn start(&mut self) {
        let Some(sealed) = self.sealed.front() else { return };
        let (place, link) = (Arc::clone(&self.place), self.link.take());
        let bringing = bring(place, link, Arc::clone(sealed));
        self.job = Some(Job(tokio::spawn(bringing)));
    }
}

/// Writes `sealed`, unless it is there already.
async fn bring(place: Arc<Place>, link: Option<Link>, sealed: Arc<Sealed>) -> Brought {
    let (mut link, there) = match link {
        Some(link) => (link, false),
        None => match relink(&place, &sealed).await {
            Ok(found) => found,
            Err(error) => return (None, Err(error)),
        },
    };
    if there {
        return (Some(link), Ok(()));
    }
    match link.write(&place.config, &sealed).await {
        Ok(()) => (Some(link), Ok(())),
        Err(Failure::Not(error)) if error.kind() != ErrorKind::Unavailable => (None, Err(error)),
        Err(failure) => {
            // Closed first: a lost connection may be a successor's work.
            drop(link);
            read_back(&place, &sealed, failure).await
        }
    }
}

/// A new link to write `sealed` with, and whether that is there already.
async fn relink(place: &Place, sealed: &Sealed) -> Result<(Link, bool)> {
    let link = Link::open(&place.config, &place.shape).await?;
    let what = "another has moved the checkpoint row; open the postgres sink anew";
    match link.claim.sequence {
        _ if link.claim.id != place.row => Err(Error::new(ErrorKind::Unknown, what)),
        at if at == sealed.before => Ok((link, false)),
        at if at == sealed.upto => Ok((link, true)),
        _ => Err(Error::new(ErrorKind::Unknown, what)),
    }
}

/// The connection is lost: the row tells what became of `sealed`.
async fn read_back(place: &Place, sealed: &Sealed, failure: Failure) -> Brought {
    let answer = relink(place, sealed).await;
    let (error, unsure) = match failure {
        Failure::Not(error) => (error, false),
        Failure::Unsure(error) => (error, true),
    };
    match answer {
        Ok((link, true)) => (Some(link), Ok(())),
        Ok((link, false)) => (Some(link), Err(error)),
        Err(told) if told.kind() != ErrorKind::Unavailable => (None, Err(told)),
        Err(_) if unsure => {
            let what = "the answer to a commit was lost; open the postgres sink anew";
            (None, Err(Error::new(ErrorKind::Unknown, what).because(error)))
        }
        Err(_) => (None, Err(error)),
    }
}
