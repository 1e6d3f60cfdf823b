//! What operators name, looked up; what is not there says where to look.

use tidegate_proto::v1::{Export, Shard};
use tidegate_raft_store::State;
use tonic::Status;

pub(super) fn export<'a>(state: &'a State, name: &str) -> Result<&'a Export, Status> {
    state.export_named(name).ok_or_else(|| {
        Status::not_found(format!(
            "there is no export \"{name}\"; `tidegate export list` shows them"
        ))
    })
}

/// Only this export's, by id; all if no name is given.
pub(super) fn only(state: &State, name: &str) -> Result<Option<u64>, Status> {
    if name.is_empty() { Ok(None) } else { export(state, name).map(|it| Some(it.id)) }
}

/// By its name, or as EXPORT/INDEX.
pub(super) fn shard<'a>(state: &'a State, of: &Export, name: &str) -> Result<&'a Shard, Status> {
    let named = |it: &&Shard| {
        let id = it.id.unwrap_or_default();
        it.spec.as_ref().is_some_and(|spec| spec.name == *name) || id.to_string() == *name
    };
    state.shards_of(of.id).find(named).ok_or_else(|| {
        let export = &of.name;
        Status::not_found(format!(
            "export \"{export}\" has no shard \"{name}\"; see `tidegate shard list {export}`"
        ))
    })
}

/// The id of a node.
pub(super) fn node(state: &State, name: &str) -> Result<u64, Status> {
    let node = state.nodes().find(|node| node.name == name).map(|node| node.id);
    node.ok_or_else(|| {
        Status::not_found(format!("there is no node \"{name}\"; see `tidegate node list`"))
    })
}
