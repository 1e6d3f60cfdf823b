//! Group commit: commands that come while others are being written go into the log
//! together, as one entry with one fsync on each node. Thousands of shards that change
//! hands at once are then a few entries.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tidegate_proto::v1::command::Kind;
use tidegate_proto::v1::{Command, Many, Outcome, outcome};
use tidegate_raft_store::gathers;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::control::handle::{Control, PROPOSE_WAIT, command, late};
use crate::error::{Error, ErrorKind, Result};

/// Commands that wait before who proposes more waits too.
const WAITING_MAX: usize = 1024;
/// Commands and bytes of one entry.
const TOGETHER_MAX: usize = 512;
const BYTES_MAX: usize = 1 << 20;
/// Entries on their way at a time: while one is replicated the next is synced here.
const ENTRIES_MAX: usize = 2;

/// What applying a command gave, and the index of its entry.
type Written = Result<(u64, Outcome)>;

/// One command and who waits for it.
pub(super) struct Waiting {
    command: Command,
    answer: oneshot::Sender<Written>,
}

/// The way into the log of a node that leads.
#[derive(Clone, Debug)]
pub(super) struct Gather(mpsc::Sender<Waiting>);

impl Gather {
    /// With the commands for [`keep`].
    pub(super) fn new() -> (Self, mpsc::Receiver<Waiting>) {
        let (sender, queue) = mpsc::channel(WAITING_MAX);
        (Self(sender), queue)
    }

    /// Writes `command`, with others if there are any; waits for as long as that takes.
    pub(super) async fn write(&self, command: Command) -> Written {
        let closed = || Error::new(ErrorKind::Unavailable, "this node is stopping");
        let (answer, written) = oneshot::channel();
        self.0.send(Waiting { command, answer }).await.map_err(|_| closed())?;
        written.await.map_err(|_| closed())?
    }
}

/// Writes what is proposed on this node, for as long as it lives.
pub(super) async fn keep(control: Control, queue: mpsc::Receiver<Waiting>) {
    let write = move |command| {
        let control = control.clone();
        async move { control.write_entry(&command).await }
    };
    keep_with(queue, PROPOSE_WAIT, write).await;
}

/// An entry that is not answered gives its room to the next after `patience`.
async fn keep_with<F>(
    mut queue: mpsc::Receiver<Waiting>,
    patience: Duration,
    write_entry: impl Fn(Command) -> F,
) where
    F: Future<Output = Written> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(ENTRIES_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Some(first) = queue.recv().await else { return };
        let (command, answers) = entry(take(first, &mut queue));
        let written = timeout(patience, write_entry(command));
        tokio::spawn(async move {
            tell(written.await.unwrap_or_else(|_| Err(late())), answers);
            drop(permit);
        });
    }
}

/// `first` and what else is there, if it may go with it.
fn take(first: Waiting, queue: &mut mpsc::Receiver<Waiting>) -> Vec<Waiting> {
    let mut bytes = first.command.encoded_len();
    let mut together = vec![first];
    while together.len() < TOGETHER_MAX && bytes < BYTES_MAX {
        let Ok(next) = queue.try_recv() else { break };
        bytes += next.command.encoded_len();
        together.push(next);
    }
    together
}

/// One command for all that goes together, and who waits for it.
fn entry(mut together: Vec<Waiting>) -> (Command, Vec<oneshot::Sender<Written>>) {
    if together.len() == 1
        && let Some(Waiting { command, answer }) = together.pop()
    {
        return (command, vec![answer]);
    }
    let (commands, answers) = together.into_iter().map(|it| (it.command, it.answer)).unzip();
    (command(Kind::Many(Many { commands })), answers)
}

/// Tells each its part of what came of an entry. Who asked may have given up.
fn tell(written: Written, mut answers: Vec<oneshot::Sender<Written>>) {
    if answers.len() == 1
        && let Some(answer) = answers.pop()
    {
        drop(answer.send(written));
        return;
    }
    let parts = written
        .and_then(|(index, outcome)| outcomes(outcome, answers.len()).map(|parts| (index, parts)));
    match parts {
        Ok((index, outcomes)) => {
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                drop(answer.send(Ok((index, outcome))));
            }
        }
        Err(error) => {
            for answer in answers {
                drop(answer.send(Err(Error::new(error.kind(), error.to_string()))));
            }
        }
    }
}

/// What each of `count` commands gave.
fn outcomes(outcome: Outcome, count: usize) -> Result<Vec<Outcome>> {
    match outcome.kind {
        Some(outcome::Kind::Many(many)) if many.outcomes.len() == count => Ok(many.outcomes),
        _ => Err(Error::new(ErrorKind::Corrupt, "the log answered other commands than it took")),
    }
}

/// The command may share an entry.
pub(super) fn may_wait(command: &Command) -> bool {
    command.kind.as_ref().is_some_and(gathers)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tidegate_proto::v1::{Checkpoints, Done, ManyOutcomes, RecordGap};

    use super::*;

    fn waiting(kind: Kind) -> Waiting {
        Waiting { command: command(kind), answer: oneshot::channel().0 }
    }

    #[tokio::test]
    async fn what_waits_goes_together_up_to_a_limit() {
        let (gather, mut queue) = Gather::new();
        for _ in 0..TOGETHER_MAX + 10 {
            gather.0.send(waiting(Kind::RecordGap(RecordGap::default()))).await.unwrap();
        }
        let first = queue.recv().await.unwrap();
        assert_eq!(take(first, &mut queue).len(), TOGETHER_MAX);
        let first = queue.recv().await.unwrap();
        assert_eq!(take(first, &mut queue).len(), 10);
    }

    #[tokio::test]
    async fn a_large_command_takes_no_others_along() {
        let (gather, mut queue) = Gather::new();
        let captured = vec![Default::default(); BYTES_MAX];
        let large = Kind::Checkpoints(Checkpoints { captured, ..Checkpoints::default() });
        for kind in [large, Kind::RecordGap(RecordGap::default())] {
            gather.0.send(waiting(kind)).await.unwrap();
        }
        let first = queue.recv().await.unwrap();
        assert_eq!(take(first, &mut queue).len(), 1);
    }

    async fn answered(lost: bool) -> Written {
        if lost {
            std::future::pending::<()>().await;
        }
        Ok((7, Outcome { kind: Some(outcome::Kind::Done(Done {})) }))
    }

    async fn propose(gather: Gather) -> Written {
        gather.write(command(Kind::RecordGap(RecordGap::default()))).await
    }

    async fn reaches(count: &AtomicUsize, wanted: usize) {
        while count.load(Ordering::Relaxed) < wanted {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn entries_that_are_never_answered_do_not_keep_others_waiting_for_ever() {
        let (gather, queue) = Gather::new();
        let tried = Arc::new(AtomicUsize::new(0));
        let first = Arc::clone(&tried);
        let kept = tokio::spawn(keep_with(queue, Duration::from_millis(200), move |_| {
            let lost = first.fetch_add(1, Ordering::Relaxed) < ENTRIES_MAX;
            answered(lost)
        }));
        for lost in 1..=ENTRIES_MAX {
            tokio::spawn(propose(gather.clone()));
            reaches(&tried, lost).await;
        }
        assert_eq!(propose(gather).await.unwrap().0, 7);
        assert_eq!(tried.load(Ordering::Relaxed), ENTRIES_MAX + 1);
        kept.abort();
    }

    #[test]
    fn an_answer_to_other_commands_is_none() {
        let done = || Outcome { kind: Some(outcome::Kind::Done(Done {})) };
        let many = |count| {
            let outcomes = (0..count).map(|_| done()).collect();
            Outcome { kind: Some(outcome::Kind::Many(ManyOutcomes { outcomes })) }
        };
        assert_eq!(outcomes(many(2), 2).unwrap().len(), 2);
        assert!(outcomes(many(2), 3).is_err() && outcomes(done(), 1).is_err());
    }
}
