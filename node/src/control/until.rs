//! Waiting for what this node is to learn.

use tidegate_raft_store::State;

use crate::control::Control;
use crate::error::{Error, ErrorKind, Result};

impl Control {
    /// Looks at the state now and whenever it has changed, until something is found there:
    /// this node applies a command a moment after the leader has answered it.
    pub async fn until<T>(&self, find: impl Fn(&State) -> Option<T>) -> Result<T> {
        let mut changed = self.changed();
        loop {
            changed.borrow_and_update();
            if let Some(found) = self.read(&find) {
                return Ok(found);
            }
            if changed.changed().await.is_err() {
                return Err(Error::new(ErrorKind::Unavailable, "the checkpoint log is closed"));
            }
        }
    }
}
