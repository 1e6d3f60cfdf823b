//! Tasks with names and one owner, and threads apart for heavy work.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use crate::error::{Error, ErrorKind, Result};

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

/// Threads for what keeps a core busy: capturing, writing, encoding.
///
/// They are not those on which a node says that it lives, votes and answers, so
/// that a node under full load is slow and not taken for dead. Dropping it
/// abandons what still runs on them.
#[derive(Debug)]
pub struct WorkThreads(Option<Runtime>);

impl WorkThreads {
    /// As many threads as there are cores.
    pub fn start() -> Result<Self> {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("work")
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| {
            let why = "start the threads that do the work; is the limit of threads reached?";
            Error::new(ErrorKind::Config, why).because(error)
        });
        Ok(Self(Some(runtime?)))
    }

    /// Ends what still runs there, and waits as long as this for it. A thread that is
    /// in RocksDB while the process takes itself apart would bring it down.
    pub async fn stop(mut self, most: Duration) {
        let Some(runtime) = self.0.take() else { return };
        let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(most)).await;
        if let Err(error) = ended {
            tracing::warn!(error = %error, "wait for the threads that do the work");
        }
    }

    /// Where to spawn such work.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for WorkThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Waiting is not allowed where async code runs.
            runtime.shutdown_background();
        }
    }
}
