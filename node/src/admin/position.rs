//! Having a shard's stream go on elsewhere, step by step.

use std::time::Duration;

use bytes::Bytes;
use tidegate_proto::BatchBuilder;
use tidegate_proto::v1::{SetPosition, SetPositionRequest, Shard, ShardId, ShardSpec, command};
use tidegate_raft_store::State;
use tokio::time::Instant;
use tonic::Status;

use crate::admin::snapshots::{REASON_BYTES_MAX, rereads};
use crate::admin::steps::{Steps, propose, until};
use crate::admin::{names, plan};
use crate::control::{Control, status};
use crate::error::{Error, ErrorKind};
use crate::sources::{Rows, Source};

/// The longest position, in bytes: that of a table with tens of thousands of shards.
const POSITION_BYTES_MAX: usize = 1 << 20;
/// How long the source is listened to behind a position before it counts as silent.
const LISTEN: Duration = Duration::from_secs(2);
const WAIT: Duration = Duration::from_millis(200);

/// What was asked, with its names looked up.
#[derive(Debug)]
pub(super) struct Wanted {
    id: ShardId,
    epoch: u64,
    spec: ShardSpec,
    /// The gap that set the position before.
    replaces: u64,
    /// The export's file.
    file: String,
    request: SetPositionRequest,
}

/// Looks up what a request names, and refuses what makes no sense.
pub(super) fn resolve(state: &State, request: SetPositionRequest) -> Result<Wanted, Status> {
    let bounds = [
        ("a reason", request.reason.len(), REASON_BYTES_MAX),
        ("a position", request.position.len(), POSITION_BYTES_MAX),
    ];
    for (what, bytes, most) in bounds {
        if bytes > most {
            let why = format!("{what} has at most {most} bytes; this one has {bytes}");
            return Err(Status::invalid_argument(why));
        }
    }
    if request.reason.is_empty() {
        return Err(Status::invalid_argument("a reason is missing; it is kept with the gap"));
    }
    let export = names::export(state, &request.export)?;
    let shard = names::shard(state, export, &request.shard)?;
    Ok(Wanted {
        id: shard.id.unwrap_or_default(),
        epoch: shard.epoch,
        spec: shard.spec.clone().unwrap_or_default(),
        replaces: shard.position_set,
        file: export.spec.clone(),
        request,
    })
}

/// Sets the position and tells each step.
pub(super) async fn carry_out(
    control: &Control,
    wanted: Wanted,
    steps: &Steps,
) -> Result<(), Status> {
    let Wanted { id, epoch, spec, replaces, file, request } = wanted;
    let SetPositionRequest { export, position, reason, resnapshot, .. } = request;
    if resnapshot {
        rereads(control, &export).await?;
    }
    let source = plan::source(&file).await.map_err(|error| status(&error))?;
    let position = match position.is_empty() {
        true => source.anchor(&spec).await.map_err(|error| status(&error))?.position,
        false => checked(&*source, &spec, position).await?,
    };
    steps.tell("the source can go on from there", epoch).await;
    let (repair, awaits) = match (resnapshot, source.traits().rows) {
        (true, _) => ("", ""),
        (false, Rows::Chunked) => ("none was asked for when the position was set", ""),
        (false, Rows::Streamed) => ("", "the source was read anew as a whole and compared"),
    };
    let (repair, awaits) = (repair.to_owned(), awaits.to_owned());
    let command = SetPosition { shard: Some(id), replaces, position, reason, repair, awaits };
    propose(control, command::Kind::SetPosition(command)).await?;
    let set = until(control, id, |shard| shard.position_set > replaces).await?;
    let number = set.position_set;
    steps.tell(format!("recorded as gap {number}"), set.epoch).await;
    let there = until(control, id, |shard| went_to(shard) >= number).await?;
    let sequence = there.captured.as_ref().map_or(0, |at| at.sequence);
    steps.tell(format!("captured from there on, sequence {sequence} by now"), there.epoch).await;
    if resnapshot {
        let step = format!("snapshot {} reads all rows again beside the stream", there.round);
        steps.tell(step, there.epoch).await;
    }
    Ok(())
}

/// The last position that was set and the stream went to.
fn went_to(shard: &Shard) -> u64 {
    let progress = shard.captured.as_ref().and_then(|at| at.progress.as_ref());
    progress.map_or(0, |it| it.position_set)
}

/// The position, if the source has all that follows it.
async fn checked(source: &dyn Source, spec: &ShardSpec, position: Bytes) -> Result<Bytes, Status> {
    let traits = source.traits();
    if traits.rows == Rows::Streamed {
        let kind = traits.kind;
        return Err(Status::failed_precondition(format!(
            "what {kind} sends depends on what was captured before: it goes on where it is, or is \
             read anew as a whole and compared; for that say `now`"
        )));
    }
    let mut stream = source.stream(spec, &position).await.map_err(|error| not_there(&error))?;
    let mut out = BatchBuilder::default();
    let silent = Instant::now() + LISTEN;
    while out.is_empty() && Instant::now() < silent {
        let read = stream.read(&mut out, 1, WAIT).await.map_err(|error| not_there(&error))?;
        if let Some(loss) = read.losses.first() {
            return Err(Status::failed_precondition(format!(
                "the source cannot go on from there: {}; say `now`, with --resnapshot to have all \
                 rows read again",
                loss.detail
            )));
        }
        if read.ended {
            break;
        }
    }
    Ok(position)
}

/// Why no stream goes on there.
fn not_there(error: &Error) -> Status {
    if error.kind() == ErrorKind::Corrupt {
        // It is an operator's, not one that was stored.
        let why = "this is no position of this source; see `tidegate position show` for one";
        return Status::invalid_argument(why);
    }
    status(error)
}
