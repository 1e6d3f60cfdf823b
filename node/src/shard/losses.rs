//! What is done about history that a source has lost.

use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::{Gap, GapKind, GapPolicy, RecordGap, RepairGap, command};
use tidegate_proto::{Epoch, Sequence};

use crate::clock;
use crate::config::OnGap;
use crate::control::{Control, done_or_there};
use crate::error::{Error, ErrorKind, Result};
use crate::sources::{Loss, Rows};
use crate::spool::ShardLog;

/// How often what a source has mended is told to a cluster that does not answer.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// What the source of a shard has lost, for one reader, and what comes of that.
#[derive(Debug)]
pub(super) struct Losses {
    control: Control,
    log: Arc<ShardLog>,
    epoch: Epoch,
    on_gap: OnGap,
    rows: Rows,
    /// There may be some that the source mends.
    waits: bool,
    /// Where the log ended when the source had mended them.
    mended: Option<Sequence>,
}

impl Losses {
    pub(super) fn new(
        control: Control,
        (log, epoch): (Arc<ShardLog>, Epoch),
        (on_gap, rows): (OnGap, Rows),
    ) -> Self {
        Self { control, log, epoch, on_gap, rows, waits: true, mended: None }
    }

    /// How the source's rows come.
    pub(super) fn rows(&self) -> Rows {
        self.rows
    }

    /// Records a loss that the source told of, between the end of the log and what comes
    /// next. Fails if the export's file says that an operator has to decide, until one has:
    /// then the source is read no further. Gives the gap as it is known.
    pub(super) async fn record(&mut self, loss: &Loss) -> Result<Gap> {
        let (kind, detail) = (loss.kind.as_str_name(), &loss.detail);
        tracing::error!(kind, detail, "the source lost history");
        let last = self.log.last().0;
        let mut gap = Gap {
            shard: Some(self.log.shard()),
            epoch: self.epoch.0,
            kind: loss.kind.into(),
            detail: loss.detail.clone(),
            at_ms: clock::now_ms(),
            after: last,
            upto: last,
            ..Gap::default()
        };
        let policy = match (self.on_gap, self.rows) {
            (OnGap::Accept, _) => GapPolicy::Accept,
            (OnGap::Pause, _) => GapPolicy::Pause,
            (OnGap::Resnapshot, Rows::Chunked) => GapPolicy::Resnapshot,
            // It is mended by the source, or stays open.
            (OnGap::Resnapshot, Rows::Streamed) => {
                gap.awaits.clone_from(&loss.mended);
                GapPolicy::Unspecified
            }
        };
        let known = record(&self.control, gap, policy).await?;
        (self.waits, self.mended) = (true, None);
        match policy == GapPolicy::Pause && !is_decided(&known) {
            true => Err(self.undecided(&known)),
            false => Ok(known),
        }
    }

    fn undecided(&self, gap: &Gap) -> Error {
        let (id, number, detail) = (gap.shard.unwrap_or_default(), gap.number, &gap.detail);
        let name = self.control.read(|state| Some(state.export(id.export_id)?.name.clone()));
        let name = name.unwrap_or_default();
        let again = match self.rows {
            Rows::Chunked => "have its rows read again (--resnapshot), or ",
            Rows::Streamed => "",
        };
        Error::new(
            ErrorKind::Config,
            format!(
                "gap {number}: {detail}; the export's file says to wait for you: {again}go on \
                 without what was lost (--accept REASON), with `tidegate gap repair {name}/{id} \
                 {number}`"
            ),
        )
    }

    /// After each step: what the source has mended is recorded so, once all of that is
    /// safe. `mends` is what the stream says, `last` where the log ends.
    pub(super) fn settle(&mut self, mends: bool, last: Sequence, safe: Sequence) {
        if !self.waits {
            return;
        }
        if mends {
            self.mended = None;
            return;
        }
        if safe < *self.mended.get_or_insert(last) {
            return;
        }
        self.waits = false;
        let shard = self.log.shard();
        // A position may have been set that only the next reader goes to.
        let went_to = self.log.tail().progress.position_set;
        let awaiting = |gap: &&Gap| {
            let is_met = gap.kind() != GapKind::PositionSet || gap.number <= went_to;
            is_met && gap.repair.is_empty() && !gap.awaits.is_empty()
        };
        let gaps: Vec<Gap> =
            self.control.read(|state| state.gaps_of(shard).filter(awaiting).cloned().collect());
        for gap in gaps {
            tokio::spawn(repaired(self.control.clone(), gap));
        }
    }
}

/// Has it recorded that the source mended a gap. Another reader does it if this one cannot.
async fn repaired(control: Control, gap: Gap) {
    let Gap { shard, number, awaits: repair, .. } = gap;
    for _ in 0..TRIES {
        let command = RepairGap { shard, number, repair: repair.clone() };
        match control.propose(command::Kind::RepairGap(command)).await {
            // Or it was refused, as somebody else has decided.
            Ok(_) => return,
            Err(error) => tracing::warn!(number, error = %error, "record that a gap is mended"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Records a gap, and waits until this node knows of it: what it does next depends on
/// that. Gives it as it is known, which may be since an earlier reader came by.
pub(super) async fn record(control: &Control, mut gap: Gap, policy: GapPolicy) -> Result<Gap> {
    let command = |gap: &Gap| {
        command::Kind::RecordGap(RecordGap { gap: Some(gap.clone()), policy: policy.into() })
    };
    if control.read(|state| state.is_known_to_all(&command(&gap)).is_err()) {
        // A node of an earlier version takes it for mended as it is recorded.
        gap.repair = std::mem::take(&mut gap.awaits);
    }
    done_or_there(control.propose(command(&gap)).await?)?;
    let shard = gap.shard.unwrap_or_default();
    control.until(|state| state.gaps_of(shard).find(|it| is_same(it, &gap)).cloned()).await
}

/// The one is the other as it was recorded.
pub(crate) fn is_same(known: &Gap, gap: &Gap) -> bool {
    let told =
        known.kind() != GapKind::SpoolLost || (known.epoch, known.upto) == (gap.epoch, gap.upto);
    told && (known.kind, &known.detail) == (gap.kind, &gap.detail)
}

/// It is mended, or will be, or was accepted.
fn is_decided(gap: &Gap) -> bool {
    !gap.repair.is_empty() || gap.round != 0
}
