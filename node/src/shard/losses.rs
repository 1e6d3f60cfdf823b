//! What is done about history that a source has lost.

use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::{Gap, GapKind, GapPolicy, Progress, RecordGap, RepairGap, command};
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
        let progress = self.log.tail().progress;
        let gaps: Vec<Gap> = self.control.read(|state| state.gaps_of(shard).cloned().collect());
        for command in mended(&gaps, &progress) {
            tokio::spawn(repaired(self.control.clone(), command));
        }
    }
}

/// What is to be recorded as mended once a log at `progress` is what the source has. A loss
/// may have been recorded that the log does not reach, and a position set that only the
/// next reader goes to.
fn mended(gaps: &[Gap], progress: &Progress) -> Vec<RepairGap> {
    let is_met = |gap: &&Gap| match gap.kind() {
        GapKind::PositionSet => gap.number <= progress.position_set,
        GapKind::Unspecified
        | GapKind::Trimmed
        | GapKind::Vanished
        | GapKind::Recreated
        | GapKind::SpoolLost
        | GapKind::Reread => progress.marked.contains(&gap.number),
    };
    let is_open = |gap: &&Gap| gap.repair.is_empty();
    let repair = |gap: &Gap| {
        // Meanwhile not all could be compared.
        let lacks = |it: &&Gap| {
            it.number > gap.number && it.kind() == GapKind::Trimmed && it.awaits.is_empty()
        };
        let repair = match gaps.iter().filter(is_open).find(lacks) {
            Some(it) => format!("everything was read anew; of deletes, gap {} holds", it.number),
            None => gap.awaits.clone(),
        };
        RepairGap { shard: gap.shard, number: gap.number, repair, by_source: true }
    };
    let awaiting = gaps.iter().filter(is_open).filter(|gap| !gap.awaits.is_empty());
    awaiting.filter(is_met).map(repair).collect()
}

/// Has it recorded that the source mended a gap. Another reader does it if this one cannot.
async fn repaired(control: Control, mut command: RepairGap) {
    let number = command.number;
    for _ in 0..TRIES {
        let kind = command::Kind::RepairGap(command.clone());
        if control.read(|state| state.is_known_to_all(&kind)).is_err() {
            command.by_source = false;
        }
        match control.propose(command::Kind::RepairGap(command.clone())).await {
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
    let is_new = |gap: &Gap| control.read(|state| state.is_known_to_all(&command(gap)).is_err());
    if is_new(&gap) && gap.kind() == GapKind::Reread {
        gap.set_kind(GapKind::Trimmed);
    }
    if is_new(&gap) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(number: u64, kind: GapKind, awaits: &str) -> Gap {
        Gap { number, kind: kind.into(), awaits: awaits.to_owned(), ..Gap::default() }
    }

    fn told(gaps: &[Gap], progress: &Progress) -> Vec<(u64, String)> {
        mended(gaps, progress).into_iter().map(|it| (it.number, it.repair)).collect()
    }

    #[test]
    fn what_the_log_reaches_is_mended_and_nothing_else() {
        let gaps = [
            gap(1, GapKind::Reread, "read anew"),
            gap(2, GapKind::PositionSet, "read anew"),
            gap(3, GapKind::Vanished, ""),
            Gap { repair: "accepted".to_owned(), ..gap(4, GapKind::Trimmed, "read anew") },
            gap(5, GapKind::Recreated, "read anew"),
        ];
        let at = |marked: &[u64], position_set| {
            told(&gaps, &Progress { marked: marked.to_vec(), position_set, ..Progress::default() })
        };
        let read = |number| (number, "read anew".to_owned());
        assert_eq!(at(&[], 0), [], "recorded, and not in the log");
        assert_eq!(at(&[3, 4, 5], 0), [read(5)]);
        assert_eq!(at(&[1], 2), [read(1), read(2)]);
        assert_eq!(at(&[1], 1), [read(1)], "the position is to be set yet");
    }

    #[test]
    fn a_repair_says_that_deletes_were_not_found_where_they_were_not() {
        let partly = gap(2, GapKind::Trimmed, "");
        let gaps = [gap(1, GapKind::Trimmed, "a"), partly, gap(3, GapKind::Trimmed, "c")];
        let progress = Progress { marked: vec![1, 2, 3], ..Progress::default() };
        let [first, third] = &told(&gaps, &progress)[..] else { panic!("two are") };
        assert!(first.1.contains("of deletes, gap 2 holds"), "{first:?}");
        assert_eq!(*third, (3, "c".to_owned()));
    }
}
