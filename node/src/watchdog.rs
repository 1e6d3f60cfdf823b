//! Notices that a process stands still inside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::error::{Error, ErrorKind, Result};

/// How often it is looked whether threads get on.
const ROUND: Duration = Duration::from_secs(1);
/// After how many rounds without a task run threads count as stuck: a disk that answers
/// nothing for longer is as bad as lost. A process that was stopped meanwhile, and so
/// looked at nothing, has lost one round.
const ROUNDS_MAX: u32 = 60;

/// Looks after runtimes from a thread of its own; dropping it ends that.
///
/// A node whose threads wait for each other answers nobody, and does not end either: its
/// shards go elsewhere, but nobody starts it anew. Who runs it does if it ends.
#[derive(Debug)]
pub struct Watchdog(#[expect(dead_code, reason = "dropping it is the signal")] mpsc::Sender<()>);

impl Watchdog {
    /// Ends this process, as a crash would, when none of the threads of one of `runtimes`,
    /// which have names, has run a task for a minute.
    pub fn start(runtimes: Vec<(&'static str, Handle)>) -> Result<Self> {
        Self::looking(ROUND, ROUNDS_MAX, runtimes, |name| {
            tracing::error!(
                threads = name,
                "nothing has run on these threads for a minute: they wait for each other, or for \
                 a disk that does not answer; ending, to be started anew"
            );
            std::process::abort();
        })
    }

    /// Looks every `round`; the first that lets `rounds` of them pass is `stuck`.
    fn looking(
        round: Duration,
        rounds: u32,
        runtimes: Vec<(&'static str, Handle)>,
        stuck: impl FnOnce(&'static str) + Send + 'static,
    ) -> Result<Self> {
        let (alive, ended) = mpsc::channel();
        let look = move || {
            let mut all: Vec<_> = runtimes.into_iter().map(Watched::new).collect();
            let mut found = None;
            while found.is_none() && ended.recv_timeout(round) == Err(RecvTimeoutError::Timeout) {
                found = all.iter_mut().find_map(|it| it.missed(rounds));
            }
            if let Some(it) = found {
                stuck(it);
            }
        };
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(look);
        thread.map(|_| Self(alive)).map_err(|error| {
            let why = "start the thread that looks after the others; is their limit reached?";
            Error::new(ErrorKind::Config, why).because(error)
        })
    }
}

/// Threads that are asked again and again to run something.
struct Watched {
    name: &'static str,
    runtime: Handle,
    /// What they were asked for last was run.
    ran: Arc<AtomicBool>,
    /// Rounds since.
    rounds: u32,
}

impl Watched {
    fn new((name, runtime): (&'static str, Handle)) -> Self {
        Self { name, runtime, ran: Arc::new(AtomicBool::new(true)), rounds: 0 }
    }

    /// One round: its name if nothing has run for `most` of them.
    fn missed(&mut self, most: u32) -> Option<&'static str> {
        if self.ran.swap(false, Ordering::AcqRel) {
            self.rounds = 0;
            let ran = Arc::clone(&self.ran);
            self.runtime.spawn(async move { ran.store(true, Ordering::Release) });
        } else {
            self.rounds += 1;
        }
        (self.rounds >= most).then_some(self.name)
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    const SHORT: Duration = Duration::from_millis(2);

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(1).build().unwrap()
    }

    #[test]
    fn threads_that_run_nothing_are_named_and_others_are_not() {
        let (free, held) = (runtime(), runtime());
        let (let_go, wait) = mpsc::channel::<()>();
        held.spawn(async move { wait.recv().unwrap_err() });
        let (tell, told) = mpsc::channel();
        let both = vec![("free", free.handle().clone()), ("held", held.handle().clone())];
        let stuck = move |name| tell.send(name).unwrap();
        let _watchdog = Watchdog::looking(SHORT, 500, both, stuck).unwrap();
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok("held"));
        drop(let_go);
    }

    #[test]
    fn threads_that_get_on_and_what_is_dropped_are_left_alone() {
        let (busy, gone) = (runtime(), runtime());
        let (tell, told) = mpsc::channel();
        let stuck = |tell: mpsc::Sender<_>| move |name| tell.send(name).unwrap();
        let all = vec![("busy", busy.handle().clone())];
        let _watchdog = Watchdog::looking(SHORT, 500, all, stuck(tell.clone())).unwrap();
        let all = vec![("gone", gone.handle().clone())];
        drop(Watchdog::looking(SHORT, 500, all, stuck(tell)).unwrap());
        gone.shutdown_background();
        assert!(told.recv_timeout(SHORT * 1000).is_err());
    }
}
