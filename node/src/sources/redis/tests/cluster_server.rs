//! A real cluster, and a client that finds its keys.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use tokio::time::Instant;

use super::PATIENCE;
use super::redis_server::{Answer, RedisClient, RedisServer};
use crate::ports::free_port;

const SLOTS: usize = 16_384;
const PAUSE: Duration = Duration::from_millis(20);

/// Primaries, then a replica for each.
pub(super) struct Cluster {
    pub(super) nodes: Vec<RedisServer>,
    primaries: usize,
}

impl Cluster {
    /// Starts it, with the slots in as many parts as there are primaries.
    pub(super) async fn start(primaries: usize, replicas: bool) -> Self {
        let count = if replicas { 2 * primaries } else { primaries };
        let mut cluster = Self { nodes: Vec::new(), primaries };
        for number in 0..count {
            cluster.add(number).await;
        }
        for number in 0..primaries {
            let (from, upto) = (SLOTS * number / primaries, SLOTS * (number + 1) / primaries - 1);
            let mut client = cluster.client(number).await;
            client.say(&format!("CLUSTER ADDSLOTSRANGE {from} {upto}")).await;
        }
        cluster.settled().await;
        for number in primaries..count {
            let id = cluster.id(number - primaries).await;
            let mut client = cluster.client(number).await;
            // Not before it has met that one.
            let words = [&b"CLUSTER"[..], b"REPLICATE", id.as_bytes()];
            until("a replica has met its primary", async || {
                !matches!(client.call(&words).await, Answer::Error(_))
            })
            .await;
            let up = "master_link_status:up";
            until("a replica follows", async || {
                info(&mut client, "replication").await.contains(up)
            })
            .await;
        }
        cluster
    }

    /// One more primary, without slots; gives its number.
    pub(super) async fn grow(&mut self) -> usize {
        let number = self.nodes.len();
        self.add(number).await;
        self.settled().await;
        number
    }

    async fn add(&mut self, number: usize) {
        let bus = free_port().to_string();
        let settings = ["--cluster-enabled", "yes", "--cluster-port", &bus];
        let patience = ["--cluster-node-timeout", "3000", "--repl-backlog-size", "64mb"];
        // Who has no slots stays what it is.
        let stays = ["--cluster-allow-replica-migration", "no"];
        let server = RedisServer::start(&[&settings[..], &patience, &stays].concat()).await;
        let mut client = server.client().await;
        client.say(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1)).await;
        if let Some(first) = self.nodes.first() {
            let mut first = first.client().await;
            first.say(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", server.port())).await;
        }
        self.nodes.push(server);
    }

    /// Waits until all know each other.
    async fn settled(&self) {
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        until("all know each other", async || {
            let mut all = Vec::new();
            for node in &self.nodes {
                all.push(text(node.client().await.say("CLUSTER INFO").await));
            }
            all.iter().all(|it| it.contains(&known) && it.contains("cluster_state:ok"))
        })
        .await;
    }

    pub(super) async fn client(&self, number: usize) -> RedisClient {
        self.nodes[number].client().await
    }

    pub(super) async fn id(&self, number: usize) -> String {
        text(self.client(number).await.say("CLUSTER MYID").await)
    }

    /// The numbers of those that are primaries now.
    pub(super) async fn primaries(&self) -> Vec<usize> {
        let mut primaries = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(mut client) = node.try_client().await else { continue };
            if info(&mut client, "replication").await.contains("role:master") {
                primaries.push(number);
            }
        }
        primaries
    }

    /// A client that begins anywhere.
    pub(super) fn routed(&self) -> Routed {
        let ports = self.nodes.iter().map(RedisServer::port).take(self.primaries).collect();
        Routed { ports, homes: BTreeMap::new(), clients: BTreeMap::new() }
    }

    /// The number of the primary that has a slot.
    pub(super) async fn owner(&self, slot: u16) -> usize {
        for number in self.primaries().await {
            let mine = text(self.client(number).await.say("CLUSTER NODES").await);
            let own = mine.lines().find(|line| line.contains("myself")).unwrap();
            let has = |range: &str| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                (first.parse().unwrap()..=last.parse().unwrap()).contains(&slot)
            };
            if own.split(' ').skip(8).any(has) {
                return number;
            }
        }
        panic!("nobody has slot {slot}");
    }

    /// Moves all slots of a primary, those without keys without ado.
    pub(super) async fn migrate_all(&self, from: usize, to: usize) {
        let (mut source, to_id) = (self.client(from).await, self.id(to).await);
        // So that a late ping of the one they leave is not believed: slots without keys are
        // not imported, which would do the same.
        self.client(to).await.say("CLUSTER BUMPEPOCH").await;
        let mut all = Vec::new();
        for number in self.primaries().await {
            all.push(self.client(number).await);
        }
        for slot in 0..16_384_u16 {
            if self.owner_of_thirds(slot) != from {
                continue;
            }
            let keys = source.say(&format!("CLUSTER COUNTKEYSINSLOT {slot}")).await;
            if keys != Answer::Whole(0) {
                self.migrate(slot, from, to).await;
                continue;
            }
            for client in &mut all {
                client.say(&format!("CLUSTER SETSLOT {slot} NODE {to_id}")).await;
            }
        }
    }

    /// Of a cluster as it was started.
    fn owner_of_thirds(&self, slot: u16) -> usize {
        let parts = self.primaries;
        (0..parts).find(|part| usize::from(slot) < SLOTS * (part + 1) / parts).unwrap()
    }

    /// Moves a slot as `redis-cli --cluster reshard` does.
    pub(super) async fn migrate(&self, slot: u16, from: usize, to: usize) {
        let (from_id, to_id) = (self.id(from).await, self.id(to).await);
        let (mut source, mut target) = (self.client(from).await, self.client(to).await);
        target.say(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}")).await;
        source.say(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}")).await;
        let port = self.nodes[to].port();
        loop {
            let keys = source.say(&format!("CLUSTER GETKEYSINSLOT {slot} 3")).await.parts();
            if keys.is_empty() {
                break;
            }
            let keys: Vec<String> = keys.into_iter().map(text).collect();
            let keys = keys.join(" ");
            source.say(&format!("MIGRATE 127.0.0.1 {port}  0 5000 REPLACE KEYS {keys}")).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        target.say(&format!("CLUSTER SETSLOT {slot} NODE {to_id}")).await;
        source.say(&format!("CLUSTER SETSLOT {slot} NODE {to_id}")).await;
    }
}

/// Sends each command to who has its key.
pub(super) struct Routed {
    ports: Vec<u16>,
    homes: BTreeMap<String, u16>,
    clients: BTreeMap<u16, RedisClient>,
}

impl Routed {
    /// Sends a command whose second word is its key, as often as it takes.
    pub(super) async fn say(&mut self, command: &str) -> Answer {
        let key = command.split(' ').nth(1).unwrap().to_owned();
        let mut port = self.homes.get(&key).copied().unwrap_or(self.ports[0]);
        let (mut asking, until) = (false, Instant::now() + PATIENCE);
        loop {
            assert!(Instant::now() < until, "{command} finds no server");
            let why = match self.try_say(port, asking, command).await {
                Some(Answer::Error(why)) => why,
                Some(answer) => return answer,
                None => "TRYAGAIN".to_owned(),
            };
            let words: Vec<&str> = why.split(' ').collect();
            let told = words.get(2).and_then(|it| it.rsplit_once(':')?.1.parse().ok());
            asking = words[0] == "ASK";
            match (words[0], told) {
                ("MOVED", Some(told)) => {
                    port = told;
                    self.homes.insert(key.clone(), told);
                }
                ("ASK", Some(told)) => port = told,
                ("TRYAGAIN" | "CLUSTERDOWN", _) => {
                    self.clients.remove(&port);
                    self.homes.remove(&key);
                    let at = self.ports.iter().position(|it| *it == port).unwrap_or(0);
                    port = self.ports[(at + 1) % self.ports.len()];
                    tokio::time::sleep(PAUSE).await;
                }
                _ => return Answer::Error(why),
            }
        }
    }

    async fn try_say(&mut self, port: u16, asking: bool, command: &str) -> Option<Answer> {
        let client = match self.clients.entry(port) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => place.insert(RedisClient::connect(port).await.ok()?),
        };
        if asking {
            client.try_call(&[b"ASKING"]).await.ok()?;
        }
        let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        client.try_call(&words).await.ok()
    }
}

pub(super) async fn info(client: &mut RedisClient, section: &str) -> String {
    text(client.say(&format!("INFO {section}")).await)
}

pub(super) fn text(answer: Answer) -> String {
    String::from_utf8(answer.text()).unwrap()
}

/// Waits until `what` is so.
pub(super) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !so().await {
        assert!(Instant::now() < until, "it takes too long until {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
