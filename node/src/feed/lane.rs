//! One shard of one feed: fetched, filtered, and ready to send.

use std::time::Duration;

use bytes::Bytes;
use tidegate_proto::v1::{ChangeBatch, FeedFormat, GapKind, Operation, Rewound};
use tidegate_proto::{BatchBuilder, Codec, Draft, Frame, Sequence, Stamp, Told};
use tokio::sync::mpsc;

use crate::control::Control;
use crate::error::{ErrorKind, Result};
use crate::exchange::{Exchange, Fetch, Fetched};
use crate::feed::filter::Filter;
use crate::feed::json::{self, Origin};
use crate::feed::start::{Begin, Lane};
use crate::retry::Backoff;

/// How often what is not in the spool is asked for, before it is believed.
const GONE_MAX: u32 = 20;

/// What one lane hands to the feed's stream.
#[derive(Debug, Default)]
pub(super) struct Portion {
    pub(super) lane: usize,
    pub(super) frames: Vec<Bytes>,
    pub(super) json: Vec<Bytes>,
    pub(super) sequence: Sequence,
    pub(super) stable: Sequence,
    pub(super) filtered: u64,
}

impl Portion {
    pub(super) fn bytes(&self) -> u64 {
        let all = self.frames.iter().chain(&self.json);
        all.map(|bytes| bytes.len() as u64).sum()
    }
}

/// What all lanes of a feed share.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) exchange: Exchange,
    pub(super) control: Control,
    pub(super) export: String,
    pub(super) filter: Filter,
    pub(super) format: FeedFormat,
    pub(super) until_now: bool,
}

/// How far a lane is.
#[derive(Debug)]
struct Place {
    after: Begin,
    /// A loss behind which nothing has passed the filter yet.
    lost: Option<Rewound>,
}

/// Hands over one shard's portions until the feed ends, through changes of
/// owner; an error that no waiting mends is handed over last.
pub(super) async fn run(
    plan: Plan,
    number: usize,
    lane: Lane,
    portions: mpsc::Sender<Result<Portion>>,
) {
    let mut place = Place { after: lane.from, lost: None };
    let mut patience = GONE_MAX;
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(100));
    loop {
        let error = match follow(&plan, number, &lane, &mut place, &portions).await {
            Ok(()) => return,
            Err(error) => error,
        };
        // What this node knows of the shard's copies may be a moment old.
        let doubtful = error.kind() == ErrorKind::Gone && patience > 0;
        patience -= u32::from(doubtful);
        if error.kind() != ErrorKind::Unavailable && !doubtful {
            drop(portions.send(Err(error)).await);
            return;
        }
        tracing::debug!(error = %error, shard = %lane.shard, "a feed looks for the owner");
        tokio::time::sleep(backoff.wait()).await;
    }
}

async fn follow(
    plan: &Plan,
    number: usize,
    lane: &Lane,
    place: &mut Place,
    portions: &mpsc::Sender<Result<Portion>>,
) -> Result<()> {
    let upto = plan.until_now.then_some(lane.captured);
    let done = |at: Sequence| upto.is_some_and(|upto| at >= upto);
    if let Begin::After(at) = place.after
        && done(at)
    {
        return Ok(());
    }
    if upto == Some(Sequence(0)) {
        return Ok(());
    }
    let mut fetch = open(plan, lane, place.after).await?;
    loop {
        let fetched = fetch.next().await?;
        let Some(last) = fetched.frames.last().map(Frame::last) else { continue };
        let portion = portion(plan, (number, &lane.name), fetched, place)?;
        if portions.send(Ok(portion)).await.is_err() {
            return Ok(());
        }
        place.after = Begin::After(last);
        fetch.acknowledge(last);
        if done(last) {
            return Ok(());
        }
    }
}

/// Opens a fetch; from the oldest retained if that was asked for.
async fn open(plan: &Plan, lane: &Lane, from: Begin) -> Result<Box<dyn Fetch>> {
    let Begin::After(at) = from else {
        return plan.exchange.fetch_oldest(lane.shard).await;
    };
    match plan.exchange.fetch(lane.shard, at).await {
        Err(gone) if gone.kind() == ErrorKind::Gone => match behind_loss(plan, lane, at) {
            Some(upto) => plan.exchange.fetch(lane.shard, upto).await,
            None => Err(gone),
        },
        opened => opened,
    }
}

/// Where to go on if what follows `at` was lost with the last copy of a spool
/// and comes again under new sequences; `None` if more than that is missing.
fn behind_loss(plan: &Plan, lane: &Lane, at: Sequence) -> Option<Sequence> {
    plan.control.read(|state| {
        let lost = state.gaps_of(lane.shard).filter(|gap| gap.kind() == GapKind::SpoolLost);
        let mut behind = at.0;
        for gap in lost {
            if gap.after <= behind && behind < gap.upto {
                behind = gap.upto;
            }
        }
        (behind > at.0).then_some(Sequence(behind))
    })
}

fn portion(
    plan: &Plan,
    (lane, shard): (usize, &str),
    fetched: Fetched,
    place: &mut Place,
) -> Result<Portion> {
    let skip = match place.after {
        Begin::After(at) => at,
        Begin::Earliest => Sequence(0),
    };
    let mut portion = Portion { lane, stable: fetched.stable, ..Portion::default() };
    for frame in fetched.frames {
        portion.sequence = frame.last();
        let whole = frame.first() > skip && plan.filter.is_open();
        if whole && plan.format == FeedFormat::Frames {
            portion.frames.push(frame.bytes().clone());
            continue;
        }
        let batch = frame.decode()?;
        let mut passing = plan.filter.passing(&batch);
        passing.retain(|at| frame.first().plus(*at as u64) > skip);
        if frame.first() > skip {
            place.lost = batch.rewound.or(place.lost.take());
        }
        portion.filtered += (batch.changes.len() - passing.len()) as u64;
        if plan.format == FeedFormat::Json {
            let (epoch, first) = (frame.epoch(), frame.first());
            for at in passing {
                let rewound = place.lost.take();
                let origin = Origin { export: &plan.export, shard, epoch, first, rewound };
                portion.json.push(json::change(&origin, &batch, at)?.into());
            }
        } else {
            portion.frames.extend(runs((&frame, &batch), &passing, &mut place.lost));
        }
    }
    Ok(portion)
}

/// What passed, as frames: one per run of consecutive changes, so that a
/// frame's first sequence still numbers all of its changes.
fn runs(
    (frame, batch): (&Frame, &ChangeBatch),
    passing: &[usize],
    lost: &mut Option<Rewound>,
) -> Vec<Bytes> {
    let mut frames = Vec::new();
    for run in passing.chunk_by(|a, b| a + 1 == *b) {
        let mut builder = BatchBuilder::default();
        for at in run {
            push(&mut builder, batch, *at);
        }
        let from = run[0] as u64;
        let stamp = Stamp {
            epoch: frame.epoch(),
            first: frame.first().plus(from),
            captured_ms: batch.captured_ms,
            clock: batch.clock + from,
            rewound: lost.take(),
            told: run.iter().map(|at| Told::of(&batch.changes[*at])).collect(),
            ..Stamp::default()
        };
        frames.push(builder.encode(stamp, Codec::None).bytes().clone());
    }
    frames
}

fn push(builder: &mut BatchBuilder, batch: &ChangeBatch, at: usize) {
    let change = &batch.changes[at];
    let dictionary = |index: u32| batch.dictionaries.get(index as usize).map_or(&[][..], |it| it);
    let with = |index: u32, value: &'_ Bytes| {
        (!value.is_empty()).then(|| (dictionary(index), value.clone()))
    };
    let document = with(change.dictionary, &change.document);
    let before = with(change.before_dictionary, &change.before);
    builder.push(&Draft {
        operation: Operation::try_from(change.operation).unwrap_or_default(),
        collection: batch.collections.get(change.collection as usize).map_or("", |it| it),
        key: &change.key,
        document: document.as_ref().map(|(dictionary, value)| (*dictionary, &value[..])),
        before: before.as_ref().map(|(dictionary, value)| (*dictionary, &value[..])),
        committed_ms: change.committed_ms,
    });
}
