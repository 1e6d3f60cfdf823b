//! A node whose log did not take what it was given ends.

use openraft::error::Fatal;

use crate::control::handle::Control;

/// Ends the process once consensus has ended because its log or its state could
/// not be written or read: what a second try would say cannot be trusted, and a
/// node that lives on without voting only looks as if it were up.
pub(super) async fn watch(control: Control) {
    let mut metrics = control.raft().metrics();
    let Ok(ended) = metrics.wait_for(|metrics| metrics.running_state.is_err()).await else {
        // The node itself is being taken down.
        return;
    };
    if let Err(Fatal::StorageError(error)) = &ended.running_state {
        tracing::error!(error = %error, "the checkpoint log is broken; ending the process");
        std::process::abort();
    }
}
