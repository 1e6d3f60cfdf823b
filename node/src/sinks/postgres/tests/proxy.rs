//! A way to the server that knows its protocol, and fails at a named place.

use std::io;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::server::Postgres;

/// What was sent has arrived after this long, and was most often executed.
const TO_ARRIVE: Duration = Duration::from_millis(5);

/// A message of the client, by its place in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Point {
    /// The transaction, or the claim of a row, begins.
    Begin,
    /// Rows on their way.
    Data,
    /// All rows were sent.
    Sent,
    /// The first, second or third statement behind the rows: merge, deletes, and
    /// the checkpoint row.
    Statement(u8),
    /// The commit.
    Commit,
}

/// What is done about that message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    /// The connection breaks before it, or within.
    Cut,
    /// It goes through, and the connection breaks before the answer does.
    Swallow,
    /// The server's process is ended first.
    Terminate,
    /// It goes through, and the server's process is ended before the answer does.
    TerminateBehind,
    /// Nothing goes on until [`Proxy::release`].
    Hold,
    /// It goes through, and nothing else in either direction until then.
    HoldBehind,
    /// It goes to a process of the server that stands still until then.
    Stop,
}

/// What befalls the next connection that gets to the point, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fault {
    pub(super) point: Point,
    pub(super) act: Act,
}

/// Forwards connections to a server.
pub(super) struct Proxy {
    port: u16,
    plan: Arc<Plan>,
    task: JoinHandle<()>,
}

struct Plan {
    server: Arc<Postgres>,
    fault: Mutex<Option<Fault>>,
    held: Notify,
    release: Notify,
}

impl Proxy {
    pub(super) async fn start(server: &Arc<Postgres>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (server, fault) = (Arc::clone(server), Mutex::new(None));
        let (held, release) = (Notify::new(), Notify::new());
        let plan = Arc::new(Plan { server, fault, held, release });
        let shared = Arc::clone(&plan);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(forward(client, Arc::clone(&shared)));
            }
        });
        Self { port, plan, task }
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Lies in wait.
    pub(super) fn arm(&self, fault: Fault) {
        *self.plan.fault.lock().unwrap() = Some(fault);
    }

    /// The fault has not happened yet.
    pub(super) fn is_armed(&self) -> bool {
        self.plan.fault.lock().unwrap().is_some()
    }

    /// Waits until a connection is held.
    pub(super) async fn held(&self) {
        self.plan.held.notified().await;
    }

    /// Lets the held connection go on.
    pub(super) fn release(&self) {
        self.plan.release.notify_one();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Plan {
    /// The armed fault, if it is for this point; it is over then.
    fn take(&self, point: Option<Point>) -> Option<Act> {
        let mut fault = self.fault.lock().unwrap();
        let due = fault.filter(|fault| Some(fault.point) == point)?;
        *fault = None;
        Some(due.act)
    }

    /// Says that a connection is held, and holds it.
    async fn hold(&self) {
        self.held.notify_one();
        self.release.notified().await;
    }

    /// The server's process for the connection from `port`.
    async fn process(&self, port: u16) -> String {
        let server = Arc::clone(&self.server);
        let sql = format!("SELECT pid FROM pg_stat_activity WHERE client_port = {port}");
        tokio::task::spawn_blocking(move || server.query(&sql)).await.unwrap()
    }

    /// Ends the server's process for the connection from `port`.
    async fn terminate(&self, port: u16) {
        let server = Arc::clone(&self.server);
        let sql = format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE client_port = {port}"
        );
        tokio::task::spawn_blocking(move || drop(server.query(&sql))).await.unwrap();
    }
}

/// Where a connection is in its transaction.
#[derive(Default)]
struct Place {
    started: bool,
    /// Statements since the rows were sent.
    statements: Option<u8>,
}

impl Place {
    fn next(&mut self, message: &[u8]) -> Option<Point> {
        if !std::mem::replace(&mut self.started, true) {
            return None;
        }
        let text = &message[5..];
        match message[0] {
            b'Q' if text.starts_with(b"BEGIN\0") => {
                self.statements = None;
                Some(Point::Begin)
            }
            b'd' => Some(Point::Data),
            b'c' => {
                self.statements = Some(0);
                Some(Point::Sent)
            }
            b'B' => {
                let statements = self.statements.as_mut()?;
                *statements += 1;
                Some(Point::Statement(*statements))
            }
            b'Q' if text.starts_with(b"SET LOCAL") => {
                self.statements = None;
                Some(Point::Commit)
            }
            _ => None,
        }
    }
}

async fn forward(client: TcpStream, plan: Arc<Plan>) {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, plan.server.port())).await.unwrap();
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let port = server.local_addr().unwrap().port();
    let (mut from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let gate = watch::Sender::new(Gate::Open);
    let answers = tokio::spawn(answer(from_server, to_client, gate.subscribe()));
    let mut road = Road { plan, to_server, gate, port };
    let mut place = Place::default();
    while let Ok(message) = message(&mut from_client, place.started).await {
        let point = place.next(&message);
        let goes_on = match road.plan.take(point) {
            None => road.to_server.write_all(&message).await.is_ok(),
            Some(act) => road.befall(act, &message).await,
        };
        if !goes_on {
            break;
        }
    }
    answers.abort();
}

/// What happens to answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Held,
    Muted,
}

/// The way of one connection to the server.
struct Road {
    plan: Arc<Plan>,
    to_server: OwnedWriteHalf,
    gate: watch::Sender<Gate>,
    /// From which the server sees it come.
    port: u16,
}

impl Road {
    /// Does what is to be done about `message`; false if that breaks the connection.
    async fn befall(&mut self, act: Act, message: &[u8]) -> bool {
        match act {
            Act::Cut => {
                // Half of it may arrive.
                self.send(&message[..message.len() / 2]).await;
                false
            }
            Act::Swallow => {
                self.gate.send_replace(Gate::Muted);
                self.send(message).await;
                tokio::time::sleep(TO_ARRIVE).await;
                false
            }
            Act::Terminate => {
                self.plan.terminate(self.port).await;
                self.send(message).await
            }
            Act::TerminateBehind => {
                self.gate.send_replace(Gate::Muted);
                self.send(message).await;
                self.plan.terminate(self.port).await;
                false
            }
            Act::Hold => {
                self.plan.hold().await;
                self.send(message).await
            }
            Act::HoldBehind => {
                self.gate.send_replace(Gate::Held);
                let sent = self.send(message).await;
                tokio::time::sleep(TO_ARRIVE).await;
                self.plan.hold().await;
                self.gate.send_replace(Gate::Open);
                sent
            }
            Act::Stop => {
                let process = self.plan.process(self.port).await;
                signal(&process, "-STOP");
                let sent = self.send(message).await;
                self.plan.hold().await;
                signal(&process, "-CONT");
                sent
            }
        }
    }

    async fn send(&mut self, message: &[u8]) -> bool {
        self.to_server.write_all(message).await.is_ok()
    }
}

fn signal(process: &str, signal: &str) {
    let sent = Command::new("kill").args([signal, process]).status();
    assert!(sent.unwrap().success(), "the server has this process");
}

/// One message of the client; the first has no type.
async fn message(from: &mut OwnedReadHalf, started: bool) -> io::Result<Vec<u8>> {
    let head = if started { 5 } else { 4 };
    let mut message = vec![0; head];
    from.read_exact(&mut message).await?;
    let length = message[head - 4..].try_into().map(u32::from_be_bytes).unwrap();
    let rest = usize::try_from(length).unwrap() - 4;
    message.resize(head + rest, 0);
    from.read_exact(&mut message[head..]).await?;
    Ok(message)
}

/// What the server says, as long as the gate is open.
async fn answer(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut gate: watch::Receiver<Gate>) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let Ok(gate) = gate.wait_for(|gate| *gate != Gate::Held).await.map(|gate| *gate) else {
            break;
        };
        if gate == Gate::Open && to.write_all(&bytes[..read]).await.is_err() {
            break;
        }
    }
    drop(to.shutdown().await);
}
