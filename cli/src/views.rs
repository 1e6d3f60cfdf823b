//! What the cluster told, as stable documents: the JSON of `--output json`.
//!
//! Fields are added, never renamed or removed.

use std::collections::BTreeMap;

use serde::Serialize;
use tidegate_proto::v1::{
    Check, Checkpoint, Export, ExportState, Gap, GapKind, Node, NodeState, Shard, SnapshotState,
    StatusResponse,
};

use crate::human;
use crate::positions;
use crate::progress::{self, SnapshotProgress};
use crate::time;

/// A node.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NodeView {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) region: String,
    /// `joining`, `up` or `down`.
    pub(crate) state: &'static str,
    /// In the consensus group: `leader`, `voter` or `learner`.
    pub(crate) role: &'static str,
    pub(crate) cordoned: bool,
    /// When it entered its state: milliseconds since 1970.
    pub(crate) since_ms: i64,
}

impl NodeView {
    /// All nodes, with their part in the consensus group.
    pub(crate) fn all(nodes: &[Node], leader: u64, voters: &[u64]) -> Vec<Self> {
        nodes.iter().map(|node| Self::new(node, leader, voters)).collect()
    }

    fn new(node: &Node, leader: u64, voters: &[u64]) -> Self {
        Self {
            id: node.id,
            name: node.name.clone(),
            address: node.address.clone(),
            region: node.region.clone(),
            state: match node.state() {
                NodeState::Joining | NodeState::Unspecified => "joining",
                NodeState::Up => "up",
                NodeState::Down => "down",
            },
            role: match () {
                () if node.id == leader => "leader",
                () if voters.contains(&node.id) => "voter",
                () => "learner",
            },
            cordoned: node.cordoned,
            since_ms: node.since_ms,
        }
    }
}

/// An export.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ExportView {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) version: u64,
    /// `active` or `paused`.
    pub(crate) state: &'static str,
    pub(crate) source: String,
    /// `name (kind)` of each.
    pub(crate) sinks: Vec<String>,
    pub(crate) shards: u32,
    pub(crate) created_ms: i64,
    /// The limits an operator set; absent if the file is followed.
    pub(crate) rate: Option<RateView>,
}

/// Limits per shard and second; 0 for none.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct RateView {
    pub(crate) changes: u32,
    pub(crate) rows: u32,
}

impl RateView {
    /// `100 changes/s, any number of rows/s`, of each shard.
    pub(crate) fn text(self) -> String {
        let limit = |limit: u32, what: &str| match limit {
            0 => format!("any number of {what}/s"),
            limit => format!("{} {what}/s", human::count(u64::from(limit))),
        };
        format!("{}, {} per shard", limit(self.changes, "changes"), limit(self.rows, "rows"))
    }
}

impl From<&Export> for ExportView {
    fn from(export: &Export) -> Self {
        Self {
            id: export.id,
            name: export.name.clone(),
            version: export.version,
            state: match export.state() {
                ExportState::Active | ExportState::Unspecified => "active",
                ExportState::Paused => "paused",
            },
            source: export.source_kind.clone(),
            sinks: export.sinks.iter().map(|it| format!("{} ({})", it.name, it.kind)).collect(),
            shards: export.shards,
            created_ms: export.created_ms,
            rate: export.rate.map(|it| RateView { changes: it.changes, rows: it.rows }),
        }
    }
}

/// A shard: where it is read, how far, and how far each sink is behind.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ShardView {
    /// `EXPORT/INDEX`, both numbers.
    pub(crate) id: String,
    pub(crate) export: String,
    pub(crate) name: String,
    /// `unassigned`, `starting`, `waiting` (all copies of its spool are lost, and it is read
    /// on once each sink has told what it has), `snapshot`, `streaming`, `ended` or `failed`.
    pub(crate) state: &'static str,
    /// Why it stopped; empty while it runs.
    pub(crate) failure: String,
    pub(crate) epoch: u64,
    /// Name of the node; empty for none.
    pub(crate) reader: String,
    /// Names of the nodes that keep its spool, and of those that have all of it.
    pub(crate) copies: Vec<String>,
    pub(crate) in_sync: Vec<String>,
    /// Name of the node its reader is being moved to; empty if it is not.
    pub(crate) moving_to: String,
    /// Why its last move was given up; empty if it was not.
    pub(crate) move_given_up: String,
    /// What does not answer the node that works with it: `source`, or `sink NAME`.
    pub(crate) out_of_reach: Vec<String>,
    pub(crate) captured: CheckpointView,
    pub(crate) snapshot: SnapshotProgress,
    pub(crate) sinks: Vec<DeliveryView>,
    pub(crate) gaps: u64,
    /// Milliseconds until the source forgets what is to be read next, if it is read no
    /// more; absent where it forgets nothing or cannot tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) headroom_ms: Option<u64>,
}

/// One sink of a shard.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DeliveryView {
    pub(crate) sink: String,
    /// Name of the node; empty for none.
    pub(crate) writer: String,
    pub(crate) delivered: CheckpointView,
    /// Changes captured and not yet durable at the sink.
    pub(crate) behind: u64,
    /// Milliseconds since the newest change the sink has was committed at the
    /// source, while it is behind: no more than that is missing. 0 when it has
    /// all; absent when the source told no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lag_ms: Option<u64>,
}

/// A place in a spool.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct CheckpointView {
    pub(crate) sequence: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) committed_ms: i64,
    pub(crate) at_ms: i64,
    /// Where the source's stream was read to, as [`positions::text`] writes it.
    pub(crate) position: String,
}

impl From<Option<&Checkpoint>> for CheckpointView {
    fn from(checkpoint: Option<&Checkpoint>) -> Self {
        checkpoint.map_or_else(Self::default, |at| Self {
            sequence: at.sequence,
            records: at.records,
            bytes: at.bytes,
            committed_ms: at.committed_ms,
            at_ms: at.at_ms,
            position: at
                .progress
                .as_ref()
                .map_or_else(String::new, |it| positions::text(&it.stream)),
        })
    }
}

/// Names for the ids in shards and gaps.
#[derive(Debug, Default)]
pub(crate) struct Names {
    nodes: BTreeMap<u64, String>,
    exports: BTreeMap<u64, String>,
}

impl From<&StatusResponse> for Names {
    fn from(status: &StatusResponse) -> Self {
        Self {
            nodes: status.nodes.iter().map(|it| (it.id, it.name.clone())).collect(),
            exports: status.exports.iter().map(|it| (it.id, it.name.clone())).collect(),
        }
    }
}

impl Names {
    /// Empty for no node, the number where the name is not known.
    fn node(&self, id: u64) -> String {
        let number = || if id == 0 { String::new() } else { id.to_string() };
        self.nodes.get(&id).cloned().unwrap_or_else(number)
    }

    fn export(&self, id: u64) -> String {
        self.exports.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }
}

impl ShardView {
    /// `now_ms` is the clock of the node that answered.
    pub(crate) fn new(shard: &Shard, names: &Names, now_ms: i64) -> Self {
        let id = shard.id.unwrap_or_default();
        let captured = CheckpointView::from(shard.captured.as_ref());
        let sinks = shard.writers.keys().chain(shard.delivered.keys());
        let mut sinks: Vec<_> = sinks.cloned().collect();
        sinks.sort();
        sinks.dedup();
        let delivery = |sink: String| {
            let writer = shard.writers.get(&sink).copied().unwrap_or_default();
            let delivered = CheckpointView::from(shard.delivered.get(&sink));
            let behind = captured.sequence.saturating_sub(delivered.sequence);
            let lag_ms = lag_ms(behind, &delivered, now_ms);
            DeliveryView { sink, writer: names.node(writer), delivered, behind, lag_ms }
        };
        Self {
            id: id.to_string(),
            export: names.export(id.export_id),
            name: shard.spec.as_ref().map_or_else(String::new, |spec| spec.name.clone()),
            state: state(shard),
            failure: shard.failure.clone(),
            epoch: shard.epoch,
            reader: names.node(shard.reader),
            copies: shard.copies.iter().map(|node| names.node(*node)).collect(),
            in_sync: shard.in_sync.iter().map(|node| names.node(*node)).collect(),
            moving_to: names.node(shard.moving_to),
            move_given_up: shard.move_given_up.clone(),
            out_of_reach: shard.out_of_reach.iter().map(|sink| named(sink)).collect(),
            snapshot: progress::of([shard]),
            sinks: sinks.into_iter().map(delivery).collect(),
            gaps: shard.gaps,
            headroom_ms: headroom_ms(shard, now_ms),
            captured,
        }
    }
}

/// What was never told has none, as has a shard that waits: from where it will be read is
/// not known. What is over has 0.
pub(crate) fn headroom_ms(shard: &Shard, now_ms: i64) -> Option<u64> {
    if shard.waits_for_sinks() {
        return None;
    }
    let until_ms = shard.captured.as_ref().map(|at| at.kept_until_ms).filter(|ms| *ms != 0)?;
    u64::try_from(until_ms.saturating_sub(now_ms).max(0)).ok()
}

fn lag_ms(behind: u64, delivered: &CheckpointView, now_ms: i64) -> Option<u64> {
    if behind == 0 {
        return Some(0);
    }
    let lag = time::since(delivered.committed_ms, now_ms)?;
    u64::try_from(lag.as_millis()).ok()
}

fn state(shard: &Shard) -> &'static str {
    let progress = shard.captured.as_ref().and_then(|at| at.progress.as_ref());
    match (shard.epoch, &shard.anchor, progress::state(shard)) {
        _ if !shard.failure.is_empty() => "failed",
        (0, ..) => "unassigned",
        (_, None, _) => "starting",
        _ if shard.waits_for_sinks() => "waiting",
        _ if progress.is_some_and(|it| it.ended) => "ended",
        (.., SnapshotState::Running) => "snapshot",
        _ => "streaming",
    }
}

fn named(sink: &str) -> String {
    if sink.is_empty() { "source".to_owned() } else { format!("sink {sink}") }
}

/// A recorded loss.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct GapView {
    pub(crate) export: String,
    /// `EXPORT/INDEX`, both numbers.
    pub(crate) shard: String,
    pub(crate) number: u64,
    /// `trimmed`, `vanished`, `recreated`, `spool-lost` or `position-set`.
    pub(crate) kind: &'static str,
    pub(crate) detail: String,
    /// Sequences after `after`, up to and including `upto`, of a lost spool.
    pub(crate) after: u64,
    pub(crate) upto: u64,
    pub(crate) at_ms: i64,
    /// The snapshot that will mend it; 0 for none.
    pub(crate) round: u32,
    /// How it was mended; empty while it is open.
    pub(crate) repair: String,
    /// What the source does about it by itself: how it was mended, once that is done.
    pub(crate) awaits: String,
    /// Where the stream was and where it went on, if an operator set that; else empty.
    pub(crate) from: String,
    pub(crate) to: String,
}

impl GapView {
    /// `names` as of about the same time.
    pub(crate) fn new(gap: &Gap, names: &Names) -> Self {
        let shard = gap.shard.unwrap_or_default();
        let was_set = gap.progress.as_ref().filter(|_| gap.kind() == GapKind::PositionSet);
        let from: &[u8] = was_set.map_or(&[], |it| &it.stream);
        Self {
            export: names.export(shard.export_id),
            shard: shard.to_string(),
            number: gap.number,
            kind: match gap.kind() {
                GapKind::Unspecified => "unspecified",
                GapKind::Trimmed => "trimmed",
                GapKind::Vanished => "vanished",
                GapKind::Recreated => "recreated",
                GapKind::SpoolLost => "spool-lost",
                GapKind::PositionSet => "position-set",
                GapKind::Reread => "reread",
            },
            detail: gap.detail.clone(),
            after: gap.after,
            upto: gap.upto,
            at_ms: gap.at_ms,
            round: gap.round,
            repair: gap.repair.clone(),
            awaits: gap.awaits.clone(),
            from: positions::text(from),
            to: positions::text(&gap.position),
        }
    }
}

/// A test of something a node depends on.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CheckView {
    pub(crate) name: String,
    pub(crate) passed: bool,
    pub(crate) detail: String,
    pub(crate) remedy: String,
}

impl From<Check> for CheckView {
    fn from(check: Check) -> Self {
        let Check { name, passed, detail, remedy } = check;
        Self { name, passed, detail, remedy }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_proto::v1::{Progress, ShardId};

    use super::*;

    fn running() -> Shard {
        let at =
            |sequence, committed_ms| Checkpoint { sequence, committed_ms, ..Checkpoint::default() };
        Shard {
            id: Some(ShardId { export_id: 7, index: 0 }),
            epoch: 2,
            reader: 1,
            anchor: Some(Progress::default()),
            writers: [("lake".to_owned(), 1)].into(),
            captured: Some(at(100, 9_000)),
            delivered: [("lake".to_owned(), at(60, 8_500))].into(),
            ..Shard::default()
        }
    }

    fn view(shard: &Shard) -> ShardView {
        ShardView::new(shard, &Names::default(), 10_000)
    }

    #[test]
    fn a_sink_that_is_behind_has_a_lag() {
        let lake = view(&running()).sinks.remove(0);
        assert_eq!((lake.behind, lake.lag_ms, lake.writer.as_str()), (40, Some(1_500), "1"));
    }

    #[test]
    fn a_sink_that_has_all_has_none_however_old_its_last_change() {
        let mut shard = running();
        shard.delivered.insert("lake".to_owned(), shard.captured.clone().unwrap());
        let lake = view(&shard).sinks.remove(0);
        assert_eq!((lake.behind, lake.lag_ms), (0, Some(0)));
    }

    #[test]
    fn headroom_is_what_is_left_until_the_source_forgets() {
        let mut shard = running();
        assert_eq!(view(&shard).headroom_ms, None, "never told");
        for (kept_until_ms, left) in [(12_500, 2_500), (9_000, 0)] {
            shard.captured = Some(Checkpoint { kept_until_ms, ..Checkpoint::default() });
            assert_eq!(view(&shard).headroom_ms, Some(left));
        }
    }

    #[test]
    fn a_failure_outranks_every_other_state() {
        let mut shard = running();
        assert_eq!(view(&shard).state, "streaming");
        shard.failure = "table is gone".to_owned();
        assert_eq!(view(&shard).state, "failed");
        assert_eq!(view(&Shard::default()).state, "unassigned");
    }

    #[test]
    fn a_shard_that_waits_for_its_sinks_says_so_and_has_no_headroom() {
        let captured =
            Some(Checkpoint { kept_until_ms: 99_000, epoch: 1, ..Checkpoint::default() });
        let shard = Shard { anew: 2, copied: true, captured, ..running() };
        assert_eq!((view(&shard).state, view(&shard).headroom_ms), ("waiting", None));
    }

    #[test]
    fn a_learner_is_told_from_a_voter() {
        let node = |id| Node { id, ..Node::default() };
        let views = NodeView::all(&[node(1), node(2), node(3)], 1, &[1, 2]);
        let roles: Vec<_> = views.iter().map(|it| it.role).collect();
        assert_eq!(roles, ["leader", "voter", "learner"]);
    }
}
