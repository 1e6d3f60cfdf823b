//! Looks whether the other nodes' processes are there, and what follows if one is not.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use rand::Rng as _;
use tidegate_proto::NodeId;
use tidegate_proto::v1::{NodeState, PingRequest, PingResponse};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::control::handle::Control;

/// Between the candidacies of two nodes, so that the first has time to win.
const TURN: Duration = Duration::from_millis(60);
/// Failed pings after an answer that are repeated without much waiting.
const HURRIES: u32 = 4;
/// Elections started for one lost leader before Raft's own timers are left to it.
const ELECTIONS_MAX: u32 = 20;

/// Pings each other node for as long as this one lives.
pub(super) async fn keep(control: Control) {
    let mut topology = control.topology();
    let mut probes: BTreeMap<(NodeId, String), AbortHandle> = BTreeMap::new();
    loop {
        topology.borrow_and_update();
        let others: Vec<_> = control.read(|state| {
            let others = state.nodes().filter(|node| node.id != control.node().0);
            let others = others.filter(|node| node.state() != NodeState::Joining);
            others.map(|node| (NodeId(node.id), node.address.clone())).collect()
        });
        probes.retain(|other, probe| {
            let stays = others.contains(other);
            if !stays {
                probe.abort();
            }
            stays
        });
        for other in others {
            probes.entry(other.clone()).or_insert_with(|| {
                tokio::spawn(probe(control.clone(), other.0, other.1)).abort_handle()
            });
        }
        if topology.changed().await.is_err() {
            return;
        }
    }
}

/// Pings one node; when its process is gone, says so to whoever must act.
async fn probe(control: Control, node: NodeId, address: String) {
    let every = control.times().heartbeat();
    // After an answer, a failure is looked into at once.
    let mut hurry = 0;
    loop {
        match timeout(control.times().down(), ping(&control, &address)).await {
            Ok(Ok(answer)) => {
                control.contacts().heard(node, answer.run, Instant::now());
                hurry = HURRIES;
                tokio::time::sleep(every).await;
                continue;
            }
            Ok(Err(true)) if control.contacts().refused(node) => {
                tracing::warn!(%node, "nobody listens at its address any more");
                control.suspicion().notify_one();
                tokio::spawn(replace_leader(control.clone(), node));
            }
            // It may hang, or only be out of our reach: if it leads, its own calls tell.
            Err(_) if control.contacts().leader_silent(Instant::now(), control.times().down()) => {
                tokio::spawn(replace_leader(control.clone(), node));
            }
            Ok(Err(_)) | Err(_) => {}
        }
        tokio::time::sleep(if hurry > 0 { every / 10 } else { every }).await;
        hurry = hurry.saturating_sub(1);
    }
}

/// What the other answers; an error says whether nobody listens there.
async fn ping(control: &Control, address: &str) -> Result<PingResponse, bool> {
    let mut client = control.peers().raft(address).map_err(|_| false)?;
    let request = PingRequest { cluster_id: control.identity().cluster_id.clone() };
    match client.ping(request).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => Err(is_refusal(&status)),
    }
}

fn is_refusal(status: &tonic::Status) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset};
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return matches!(io.kind(), ConnectionRefused | ConnectionReset | BrokenPipe);
        }
        cause = error.source();
    }
    false
}

/// If `gone` led, the others need not wait for Raft's own timers: they stand for
/// election in turn.
async fn replace_leader(control: Control, gone: NodeId) {
    if control.contacts().set_standing(true) {
        stand(&control, gone).await;
        control.contacts().set_standing(false);
    }
}

async fn stand(control: &Control, gone: NodeId) {
    for _ in 0..ELECTIONS_MAX {
        let leader = control.leadership().leader;
        let led = leader.is_none() || leader == Some(gone);
        let voters = control.voters();
        let when = (Instant::now(), control.times().down());
        let me = control.node();
        let (absent, majority) = {
            let contacts = control.contacts();
            (contacts.absent(gone, when.0, when.1), contacts.has_majority(&voters, me, when))
        };
        if !led || !absent || !majority || !voters.contains(&me) {
            return;
        }
        let ended = control.contacts().gone(gone).is_some();
        if !ended && !others_miss(control, &voters, gone).await {
            tokio::time::sleep(TURN).await;
            continue;
        }
        let before_us = voters.iter().filter(|id| **id < control.node() && **id != gone).count();
        let turn = f64::from(u32::try_from(before_us).unwrap_or(0));
        let jitter = rand::rng().random_range(0.0..0.3);
        tokio::time::sleep(TURN.mul_f64(turn + jitter)).await;
        let leader = control.leadership().leader;
        if leader.is_some() && leader != Some(gone) {
            return;
        }
        tracing::info!(%gone, "the leader is gone; standing for election");
        if control.raft().trigger().elect().await.is_err() {
            return;
        }
        tokio::time::sleep(TURN * 3).await;
    }
}

/// A majority of the voters, this node one of them, hears no leader. Who has only lost
/// its own sight of it could win no election, and would disturb those who follow it.
async fn others_miss(control: &Control, voters: &[NodeId], gone: NodeId) -> bool {
    let others = voters.iter().filter(|id| **id != control.node() && **id != gone);
    let addresses: Vec<_> = control
        .read(|state| others.filter_map(|id| Some(state.node(id.0)?.address.clone())).collect());
    let patience = control.times().heartbeat() * 3;
    let asked = addresses.iter().map(|address| timeout(patience, ping(control, address)));
    let answers = join_all(asked).await;
    let miss = answers.iter().filter(|answer| matches!(answer, Ok(Ok(answer)) if !answer.led));
    2 * (1 + miss.count()) > voters.len()
}
