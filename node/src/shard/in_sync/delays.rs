//! Which copies do not keep up.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_proto::{NodeId, Sequence};
use tokio::time::Instant;

use super::Sight;
use crate::clock::Past;

/// A copy whose connection ended comes back within this, or is late.
const GONE: Duration = Duration::from_millis(200);
/// A copy comes within this after an owner started, or is late.
pub(super) const FIRST: Duration = Duration::from_millis(700);
/// A copy that is behind takes something within this, or is late.
pub(super) const STUCK: Duration = Duration::from_secs(1);

/// How copies have kept up so far.
#[derive(Debug)]
pub(super) struct Delays {
    /// Since when copies have been behind without taking anything.
    stuck: BTreeMap<NodeId, (Sequence, Instant)>,
    /// What was appended as long ago as a copy may lag.
    appended: Past<Sequence>,
    /// Copies that counted and lagged, and when they last did.
    lagged: BTreeMap<NodeId, Instant>,
    noted: Option<Instant>,
}

impl Delays {
    /// A copy may lack what was appended within `lag_max`.
    pub(super) fn new(lag_max: Duration) -> Self {
        let appended = Past::new(lag_max);
        Self { stuck: BTreeMap::new(), appended, lagged: BTreeMap::new(), noted: None }
    }

    /// Notes where the copies are.
    pub(super) fn note(&mut self, sight: &Sight) {
        let before = self.noted.replace(sight.now);
        if before.is_some_and(|before| sight.now - before > self.appended.reach() / 2) {
            // This node stood still, or rested: what a copy has sent it may not have heard.
            self.appended = Past::new(self.appended.reach());
        }
        self.appended.note(sight.now, sight.appended);
        self.stuck.retain(|node, _| sight.seen.contains_key(node));
        for (node, copy) in &sight.seen {
            if copy.acked >= sight.appended {
                self.stuck.remove(node);
                continue;
            }
            let at = self.stuck.entry(*node).or_insert((copy.acked, sight.now));
            if at.0 != copy.acked {
                *at = (copy.acked, sight.now);
            }
        }
        self.lagged.retain(|_, at| sight.now - *at < self.appended.reach());
        // Who was away is not slow.
        for (node, _) in sight.seen.iter().filter(|(_, copy)| copy.connected) {
            let counts = sight.in_sync.contains(node) || sight.joining.contains(node);
            if self.lags(*node, sight) && (counts || self.lagged.contains_key(node)) {
                self.lagged.insert(*node, sight.now);
            }
        }
    }

    /// The copy does not keep up, or is not there.
    pub(super) fn late(&self, node: NodeId, sight: &Sight) -> bool {
        if sight.down.contains(&node) {
            return true;
        }
        let Some(copy) = sight.seen.get(&node) else {
            return sight.now - sight.started > FIRST;
        };
        if !copy.connected {
            return sight.now - copy.moved > GONE;
        }
        let stuck = self.stuck.get(&node).is_some_and(|(_, since)| sight.now - *since > STUCK);
        stuck || self.lags(node, sight)
    }

    /// It has not lagged for as long as a copy may lag, or it did not count then: one
    /// that was away comes back at once, one that is slow does not come and go.
    pub(super) fn steady(&self, node: NodeId) -> bool {
        !self.lagged.contains_key(&node)
    }

    fn lags(&self, node: NodeId, sight: &Sight) -> bool {
        let then = self.appended.was(sight.now);
        let copy = sight.seen.get(&node);
        copy.zip(then).is_some_and(|(copy, then)| copy.acked < then)
    }
}
