//! From where a subscriber begins.

use std::collections::BTreeMap;

use tidegate_proto::v1::subscribe_start::From;
use tidegate_proto::v1::{Shard, ShardId, SubscribeStart};
use tidegate_proto::{Sequence, Token};
use tidegate_raft_store::State;
use tonic::Status;

use crate::spool::AHEAD_MAX;

/// One shard of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) shard: ShardId,
    pub(super) name: String,
    /// Where to begin.
    pub(super) from: Begin,
    /// The last sequence captured when the feed was opened.
    pub(super) captured: Sequence,
    /// Shards of the feed that come before it.
    pub(super) parents: Vec<ShardId>,
}

/// Where a lane begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// At the oldest retained.
    Earliest,
    /// Behind this sequence.
    After(Sequence),
}

/// The shards a subscriber asked for, each with where to begin.
pub(super) fn lanes(
    state: &State,
    cluster_id: &str,
    start: &SubscribeStart,
) -> Result<(u64, Vec<Lane>), Status> {
    let export = state.export_named(&start.export).ok_or_else(|| {
        let names: Vec<_> = state.exports().map(|export| export.name.as_str()).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Status::not_found(format!("there is no export \"{}\"; there are: {there}", start.export))
    })?;
    let token = token(start, cluster_id, export.id, &export.name)?;
    let mut lanes = Vec::new();
    for shard in state.shards_of(export.id) {
        let id = shard.id.unwrap_or_default();
        let name = shard.spec.as_ref().map_or_else(String::new, |spec| spec.name.clone());
        if !asked(start, &name) {
            continue;
        }
        let parents = shard.spec.iter().flat_map(|spec| &spec.parents);
        let parents = parents.filter(|parent| asked(start, parent)).filter_map(|parent| {
            let named = |it: &&Shard| it.spec.as_ref().is_some_and(|spec| spec.name == *parent);
            state.shards_of(export.id).find(named)?.id
        });
        let parents = parents.collect();
        let captured = Sequence(shard.captured.as_ref().map_or(0, |at| at.sequence));
        // With copies, what was seen may be ahead of what is recorded; the log will
        // tell whether it ends before the token.
        let seen = if shard.copied { captured.plus(AHEAD_MAX) } else { captured };
        let from = match (&start.from, &token) {
            (Some(From::Latest(true)), _) => Begin::After(captured),
            (_, Some(sequences)) => match sequences.get(&id.index) {
                Some(at) => Begin::After(not_ahead(*at, seen, &name)?),
                None => Begin::Earliest,
            },
            _ => Begin::Earliest,
        };
        lanes.push(Lane { shard: id, name, from, captured, parents });
    }
    // Before discovery there are none: those that come are known by then.
    for wanted in start.shards.iter().filter(|_| export.shards > 0) {
        if lanes.iter().all(|lane| lane.name != *wanted) {
            return Err(Status::not_found(format!(
                "export \"{}\" has no shard \"{wanted}\"; `tidegate shard list` shows them",
                export.name
            )));
        }
    }
    Ok((export.id, lanes))
}

fn asked(start: &SubscribeStart, shard: &String) -> bool {
    start.shards.is_empty() || start.shards.contains(shard)
}

fn token(
    start: &SubscribeStart,
    cluster_id: &str,
    export_id: u64,
    export: &str,
) -> Result<Option<BTreeMap<u32, Sequence>>, Status> {
    let Some(From::Token(bytes)) = &start.from else { return Ok(None) };
    let token =
        Token::decode(bytes).map_err(|error| Status::invalid_argument(error.to_string()))?;
    if token.cluster_id != cluster_id {
        return Err(Status::failed_precondition(format!(
            "the token is from cluster {}, this is cluster {cluster_id}; \
             use a token of this cluster, or start from earliest or latest",
            token.cluster_id
        )));
    }
    if token.export_id != export_id {
        return Err(Status::failed_precondition(format!(
            "the token is from export number {}, \"{export}\" is number {export_id}; \
             use a token of this export, or start from earliest or latest",
            token.export_id
        )));
    }
    Ok(Some(token.sequences))
}

fn not_ahead(at: Sequence, captured: Sequence, shard: &str) -> Result<Sequence, Status> {
    if at <= captured {
        return Ok(at);
    }
    Err(Status::out_of_range(format!(
        "the token is at sequence {at} of shard \"{shard}\", which ends at {captured}; \
         it was not made by this cluster's present state: start from earliest or latest"
    )))
}
