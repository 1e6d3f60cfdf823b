//! What becomes of a packet: pure, so that it is tested without any.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::Instant;

/// How long a link with a rate lets packets queue before it drops them.
const QUEUE_MAX: Duration = Duration::from_secs(1);
/// Where an IPv4 header holds the address of who sends, and of whom it is for.
const SOURCE: std::ops::Range<usize> = 12..16;
const DESTINATION: std::ops::Range<usize> = 16..20;

/// A machine of the world. Its number follows from its address and the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(pub u8);

impl Host {
    /// Its address in the world's one network, 10.77.0.0/24.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.0.saturating_add(1))
    }

    fn of(packet: &[u8], field: std::ops::Range<usize>) -> Option<Self> {
        let is_v4 = packet.first()? >> 4 == 4;
        match *packet.get(field)? {
            [10, 77, 0, last] if is_v4 => last.checked_sub(1).map(Self),
            _ => None,
        }
    }
}

/// One direction between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Who sends.
    pub from: Host,
    /// Who is sent to.
    pub to: Host,
}

impl Link {
    /// The link an IPv4 packet takes; `None` if it is not one of our network.
    #[must_use]
    pub fn of(packet: &[u8]) -> Option<Self> {
        Some(Self { from: Host::of(packet, SOURCE)?, to: Host::of(packet, DESTINATION)? })
    }

    /// Both directions between two hosts.
    #[must_use]
    pub fn both(one: Host, other: Host) -> [Self; 2] {
        [Self { from: one, to: other }, Self { from: other, to: one }]
    }
}

/// What a link does to packets. The default lets all of them pass at once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rule {
    /// Nothing passes, and nobody is told.
    pub cut: bool,
    /// Of 100 packets, so many are lost.
    pub loss_percent: f64,
    /// Of 100 packets, so many come twice.
    pub duplicate_percent: f64,
    /// How long a packet is under way.
    pub delay: Duration,
    /// Up to so much longer, drawn for each packet: they overtake each other.
    pub jitter: Duration,
    /// 0 for no limit.
    pub bytes_per_second: u64,
}

/// What a link has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that were sent into it.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets dropped because it was cut.
    pub cut: u64,
    /// Packets dropped by chance, or because its queue was full.
    pub lost: u64,
    /// Packets that left later than they came.
    pub delayed: u64,
    /// Packets that left twice.
    pub duplicated: u64,
}

/// When the copies of one packet leave; none if it is dropped.
pub type Departures = [Option<Instant>; 2];

/// All links. A link nobody has set a rule for lets everything pass.
#[derive(Debug)]
pub struct Switch {
    lines: BTreeMap<Link, Line>,
    random: StdRng,
}

#[derive(Debug, Default)]
struct Line {
    rule: Rule,
    counts: Counts,
    /// When what was sent before has left, on a link with a rate.
    free_at: Option<Instant>,
}

impl Switch {
    /// What is lost, doubled and overtaken follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { lines: BTreeMap::new(), random: StdRng::seed_from_u64(seed) }
    }

    /// From now on `link` does this. What is under way is not called back.
    pub fn set(&mut self, link: Link, rule: Rule) {
        let line = self.lines.entry(link).or_default();
        line.rule = rule;
        line.free_at = None;
    }

    /// From now on everything passes everywhere. Counts stay.
    pub fn clear(&mut self) {
        for line in self.lines.values_mut() {
            line.rule = Rule::default();
            line.free_at = None;
        }
    }

    /// What `link` has done since the beginning.
    #[must_use]
    pub fn counts(&self, link: Link) -> Counts {
        self.lines.get(&link).map(|line| line.counts).unwrap_or_default()
    }

    /// A packet of so many bytes is sent into `link`.
    pub fn take(&mut self, link: Link, bytes: usize, now: Instant) -> Departures {
        let line = self.lines.entry(link).or_default();
        let rule = line.rule;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        line.counts.packets += 1;
        line.counts.bytes += bytes;
        if rule.cut {
            line.counts.cut += 1;
            return [None, None];
        }
        let Some(sent) =
            line.sent(bytes, now).filter(|_| !hits(&mut self.random, rule.loss_percent))
        else {
            line.counts.lost += 1;
            return [None, None];
        };
        let first = sent + rule.delay + up_to(&mut self.random, rule.jitter);
        line.counts.delayed += u64::from(first > now);
        if !hits(&mut self.random, rule.duplicate_percent) {
            return [Some(first), None];
        }
        line.counts.duplicated += 1;
        [Some(first), Some(sent + rule.delay + up_to(&mut self.random, rule.jitter))]
    }
}

impl Line {
    /// When a packet has left the sender; `None` if the queue is full.
    fn sent(&mut self, bytes: u64, now: Instant) -> Option<Instant> {
        if self.rule.bytes_per_second == 0 {
            return Some(now);
        }
        let begins = self.free_at.map_or(now, |free| free.max(now));
        if begins.duration_since(now) > QUEUE_MAX {
            return None;
        }
        let micros = bytes.saturating_mul(1_000_000) / self.rule.bytes_per_second;
        let ends = begins + Duration::from_micros(micros);
        self.free_at = Some(ends);
        Some(ends)
    }
}

fn hits(random: &mut StdRng, percent: f64) -> bool {
    percent > 0.0 && random.random_range(0.0..100.0) < percent
}

fn up_to(random: &mut StdRng, most: Duration) -> Duration {
    let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
    if most == 0 { Duration::ZERO } else { Duration::from_micros(random.random_range(0..=most)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { from: Host(1), to: Host(2) };

    fn with(rule: Rule) -> Switch {
        let mut switch = Switch::new(7);
        switch.set(LINK, rule);
        switch
    }

    fn many(switch: &mut Switch, packets: usize) -> Vec<Departures> {
        let now = Instant::now();
        (0..packets).map(|_| switch.take(LINK, 1000, now)).collect()
    }

    #[test]
    fn a_packet_names_its_link_and_others_are_not_ours() {
        let mut packet = [0_u8; 20];
        packet[0] = 0x45;
        packet[SOURCE].copy_from_slice(&LINK.from.address().octets());
        packet[DESTINATION].copy_from_slice(&LINK.to.address().octets());
        assert_eq!(Link::of(&packet), Some(LINK));
        assert_eq!(Link::of(&packet[..18]), None, "cut short");
        packet[17] = 78;
        assert_eq!(Link::of(&packet), None, "another network");
    }

    #[test]
    fn a_cut_holds_one_direction_and_is_counted() {
        let mut switch = with(Rule { cut: true, ..Rule::default() });
        assert!(many(&mut switch, 5).iter().all(|it| *it == [None, None]));
        assert_eq!((switch.counts(LINK).cut, switch.counts(LINK).packets), (5, 5));
        let now = Instant::now();
        let back = Link { from: LINK.to, to: LINK.from };
        assert_eq!(switch.take(back, 1, now), [Some(now), None]);
        switch.clear();
        assert_eq!(switch.take(LINK, 1, now), [Some(now), None]);
        assert_eq!(switch.counts(LINK).cut, 5, "counts stay");
    }

    #[test]
    fn shares_of_loss_and_duplicates_are_as_set() {
        let rule = Rule { loss_percent: 30.0, duplicate_percent: 10.0, ..Rule::default() };
        let mut switch = with(rule);
        many(&mut switch, 10_000);
        let counts = switch.counts(LINK);
        assert!((2_800..3_200).contains(&counts.lost), "{counts:?}");
        assert!((600..800).contains(&counts.duplicated), "{counts:?}");
    }

    #[test]
    fn jitter_lets_packets_overtake_and_delay_alone_does_not() {
        let delay = Duration::from_millis(200);
        let first = |all: &[Departures]| all.iter().map(|it| it[0].unwrap()).collect::<Vec<_>>();
        let mut steady = with(Rule { delay, ..Rule::default() });
        assert!(first(&many(&mut steady, 100)).is_sorted());
        assert_eq!(steady.counts(LINK).delayed, 100);
        let mut shaken = with(Rule { delay, jitter: delay, ..Rule::default() });
        assert!(!first(&many(&mut shaken, 100)).is_sorted());
    }

    #[test]
    fn a_rate_spreads_packets_and_drops_what_would_wait_too_long() {
        let mut switch = with(Rule { bytes_per_second: 10_000, ..Rule::default() });
        let now = Instant::now();
        let left = |it: Departures| it[0].map(|at| at.duration_since(now).as_millis());
        assert_eq!(left(switch.take(LINK, 1000, now)), Some(100));
        assert_eq!(left(switch.take(LINK, 1000, now)), Some(200));
        many(&mut switch, 100);
        assert!(switch.counts(LINK).lost > 80, "{:?}", switch.counts(LINK));
    }

    #[test]
    fn a_seed_replays_to_the_letter() {
        let rule = Rule {
            loss_percent: 20.0,
            duplicate_percent: 20.0,
            jitter: Duration::from_millis(50),
            ..Rule::default()
        };
        let now = Instant::now();
        let run = || {
            let mut switch = with(rule);
            (0..500).map(|_| switch.take(LINK, 100, now)).collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }
}
