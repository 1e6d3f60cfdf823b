//! What changes are to their keys, as feeds and lakes tell it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Value, json};
use tidegate_tests::cluster::{Cluster, alone};
use tidegate_tests::lake;

use crate::followed::changes;
use crate::stage::{COLLECTION, Stage, does, key};

const EXPORT: &str = "told";
const DOCUMENTS: u64 = 200;

/// METHOD: documents are read, written again with the same and with another content, read
/// again, and their owner is killed in between. A fold of what a feed brought gives what
/// each change was to its key; every one says so, and so do the rows of the lake.
#[tokio::test(flavor = "multi_thread")]
async fn every_change_says_what_it_is_to_its_key() {
    let _alone = alone().await;
    let mut stage = Stage::new(Cluster::start(3).await).await;
    stage.write(0..DOCUMENTS).await;
    let spec = stage.spec(EXPORT, 300);
    stage.cluster.apply(&format!("{spec}[index]\nnovelty = true\n"));
    let followed = stage.cluster.folder().join("feed.jsonl");
    let _follower = stage.cluster.follow(EXPORT, &followed);
    let all = usize::try_from(DOCUMENTS).unwrap();
    let brought = |count: usize| {
        let followed = &followed;
        move |_: &Cluster| changes(followed).len() == count
    };
    stage.cluster.until("all rows are there", brought(all)).await;
    let in_sync = |it: &Cluster| it.shards(EXPORT)[0]["in_sync"].as_array().map(Vec::len) > Some(1);
    stage.cluster.until("there is a copy", in_sync).await;

    let owner = stage.cluster.busiest(EXPORT);
    stage.cluster.kill(owner).await;
    // As it was, and another; and one that is new.
    stage.write(7..8).await;
    let other = [(key(8), json!({"number": "eight"}).to_string())];
    stage.documents.write(COLLECTION, other).await.unwrap();
    stage.write(DOCUMENTS..DOCUMENTS + 1).await;
    stage.cluster.until("what was written came", brought(all + 3)).await;
    does(&stage.cluster, &["snapshot", "start", EXPORT]);
    stage.cluster.until("all rows came again", brought(2 * all + 4)).await;

    let counted = check(&followed);
    let wanted = [("duplicate", 2 + DOCUMENTS), ("new", DOCUMENTS + 1), ("update", 1)];
    assert_eq!(counted, wanted.map(|(word, count)| (word.to_owned(), count)).into());
    let select = "SELECT novelty, count(*), count(previous) FROM lake GROUP BY 1 ORDER BY 1";
    let rows = wanted.map(|(word, count)| {
        let with_previous = if word == "new" { 0 } else { count };
        json!([word, count, with_previous])
    });
    let in_lake = |it: &Cluster| {
        let told = lake::select(&it.folder().join("lake"), EXPORT, select);
        told.is_ok_and(|told| told == rows)
    };
    stage.cluster.until("the lake tells the same", in_lake).await;
}

/// What each change says is what a fold of those before it gives; counts them.
fn check(followed: &Path) -> BTreeMap<String, u64> {
    let mut fold: HashMap<String, (Value, Value)> = HashMap::new();
    let mut counted = BTreeMap::new();
    for change in changes(followed) {
        let now = (change["document"].clone(), change["sequence"].clone());
        let before = fold.insert(change["key"].to_string(), now.clone());
        let (word, previous) = match before {
            None => ("new", Value::Null),
            Some((document, by)) if document == now.0 => ("duplicate", by),
            Some((_, by)) => ("update", by),
        };
        assert_eq!((&change["novelty"], &change["previous"]), (&json!(word), &previous));
        *counted.entry(word.to_owned()).or_default() += 1;
    }
    counted
}
