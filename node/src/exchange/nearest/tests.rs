use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tidegate_proto::v1::Operation;
use tidegate_proto::{BatchBuilder, Codec, Draft, Stamp};
use tokio::sync::mpsc;

use super::*;
use crate::control::sample::Sample;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const D: usize = 3;

/// In the order in which they are tried from there.
fn from(cluster: &Sample, here: usize) -> Vec<usize> {
    let places = places(&cluster.state, cluster.shard, NodeId(cluster.nodes[here]));
    let at = |place: &Place| cluster.nodes.iter().position(|node| *node == place.node.0);
    places.iter().filter_map(at).collect()
}

#[test]
fn one_fetches_here_then_in_the_region_then_anywhere_and_only_from_who_is_in_sync() {
    let mut cluster = Sample::new(&["here", "here", "there", "there"]);
    assert_eq!(from(&cluster, C), [A], "the others are not in sync");
    cluster.set_in_sync(&[A, B, C, D]);
    assert_eq!(from(&cluster, A), [A, B, C, D]);
    assert_eq!(from(&cluster, B), [B, A, C, D], "this node before the owner");
    assert_eq!(from(&cluster, C), [C, D, A, B], "this region before the owner's");
    cluster.set_in_sync(&[A, D]);
    assert_eq!(from(&cluster, B), [A, D], "its own copy counts no more");
    assert_eq!(from(&cluster, C), [D, A]);
    cluster.set_down(D);
    assert_eq!(from(&cluster, C), [A], "who is down is not asked");
    cluster.set_down(A);
    assert_eq!(from(&cluster, C), [A], "but for the owner");
}

/// Places that only say what a test lets them say.
#[derive(Clone)]
struct Said(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// Nearest first, all of one epoch.
    nodes: Vec<u64>,
    epoch: u64,
    /// What each that can be reached says, of the last fetch opened there, and behind
    /// what that was asked for.
    open: BTreeMap<u64, Option<(Sequence, mpsc::Sender<Frame>)>>,
    /// Stands still: who asks there gets no answer.
    frozen: Option<u64>,
}

struct Channel(mpsc::Receiver<Frame>);

#[async_trait]
impl Fetch for Channel {
    async fn next(&mut self) -> Result<Fetched> {
        let frame = self.0.recv().await;
        let frame = frame.ok_or_else(|| Error::new(ErrorKind::Unavailable, "it ended"))?;
        Ok(Fetched { frames: vec![frame], ..Fetched::default() })
    }

    fn acknowledge(&mut self, _upto: Sequence) {}
}

#[async_trait]
impl Places for Said {
    fn now(&self) -> Vec<Place> {
        let inner = self.0.lock().unwrap();
        let place = |node: &u64| Place {
            epoch: Epoch(inner.epoch),
            node: NodeId(*node),
            address: String::new(),
        };
        inner.nodes.iter().map(place).collect()
    }

    async fn open(&self, from: &Place, after: Sequence) -> Result<Box<dyn Fetch>> {
        if self.0.lock().unwrap().frozen == Some(from.node.0) {
            std::future::pending::<()>().await;
        }
        let mut inner = self.0.lock().unwrap();
        let reached = inner.open.get_mut(&from.node.0);
        let reached =
            reached.ok_or_else(|| Error::new(ErrorKind::Unavailable, "not to be reached"))?;
        let (sender, receiver) = mpsc::channel(4);
        *reached = Some((after, sender));
        Ok(Box::new(Channel(receiver)))
    }

    fn is_here(&self, place: &Place) -> bool {
        place.node == NodeId(1)
    }
}

impl Said {
    /// Node 1 is here; these can be reached.
    fn new(nodes: &[u64], reached: &[u64]) -> (Self, watch::Sender<u64>) {
        let open = reached.iter().map(|node| (*node, None)).collect();
        let inner = Inner { nodes: nodes.to_vec(), epoch: 1, open, frozen: None };
        (Self(Arc::new(Mutex::new(inner))), watch::Sender::new(0))
    }

    fn decide(&self, topology: &watch::Sender<u64>, nodes: &[u64], epoch: u64) {
        let mut inner = self.0.lock().unwrap();
        (inner.nodes, inner.epoch) = (nodes.to_vec(), epoch);
        topology.send_modify(|at| *at += 1);
    }

    /// Behind what the last fetch there was asked for; none if none was opened.
    fn asked(&self, node: u64) -> Option<u64> {
        let inner = self.0.lock().unwrap();
        inner.open.get(&node)?.as_ref().map(|(after, _)| after.0)
    }

    fn send(&self, node: u64, first: u64) {
        let mut batch = BatchBuilder::default();
        let draft = Draft {
            operation: Operation::Insert,
            collection: "c",
            key: b"k",
            document: None,
            before: None,
            committed_ms: 0,
        };
        batch.push(&draft);
        let stamp = Stamp { epoch: Epoch(1), first: Sequence(first), ..Stamp::default() };
        let frame = batch.encode(stamp, Codec::None);
        let inner = self.0.lock().unwrap();
        let (_, sender) = inner.open[&node].as_ref().unwrap();
        sender.try_send(frame).unwrap();
    }
}

async fn open(said: &Said, topology: &watch::Sender<u64>) -> Nearest {
    let places = Box::new(said.clone());
    Nearest::open(places, topology.subscribe(), Sequence(4)).await.unwrap()
}

async fn first(fetch: &mut Nearest) -> Result<u64> {
    let fetched = timeout(Duration::from_secs(10), fetch.next()).await.expect("it hangs");
    Ok(fetched?.frames[0].first().0)
}

#[tokio::test]
async fn a_fetch_that_waits_at_a_copy_taken_out_of_the_set_goes_on_from_the_owner() {
    let (said, topology) = Said::new(&[1, 2], &[1, 2]);
    let mut fetch = open(&said, &topology).await;
    said.send(1, 5);
    assert_eq!(first(&mut fetch).await.unwrap(), 5);
    let waits = tokio::spawn(async move {
        let next = first(&mut fetch).await;
        (fetch, next)
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    said.decide(&topology, &[2], 1);
    let asked = async {
        while said.asked(2).is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), asked).await.expect("the owner is asked");
    assert_eq!(said.asked(2), Some(5), "behind the last that came");
    said.send(2, 6);
    let (mut fetch, next) = waits.await.unwrap();
    assert_eq!(next.unwrap(), 6);
    // And back, once it is in sync again.
    said.decide(&topology, &[1, 2], 1);
    assert!(timeout(MOMENT * 2, fetch.next()).await.is_err(), "there is nothing yet");
    assert_eq!(said.asked(1), Some(6));
}

#[tokio::test]
async fn one_that_cannot_be_reached_is_passed_over_and_asked_again() {
    let (said, topology) = Said::new(&[2, 3], &[3]);
    let mut fetch = open(&said, &topology).await;
    assert_eq!(said.asked(3), Some(4));
    said.0.lock().unwrap().open.insert(2, None);
    assert!(timeout(AGAIN * 2, fetch.next()).await.is_err());
    assert_eq!(said.asked(2), Some(4), "it is nearer");
}

#[tokio::test]
async fn an_owner_that_stands_still_is_left_when_it_is_replaced() {
    let (said, topology) = Said::new(&[2], &[2, 3]);
    said.0.lock().unwrap().frozen = Some(2);
    let opened = tokio::spawn({
        let (said, topology) = (said.clone(), topology.clone());
        async move { first(&mut open(&said, &topology).await).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    said.decide(&topology, &[3], 2);
    while said.asked(3).is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    said.send(3, 5);
    assert_eq!(timeout(Duration::from_secs(10), opened).await.unwrap().unwrap().unwrap(), 5);
}

#[tokio::test]
async fn what_serves_is_not_left_for_what_does_not() {
    let (said, topology) = Said::new(&[2], &[2]);
    let mut fetch = open(&said, &topology).await;
    said.decide(&topology, &[1, 2], 1);
    assert!(timeout(MOMENT * 2, fetch.next()).await.is_err());
    said.send(2, 5);
    assert_eq!(first(&mut fetch).await.unwrap(), 5, "the copy here is not there yet");
}

#[tokio::test]
async fn a_fetch_ends_when_the_shard_has_another_owner_or_nobody_in_sync_answers() {
    let (said, topology) = Said::new(&[1, 2], &[1]);
    let mut fetch = open(&said, &topology).await;
    said.decide(&topology, &[], 1);
    assert!(timeout(MOMENT * 2, fetch.next()).await.is_err(), "the next owner is awaited");
    said.decide(&topology, &[1], 2);
    assert_eq!(first(&mut fetch).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let (said, topology) = Said::new(&[1, 2], &[1]);
    let mut fetch = open(&said, &topology).await;
    said.decide(&topology, &[2], 1);
    assert_eq!(first(&mut fetch).await.unwrap_err().kind(), ErrorKind::Unavailable);
}
