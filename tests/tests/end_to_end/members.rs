//! Who votes.

use std::time::Duration;

use serde_json::Value;
use tidegate_tests::cluster::{Cluster, alone, binaries};
use tidegate_tests::place::Place;
use tokio::time::sleep;

/// In what time a node that may vote does so long since.
const LONG: Duration = Duration::from_secs(3);

/// METHOD: a fourth node joins three, as a learner. It stays one for longer than others
/// need to vote; with it and a voter dead, the two that are left decide. Back again and
/// promoted, it votes.
#[tokio::test(flavor = "multi_thread")]
async fn a_learner_votes_when_it_is_promoted_and_not_before() {
    let _alone = alone().await;
    let mut places: Vec<_> = (0..4).map(|_| Place::on_loopback()).collect();
    places[3].flags.push("--learner".to_owned());
    let mut cluster = Cluster::start_at(&binaries(), places, "").await;
    cluster.until("three vote", |it| voters(it) == 3).await;
    sleep(LONG).await;
    assert_eq!((role(&cluster, "node3"), voters(&cluster)), ("learner".to_owned(), 3));

    cluster.kill(3).await;
    cluster.kill(2).await;
    cluster.until("both are declared down", |it| it.up() == 2).await;
    cluster.start_node(2);
    cluster.start_node(3);
    cluster.until("both are up again", |it| it.up() == 4).await;
    assert_eq!(role(&cluster, "node3"), "learner", "a restart changes nothing");

    for _ in 0..2 {
        let promoted = cluster.cli(&["node", "promote", "node3"]);
        assert!(promoted.status.success(), "{}", String::from_utf8_lossy(&promoted.stderr));
    }
    cluster.until("it votes", |it| voters(it) == 4).await;
    let nobody = cluster.cli(&["node", "promote", "node9"]);
    let refusal = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(refusal.contains("there is no node \"node9\""), "{refusal}");
}

fn nodes(cluster: &Cluster) -> Vec<Value> {
    cluster.json(&["node", "list"])["nodes"].as_array().cloned().unwrap_or_default()
}

fn role(cluster: &Cluster, name: &str) -> String {
    let nodes = nodes(cluster);
    let node = nodes.iter().find(|node| node["name"] == name);
    node.and_then(|node| node["role"].as_str()).unwrap_or_default().to_owned()
}

fn voters(cluster: &Cluster) -> usize {
    nodes(cluster).iter().filter(|node| node["role"] != "learner").count()
}
