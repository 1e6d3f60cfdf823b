//! What `tidegate doctor` looks at beside the stores themselves.

use std::path::Path;

use tidegate_proto::v1::{Check, Export, NodeState};
use tidegate_raft_store::State;

use crate::checkpoint::{self, HEADROOM_MIN};
use crate::clock;
use crate::control::Control;
use crate::spool::Spool;

/// What holds for this node and the cluster, whatever is exported.
pub(super) fn cluster(control: &Control, data: &Path, spool: &Spool) -> Vec<Check> {
    let leader = control.leadership().leader;
    let voters = control.voters().len();
    vec![
        Check {
            name: "leader".to_owned(),
            passed: leader.is_some(),
            detail: leader.map_or("none".to_owned(), |id| format!("node {id}")),
            remedy: "start enough nodes for a majority; see `tidegate node list`".to_owned(),
        },
        Check {
            name: "lease".to_owned(),
            passed: control.lease().held(),
            detail: "this node's right to run shards".to_owned(),
            remedy: "check the network between this node and the leader".to_owned(),
        },
        Check {
            name: "quorum".to_owned(),
            passed: voters != 2,
            detail: format!("{voters} voting nodes"),
            remedy: "two nodes survive no loss: add a third".to_owned(),
        },
        Check {
            name: "data folder".to_owned(),
            passed: data.is_dir(),
            detail: data.display().to_string(),
            remedy: "mount it again, then restart the node".to_owned(),
        },
        room(spool),
        control.read(nodes_up),
    ]
    .into_iter()
    .map(|check| if check.passed { Check { remedy: String::new(), ..check } } else { check })
    .collect()
}

fn nodes_up(state: &State) -> Check {
    let down = state.nodes().filter(|node| node.state() == NodeState::Down);
    let down: Vec<_> = down.map(|node| node.name.as_str()).collect();
    Check {
        name: "nodes".to_owned(),
        passed: down.is_empty(),
        detail: if down.is_empty() { "all are up".to_owned() } else { down.join(", ") + " down" },
        remedy: "start what is down; in place of a machine that is lost let another join, and \
                 remove it with `tidegate node remove`"
            .to_owned(),
    }
}

fn room(spool: &Spool) -> Check {
    let room = spool.check_room().err();
    Check {
        name: "disk room".to_owned(),
        passed: room.is_none(),
        detail: room.map_or("enough for the spool".to_owned(), |error| error.to_string()),
        remedy: "free some, or mend the sinks; capture then goes on by itself".to_owned(),
    }
}

/// A source that keeps all it has, or has told nothing yet, has none.
pub(super) fn headroom(state: &State, export: &Export) -> Option<Check> {
    let left = checkpoint::headroom(state, export.id, clock::now_ms())?;
    Some(Check {
        name: format!("{}: headroom", export.name),
        passed: left >= HEADROOM_MIN,
        detail: format!(
            "{} s until the source forgets what is to be read next, if it is read no more",
            left.as_secs()
        ),
        remedy: "let the export run: see `tidegate shard list` for what holds it up; then let \
                 the source keep its log for longer"
            .to_owned(),
    })
}
