//! Tasks with names and one owner.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

/// Tasks that live as long as their owner. Dropping the last clone ends them.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Arc<Owned>);

#[derive(Debug, Default)]
struct Owned(Mutex<Vec<(&'static str, JoinHandle<()>)>>);

impl Tasks {
    /// Runs `work`, which is not expected to end before its owner does.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(async move {
            work.await;
            tracing::debug!(task = name, "ended");
        });
        let mut owned = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        owned.retain(|(_, task)| !task.is_finished());
        owned.push((name, handle));
    }

    /// Ends all of them, and waits up to `wait` for each to be gone.
    pub async fn stop(&self, wait: Duration) {
        let owned = {
            let mut owned = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *owned)
        };
        for (_, task) in &owned {
            task.abort();
        }
        for (name, task) in owned {
            match tokio::time::timeout(wait, task).await {
                Ok(Err(error)) if error.is_panic() => {
                    tracing::error!(task = name, "panicked");
                }
                Ok(_) => {}
                Err(_) => tracing::warn!(task = name, "did not end in time"),
            }
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        for (_, task) in self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}
