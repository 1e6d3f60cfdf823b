//! Leaders that are deposed in the middle of their work, and lead again.

use std::time::Duration;

use tidegate_proto::v1::RepairGapRequest;
use tidegate_proto::v1::admin_client::AdminClient;
use tidegate_tests::cluster::{Cluster, alone};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const EXPORT: &str = "generated";
/// The least there may be: what a node misses comes as the state, not as entries.
const LITTLE_LOG: &str = "[cluster]\nlog-entries = 100\n";
/// Operators that ask at a time, of each node.
const ASKING: usize = 6;
/// Longer than it takes to elect another leader.
const FROZEN: Duration = Duration::from_millis(2_500);
/// In which the cluster answers, whoever leads: longer than any proposal may take.
const ANSWERED: Duration = Duration::from_secs(30);
const ROUNDS: usize = 6;

/// METHOD: operators ask all nodes without pause for what makes an entry each, so that
/// whoever leads is frozen with entries on their way. Others lead meanwhile, and its log is
/// behind theirs by more than they keep. With each leader frozen in turn, all lead again.
/// Whoever leads, every node answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_frozen_at_work_leads_again() {
    let _alone = alone().await;
    let cluster = Cluster::start_in(&std::env::temp_dir(), 3, LITTLE_LOG).await;
    cluster.apply(&spec());
    cluster.until("there are shards", |it| !it.shards(EXPORT).is_empty()).await;
    let mut admins = Vec::new();
    for address in cluster.addresses() {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        admins.push(AdminClient::new(endpoint.connect_lazy()));
    }
    let mut operators = JoinSet::new();
    for admin in admins.iter().flat_map(|admin| std::iter::repeat_n(admin, ASKING)) {
        operators.spawn(ask_on(admin.clone()));
    }
    for round in 0..ROUNDS {
        let leader = leader(&cluster).await;
        cluster.signal(leader, "STOP");
        sleep(FROZEN).await;
        cluster.signal(leader, "CONT");
        for (number, admin) in admins.iter().enumerate() {
            let answer = timeout(ANSWERED, answer(admin.clone())).await;
            assert!(answer.is_ok(), "round {round}: node{number} waits\n{}", cluster.logs());
        }
    }
    operators.shutdown().await;
}

fn spec() -> String {
    format!(
        "name = \"{EXPORT}\"\n[source]\nkind = \"datagen\"\nkeys = 10\ndocument-bytes = 400\n\
         rate-per-second = 10\n"
    )
}

/// The number of the node that leads, once there is one.
async fn leader(cluster: &Cluster) -> usize {
    let named = |it: &Cluster| {
        let nodes = it.json(&["node", "list"])["nodes"].as_array().cloned().unwrap_or_default();
        let name = nodes.into_iter().find(|node| node["role"] == "leader")?["name"].clone();
        name.as_str()?.strip_prefix("node")?.parse().ok()
    };
    cluster.until("somebody leads", |it| named(it).is_some()).await;
    named(cluster).expect("somebody led a moment ago")
}

/// Asks for what is refused, but only once it went through the log.
async fn ask(mut admin: AdminClient<Channel>) -> Code {
    let shard = "datagen-0".to_owned();
    let accepted = "there is no such gap".to_owned();
    let request = RepairGapRequest { export: EXPORT.to_owned(), shard, number: 99, accepted };
    admin.repair_gap(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

async fn ask_on(admin: AdminClient<Channel>) {
    loop {
        // A frozen node answers later, or never.
        drop(timeout(FROZEN, ask(admin.clone())).await);
        sleep(Duration::from_millis(5)).await;
    }
}

/// Asks until it went through the log.
async fn answer(admin: AdminClient<Channel>) {
    while ask(admin.clone()).await != Code::NotFound {
        sleep(Duration::from_millis(50)).await;
    }
}
