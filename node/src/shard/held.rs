//! Snapshot pages waiting for the stream to pass them: a pure core.

use std::collections::VecDeque;

use tidegate_proto::BatchBuilder;

use crate::sources::Page;

/// A page a chunk task has read.
#[derive(Debug)]
pub(super) struct ReadPage {
    /// Which chunk it is of.
    pub(super) chunk: u32,
    /// Its rows.
    pub(super) rows: BatchBuilder,
    /// Where it ends and when it was read.
    pub(super) page: Page,
}

/// Pages read and not yet spooled, oldest first. Bounded by who reads them.
#[derive(Debug, Default)]
pub(super) struct Held(VecDeque<ReadPage>);

impl Held {
    pub(super) fn push(&mut self, page: ReadPage) {
        self.0.push_back(page);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The oldest page that the stream has passed. Pages of one chunk leave in
    /// the order they were read.
    pub(super) fn release(&mut self, passed: impl Fn(&[u8]) -> bool) -> Option<ReadPage> {
        let ready = |page: &ReadPage| page.page.seen.is_empty() || passed(&page.page.seen);
        let at = (0..self.0.len()).find(|at| {
            let page = &self.0[*at];
            let first = !self.0.range(..at).any(|older| older.chunk == page.chunk);
            first && ready(page)
        })?;
        self.0.remove(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(chunk: u32, seen: u8) -> ReadPage {
        let page = Page { seen: vec![seen].into(), ..Page::default() };
        ReadPage { chunk, rows: BatchBuilder::default(), page }
    }

    #[test]
    fn a_page_waits_for_the_stream_and_for_its_chunks_older_pages() {
        let mut held = Held::default();
        for (chunk, seen) in [(0, 9), (0, 2), (1, 3)] {
            held.push(page(chunk, seen));
        }
        let upto = |position: u8| move |seen: &[u8]| seen[0] <= position;
        assert!(held.release(upto(1)).is_none());
        assert_eq!(held.release(upto(5)).unwrap().chunk, 1, "chunk 0 waits for its first page");
        assert!(held.release(upto(5)).is_none());
        assert_eq!(held.release(upto(9)).unwrap().page.seen[0], 9);
        assert_eq!(held.release(upto(9)).unwrap().page.seen[0], 2);
        assert_eq!(held.len(), 0);
    }
}
