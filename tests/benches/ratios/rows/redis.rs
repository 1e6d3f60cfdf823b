//! P1 and P2: Redis as a source, against a client that only takes the stream.
//!
//! METHOD A server with a backlog that holds everything; an export without sinks in a node
//! of its own. P1: both sides on one core. The node is frozen and loses its link; SETs of
//! 200 bytes to distinct keys are written; thawed, it asks for what it missed. Its rate
//! counts from the first checkpoint behind that to the one with the last SET. The other
//! side asks for the same stream from the same offset, and only splits it into commands.
//! P2: the time one connection takes to write as many SETs, 1,000 at a time, while the node
//! or the bare client follows, with two cores for all; both must have all of it in the end.

use std::time::Duration;

use tidegate_tests::redis_server::{RedisClient, RedisServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bench::{Bench, Better, Goal, Outcome, float, require, timed};
use crate::machine::pinned;
use crate::node::{Node, Start, captured, signal};

const CATCH_UP: Goal = Goal {
    id: "P1.catch-up",
    what: "catch-up with a Redis backlog to a bare client that splits it",
    goal: 0.5,
    better: Better::Higher,
    unit: "commands/s",
};
const ATTACHED: Goal = Goal {
    id: "P2.rate",
    what: "SETs a second with a node attached to those with a bare client",
    goal: 0.97,
    better: Better::Higher,
    unit: "SETs/s",
};
pub(super) const SETTINGS: [&str; 6] = [
    "--repl-backlog-size",
    "3gb",
    "--repl-diskless-sync",
    "yes",
    "--client-output-buffer-limit",
    "replica 0 0 0",
];
const SETS: u64 = 1_000_000;
pub(super) const VALUE_BYTES: usize = 200;
/// Commands sent before their answers are waited for.
const TOGETHER: u64 = 1_000;
const CORE: u32 = 1;
const CORES: &str = "1";
pub(super) const EXPORT: &str = "cache";
const EVERY: Duration = Duration::from_millis(10);

/// A server that holds one key, and a node that has captured it.
pub(super) async fn start(bench: &mut Bench, cores: &'static str) -> Outcome<(RedisServer, Node)> {
    let server = RedisServer::start(&SETTINGS).await;
    server.client().await.say("SET first 1").await;
    let mut node = Node::start(&bench.folder()?, Start { cores, ..Start::default() }).await?;
    let endpoint = server.endpoint();
    node.apply(&format!(
        "name = \"{EXPORT}\"\n[source]\nkind = \"redis\"\nendpoint = \"{endpoint}\"\n"
    ))
    .await?;
    node.until(EXPORT, EVERY, |shards| captured(shards) == 1).await?;
    Ok((server, node))
}

pub(crate) async fn catch_up(bench: &mut Bench) -> Outcome<()> {
    let (server, mut node) = start(bench, CORES).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        let before = captured(&node.shards(EXPORT).await?);
        let mut client = server.client().await;
        freeze(&node, &mut client).await?;
        let from = client.stream().await;
        write(&mut client, round).await?;
        let port = server.port();
        let (seconds, bytes) = pinned(CORE, move || timed(drain(port, from, SETS))).await?;
        require(bytes > SETS * VALUE_BYTES as u64, "the client had all of it")?;
        theirs.push(float(SETS) / seconds);
        ours.push(caught_up(&mut node, before, before + SETS).await?);
        bench.round(&CATCH_UP, round, ours[round], theirs[round]);
    }
    let note = "every change is spooled, and its key's state kept";
    bench.line(&CATCH_UP, &ours, &theirs, note)?;
    node.stop().await
}

pub(crate) async fn attached(bench: &mut Bench) -> Outcome<()> {
    let (server, mut node) = start(bench, "").await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        let before = captured(&node.shards(EXPORT).await?);
        let mut client = server.client().await;
        let (seconds, ()) = timed(write(&mut client, 2 * round)).await?;
        ours.push(float(SETS) / seconds);
        let wanted = before + SETS;
        node.until(EXPORT, EVERY, |shards| captured(shards) >= wanted).await?;
        freeze(&node, &mut client).await?;
        let from = client.stream().await;
        let follows = tokio::spawn(drain(server.port(), from, SETS));
        let (seconds, ()) = timed(write(&mut client, 2 * round + 1)).await?;
        theirs.push(float(SETS) / seconds);
        follows.await??;
        caught_up(&mut node, wanted, wanted + SETS).await?;
        bench.round(&ATTACHED, round, ours[round], theirs[round]);
    }
    let note = "server, writer and follower share two cores";
    bench.line(&ATTACHED, &ours, &theirs, note)?;
    node.stop().await
}

/// The node follows no more, until it is thawed.
async fn freeze(node: &Node, client: &mut RedisClient) -> Outcome<()> {
    signal(node.pid, "STOP")?;
    client.say("CLIENT KILL TYPE replica").await;
    Ok(())
}

/// Commands a second, from the first that is captured to `wanted`.
async fn caught_up(node: &mut Node, from: u64, wanted: u64) -> Outcome<f64> {
    signal(node.pid, "CONT")?;
    node.until(EXPORT, EVERY, |shards| captured(shards) > from).await?;
    let first = captured(&node.shards(EXPORT).await?);
    let work = node.until(EXPORT, EVERY, |shards| captured(shards) >= wanted);
    let (seconds, ()) = timed(work).await?;
    require(captured(&node.shards(EXPORT).await?) == wanted, "each SET is one change")?;
    Ok(float(wanted - first) / seconds)
}

/// A million SETs of keys of this round.
async fn write(client: &mut RedisClient, round: usize) -> Outcome<()> {
    let value = vec![b'x'; VALUE_BYTES];
    for first in (0..SETS).step_by(usize::try_from(TOGETHER)?) {
        let set = |at: u64| {
            vec![b"SET".to_vec(), format!("{round}:{at:010}").into_bytes(), value.clone()]
        };
        client.send(&(first..first + TOGETHER).map(set).collect::<Vec<_>>()).await?;
        for _ in 0..TOGETHER {
            client.answer().await?;
        }
    }
    Ok(())
}

/// Takes the stream behind a place until so many SETs have come; gives its bytes.
async fn drain(port: u16, from: (String, u64), sets: u64) -> Outcome<u64> {
    let (mut bytes, mut done) = (0, 0);
    replicate(port, from, |command, is_set| {
        bytes += command.len() as u64;
        done += u64::from(is_set);
        done < sets
    })
    .await?;
    Ok(bytes)
}

/// Takes the stream behind a place as a replica does; shows each command, and whether it is
/// a SET, for as long as more is wanted.
pub(super) async fn replicate(
    port: u16,
    (id, offset): (String, u64),
    mut wants_more: impl FnMut(&[u8], bool) -> bool,
) -> Outcome<()> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut buffer = vec![0; 1 << 20];
    socket.write_all(b"REPLCONF capa eof capa psync2\r\n").await?;
    let answered = socket.read(&mut buffer).await?;
    require(&buffer[..answered] == b"+OK\r\n", "it may be a replica")?;
    socket.write_all(format!("PSYNC {id} {}\r\n", offset + 1).as_bytes()).await?;
    let (mut there, mut continues) = (0, false);
    loop {
        let read = socket.read(&mut buffer[there..]).await?;
        require(read > 0, "the server keeps the link")?;
        there += read;
        let mut at = 0;
        while let Some((upto, is_set)) = next(&buffer[at..there]) {
            continues |= buffer[at..].starts_with(b"+CONTINUE");
            require(continues, "it goes on where it was asked to")?;
            if !wants_more(&buffer[at..at + upto], is_set) {
                return Ok(());
            }
            at += upto;
        }
        buffer.copy_within(at..there, 0);
        there -= at;
    }
}

/// Where the first command or line ends, and whether it is a SET; `None` if it is not
/// all there.
fn next(bytes: &[u8]) -> Option<(usize, bool)> {
    let line =
        |from: usize| Some(from + bytes.get(from..)?.iter().position(|it| *it == b'\n')? + 1);
    let mut at = line(0)?;
    if bytes[0] != b'*' {
        return Some((at, false));
    }
    let number = |from: usize, upto: usize| {
        let digits = bytes[from..upto].iter().filter(|it| it.is_ascii_digit());
        digits.fold(0, |sum, digit| 10 * sum + usize::from(digit - b'0'))
    };
    let name = line(at)?;
    for _ in 0..number(0, at) {
        let from = line(at)?;
        at = from + number(at, from) + 2;
    }
    (at <= bytes.len()).then(|| (at, bytes[name..].starts_with(b"SET")))
}
