//! Writes at a steady rate.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tidegate_tests::Outcome;
use tidegate_tests::redis_data::command;
use tidegate_tests::redis_server::{Answer, RedisClient, encode};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Commands sent in one go.
const CHUNK: u32 = 500;
/// How many such are made beforehand, and sent over and over.
const CHUNKS: usize = 400;

/// Commands of every type, ready to be sent.
#[derive(Clone)]
pub(crate) struct Commands(Arc<Vec<Vec<u8>>>);

impl Commands {
    pub(crate) fn new(seed: u64, keys: u32) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut chunk = || (0..CHUNK).map(|_| command(&mut random, keys)).collect::<Vec<_>>();
        Self(Arc::new((0..CHUNKS).map(|_| encode(&chunk())).collect()))
    }
}

/// What writes to one server.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    task: JoinHandle<Outcome<()>>,
}

impl Load {
    /// Writes `rate` commands a second until it is ended, or the server is.
    pub(crate) async fn start(port: u16, rate: u32, commands: Commands) -> Outcome<Self> {
        let client = RedisClient::connect(port).await?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stops, counts) = (Arc::clone(&stop), Arc::clone(&sent));
        let task = tokio::spawn(write(client, rate, commands, (stops, counts)));
        Ok(Self { stop, sent, task })
    }

    /// Commands that the server has answered.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// No more is written from now on, but for what is under way.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// How many there were in all.
    pub(crate) async fn end(self) -> Outcome<u64> {
        self.stop();
        self.task.await??;
        Ok(self.sent.load(Ordering::Relaxed))
    }
}

async fn write(
    mut client: RedisClient,
    rate: u32,
    commands: Commands,
    (stop, sent): (Arc<AtomicBool>, Arc<AtomicU64>),
) -> Outcome<()> {
    let (begun, mut done) = (Instant::now(), 0_u32);
    for chunk in commands.0.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let due = begun + Duration::from_secs(1) * done / rate * CHUNK;
        sleep(due.saturating_duration_since(Instant::now())).await;
        match send(&mut client, chunk).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Other => return Err(error.into()),
            // The server was killed, as was to be.
            Err(_) => break,
        }
        done += 1;
        sent.fetch_add(u64::from(CHUNK), Ordering::Relaxed);
    }
    Ok(())
}

async fn send(client: &mut RedisClient, chunk: &[u8]) -> io::Result<()> {
    client.send_encoded(chunk).await?;
    for _ in 0..CHUNK {
        if let Answer::Error(why) = client.answer().await? {
            return Err(io::Error::other(why));
        }
    }
    Ok(())
}
