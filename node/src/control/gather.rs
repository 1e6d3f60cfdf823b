//! Group commit: commands that come while others are being written go into the log
//! together, as one entry with one fsync on each node. Thousands of shards that change
//! hands at once are then a few entries.

use prost::Message as _;
use tidegate_proto::v1::command::Kind;
use tidegate_proto::v1::{Command, Many, Outcome, outcome};
use tidegate_raft_store::gathers;
use tokio::sync::{mpsc, oneshot};

use crate::control::handle::{Control, command};
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
pub(super) async fn keep(control: Control, mut queue: mpsc::Receiver<Waiting>) {
    let room = std::sync::Arc::new(tokio::sync::Semaphore::new(ENTRIES_MAX));
    loop {
        let Ok(permit) = std::sync::Arc::clone(&room).acquire_owned().await else { return };
        let Some(first) = queue.recv().await else { return };
        let together = take(first, &mut queue);
        let control = control.clone();
        tokio::spawn(async move {
            write(&control, together).await;
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

async fn write(control: &Control, mut together: Vec<Waiting>) {
    if together.len() == 1
        && let Some(Waiting { command, answer }) = together.pop()
    {
        // Who asked may have given up.
        drop(answer.send(control.write_entry(&command).await));
        return;
    }
    let (commands, answers): (Vec<_>, Vec<_>) =
        together.into_iter().map(|it| (it.command, it.answer)).unzip();
    let count = commands.len();
    let many = command(Kind::Many(Many { commands }));
    let written = control.write_entry(&many).await.and_then(|(index, outcome)| {
        let outcomes = outcomes(outcome, count)?;
        Ok((index, outcomes))
    });
    match written {
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
