//! `tidegate feed tail`.

use std::path::PathBuf;

use serde_json::Value;
use tidegate_proto::v1::subscribe_start::From;
use tidegate_proto::v1::{FeedFormat, Operation, SubscribeResponse, SubscribeStart};
use tidegate_proto::{Sequence, Token};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Common;
use crate::cluster::Cluster;
use crate::commands::feed::matches::Matches;
use crate::commands::feed::subscription::Subscription;
use crate::commands::feed::token::{self, Place};
use crate::commands::feed::{LineFormat, Op, TailArgs};
use crate::connect::Endpoints;
use crate::failure::{Failure, Result};
use crate::hex;
use crate::output;

/// Prints changes until the feed ends, the reader of our output leaves, or a
/// signal comes; then says on standard error how to go on.
pub(super) async fn run(args: TailArgs, common: &Common) -> Result<()> {
    let urls = common.nodes();
    let from = from(&args, &mut Cluster::new(&urls)?).await?;
    let mut place = Place::of(&from, args.token_file.clone());
    let mut matches = Matches::new(&args);
    let mut subscription = Subscription::new(Endpoints::new(&urls)?, start(&args, from));
    let mut stopped = std::pin::pin!(stopped());
    let outcome = loop {
        let response = tokio::select! {
            biased;
            () = &mut stopped => break Ok(()),
            response = subscription.next() => match response {
                Ok(Some(response)) => response,
                Ok(None) => break Ok(()),
                Err(failure) => break Err(failure),
            },
        };
        if let Err(failure) = print(&response, args.format).and_then(|()| place.reach(&response)) {
            break Err(failure);
        }
        if let Some(note) = matches.seen(&response) {
            output::note(&note);
        }
        subscription.done(&response).await;
    };
    if let Some(note) = matches.ended() {
        output::note(&note);
    }
    place.tell();
    outcome
}

/// How far the output is.
struct Reached {
    token: Option<Vec<u8>>,
    file: Option<PathBuf>,
}

impl Place {
    fn of(from: &From, file: Option<PathBuf>) -> Reached {
        let token = match from {
            From::Token(token) => Some(token.to_vec()),
            From::Earliest(_) | From::Latest(_) => None,
        };
        Reached { token, file }
    }
}

impl Reached {
    /// The lines of `response` have left this process.
    fn reach(&mut self, response: &SubscribeResponse) -> Result<()> {
        self.token = Some(response.token.to_vec());
        match &self.file {
            Some(file) => token::save(file, &response.token),
            None => Ok(()),
        }
    }

    fn tell(&self) {
        if let Some(token) = &self.token {
            output::note(&format!("token: {}", hex::encode(token)));
        }
    }
}

/// Where to begin. The latest place is asked for here and now, so that a
/// connection lost before the first response leaves nothing out.
async fn from(args: &TailArgs, cluster: &mut Cluster) -> Result<From> {
    let kept = args.token_file.as_deref().map(token::load).transpose()?.flatten();
    if let Some(token) = kept {
        return Ok(From::Token(token.into()));
    }
    let otherwise = if args.until_now { Place::Earliest } else { Place::Latest };
    match args.from.clone().unwrap_or(otherwise) {
        Place::Earliest => Ok(From::Earliest(true)),
        Place::Behind(token) => Ok(From::Token(token.into())),
        Place::Latest => Ok(From::Token(latest(&args.export, cluster).await?.into())),
    }
}

async fn latest(name: &str, cluster: &mut Cluster) -> Result<Vec<u8>> {
    let export = cluster.export(name).await?;
    let shards = cluster.shards(name).await?.shards;
    let captured = shards.iter().map(|shard| {
        let at = shard.captured.as_ref().map_or(0, |at| at.sequence);
        (shard.id.unwrap_or_default().index, Sequence(at))
    });
    let sequences = captured.collect();
    let cluster_id = cluster.status().await?.cluster_id;
    Ok(Token { cluster_id, export_id: export.id, sequences }.encode())
}

fn start(args: &TailArgs, from: From) -> SubscribeStart {
    SubscribeStart {
        export: args.export.clone(),
        from: Some(from),
        format: FeedFormat::Json.into(),
        shards: args.shard.clone(),
        collections: args.collection.clone(),
        operations: args.op.iter().map(|op| Operation::from(*op).into()).collect(),
        until_now: args.until_now,
        ..SubscribeStart::default()
    }
}

impl std::convert::From<Op> for Operation {
    fn from(op: Op) -> Self {
        match op {
            Op::Insert => Self::Insert,
            Op::Update => Self::Update,
            Op::Delete => Self::Delete,
            Op::Snapshot => Self::Snapshot,
            Op::Upsert => Self::Upsert,
            Op::Gap => Self::Gap,
        }
    }
}

fn print(response: &SubscribeResponse, format: LineFormat) -> Result<()> {
    match format {
        LineFormat::Json => output::lines(&response.json),
        LineFormat::Compact => {
            let shard = &response.shard;
            let lines = response.json.iter().map(|json| compact(shard, json));
            output::lines(lines.collect::<Result<Vec<_>>>()?)
        }
    }
}

/// `SHARD SEQUENCE operation collection key document`, the last two as JSON.
fn compact(shard: &str, json: &[u8]) -> Result<String> {
    let change: Value = serde_json::from_slice(json).map_err(|_| {
        Failure::failed("the node sent a change that is no JSON; are both of one version?")
    })?;
    let word = |key: &str| match change.get(key) {
        None => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let json = |key: &str| change.get(key).map(Value::to_string).unwrap_or_default();
    let line = format!(
        "{shard} {} {:8} {} {} {}",
        word("sequence"),
        word("operation"),
        word("collection"),
        json("key"),
        json("document")
    );
    Ok(line.trim_end().to_owned())
}

/// Ends with the first SIGINT or SIGTERM.
async fn stopped() {
    let (Ok(mut int), Ok(mut term)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compact_line_keeps_numbers_exact() {
        let json = br#"{"sequence":7,"operation":"insert","collection":"items","key":"a b",
            "document":{"n":12345678901234567890123456789.10}}"#;
        let line = compact("s0", json).unwrap();
        let wanted = r#"s0 7 insert   items "a b" {"n":12345678901234567890123456789.10}"#;
        assert_eq!(line, wanted);
    }

    #[test]
    fn a_delete_has_no_document() {
        let json = br#"{"sequence":8,"operation":"delete","collection":"items","key":"k"}"#;
        assert_eq!(compact("s0", json).unwrap(), r#"s0 8 delete   items "k""#);
        assert!(compact("s0", b"{").is_err());
    }
}
