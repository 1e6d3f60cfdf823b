//! Notices that a sink keeps its writer waiting: it may answer another node.

use std::pin::pin;
use std::time::Duration;

use tidegate_proto::Epoch;
use tidegate_proto::v1::ShardId;
use tokio::time::timeout;

use crate::shard::Means;
use crate::shard::reach;

/// What a sink was given for longer than this is asked about, once.
const SLOW: Duration = Duration::from_secs(2);

/// Whose sink is watched.
#[derive(Clone, Debug)]
pub(super) struct SinkWatch {
    pub(super) means: Means,
    pub(super) id: ShardId,
    pub(super) epoch: Epoch,
    pub(super) sink: String,
}

impl SinkWatch {
    /// What `call` gives, however long that takes.
    pub(super) async fn over<T>(&self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        if let Ok(done) = timeout(SLOW, &mut call).await {
            return done;
        }
        self.look();
        call.await
    }

    /// Asks the sink for a sign of life, and has it recorded if there is none.
    pub(super) fn look(&self) {
        let Self { means, id, epoch, sink } = self.clone();
        tokio::spawn(reach::look_at_sink(means, id, epoch, sink));
    }
}
