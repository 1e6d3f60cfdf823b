//! The leader's care for who belongs to the group and who is down.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::ChangeMembers;
use tidegate_proto::NodeId;
use tidegate_proto::v1::{NodeDown, NodeState, command};
use tidegate_raft_store::{Peer, State};
use tokio::time::Instant;

use crate::control::contacts::Contacts;
use crate::control::handle::Control;
use crate::control::liveness::Liveness;

/// A learner this close to the end of the log may vote.
const LAG_MAX: u64 = 100;

/// Compares the nodes of the state with the members of the group and with who
/// was heard, and acts on the difference; only while this node leads.
pub(super) async fn keep(control: Control) {
    let mut ticks = tokio::time::interval(control.times().heartbeat());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut leader_before, mut suspicions) = (None, control.suspicions());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = suspicions.changed() => {}
        }
        if !control.leads() {
            leader_before = control.leadership().leader.or(leader_before);
            control.liveness().forget();
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
        if let Some(step) = step(&control) {
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
/// it, whose silence is why it was elected.
pub(crate) fn blame(
    up: &[(NodeId, u64)],
    contacts: &Contacts,
    liveness: &mut Liveness,
    before: NodeId,
) {
    let run = up.iter().find(|(node, _)| *node == before).map(|(_, run)| *run);
    if let (Some(run), Some(last)) = (run, contacts.last(before)) {
        liveness.heard_before(before, run, last);
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
fn step(control: &Control) -> Option<Step> {
    let wanted: Vec<(u64, String)> =
        control.read(|state| state.nodes().map(|node| (node.id, node.address.clone())).collect());
    let metrics = control.raft().metrics();
    let metrics = metrics.borrow();
    let members = metrics.membership_config.membership();
    let voters: BTreeSet<u64> = members.voter_ids().collect();
    for (id, address) in &wanted {
        match members.get_node(id) {
            Some(peer) if peer.address == *address => {}
            _ => return Some(Step::Learn(*id, Peer { address: address.clone() })),
        }
        let matched = metrics.replication.as_ref().and_then(|all| all.get(id).copied().flatten());
        let behind =
            metrics.last_log_index.unwrap_or(0).saturating_sub(matched.map_or(0, |at| at.index));
        if !voters.contains(id) && matched.is_some() && behind <= LAG_MAX {
            return Some(Step::Promote(*id));
        }
    }
    let gone = members.nodes().map(|(id, _)| *id).find(|id| wanted.iter().all(|(it, _)| it != id));
    // Before the first node is written down, the group is only itself.
    gone.filter(|_| !wanted.is_empty()).map(Step::Drop)
}

async fn take(control: &Control, step: Step) {
    tracing::info!(?step, "changing the group");
    let changed = match step {
        Step::Learn(id, peer) => {
            let set = ChangeMembers::SetNodes([(id, peer.clone())].into());
            let known = control
                .raft()
                .metrics()
                .borrow()
                .membership_config
                .membership()
                .get_node(&id)
                .is_some();
            if known {
                control.raft().change_membership(set, true).await.map(drop)
            } else {
                control.raft().add_learner(id, peer, false).await.map(drop)
            }
        }
        Step::Promote(id) => {
            let add = ChangeMembers::AddVoterIds([id].into());
            control.raft().change_membership(add, true).await.map(drop)
        }
        Step::Drop(id) => {
            let remove = ChangeMembers::RemoveVoters([id].into());
            control.raft().change_membership(remove, false).await.map(drop)
        }
    };
    if let Err(error) = changed {
        tracing::warn!(error = %error, "change the group; trying again");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
