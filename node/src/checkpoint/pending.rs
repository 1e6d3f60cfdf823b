//! Reports waiting for the next tick: a pure core.

use std::collections::BTreeMap;

use tidegate_proto::v1::{Captured, Checkpoints, Delivered, ShardId};
use tidegate_proto::{Epoch, NodeId, Sequence};

use crate::checkpoint::window::{Added, checkpoint};

/// The newest of each shard and sink; reports of one epoch add up.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    captured: BTreeMap<ShardId, Report>,
    delivered: BTreeMap<(ShardId, String), Report>,
}

/// How far one owner has come, and what that adds.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) epoch: Epoch,
    pub(crate) sequence: Sequence,
    pub(crate) added: Added,
}

impl Pending {
    pub(crate) fn capture(&mut self, shard: ShardId, report: Report) {
        merge(&mut self.captured, shard, report);
    }

    pub(crate) fn deliver(&mut self, shard: ShardId, sink: &str, report: Report) {
        merge(&mut self.delivered, (shard, sink.to_owned()), report);
    }

    /// Everything that waits, as one command; `None` if nothing does.
    pub(crate) fn take(&mut self, node: NodeId, at_ms: i64) -> Option<Checkpoints> {
        if self.captured.is_empty() && self.delivered.is_empty() {
            return None;
        }
        let captured = std::mem::take(&mut self.captured).into_iter().map(|(shard, report)| {
            let at = checkpoint(report.sequence, report.added, at_ms);
            Captured { shard: Some(shard), epoch: report.epoch.0, checkpoint: Some(at) }
        });
        let delivered = std::mem::take(&mut self.delivered).into_iter();
        let delivered = delivered.map(|((shard, sink), report)| {
            let at = checkpoint(report.sequence, report.added, at_ms);
            Delivered { shard: Some(shard), epoch: report.epoch.0, sink, checkpoint: Some(at) }
        });
        Some(Checkpoints {
            node: node.0,
            captured: captured.collect(),
            delivered: delivered.collect(),
        })
    }
}

fn merge<K: Ord>(reports: &mut BTreeMap<K, Report>, key: K, report: Report) {
    match reports.get_mut(&key) {
        Some(waiting) if waiting.epoch == report.epoch => {
            assert!(waiting.sequence <= report.sequence, "a checkpoint never goes back");
            waiting.sequence = report.sequence;
            waiting.added.absorb(&report.added);
        }
        // What an older epoch still had to say is refused anyway.
        Some(waiting) if waiting.epoch > report.epoch => {}
        _ => {
            reports.insert(key, report);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId { export_id: 1, index: 0 };

    fn report(epoch: u64, sequence: u64, records: u64) -> Report {
        let added = Added { records, ..Added::default() };
        Report { epoch: Epoch(epoch), sequence: Sequence(sequence), added }
    }

    #[test]
    fn reports_of_one_tick_add_up_and_go_out_once() {
        let mut pending = Pending::default();
        pending.capture(SHARD, report(1, 5, 5));
        pending.capture(SHARD, report(1, 8, 3));
        pending.deliver(SHARD, "lake", report(1, 4, 4));
        let command = pending.take(NodeId(1), 77).unwrap();
        let captured = command.captured[0].checkpoint.as_ref().unwrap();
        assert_eq!((captured.sequence, captured.records), (8, 8));
        assert_eq!(command.delivered.len(), 1);
        assert!(pending.take(NodeId(1), 78).is_none());
    }

    #[test]
    fn a_newer_epoch_replaces_what_waits() {
        let mut pending = Pending::default();
        pending.capture(SHARD, report(2, 5, 5));
        pending.capture(SHARD, report(1, 9, 9));
        pending.capture(SHARD, report(3, 6, 1));
        let command = pending.take(NodeId(1), 0).unwrap();
        assert_eq!((command.captured[0].epoch, command.captured.len()), (3, 1));
    }
}
