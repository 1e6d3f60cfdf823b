//! Whose an export's folder in a lake is.
//!
//! Chains keep owners of one shard apart. An export that was made anew may have shards of
//! other names than the first of its name, and would add its rows beside those of the
//! first, which nobody changes any more. So who delivers first claims the folder.

use serde::{Deserialize, Serialize};
use tidegate_proto::Sequence;

use super::client::{Created, Store};
use super::manifest::REMEDY;
use super::names;
use crate::error::{Error, ErrorKind, Result};
use crate::sinks::SinkShard;

#[derive(Debug, Deserialize, Serialize)]
struct Owner {
    export: String,
    /// See [`SinkShard::uid`].
    uid: String,
}

/// Refuses a folder that another export of the name has claimed: `Config`.
pub(super) async fn check(store: &Store, shard: &SinkShard) -> Result<()> {
    let path = names::owner(&shard.export);
    let Some(bytes) = store.get(&path).await? else { return Ok(()) };
    let owner: Owner = serde_json::from_slice(&bytes).map_err(|error| {
        let what = format!("{path} in the lake does not decode; restore it");
        Error::new(ErrorKind::Corrupt, what).because(error)
    })?;
    // It has delivered, or is about to.
    shard.owns((&owner.uid, Sequence(1)), "the lake", REMEDY).map(drop)
}

/// Claims the folder before anything is delivered to it, unless it is claimed; then as
/// [`check`]. A repeat has no effect.
pub(super) async fn claim(store: &Store, shard: &SinkShard) -> Result<()> {
    let owner = Owner { export: shard.export.clone(), uid: shard.uid.clone() };
    let bytes = serde_json::to_vec(&owner).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "encode whose the lake's folder is").because(error)
    })?;
    match store.create(&names::owner(&shard.export), bytes.into()).await? {
        Created::Made => Ok(()),
        Created::Taken => check(store, shard).await,
    }
}
