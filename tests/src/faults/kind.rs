//! The list of faults.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::Fault;
use super::clock::Clock;
use super::disk::{BadSync, Full, PowerLoss, Share, Sync};
use super::doubt::Doubt;
use super::late::Late;
use super::member::{Loss, Replaced};
use super::network::{Cut, Flap, Shape, Spoil};
use super::pest::Pest;
use super::process::{Freeze, Kill, Whom};
use super::sink::{Flawed, Outage, Trouble};
use super::torn::Torn;
use super::versions::Versions;
use super::zombie::Zombie;
use crate::world::{Extra, Extras, Rule};

/// So that a node that was away has to be sent the state soon, and in many pieces.
const LITTLE_LOG: &str = "[cluster]\nlog-entries = 500\nstate-chunk-bytes = 256\n";

/// How soon all is to be well again, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// A shard's longest stall, from when the fault began.
    Stall(f64),
    /// From when the fault ended: nothing need come while it lasts.
    AfterItsEnd(f64),
}

/// A row of the fault matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// A shard's owner is killed.
    F1,
    /// The leader is killed.
    F2,
    /// All nodes are killed at once.
    F3,
    /// The power of one node, most, or all fails.
    F4,
    /// An owner stands still and goes on.
    F5,
    /// The leader stands still, again and again.
    F6,
    /// The leader is alone.
    F7,
    /// The leader can send and not receive.
    F8,
    /// An owner sees source and sink, and no other node.
    F9,
    /// A node sees the cluster, and not the source or not the sink.
    F10,
    /// Two nodes do not see each other.
    F11,
    /// A link goes on and off.
    F12,
    /// Packets are lost.
    F13,
    /// Packets are late, overtake each other, and come twice.
    F14,
    /// A connection's other end is gone and nobody says so.
    F15,
    /// Every sync of a disk is slow.
    F16,
    /// A sync fails once.
    F17,
    /// A disk is full.
    F18,
    /// Nodes die in the middle of a record.
    F19,
    /// Bits of a node's memory of the cluster flip.
    F20,
    /// A node that was away for long gets the state in pieces, and is disturbed.
    F22,
    /// A node is removed and another takes its place.
    F23,
    /// A node comes back without its disk.
    F24,
    /// A clock is an hour wrong, ahead and behind.
    F25,
    /// All nodes are rolled to another version and back.
    F26,
    /// The sink is down, slow, busy, or mute.
    F30,
    /// Nobody knows what became of a commit.
    F31,
    /// The object store keeps its promises, and nothing beyond them.
    F32,
    /// Subscribers stop reading or come with wrong tokens.
    F33,
    /// An owner stands still where a batch for each kind of sink is half written.
    F34,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 30] = [
        Self::F1,
        Self::F2,
        Self::F3,
        Self::F4,
        Self::F5,
        Self::F6,
        Self::F7,
        Self::F8,
        Self::F9,
        Self::F10,
        Self::F11,
        Self::F12,
        Self::F13,
        Self::F14,
        Self::F15,
        Self::F16,
        Self::F17,
        Self::F18,
        Self::F19,
        Self::F20,
        Self::F22,
        Self::F23,
        Self::F24,
        Self::F25,
        Self::F26,
        Self::F30,
        Self::F31,
        Self::F32,
        Self::F33,
        Self::F34,
    ];

    /// What a world must have for faults of these kinds.
    #[must_use]
    pub fn need(kinds: &[Self]) -> Extras {
        let any = |which: &[Self]| kinds.iter().any(|kind| which.contains(kind));
        let settings = if any(&[Self::F22]) { LITTLE_LOG } else { "" };
        let disks = any(&[Self::F4, Self::F16, Self::F17, Self::F18, Self::F34]);
        let parts = [(disks, Extra::Disks), (any(&[Self::F31, Self::F34]), Extra::Database)];
        let parts = parts.into_iter().filter_map(|(needed, part)| needed.then_some(part));
        Extras { parts: parts.collect(), settings: settings.to_owned() }
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Self::F1 => "SIGKILL of a shard owner",
            Self::F2 => "SIGKILL of the leader",
            Self::F3 => "SIGKILL of all nodes at once",
            Self::F4 => "power loss: what was not on disk is gone",
            Self::F5 => "an owner is frozen and thawed",
            Self::F6 => "the leader is frozen, repeatedly",
            Self::F7 => "partition: the leader is alone",
            Self::F8 => "one-way partition: the leader sends and does not hear",
            Self::F9 => "an owner sees source and sink, not the cluster",
            Self::F10 => "a node sees the cluster, not the source or the sink",
            Self::F11 => "partial partition: a chain of nodes",
            Self::F12 => "a link flaps every 200 ms",
            Self::F13 => "packet loss of 5 or 30 %",
            Self::F14 => "late, reordered and duplicated packets",
            Self::F15 => "half-open connections",
            Self::F16 => "a disk whose syncs take 500 ms",
            Self::F17 => "a sync that fails once",
            Self::F18 => "a disk without room",
            Self::F19 => "a torn record ends the write-ahead logs of one node or all",
            Self::F20 => "flipped bits in a node's log; another takes its place",
            Self::F22 => "the state is sent to a late node that is killed or cut off",
            Self::F23 => "a node is replaced under load",
            Self::F24 => "a node with an empty disk under its old name; then replaced",
            Self::F25 => "a clock an hour ahead, then an hour behind",
            Self::F26 => "all nodes are rolled to another version, one by one, and back",
            Self::F30 => "the sink is down, slow, answers 503 or not at all",
            Self::F31 => "the answer to a commit, or the commit, is lost",
            Self::F32 => "the store fails, hides success, refuses wrongly, lists what was",
            Self::F33 => "subscribers stop reading, or resume with wrong tokens",
            Self::F34 => "an owner is frozen between data and commit at every sink",
        }
    }

    /// How soon all is to be well again; `None` where nothing is said of it.
    #[must_use]
    pub fn goal(self) -> Option<Goal> {
        match self {
            Self::F1 => Some(Goal::Stall(1500.0)),
            Self::F2 | Self::F5 | Self::F6 | Self::F7 | Self::F9 | Self::F17 | Self::F26 => {
                Some(Goal::Stall(3000.0))
            }
            Self::F8 | Self::F10 | Self::F22 | Self::F23 => Some(Goal::Stall(5000.0)),
            Self::F11 | Self::F16 => Some(Goal::Stall(10_000.0)),
            Self::F3 | Self::F4 | Self::F12 | Self::F18 => Some(Goal::AfterItsEnd(5000.0)),
            Self::F19 | Self::F30 => Some(Goal::AfterItsEnd(2000.0)),
            Self::F13
            | Self::F14
            | Self::F15
            | Self::F20
            | Self::F24
            | Self::F25
            | Self::F31
            | Self::F32
            | Self::F33
            | Self::F34 => None,
        }
    }

    /// One of its kind.
    pub(super) fn draw(self, random: &mut StdRng) -> Box<dyn Fault> {
        let pick = random.random_range(0..usize::from(u8::MAX));
        let seconds = |random: &mut StdRng, from: u64, upto: u64| {
            Duration::from_millis(random.random_range(from * 1000..=upto * 1000))
        };
        let lasts = seconds(random, 3, 7);
        match self {
            Self::F1 => Box::new(Kill::of(Whom::Owner(pick), seconds(random, 1, 4))),
            Self::F2 => Box::new(Kill::of(Whom::Leader, seconds(random, 1, 4))),
            Self::F3 => Box::new(Kill::of(Whom::All, Duration::from_millis(500))),
            Self::F4 => {
                let shares = [Share::One(pick / 3), Share::Most(pick / 3), Share::All];
                Box::new(PowerLoss::of(shares[pick % 3]))
            }
            Self::F5 => Box::new(Freeze::of(Whom::Owner(pick), 1, seconds(random, 4, 15))),
            Self::F6 => Box::new(Freeze::of(Whom::Leader, 3, seconds(random, 4, 5))),
            Self::F7 => Box::new(Cut::of(Shape::LeaderAlone, lasts)),
            Self::F8 => Box::new(Cut::of(Shape::LeaderDeaf, lasts)),
            Self::F9 => Box::new(Cut::of(Shape::OwnerAlone(pick), lasts)),
            Self::F10 => {
                let shape = if pick % 2 == 0 { Shape::NoSource } else { Shape::NoSink(pick) };
                // As long as it takes to be sure, and some more.
                Box::new(Cut::of(shape, lasts + Duration::from_secs(3)))
            }
            Self::F11 => Box::new(Cut::of(Shape::Chain(pick), lasts)),
            Self::F12 => Box::new(Flap::of(pick, seconds(random, 5, 15))),
            Self::F13 => {
                let loss_percent = if pick % 2 == 0 { 5.0 } else { 30.0 };
                Box::new(Spoil::of(Rule { loss_percent, ..Rule::default() }, lasts))
            }
            Self::F14 => {
                let rule = Rule {
                    delay: Duration::from_millis(50),
                    jitter: Duration::from_millis(100),
                    duplicate_percent: 5.0,
                    ..Rule::default()
                };
                Box::new(Spoil::of(rule, lasts))
            }
            Self::F15 => Box::new(Cut::of(Shape::Pair(pick), seconds(random, 10, 15))),
            Self::F16 => Box::new(BadSync::of(Sync::Slow, pick, seconds(random, 4, 10))),
            Self::F17 => {
                let folder = if pick % 2 == 0 { "/raft/" } else { "/spool/" };
                Box::new(BadSync::of(Sync::Fails(folder), pick / 2, lasts))
            }
            Self::F18 => Box::new(Full::of(pick, lasts)),
            Self::F19 => Box::new(Torn::of(pick, random.random())),
            Self::F20 => Box::new(Replaced::of(Loss::Bits, pick)),
            Self::F22 => Box::new(Late::of(pick, random.random())),
            Self::F23 => Box::new(Replaced::of(Loss::Place, pick)),
            Self::F24 => Box::new(Replaced::of(Loss::Disk, pick)),
            Self::F25 => Box::new(Clock::of(pick, seconds(random, 4, 6))),
            Self::F26 => Box::new(Versions::of(pick, lasts)),
            Self::F30 => {
                let troubles = [Trouble::Down, Trouble::Slow, Trouble::Busy, Trouble::Mute];
                Box::new(Outage::of(troubles[pick % troubles.len()], seconds(random, 5, 20)))
            }
            Self::F31 => Box::new(Doubt::of(pick, seconds(random, 5, 10))),
            Self::F32 => Box::new(Flawed::of(random.random(), seconds(random, 10, 15))),
            Self::F33 => Box::new(Pest::of(lasts)),
            Self::F34 => Box::new(Zombie::of(pick)),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self:?}")
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.to_string() == text);
        let all = Self::ALL.map(|kind| kind.to_string()).join(", ");
        found.ok_or_else(|| format!("there is no fault {text}; there are {all}"))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn a_seed_draws_the_same_faults() {
        let lasts = |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            Kind::ALL.map(|kind| kind.draw(&mut random).lasts())
        };
        assert_eq!(lasts(3), lasts(3));
        assert_ne!(lasts(3), lasts(4));
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        assert_eq!("F9".parse(), Ok(Kind::F9));
        assert!("F99".parse::<Kind>().unwrap_err().contains("there are F1, F2"));
    }
}
