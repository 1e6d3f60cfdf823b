//! Where what one node sends is held, until it is let go.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::Host;

/// What became of all that was held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Came to the gate while it was closed.
    pub met: u64,
    /// Of these, what the server did when they came through.
    pub done: u64,
    /// And what it refused.
    pub refused: u64,
}

/// A gate for what changes a server. It is open at first.
#[derive(Debug, Default)]
pub struct Gate {
    /// Whose way is closed.
    closed: watch::Sender<Option<Host>>,
    met: AtomicU64,
    done: AtomicU64,
    refused: AtomicU64,
}

impl Gate {
    /// From now on what this host sends is held.
    pub fn close(&self, host: Host) {
        self.closed.send_replace(Some(host));
    }

    /// What is held goes on.
    pub fn open(&self) {
        self.closed.send_replace(None);
    }

    /// All so far.
    #[must_use]
    pub fn held(&self) -> Held {
        let [met, done, refused] =
            [&self.met, &self.done, &self.refused].map(|count| count.load(Ordering::Relaxed));
        Held { met, done, refused }
    }

    /// Waits while it is closed for who comes from there. Returns whether it was;
    /// then [`Gate::ended`] wants to know what the server did.
    pub(super) async fn pass(&self, from: IpAddr) -> bool {
        let mut closed = self.closed.subscribe();
        let is_held = |host: &Option<Host>| host.is_some_and(|host| host.address() == from);
        if !is_held(&closed.borrow_and_update()) {
            return false;
        }
        self.met.fetch_add(1, Ordering::Relaxed);
        // An error means that the gate is gone, and its server too.
        drop(closed.wait_for(|host| !is_held(host)).await);
        true
    }

    /// What was held came to its end.
    pub(super) fn ended(&self, done: bool) {
        let count = if done { &self.done } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_named_host_waits_until_the_gate_is_open() {
        let gate = Gate::default();
        gate.close(Host(1));
        assert!(!gate.pass(Host(2).address().into()).await);
        let waiting = gate.pass(Host(1).address().into());
        let mut waiting = std::pin::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(gate.held(), Held { met: 1, ..Held::default() });
        gate.open();
        assert!(waiting.await);
        gate.ended(false);
        assert_eq!(gate.held(), Held { met: 1, done: 0, refused: 1 });
    }
}
