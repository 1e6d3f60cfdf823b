//! Stands before a server and behaves badly when told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::flaws::{Flaw, Flaws, serve_through};
use super::gate::Gate;
use crate::Outcome;

/// Bytes of a request's head that are read before it is refused.
const HEAD_BYTES_MAX: usize = 64 << 10;
const BUSY: &[u8] =
    b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n";

/// What it does to connections. A change of it closes those that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Passes everything on.
    Fair,
    /// Answers 503 and does nothing.
    Busy,
    /// Passes requests on and hangs up instead of answering: done or not, the
    /// caller cannot know.
    Mute,
    /// Does to single requests what a [`Flaw`] says, drawn from this seed.
    Flawed(u64),
    /// Passes everything on, through its [`Gate`].
    Gated,
}

/// A proxy of TCP connections that speaks as much HTTP as it needs for 503.
#[derive(Debug)]
pub struct Proxy {
    mood: watch::Sender<Mood>,
    done: Arc<Done>,
    task: JoinHandle<()>,
}

/// What it has done to requests so far.
#[derive(Debug, Default)]
struct Done {
    spoiled: AtomicU64,
    flaws: Flaws,
    gate: Gate,
}

impl Proxy {
    pub(super) async fn start(listen: SocketAddr, upstream: SocketAddr) -> Outcome<Self> {
        let listener = TcpListener::bind(listen).await?;
        let (mood, moods) = watch::channel(Mood::Fair);
        let done = Arc::new(Done::default());
        let task = tokio::spawn(listen_on(listener, upstream, moods, Arc::clone(&done)));
        Ok(Self { mood, done, task })
    }

    /// From now on it does this.
    pub fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Where requests to create something can be held, while it is [`Mood::Gated`].
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.done.gate
    }

    /// How many requests it has refused or not answered so far.
    #[must_use]
    pub fn spoiled(&self) -> u64 {
        self.done.spoiled.load(Ordering::Relaxed)
    }

    /// How many requests each flaw has befallen so far.
    #[must_use]
    pub fn flaws(&self) -> [(Flaw, u64); Flaw::ALL.len()] {
        self.done.flaws.counts()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen_on(
    listener: TcpListener,
    upstream: SocketAddr,
    moods: watch::Receiver<Mood>,
    done: Arc<Done>,
) {
    loop {
        if let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, upstream, moods.clone(), Arc::clone(&done)));
        }
    }
}

/// One connection, until its end or the next change of mood.
async fn serve(
    mut client: TcpStream,
    upstream: SocketAddr,
    mut moods: watch::Receiver<Mood>,
    counts: Arc<Done>,
) {
    let mood = *moods.borrow_and_update();
    let work = async {
        let done = match mood {
            Mood::Fair => fair(&mut client, upstream).await,
            Mood::Busy => busy(&mut client, &counts.spoiled).await,
            Mood::Mute => mute(&mut client, upstream, &counts.spoiled).await,
            Mood::Gated => serve_through(&counts.gate, &mut client, upstream).await,
            Mood::Flawed(seed) => counts.flaws.serve(&mut client, upstream, seed).await,
        };
        // Either side hung up; the other learns it when this ends.
        drop(done);
    };
    tokio::select! {
        () = work => {}
        // An error means that the proxy is gone.
        _ = moods.changed() => {}
    }
}

async fn fair(client: &mut TcpStream, upstream: SocketAddr) -> std::io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    copy_bidirectional(client, &mut server).await.map(drop)
}

async fn busy(client: &mut TcpStream, spoiled: &AtomicU64) -> std::io::Result<()> {
    let mut head = Vec::new();
    while head.len() < HEAD_BYTES_MAX && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    spoiled.fetch_add(1, Ordering::Relaxed);
    client.write_all(BUSY).await?;
    client.shutdown().await
}

async fn mute(
    client: &mut TcpStream,
    upstream: SocketAddr,
    spoiled: &AtomicU64,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    let (mut asks, _) = client.split();
    let (mut answers, mut requests) = server.split();
    let mut first = [0];
    tokio::select! {
        ended = tokio::io::copy(&mut asks, &mut requests) => ended.map(drop),
        // The server has done it, or says why not; nobody is told.
        answered = answers.read(&mut first) => {
            spoiled.fetch_add(1, Ordering::Relaxed);
            answered.map(drop)
        }
    }
}
