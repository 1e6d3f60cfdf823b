//! Links that are cut, flap, or spoil what passes.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::async_trait;

use super::zombie::writer;
use super::{Arena, Before, Fault};
use crate::Outcome;
use crate::world::{Counts, Link, Rule, SINK, SOURCE, Wires, node};

/// How long a flapping link stays as it is.
const FLAP: Duration = Duration::from_millis(200);
/// Terms that a deaf leader may cost.
const TERMS_MAX: u64 = 10;
pub(super) const CUT: Rule = Rule {
    cut: true,
    loss_percent: 0.0,
    duplicate_percent: 0.0,
    delay: Duration::ZERO,
    jitter: Duration::ZERO,
    bytes_per_second: 0,
};

/// Who is parted from whom.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// The leader from everybody, source and sink too.
    LeaderAlone,
    /// The leader hears no other node, and they hear it.
    LeaderDeaf,
    /// A node that reads shards from the other nodes only.
    OwnerAlone(usize),
    /// Who reads the bank from the bank's store.
    NoSource,
    /// A node that writes to sinks from the bucket.
    NoSink(usize),
    /// Two nodes from each other; a third sees both.
    Chain(usize),
    /// As a chain, but for so long that connections are given up.
    Pair(usize),
}

/// Links through which nothing passes.
pub(super) struct Cut {
    shape: Shape,
    lasts: Duration,
    links: Vec<Link>,
    /// Whose shards must go elsewhere.
    alone: Option<usize>,
    counted: Counts,
    before: Before,
}

impl Cut {
    pub(super) fn of(shape: Shape, lasts: Duration) -> Self {
        let (counted, before) = (Counts::default(), Before::default());
        Self { shape, lasts, links: Vec::new(), alone: None, counted, before }
    }

    async fn aim(&mut self, arena: &mut Arena) -> Outcome<String> {
        let size = arena.world.size();
        let (links, text) = match self.shape {
            Shape::LeaderAlone => {
                let leader = arena.leader().await?;
                self.alone = Some(leader);
                let mut links = arena.world.peers_of(leader);
                links.extend(Link::both(node(leader), SOURCE));
                links.extend(Link::both(node(leader), SINK));
                (links, format!("node{leader} leads and is alone"))
            }
            Shape::LeaderDeaf => {
                let leader = arena.leader().await?;
                let mut links = arena.world.peers_of(leader);
                links.retain(|link| link.to == node(leader));
                (links, format!("node{leader} leads and is deaf"))
            }
            Shape::OwnerAlone(pick) => {
                let owner = arena.owner(pick)?;
                self.alone = Some(owner);
                (arena.world.peers_of(owner), format!("node{owner} sees source and sink only"))
            }
            Shape::NoSource => {
                let owner = arena.teller_node()?;
                (Link::both(node(owner), SOURCE).to_vec(), format!("node{owner} sees no source"))
            }
            Shape::NoSink(pick) => {
                let writer = writer(arena, pick).await?;
                (Link::both(node(writer), SINK).to_vec(), format!("node{writer} sees no sink"))
            }
            Shape::Chain(pick) | Shape::Pair(pick) => {
                let (one, other) = (pick % size, (pick + 1) % size);
                let links = Link::both(node(one), node(other)).to_vec();
                (links, format!("node{one} and node{other} do not see each other"))
            }
        };
        self.links = links;
        Ok(text)
    }

    /// How often a node has taken over what it sees from one that does not. It may have
    /// had to stay, but not the first time.
    fn taken_over(&self, now: &Before) -> Outcome<usize> {
        let source = matches!(self.shape, Shape::NoSource);
        if !source && !matches!(self.shape, Shape::NoSink(_)) {
            return Ok(0);
        }
        let taken = self.before.rescued(now, source);
        if taken == 0 && Before::default().rescued(&self.before, source) == 0 {
            return Err("all stayed with a node that did not see its source or sink".into());
        }
        Ok(taken)
    }
}

#[async_trait]
impl Fault for Cut {
    fn lasts(&self) -> Duration {
        self.lasts
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        let text = self.aim(arena).await?;
        self.before = arena.before();
        self.counted = sum(&arena.world.wires, &self.links);
        arena.world.wires.set(&self.links, CUT);
        Ok(format!("{text} for {:?}", self.lasts))
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        arena.world.wires.set(&self.links, Rule::default());
        Ok(())
    }

    async fn proof(&self, arena: &Arena) -> Outcome<String> {
        let cut = sum(&arena.world.wires, &self.links).cut - self.counted.cut;
        if cut == 0 {
            return Err("no packet met the cut".into());
        }
        let now = arena.before();
        let moved = match self.alone {
            Some(alone) => self.before.moved(&now, |reader| reader == alone)?,
            None => 0,
        };
        let taken = self.taken_over(&now)?;
        let terms = now.term - self.before.term;
        if terms > TERMS_MAX {
            return Err(format!("{terms} terms went by: an election storm").into());
        }
        Ok(format!("{cut} packets cut, {} shards moved, {terms} terms", moved + taken))
    }
}

/// The links between two nodes go on and off.
pub(super) struct Flap {
    pick: usize,
    lasts: Duration,
    links: Vec<Link>,
    counted: Counts,
    task: Option<JoinHandle<()>>,
}

impl Flap {
    pub(super) fn of(pick: usize, lasts: Duration) -> Self {
        Self { pick, lasts, links: Vec::new(), counted: Counts::default(), task: None }
    }
}

#[async_trait]
impl Fault for Flap {
    fn lasts(&self) -> Duration {
        self.lasts
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        let number = self.pick % arena.world.size();
        self.links = arena.world.peers_of(number);
        self.counted = sum(&arena.world.wires, &self.links);
        let (wires, links) = (Arc::clone(&arena.world.wires), self.links.clone());
        self.task = Some(tokio::spawn(async move {
            loop {
                for rule in [CUT, Rule::default()] {
                    wires.set(&links, rule);
                    sleep(FLAP).await;
                }
            }
        }));
        Ok(format!("the links of node{number} flap for {:?}", self.lasts))
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        if let Some(task) = self.task.take() {
            task.abort();
            // It was aborted, as it says.
            drop(task.await);
        }
        arena.world.wires.set(&self.links, Rule::default());
        Ok(())
    }

    async fn proof(&self, arena: &Arena) -> Outcome<String> {
        let now = sum(&arena.world.wires, &self.links);
        let cut = now.cut - self.counted.cut;
        let passed = now.packets - self.counted.packets - cut;
        if cut == 0 || passed == 0 {
            return Err(format!("{cut} packets were cut and {passed} passed").into());
        }
        Ok(format!("{cut} packets cut, {passed} passed"))
    }
}

/// Everything between nodes, source and sink is lost now and then, late, or doubled.
pub(super) struct Spoil {
    rule: Rule,
    lasts: Duration,
    links: Vec<Link>,
    counted: Counts,
}

impl Spoil {
    pub(super) fn of(rule: Rule, lasts: Duration) -> Self {
        Self { rule, lasts, links: Vec::new(), counted: Counts::default() }
    }
}

#[async_trait]
impl Fault for Spoil {
    fn lasts(&self) -> Duration {
        self.lasts
    }

    async fn inject(&mut self, arena: &mut Arena) -> Outcome<String> {
        self.links = arena.world.between_nodes();
        self.links.extend(arena.world.links_to(SOURCE));
        self.links.extend(arena.world.links_to(SINK));
        self.counted = sum(&arena.world.wires, &self.links);
        arena.world.wires.set(&self.links, self.rule);
        let Rule { loss_percent, duplicate_percent, delay, jitter, .. } = self.rule;
        Ok(format!(
            "{loss_percent} % lost, {delay:?} and up to {jitter:?} late, {duplicate_percent} % \
             doubled, for {:?}",
            self.lasts
        ))
    }

    async fn heal(&mut self, arena: &mut Arena) -> Outcome<()> {
        arena.world.wires.set(&self.links, Rule::default());
        Ok(())
    }

    async fn proof(&self, arena: &Arena) -> Outcome<String> {
        let now = sum(&arena.world.wires, &self.links);
        let lost = now.lost - self.counted.lost;
        let delayed = now.delayed - self.counted.delayed;
        let doubled = now.duplicated - self.counted.duplicated;
        let wanted = [
            (self.rule.loss_percent > 0.0, lost),
            (self.rule.jitter > Duration::ZERO, delayed),
            (self.rule.duplicate_percent > 0.0, doubled),
        ];
        if wanted.iter().any(|(wanted, count)| *wanted && *count == 0) {
            return Err(format!("{lost} lost, {delayed} late, {doubled} doubled").into());
        }
        Ok(format!("{lost} packets lost, {delayed} late, {doubled} doubled"))
    }
}

/// What all these links have done.
pub(super) fn sum(wires: &Wires, links: &[Link]) -> Counts {
    let mut all = Counts::default();
    for link in links {
        let counts = wires.counts(*link);
        all.packets += counts.packets;
        all.bytes += counts.bytes;
        all.cut += counts.cut;
        all.lost += counts.lost;
        all.delayed += counts.delayed;
        all.duplicated += counts.duplicated;
    }
    all
}
