//! Against a real Redis.

#[allow(unreachable_pub, dead_code, reason = "shared with the crate of integration tests")]
#[path = "../../../../tests/src/redis_server.rs"]
mod redis_server;

mod breaks;
mod cluster;
mod cluster_server;
mod combine;
mod compare;
mod fuzz;
mod inserts;
mod writes;

use std::time::Duration;

use tidegate_proto::v1::GapKind;
use tokio::time::Instant;

use super::position::Offset;
use super::*;
use crate::config::Secret;
use crate::ports::free_port;
use crate::sources::Loss;
use crate::sources::contract::{
    Memory, any_position_resumes_over, writes_after_the_anchor_are_streamed,
};
use compare::{held_by, same};
use redis_server::{RedisClient, RedisServer, other_servers};
use writes::Writer;

const BATCH: usize = 256 << 10;
const WAIT: Duration = Duration::from_millis(20);
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn open(server: &RedisServer) -> Redis {
    Redis::open(&plain(server)).unwrap()
}

/// One of each version there is.
async fn every_server(settings: &[&str]) -> Vec<RedisServer> {
    let mut servers = vec![RedisServer::start(settings).await];
    for program in other_servers() {
        servers.push(RedisServer::start_program(program, settings).await);
    }
    servers
}

fn plain(server: &RedisServer) -> RedisConfig {
    RedisConfig {
        endpoint: server.endpoint(),
        user: None,
        password: None,
        ca_file: None,
        tell_inserts: false,
    }
}

fn primary() -> ShardSpec {
    ShardSpec { name: "primary".to_owned(), ..ShardSpec::default() }
}

/// How far a server's stream is.
async fn offset(client: &mut RedisClient) -> Offset {
    let (id, bytes) = client.stream().await;
    Offset { id: id.into(), bytes, db: 0 }
}

/// A reader: stream, and what it captured.
struct Reader {
    source: Redis,
    stream: Box<dyn ChangeStream>,
    memory: Arc<Memory>,
    position: Bytes,
    losses: Vec<Loss>,
    batch: usize,
}

impl Reader {
    async fn start(server: &RedisServer) -> Self {
        Self::start_with(open(server)).await
    }

    async fn start_with(source: Redis) -> Self {
        let position = source.anchor(&primary()).await.unwrap().position;
        let memory = Arc::new(Memory::default());
        let stream = source.stream_from(&primary(), &position, Arc::clone(&memory) as _).await;
        let stream = stream.unwrap();
        Self { source, stream, memory, position, losses: Vec::new(), batch: BATCH }
    }

    /// Opens the stream anew where it is, as often as it takes.
    async fn reopen(&mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let captured = Arc::clone(&self.memory) as _;
            match self.source.stream_from(&primary(), &self.position, captured).await {
                Ok(stream) => {
                    self.stream = stream;
                    return;
                }
                Err(error) => {
                    assert!(
                        error.kind() == ErrorKind::Unavailable && Instant::now() < until,
                        "{error}"
                    );
                    tokio::time::sleep(WAIT).await;
                }
            }
        }
    }

    async fn read(&mut self) -> Result<()> {
        self.read_into(&mut BatchBuilder::default()).await
    }

    async fn read_into(&mut self, out: &mut BatchBuilder) -> Result<()> {
        let read = self.stream.read(out, self.batch, WAIT).await?;
        assert!(out.is_empty() || !read.position.is_empty(), "changes move the position");
        // As the spool does: both or neither.
        self.memory.take(out);
        if !read.position.is_empty() {
            self.position = read.position;
        }
        self.losses.extend(read.losses);
        Ok(())
    }

    fn offset(&self) -> Option<Offset> {
        match Position::decode(&self.position).unwrap() {
            Position::At(at) => Some(at),
            Position::Anew => None,
        }
    }

    /// Reads up to where the server is, opening the stream anew whenever it breaks.
    async fn catch_up(&mut self, client: &mut RedisClient) {
        let until = Instant::now() + PATIENCE;
        loop {
            // A server without a backlog takes a new id when its first replica comes.
            let end = offset(client).await;
            if self.offset().is_some_and(|at| at.id == end.id && at.bytes >= end.bytes) {
                return;
            }
            assert!(Instant::now() < until, "{:?} is behind {end:?}", self.position);
            if let Err(error) = self.read().await {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                self.reopen().await;
            }
        }
    }

    /// Reads all there is and compares it with what the server has.
    async fn matches(&mut self, client: &mut RedisClient) {
        let wanted = held_by(client).await;
        // Behind what it deleted because it was looked at.
        self.catch_up(client).await;
        same(wanted, &self.memory);
    }
}

async fn write_on(mut writer: Writer, mut client: RedisClient) -> RedisClient {
    for _ in 0..8 {
        writer.write(&mut client, 1_000).await;
    }
    client
}

/// Random commands, before the dump, while it is made and read, and behind it: all that
/// they leave is captured.
async fn random_commands(server: &RedisServer, seed: u64) -> (Reader, RedisClient) {
    let mut client = server.client().await;
    let mut writer = Writer::new(seed);
    writer.write(&mut client, 3_000).await;
    let writing = tokio::spawn(write_on(writer, client));
    let mut reader = Reader::start(server).await;
    // Batches of a few changes: there are many places to stand at.
    reader.batch = 2_000;
    while !writing.is_finished() {
        reader.read().await.unwrap();
    }
    let mut client = writing.await.unwrap();
    reader.matches(&mut client).await;
    assert_eq!(reader.losses, []);
    (reader, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn older_and_newer_servers_are_read_alike() {
    for (seed, program) in (41..).zip(other_servers()) {
        let settings = ["--repl-diskless-sync", "yes", "--repl-backlog-size", "64mb"];
        let server = RedisServer::start_program(program, &settings).await;
        let (mut reader, mut client) = random_commands(&server, seed).await;
        // A link that breaks goes on; then every encoding, as a dump and as commands.
        client.say("CLIENT KILL TYPE replica").await;
        Writer::new(seed + 10).write(&mut client, 500).await;
        reader.matches(&mut client).await;
        assert_eq!(reader.losses, []);
        writes::one_of_each(&mut client).await;
        reader.matches(&mut client).await;
        Reader::start(&server).await.matches(&mut client).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept() {
    let server = RedisServer::start(&[]).await;
    let mut client = server.client().await;
    let source = open(&server);
    let shards = source.discover().await.unwrap();
    let shard = &shards[0];
    let wanted = [document::key(b"one").unwrap(), document::key(b"two").unwrap()];
    let write = || async {
        let mut client = server.client().await;
        client.say("SET one 1").await;
        client.say("RPUSH two 1").await;
    };
    let wanted = wanted.iter().map(|key| key.as_bytes().to_vec()).collect();
    writes_after_the_anchor_are_streamed(&source, shard, write, &wanted).await;

    let mut reader = Reader::start(&server).await;
    reader.catch_up(&mut client).await;
    Writer::new(3).write(&mut client, 400).await;
    any_position_resumes_over(&source, shard, &reader.position, &reader.memory.copy()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_and_every_encoding_are_read() {
    let server = RedisServer::start(&["--repl-diskless-sync", "yes"]).await;
    let mut client = server.client().await;
    writes::one_of_each(&mut client).await;
    let mut reader = Reader::start(&server).await;
    reader.matches(&mut client).await;
    // The same once more, as commands.
    client.say("FLUSHALL").await;
    writes::one_of_each(&mut client).await;
    reader.matches(&mut client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_databases_are_flushed_and_swapped() {
    let server = RedisServer::start(&[]).await;
    let mut client = server.client().await;
    let mut writer = Writer::new(4);
    writer.write(&mut client, 1_000).await;
    let mut reader = Reader::start(&server).await;
    reader.matches(&mut client).await;
    writer.write(&mut client, 300).await;
    client.say("SELECT 1").await;
    client.say("FLUSHDB ASYNC").await;
    client.say("SET left 1").await;
    writer.write(&mut client, 100).await;
    reader.matches(&mut client).await;
    // This is not computed: everything is read anew.
    client.say("SET before 1").await;
    client.say("SWAPDB 0 1").await;
    reader.matches(&mut client).await;
    let [loss] = &reader.losses[..] else { panic!("{:?}", reader.losses) };
    assert!(loss.kind == GapKind::Reread && loss.detail.contains("SWAPDB"), "{loss:?}");
    client.say("FLUSHALL").await;
    reader.matches(&mut client).await;
    assert!(reader.memory.documents().is_empty());
    // Not a second time at once.
    client.say("SET a 1").await;
    client.say("SWAPDB 0 1").await;
    let error = loop {
        if let Err(error) = reader.read().await {
            break error;
        }
    };
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("SWAPDB"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_same_comes_and_other_authorities_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (key, certificate) = (file("key.pem"), file("certificate.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &key, "-out", &certificate])
        // It signs itself, and is no authority for others.
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let port = free_port().to_string();
    let tls = ["--tls-port", &port, "--tls-auth-clients", "no", "--tls-replication", "yes"];
    let files = [
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &certificate,
    ];
    let server = RedisServer::start(&[&tls[..], &files[..]].concat()).await;
    let mut client = server.client().await;
    Writer::new(5).write(&mut client, 300).await;
    let endpoint = format!("rediss://127.0.0.1:{port}");
    let config = RedisConfig { endpoint, ca_file: Some(certificate), ..plain(&server) };
    let mut reader = Reader::start_with(Redis::open(&config).unwrap()).await;
    Writer::new(6).write(&mut client, 300).await;
    reader.matches(&mut client).await;
    let strange = RedisConfig { ca_file: None, ..config };
    let error = Redis::open(&strange).unwrap().discover().await.unwrap_err();
    assert!(error.to_string().contains("ca-file"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_looked_at_before_and_what_is_wrong_is_named() {
    let server = RedisServer::start(&[]).await;
    let mut client = server.client().await;
    let checks = open(&server).check().await;
    assert_eq!(
        checks.iter().map(|check| check.passed).collect::<Vec<_>>(),
        [true; 4],
        "{checks:?}"
    );
    assert!(checks[3].detail.contains("0 MiB are written in the 0 s"), "its limit is read");
    assert_eq!(
        client
            .say("INFO replication")
            .await
            .text()
            .windows(6)
            .filter(|part| part == b"slave0")
            .count(),
        0
    );

    client.say("ACL SETUSER reader on >s3cret +psync +replconf +ping +info").await;
    client.say("ACL SETUSER other on >s3cret +info").await;
    client.say("ACL SETUSER default off").await;
    let logged_in = |user: Option<&str>, password: &str| {
        let (user, password) = (user.map(str::to_owned), Some(Secret(password.to_owned())));
        Redis::open(&RedisConfig { user, password, ..plain(&server) }).unwrap()
    };
    let reader = logged_in(Some("reader"), "s3cret");
    let checks = reader.check().await;
    assert!(checks.iter().all(|check| check.passed), "{checks:?}");
    assert!(checks[3].detail.contains("+config|get"), "{checks:?}");
    reader.stream_from(&primary(), b"?", Arc::<Memory>::default()).await.unwrap();
    let refused = logged_in(Some("other"), "s3cret").check().await;
    assert!(refused[1].detail.contains("+psync"), "{refused:?}");
    for source in [logged_in(None, "s3cret"), open(&server)] {
        let error = source.discover().await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Config && error.to_string().contains("password"),
            "{error}"
        );
    }

    // An export of a server that became part of a cluster since.
    let port = free_port().to_string();
    let server = RedisServer::start(&["--cluster-enabled", "yes", "--cluster-port", &port]).await;
    let stream = open(&server).stream_from(&primary(), b"?", Arc::<Memory>::default()).await;
    let error = stream.err().unwrap();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("cluster"), "{error}");
    let checks = open(&server).check().await;
    assert!(!checks[0].passed && checks[0].detail.contains("no cluster"), "{checks:?}");
    let server = RedisServer::start(&["--rename-command", "PSYNC", ""]).await;
    let checks = open(&server).check().await;
    assert!(!checks[1].passed && checks[1].detail.contains("managed"), "{checks:?}");
}
