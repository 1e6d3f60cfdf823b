//! The leader's care for who belongs to the group and who is down.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::error::{ClientWriteError, RaftError};
use tidegate_proto::NodeId;
use tidegate_proto::v1::{Node, NodeDown, NodeState, command};
use tidegate_raft_store::{Peer, State};
use tokio::time::{Instant, timeout};

use crate::clock::Past;
use crate::control::contacts::Contacts;
use crate::control::handle::{Control, PROPOSE_WAIT};
use crate::control::liveness::Liveness;

type Refusal = RaftError<u64, ClientWriteError<u64, Peer>>;

/// Compares the nodes of the state with the members of the group and with who
/// was heard, and acts on the difference; only while this node leads.
pub(super) async fn keep(control: Control) {
    let mut ticks = tokio::time::interval(control.times().heartbeat());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut leader_before, mut suspicions) = (None, control.suspicions());
    let mut log_end = Past::new(control.times().lease());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = suspicions.changed() => {}
        }
        if !control.leads() {
            leader_before = control.leadership().leader.or(leader_before);
            control.liveness().forget();
            log_end = Past::new(control.times().lease());
            continue;
        }
        if control.followed_ms_ago().is_none() {
            control.liveness().excuse();
            continue;
        }
        if let Some(before) = leader_before.take() {
            let up = control.read(up);
            let contacts = control.contacts();
            let mut liveness = control.liveness();
            blame(&up, &contacts, &mut liveness, before);
        }
        for (node, run) in look(&control) {
            tracing::warn!(%node, "lost; declared down");
            let down = NodeDown { node: node.0, run };
            if let Err(error) = control.decide(command::Kind::NodeDown(down)).await {
                tracing::warn!(error = %error, %node, "declare a node down; trying again");
            }
        }
        if let Some(step) = step(&control, &mut log_end) {
            take(&control, step).await;
        }
    }
}

fn look(control: &Control) -> Vec<(NodeId, u64)> {
    let up = control.read(up);
    let contacts = control.contacts();
    let mut liveness = control.liveness();
    lost(up, &contacts, &mut liveness, (Instant::now(), control.times().down()))
}

/// Nodes held for up that at `now` were not heard for `patience`, or whose process
/// is gone.
pub(crate) fn lost(
    up: Vec<(NodeId, u64)>,
    contacts: &Contacts,
    liveness: &mut Liveness,
    (now, patience): (Instant, Duration),
) -> Vec<(NodeId, u64)> {
    let gone = |(node, run): &(NodeId, u64)| contacts.gone(*node) == Some(*run);
    let mut lost: Vec<_> = up.iter().copied().filter(gone).collect();
    let rest = up.into_iter().filter(|it| !gone(it));
    lost.extend(liveness.silent(rest, now, patience));
    for (node, run) in &lost {
        liveness.condemn(*node, *run);
    }
    lost
}

/// Nodes held for up, each in its run.
pub(crate) fn up(state: &State) -> Vec<(NodeId, u64)> {
    let nodes = state.nodes().filter(|node| node.state() == NodeState::Up);
    nodes.map(|node| (NodeId(node.id), node.run)).collect()
}

/// A new leader gives everyone its full patience; only not the leader before
/// it, whose silence is why it was elected, unless it has started anew since.
pub(crate) fn blame(
    up: &[(NodeId, u64)],
    contacts: &Contacts,
    liveness: &mut Liveness,
    before: NodeId,
) {
    let Some((_, run)) = up.iter().find(|(node, _)| *node == before) else { return };
    if let Some(last) = contacts.last(before, *run) {
        liveness.heard_before(before, *run, last);
    }
}

/// One change of the group; one at a time.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Learn(u64, Peer),
    Promote(u64),
    Drop(u64),
}

/// The first difference between the nodes wanted and the members there are.
fn step(control: &Control, log_end: &mut Past<u64>) -> Option<Step> {
    let wanted: Vec<Node> = control.read(|state| state.nodes().cloned().collect());
    let (now, contacts) = (Instant::now(), control.contacts());
    let metrics = control.raft().metrics();
    let metrics = metrics.borrow();
    let log_then = log_end.note(now, metrics.last_log_index.unwrap_or(0));
    let members = metrics.membership_config.membership();
    let voters: BTreeSet<u64> = members.voter_ids().collect();
    for node in &wanted {
        match members.get_node(&node.id) {
            Some(peer) if peer.address == node.address => {}
            _ => return Some(Step::Learn(node.id, Peer { address: node.address.clone() })),
        }
        let all = metrics.replication.as_ref();
        let matched = all.and_then(|all| all.get(&node.id).copied().flatten()).map(|at| at.index);
        let lives = || lives(node, &contacts, (now, control.times().lease()));
        let may = !node.learner && !voters.contains(&node.id);
        if may && matched >= Some(log_then) && lives() {
            return Some(Step::Promote(node.id));
        }
    }
    let gone =
        members.nodes().map(|(id, _)| *id).find(|id| wanted.iter().all(|node| node.id != *id));
    // Before the first node is written down, the group is only itself.
    gone.filter(|_| !wanted.is_empty()).map(Step::Drop)
}

/// The group waits for whoever votes, and of two nodes each is needed: a learner whose
/// process has ended since it took something must not be one of them.
fn lives(learner: &Node, contacts: &Contacts, when: (Instant, Duration)) -> bool {
    let up = learner.state() == NodeState::Up;
    up && contacts.answers(NodeId(learner.id), learner.run, when)
}

async fn take(control: &Control, step: Step) {
    tracing::info!(?step, "changing the group");
    let changed = timeout(PROPOSE_WAIT, control.while_leading(change(control, step))).await;
    let why = match changed {
        Ok(Some(Ok(()))) => return,
        Ok(Some(Err(error))) => error.to_string(),
        Ok(None) => "this node leads no longer".to_owned(),
        Err(_) => "it takes long".to_owned(),
    };
    tracing::warn!(why, "change the group; trying again");
    tokio::time::sleep(Duration::from_millis(500)).await;
}

async fn change(control: &Control, step: Step) -> Result<(), Refusal> {
    let raft = control.raft();
    let changed = match step {
        Step::Learn(id, peer) => {
            let metrics = raft.metrics();
            let known = metrics.borrow().membership_config.membership().get_node(&id).is_some();
            if known {
                raft.change_membership(ChangeMembers::SetNodes([(id, peer)].into()), true).await
            } else {
                raft.add_learner(id, peer, false).await
            }
        }
        Step::Promote(id) => {
            raft.change_membership(ChangeMembers::AddVoterIds([id].into()), true).await
        }
        Step::Drop(id) => {
            raft.change_membership(ChangeMembers::RemoveVoters([id].into()), false).await
        }
    };
    changed.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learner_votes_only_while_it_answers_in_the_run_that_is_up() {
        let (mut contacts, now) = (Contacts::default(), Instant::now());
        let lease = Duration::from_millis(700);
        let mut learner = Node { id: 2, run: 7, ..Node::default() };
        learner.set_state(NodeState::Up);
        let may = |node: &Node, contacts: &Contacts| lives(node, contacts, (now, lease));
        assert!(!may(&learner, &contacts), "nobody has heard it");
        contacts.heard(NodeId(2), 7, now);
        assert!(may(&learner, &contacts));
        assert!(!lives(&learner, &contacts, (now + lease, lease)), "it is silent");
        assert!(!may(&Node { run: 8, ..learner.clone() }, &contacts), "that was the run before");
        contacts.refused(NodeId(2));
        assert!(!may(&learner, &contacts), "it was killed");
        contacts.heard(NodeId(2), 7, now);
        learner.set_state(NodeState::Down);
        assert!(!may(&learner, &contacts));
    }
}
