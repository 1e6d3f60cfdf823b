//! A source of several lanes, each with an order of its own; readers meet them in
//! any order, so two owners do not number the same changes alike.

use rand::Rng as _;
use rand::rngs::StdRng;
use tidegate_proto::v1::Progress;

use super::event::Micros;

const LANES: usize = 3;

/// A change: which of its lane's it is, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Item {
    pub(super) lane: usize,
    pub(super) number: u64,
}

/// How many of each lane were taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place(pub(super) [u64; LANES]);

impl Place {
    pub(super) fn of(progress: &Progress) -> Self {
        let mut place = Self::default();
        for (at, bytes) in place.0.iter_mut().zip(progress.stream.chunks_exact(8)) {
            *at = u64::from_be_bytes(bytes.try_into().unwrap());
        }
        place
    }

    pub(super) fn progress(self) -> Progress {
        let stream: Vec<u8> = self.0.iter().flat_map(|at| at.to_be_bytes()).collect();
        Progress { stream: stream.into(), ..Progress::default() }
    }
}

/// What one shard's source has.
#[derive(Debug)]
pub(super) struct Source {
    /// Microseconds from one change of a lane to the next.
    every: Micros,
    /// No changes after this.
    until: Micros,
}

impl Source {
    pub(super) fn new(every: Micros, until: Micros) -> Self {
        Self { every, until }
    }

    /// What each lane holds at `now`.
    pub(super) fn held(&self, now: Micros) -> Place {
        Place([now.min(self.until) / self.every; LANES])
    }

    /// Up to `most` changes behind `place`, which moves with them.
    pub(super) fn read(
        &self,
        place: &mut Place,
        now: Micros,
        most: usize,
        rng: &mut StdRng,
    ) -> Vec<Item> {
        let held = self.held(now);
        let mut items = Vec::new();
        for _ in 0..most {
            let lane = rng.random_range(0..LANES);
            if place.0[lane] < held.0[lane] {
                place.0[lane] += 1;
                items.push(Item { lane, number: place.0[lane] });
            }
        }
        items
    }
}
