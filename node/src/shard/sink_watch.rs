//! What a writer's sink says, against what the cluster knows.
//!
//! One that keeps its writer waiting may answer another node. One that says that a newer
//! owner was there is believed if there is one.

use std::pin::pin;
use std::time::Duration;

use tidegate_proto::Epoch;
use tidegate_proto::v1::ShardId;
use tokio::time::timeout;

use crate::error::{Error, ErrorKind, Result};
use crate::shard::Means;
use crate::shard::reach;
use crate::shard::role::under;

/// What a sink was given for longer than this is asked about, once.
const SLOW: Duration = Duration::from_secs(2);
/// How long news of a newer owner may take to reach this node: it asks this often, after
/// waits that double.
const NEWS_TRIES: u32 = 10;
/// The first of those waits; all together take five seconds.
const NEWS_WAIT: Duration = Duration::from_millis(5);

/// Whose sink is watched.
#[derive(Clone, Debug)]
pub(super) struct SinkWatch {
    pub(super) means: Means,
    pub(super) id: ShardId,
    pub(super) epoch: Epoch,
    pub(super) sink: String,
}

impl SinkWatch {
    /// What `call` gives, however long that takes. `Config` instead of `Fenced` if the
    /// cluster knows of no newer owner: to try again would help nothing.
    pub(super) async fn over<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let mut call = pin!(call);
        let done = match timeout(SLOW, &mut call).await {
            Ok(done) => done,
            Err(_) => {
                self.look();
                call.await
            }
        };
        match done {
            Err(error) if error.kind() == ErrorKind::Fenced => Err(self.judge(error).await),
            done => done,
        }
    }

    async fn judge(&self, fenced: Error) -> Error {
        let Self { means, id, epoch, sink } = self;
        for try_ in 0..NEWS_TRIES {
            if means.control.read(|state| under(state, *id, *epoch)).is_err() {
                return fenced;
            }
            tokio::time::sleep(NEWS_WAIT * 2_u32.pow(try_)).await;
        }
        let what = format!(
            "sink \"{sink}\" says that a newer owner wrote to it, and this cluster has none: was \
             the cluster set back to an older state, or does another write there? Set the epoch \
             there back, or begin anew in another place"
        );
        Error::new(ErrorKind::Config, what).because(fenced)
    }

    /// Asks the sink for a sign of life, and has it recorded if there is none.
    pub(super) fn look(&self) {
        let Self { means, id, epoch, sink } = self.clone();
        tokio::spawn(reach::look_at_sink(means, id, epoch, sink));
    }
}
