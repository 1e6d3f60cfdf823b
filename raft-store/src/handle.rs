//! The state as the rest of the node sees it.

use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use openraft::{LogId, StoredMembership};
use tokio::sync::watch;

use crate::state::State;
use crate::types::Peer;

/// Reads the state that this node has applied; clones share it.
///
/// It is as new as this node is: what decides something asks Raft for a
/// linearizable read first. It may be ahead of this node's disk, but never of
/// what the group has committed.
#[derive(Clone)]
pub struct StateHandle {
    shared: Arc<Shared>,
}

impl StateHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// What `ask` makes of the state. Nothing is applied meanwhile, so copy out
    /// what is needed and be quick; calling the handle from within may hang.
    pub fn read<T>(&self, ask: impl FnOnce(&State) -> T) -> T {
        ask(&self.shared.read().state)
    }

    /// Index of the last log entry applied; 0 before the first.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.shared.read().index()
    }

    /// Moves to the applied index whenever something was applied.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// The same, but moves only when more than checkpoints changed, so that a
    /// loop does not wake on each tick. A snapshot that completes and a stream
    /// that ends count as more.
    #[must_use]
    pub fn topology(&self) -> watch::Receiver<u64> {
        self.shared.topology.subscribe()
    }
}

/// What has been applied, whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Applied {
    pub state: State,
    pub last: Option<LogId<u64>>,
    pub membership: StoredMembership<u64, Peer>,
}

impl Applied {
    pub(crate) fn index(&self) -> u64 {
        self.last.map_or(0, |id| id.index)
    }
}

/// Between the state machine, which alone writes, and all who read.
pub(crate) struct Shared {
    applied: RwLock<Applied>,
    changed: watch::Sender<u64>,
    topology: watch::Sender<u64>,
}

const WHOLE: &str = "a fold never panics half way";

impl Shared {
    pub(crate) fn new(applied: Applied) -> Self {
        let index = applied.index();
        Self {
            applied: RwLock::new(applied),
            changed: watch::Sender::new(index),
            topology: watch::Sender::new(index),
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Applied> {
        self.applied.read().expect(WHOLE)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Applied> {
        self.applied.write().expect(WHOLE)
    }

    /// Tells those who wait; call it without holding the lock.
    pub(crate) fn announce(&self, moved: bool) {
        let index = self.read().index();
        self.changed.send_replace(index);
        if moved {
            self.topology.send_replace(index);
        }
    }
}
