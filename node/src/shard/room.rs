//! What is done while the disk of the spool is full.

use std::time::Duration;

use crate::spool::Spool;

/// How often a full disk is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Waits until the spool has room. At once if it has.
pub(super) async fn room(spool: &Spool) {
    let Err(full) = spool.check_room() else { return };
    tracing::warn!(error = %full, "nothing is appended");
    while spool.check_room().is_err() {
        tokio::time::sleep(LOOK).await;
    }
}
