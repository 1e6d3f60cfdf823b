//! Who stands for election, and when.
//!
//! Raft's own timers are off. They let a node stand that has only lost its own sight of
//! the leader, because it stood still or its link was cut: nobody votes for it, but its
//! term is higher, and the leader that all others follow has to step back. So whoever
//! misses the leader first asks whether the others would vote for it (the pre-vote of
//! Ongaro's thesis on Raft, 9.6). Only if the leader's process is gone, which the others
//! see as soon, nobody is asked at first: that is quicker.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use openraft::LogId;
use rand::Rng as _;
use tidegate_proto::NodeId;
use tidegate_proto::v1::RaftMessage;
use tokio::time::{Instant, sleep, timeout};

use crate::control::handle::Control;

/// Between the candidacies of two nodes, so that the first has time to win.
pub(crate) const TURN: Duration = Duration::from_millis(60);

/// So often it stands without asking when the leader's process is gone.
const UNASKED_MAX: u32 = 3;

/// Stands for election whenever this node is one of those that should.
pub(super) async fn keep(control: Control) {
    let mut suspicions = control.suspicions();
    let mut stood = 0;
    loop {
        if !is_missing_leader(&control) {
            stood = 0;
            tokio::select! {
                () = sleep(control.times().heartbeat()) => {}
                _ = suspicions.changed() => {}
            }
            continue;
        }
        sleep(turn(control.node(), &control.voters())).await;
        // Another may have won meanwhile.
        if !is_missing_leader(&control) {
            continue;
        }
        let unasked = stood < UNASKED_MAX && control.contacts().lost_leader();
        if !unasked && !would_win(&control).await {
            sleep(TURN).await;
            continue;
        }
        tracing::info!("no leader is heard; standing for election");
        if control.raft().trigger().elect().await.is_err() {
            return;
        }
        sleep(rest(stood, Duration::from_millis(control.times().silence_ms()))).await;
        stood += 1;
    }
}

/// This node votes, and nobody leads it.
fn is_missing_leader(control: &Control) -> bool {
    !control.leads() && control.misses_leader() && control.voters().contains(&control.node())
}

/// How long `me` lets those go before it that stand as well.
fn turn(me: NodeId, voters: &[NodeId]) -> Duration {
    let before = voters.iter().filter(|id| **id < me).count();
    let jitter = rand::rng().random_range(0.0..0.3);
    TURN.mul_f64(f64::from(u32::try_from(before).unwrap_or(0)) + jitter)
}

/// How long a candidacy may take to be won before the next: longer each time, since
/// votes take their time where syncs are slow.
fn rest(stood: u32, most: Duration) -> Duration {
    (TURN * 3).saturating_mul(1 << stood.min(8)).min(most)
}

/// A majority of the voters, this node one of them, would vote for it now.
async fn would_win(control: &Control) -> bool {
    let voters = control.voters();
    let others = voters.iter().filter(|id| **id != control.node());
    let mut answers: FuturesUnordered<_> =
        others.map(|id| timeout(control.times().heartbeat() * 3, ask(control, *id))).collect();
    let mut votes = 1;
    while 2 * votes <= voters.len() {
        match answers.next().await {
            Some(answer) => votes += usize::from(answer.ok().flatten().unwrap_or(false)),
            None => return false,
        }
    }
    true
}

/// What `voter` says; `None` if it cannot be asked.
async fn ask(control: &Control, voter: NodeId) -> Option<bool> {
    let address = control.read(|state| Some(state.node(voter.0)?.address.clone()))?;
    let message = RaftMessage {
        cluster_id: control.identity().cluster_id.clone(),
        from: control.node().0,
        to: voter.0,
        body: postcard::to_stdvec(&control.last_log()).ok()?.into(),
    };
    let answer = control.peers().raft(&address).ok()?.pre_vote(message).await.ok()?;
    postcard::from_bytes(&answer.into_inner().body).ok()
}

/// Whether a voter whose log ends at `own` votes for a candidate whose log ends at
/// `candidate`.
fn votes_for(candidate: Option<LogId<u64>>, own: Option<LogId<u64>>, misses_leader: bool) -> bool {
    misses_leader && candidate >= own
}

impl Control {
    /// No leader calls this node, or it leads and no majority follows it any more.
    fn misses_leader(&self) -> bool {
        let silence = self.times().silence_ms();
        if self.leads() {
            let followed = self.raft().data_metrics().borrow().millis_since_quorum_ack;
            return followed.is_some_and(|ms| ms >= silence);
        }
        self.contacts().misses_leader(Instant::now(), Duration::from_millis(silence))
    }

    /// The answer to a candidate that asks before it stands, and whose log ends there.
    pub(super) fn would_vote(&self, candidate: Option<LogId<u64>>) -> bool {
        votes_for(candidate, self.last_log(), self.misses_leader())
    }

    fn last_log(&self) -> Option<LogId<u64>> {
        self.raft().data_metrics().borrow().last_log
    }
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::*;

    fn log(term: u64, index: u64) -> Option<LogId<u64>> {
        Some(LogId::new(CommittedLeaderId::new(term, 1), index))
    }

    #[test]
    fn a_vote_goes_to_whoever_has_as_much_and_only_where_a_leader_is_missed() {
        for (candidate, own) in [(log(2, 5), log(2, 5)), (log(3, 1), log(2, 9)), (None, None)] {
            assert!(votes_for(candidate, own, true));
            assert!(!votes_for(candidate, own, false), "a leader is heard");
        }
        assert!(!votes_for(log(2, 4), log(2, 5), true) && !votes_for(None, log(1, 1), true));
        assert!(!votes_for(log(2, 9), log(3, 1), true), "what is committed may be missing");
    }

    #[test]
    fn voters_stand_one_after_the_other() {
        let voters = [NodeId(1), NodeId(5), NodeId(9)];
        for (place, me) in (0..).zip(voters) {
            let turn = turn(me, &voters);
            assert!(turn >= TURN * place && turn < TURN * (place + 1), "{turn:?}");
        }
    }
}
