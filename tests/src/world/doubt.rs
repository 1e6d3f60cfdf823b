//! Stands before PostgreSQL, and leaves commits in doubt or holds them when told to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::ReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::gate::Gate;
use crate::Outcome;

/// The end of a statement that commits, as the client sends it and as the server
/// answers it.
const COMMIT: &[u8] = b"COMMIT\0";
/// A message's type and length; the first message of a connection has no type.
const HEAD_BYTES: usize = 5;
/// How long the server may take to say that it has committed.
const ANSWER: Duration = Duration::from_secs(10);
/// Of so many commits one is left in doubt.
const ONE_IN: u32 = 3;

/// Commits whose outcome the client cannot know, by what became of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Doubts {
    /// The server has said that it committed, and the client was not told.
    pub done: u64,
    /// The server never heard of it.
    pub lost: u64,
}

/// A proxy that knows where a transaction ends.
#[derive(Debug)]
pub struct Doubter {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Draws which commits are met; none are while there is none.
    random: Mutex<Option<StdRng>>,
    done: AtomicU64,
    lost: AtomicU64,
    gate: Gate,
}

/// What becomes of a commit that is left in doubt.
#[derive(Clone, Copy, Debug)]
enum Act {
    Done,
    Lost,
}

impl Doubter {
    pub(super) async fn start(listen: SocketAddr, upstream: SocketAddr) -> Outcome<Self> {
        let listener = TcpListener::bind(listen).await?;
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(listen_on(listener, upstream, Arc::clone(&shared)));
        Ok(Self { shared, task })
    }

    /// From now on connections break where a commit ends, now and then.
    pub fn begin(&self, seed: u64) {
        *self.shared.random() = Some(StdRng::seed_from_u64(seed));
    }

    /// From now on everything passes.
    pub fn end(&self) {
        *self.shared.random() = None;
    }

    /// Where commits can be held.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.shared.gate
    }

    /// All so far.
    #[must_use]
    pub fn doubts(&self) -> Doubts {
        let Shared { done, lost, .. } = &*self.shared;
        Doubts { done: done.load(Ordering::Relaxed), lost: lost.load(Ordering::Relaxed) }
    }
}

impl Drop for Doubter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn random(&self) -> std::sync::MutexGuard<'_, Option<StdRng>> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self) -> Option<Act> {
        let mut random = self.random();
        let random = random.as_mut()?;
        let met = random.random_range(0..ONE_IN) == 0;
        met.then(|| if random.random() { Act::Done } else { Act::Lost })
    }
}

async fn listen_on(listener: TcpListener, upstream: SocketAddr, shared: Arc<Shared>) {
    loop {
        if let Ok((client, _)) = listener.accept().await {
            let shared = Arc::clone(&shared);
            // Either side hung up; the other learns it when this ends.
            tokio::spawn(async move { drop(forward(client, upstream, &shared).await) });
        }
    }
}

/// One connection, until one side hangs up or a commit is met.
async fn forward(
    mut client: TcpStream,
    upstream: SocketAddr,
    shared: &Shared,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    let from = client.peer_addr()?.ip();
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (mut asks, mut to_client) = client.split();
    let (mut answers, mut to_server) = server.split();
    let (mut asked, mut answered) = (BytesMut::new(), BytesMut::new());
    let mut is_first = true;
    loop {
        tokio::select! {
            read = asks.read_buf(&mut asked) => {
                if read? == 0 {
                    return Ok(());
                }
                while let Some(message) = next_message(&mut asked, &mut is_first) {
                    let commits = is_commit(&message);
                    if commits && shared.gate.pass(from).await {
                        // Its client may have gone meanwhile; it is sent nevertheless.
                        let sent = to_server.write_all(&message).await.is_ok();
                        let answer = timeout(ANSWER, committed(&mut answers)).await;
                        shared.gate.ended(sent && matches!(answer, Ok(Ok(true))));
                        return Ok(());
                    }
                    let act = if commits { shared.draw() } else { None };
                    if matches!(act, Some(Act::Lost)) {
                        shared.lost.fetch_add(1, Ordering::Relaxed);
                        return Ok(());
                    }
                    to_server.write_all(&message).await?;
                    if act.is_some() {
                        let done = timeout(ANSWER, committed(&mut answers)).await??;
                        shared.done.fetch_add(u64::from(done), Ordering::Relaxed);
                        return Ok(());
                    }
                }
            }
            read = answers.read_buf(&mut answered) => {
                if read? == 0 {
                    return Ok(());
                }
                to_client.write_all(&answered).await?;
                answered.clear();
            }
        }
    }
}

/// Takes the next whole message of a client off `bytes`.
fn next_message(bytes: &mut BytesMut, is_first: &mut bool) -> Option<Bytes> {
    let head = if *is_first { HEAD_BYTES - 1 } else { HEAD_BYTES };
    let mut length = bytes.get(head - 4..head)?;
    // It counts itself, not the type before it.
    let whole = head - 4 + usize::try_from(length.get_u32()).ok()?;
    if bytes.len() < whole {
        return None;
    }
    *is_first = false;
    Some(bytes.split_to(whole).freeze())
}

fn is_commit(message: &[u8]) -> bool {
    message.first() == Some(&b'Q') && message.ends_with(COMMIT)
}

/// Waits until the server says that it has committed; false if it hangs up.
async fn committed(answers: &mut ReadHalf<'_>) -> std::io::Result<bool> {
    let mut said = BytesMut::new();
    while !said.windows(COMMIT.len()).any(|end| end == COMMIT) {
        if answers.read_buf(&mut said).await? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_where_they_end_and_commits_are_known() {
        let mut bytes = BytesMut::from(&b"\0\0\0\x08abcdQ\0\0\0\x0bCOMMIT\0Q\0\0\0\x0aBEGI"[..]);
        let mut is_first = true;
        let mut next = || next_message(&mut bytes, &mut is_first);
        assert_eq!(next().unwrap().len(), 8);
        assert!(is_commit(&next().unwrap()));
        assert!(next().is_none(), "half a message is none");
        bytes.extend_from_slice(b"N\0");
        assert!(!is_commit(&next_message(&mut bytes, &mut is_first).unwrap()));
    }
}
