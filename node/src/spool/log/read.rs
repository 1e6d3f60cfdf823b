//! Reading a log, and taking away what nobody needs.

use rocksdb::WriteBatch;
use tidegate_proto::{Frame, Sequence};

use super::ShardLog;
use crate::error::{Error, ErrorKind, Result};
use crate::spool::keys::Key;

impl ShardLog {
    /// The stable batches after `after`, about `bytes_max` bytes of them; none
    /// if there are none yet. The first may begin at or below `after`. Fails
    /// with `Gone`, naming the oldest there is, when retention was faster.
    pub fn read(&self, after: Sequence, bytes_max: usize) -> Result<Vec<Frame>> {
        let stable = *self.stable.borrow();
        self.read_upto(after, stable, bytes_max)
    }

    /// As [`ShardLog::read`], with what is not stable yet: for a copy.
    pub fn read_appended(&self, after: Sequence, bytes_max: usize) -> Result<Vec<Frame>> {
        let appended = *self.appended.borrow();
        self.read_upto(after, appended, bytes_max)
    }

    fn read_upto(&self, after: Sequence, stable: Sequence, bytes_max: usize) -> Result<Vec<Frame>> {
        let first = {
            let inner = self.inner();
            if after >= stable {
                return Ok(Vec::new());
            }
            if let Some(frames) = inner.recent.in_memory(after.next(), stable, bytes_max) {
                return Ok(frames);
            }
            inner.standing.head().first
        };
        if after.next() < first {
            let why = format!(
                "sequences after {after} of shard {} are no longer retained; the oldest is {first}",
                self.shard
            );
            return Err(Error::new(ErrorKind::Gone, why));
        }
        self.spool()?.frames(self.shard, after.next(), stable, bytes_max)
    }

    /// Deletes whole batches up to and including `upto`; never a batch that
    /// is not stable.
    pub fn truncate_front(&self, upto: Sequence) -> Result<()> {
        let spool = self.spool()?;
        let upto = upto.min(*self.stable.borrow());
        let first = {
            let inner = self.inner();
            let first = inner.standing.head().first;
            if upto < first {
                return Ok(());
            }
            first
        };
        // The batch that holds the sequence behind `upto` stays whole.
        let keep = spool.frames(self.shard, upto.next(), Sequence(u64::MAX), 1)?;
        let mut inner = self.inner();
        let new_first = keep.first().map_or(inner.standing.head().next, Frame::first);
        if new_first <= first {
            return Ok(());
        }
        inner.standing.cut_front(new_first);
        let mut batch = WriteBatch::default();
        batch.delete_range(
            Key::Frame(self.shard, Sequence(0)).encode(),
            Key::Frame(self.shard, new_first).encode(),
        );
        batch.put(Key::Head(self.shard).encode(), inner.standing.head().encode());
        spool.write(batch)
    }
}
