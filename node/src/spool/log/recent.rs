//! The newest batches of a log, in memory.

use std::collections::VecDeque;

use tidegate_proto::{Frame, Sequence};

/// Batches without a hole, up to the last appended; some megabytes of them.
#[derive(Debug, Default)]
pub(super) struct Recent {
    frames: VecDeque<Frame>,
    bytes: usize,
}

impl Recent {
    /// Drops what lies above `keep`.
    pub(super) fn forget_after(&mut self, keep: Sequence) {
        while self.frames.back().is_some_and(|frame| frame.last() > keep) {
            if let Some(frame) = self.frames.pop_back() {
                self.bytes -= frame.bytes().len();
            }
        }
    }

    /// Adds the newest, and drops the oldest above `bytes_max`.
    pub(super) fn remember(&mut self, frame: Frame, bytes_max: usize) {
        self.bytes += frame.bytes().len();
        self.frames.push_back(frame);
        while self.bytes > bytes_max && self.frames.len() > 1 {
            if let Some(old) = self.frames.pop_front() {
                self.bytes -= old.bytes().len();
            }
        }
    }

    /// The frames from the one that holds `next`, if they are in memory.
    pub(super) fn in_memory(
        &self,
        next: Sequence,
        upto: Sequence,
        bytes_max: usize,
    ) -> Option<Vec<Frame>> {
        let oldest = self.frames.front()?;
        if next < oldest.first() {
            return None;
        }
        let from = self.frames.partition_point(|frame| frame.last() < next);
        let mut bytes = 0;
        let mut frames = Vec::new();
        for frame in self.frames.range(from..) {
            if frame.last() > upto || bytes >= bytes_max {
                break;
            }
            bytes += frame.bytes().len();
            frames.push(frame.clone());
        }
        Some(frames)
    }
}
