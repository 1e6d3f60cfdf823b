//! Looks whether the other nodes' processes are there.

use std::collections::BTreeMap;

use tidegate_proto::NodeId;
use tidegate_proto::v1::{NodeState, PingRequest};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::control::handle::Control;

/// Failed pings after an answer that are repeated without much waiting.
const HURRIES: u32 = 4;

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
            Ok(Ok(run)) => {
                control.contacts().heard(node, run, Instant::now());
                hurry = HURRIES;
                tokio::time::sleep(every).await;
                continue;
            }
            Ok(Err(true)) if control.contacts().refused(node) => {
                tracing::warn!(%node, "nobody listens at its address any more");
                control.suspect();
            }
            // It may hang, or only be out of our reach.
            Ok(Err(_)) | Err(_) => {}
        }
        tokio::time::sleep(if hurry > 0 { every / 10 } else { every }).await;
        hurry = hurry.saturating_sub(1);
    }
}

/// The other's run; an error says whether nobody listens there.
async fn ping(control: &Control, address: &str) -> Result<u64, bool> {
    let mut client = control.peers().raft(address).map_err(|_| false)?;
    let request = PingRequest { cluster_id: control.identity().cluster_id.clone() };
    match client.ping(request).await {
        Ok(answer) => Ok(answer.into_inner().run),
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
