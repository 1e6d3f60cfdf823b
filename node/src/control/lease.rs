//! A node's right to run shards, for a while.

use std::time::Duration;

use tidegate_proto::v1::{HeartbeatRequest, HeartbeatResponse};
use tidegate_raft_store::LEVEL;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::control::Control;
use crate::error::Result;

/// Until when a lease is held, if it is; a pure core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Until(Option<Instant>);

impl Until {
    /// Renewed by a heartbeat that was sent at `sent`: before the leader heard it,
    /// which a majority was last known to follow `ago` before it answered.
    pub(crate) fn renewed(sent: Instant, ago: Duration, length: Duration) -> Self {
        Self(Some(sent + length.saturating_sub(ago)))
    }

    /// Held at `now`.
    pub(crate) fn held(self, now: Instant) -> bool {
        self.0.is_some_and(|until| now < until)
    }

    /// How much of it is left at `now`; none if it is not held.
    pub(crate) fn left(self, now: Instant) -> Duration {
        self.0.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

/// Until when this node may run its shards, on its own monotonic clock.
///
/// Counted from before a heartbeat was *sent*, so the leader's patience ends
/// later than this whatever the network did. Ending early is courtesy: the
/// epoch in a sink's own commit is what keeps two owners apart.
#[derive(Clone, Debug)]
pub struct Lease(watch::Receiver<Until>);

impl Lease {
    /// A lease that is not held, and what renews it.
    pub(super) fn new() -> (watch::Sender<Until>, Self) {
        let (renew, lease) = watch::channel(Until::default());
        (renew, Self(lease))
    }

    /// Held right now.
    #[must_use]
    pub fn held(&self) -> bool {
        self.0.borrow().held(Instant::now())
    }

    /// How much of it is left; none if it is not held.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.0.borrow().left(Instant::now())
    }

    /// Waits until it is held.
    pub async fn gained(&mut self) {
        while !self.held() {
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until it has run out without being renewed.
    pub async fn lost(&mut self) {
        loop {
            let until = *self.0.borrow_and_update();
            let left = until.left(Instant::now());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                renewed = self.0.changed() => if renewed.is_err() { return },
            }
        }
    }
}

/// Tells the leader that this node lives, for as long as it does.
pub(super) async fn keep(control: Control, renew: watch::Sender<Until>) {
    let times = control.times().clone();
    let mut ticks = tokio::time::interval(times.heartbeat());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sent = Instant::now();
        match timeout(times.lease(), beat(&control)).await {
            Ok(Ok(answer)) if answer.up => {
                let ago = Duration::from_millis(answer.followed_ms_ago);
                renew.send_replace(Until::renewed(sent, ago, times.lease()));
                // Also if nobody answered the announcement.
                note(&control);
            }
            // The leader holds this run for down, or does not know it yet.
            Ok(Ok(_)) => announce(&control, times.lease()).await,
            Ok(Err(error)) => tracing::debug!(error = %error, "heartbeat unanswered"),
            Err(_) => tracing::debug!("heartbeat unanswered in time"),
        }
    }
}

async fn beat(control: &Control) -> Result<HeartbeatResponse> {
    let request = HeartbeatRequest {
        cluster_id: control.identity().cluster_id.clone(),
        node: control.identity().node().0,
        run: control.run(),
        level: LEVEL,
    };
    control.heartbeat(request).await
}

async fn announce(control: &Control, wait: Duration) {
    match timeout(wait, control.announce()).await {
        Ok(Ok(())) => {
            tracing::info!("the cluster counts this node as up");
            note(control);
        }
        Ok(Err(error)) => tracing::warn!(error = %error, "announce this node; trying again"),
        Err(_) => tracing::debug!("announcement unanswered in time"),
    }
}

/// The next run need not say again what became of the machine before this one.
fn note(control: &Control) {
    if let Err(error) = control.told() {
        tracing::warn!(error = %error, "note that the cluster knows this run; trying again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_leader_that_no_majority_follows_gives_no_lease_of_full_length() {
        let sent = Instant::now();
        let until = Until::renewed(sent, 600 * MS, 700 * MS);
        assert!(until.held(sent + 99 * MS) && !until.held(sent + 100 * MS));
        assert!(!Until::renewed(sent, 900 * MS, 700 * MS).held(sent), "it is over already");
    }

    #[tokio::test]
    async fn a_lease_ends_unless_it_is_renewed() {
        let (renew, mut lease) = Lease::new();
        assert!(!lease.held());
        renew.send_replace(Until::renewed(Instant::now(), Duration::ZERO, 70 * MS));
        lease.gained().await;
        tokio::time::sleep(Duration::from_millis(40)).await;
        renew.send_replace(Until::renewed(Instant::now(), 30 * MS, 100 * MS));
        let start = Instant::now();
        lease.lost().await;
        assert!(start.elapsed() >= Duration::from_millis(69), "the renewal counts");
        assert!(!lease.held());
    }
}
