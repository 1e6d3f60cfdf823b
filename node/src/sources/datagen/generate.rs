//! What the nth change of a shard is: arithmetic, without state.

use tidegate_proto::v1::Operation;

use super::DatagenConfig;

/// Tells the draws of a shard's first rows from those of its changes.
const ROWS: u64 = 1 << 63;

/// How many items every order has.
pub(super) const ITEMS: usize = 3;

/// One change, before it is encoded.
///
/// Its operation is drawn, not derived: an insert may meet a row that is there
/// already, a delete one that is not. Sinks go by key, as they must after a
/// replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generated {
    /// What happens.
    pub operation: Operation,
    /// To which row of the shard.
    pub row: u64,
    /// What the row holds afterwards; means nothing on delete.
    pub order: Order,
}

/// The fields of one document.
///
/// Every field has the same width in every order, so that a document is made
/// by writing into a copy of another (`template.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Six digits at least.
    pub customer: i32,
    /// In cents; does not end in 0.
    pub total: i32,
    /// Four letters.
    pub status: &'static str,
    /// What was ordered.
    pub items: [Item; ITEMS],
    /// The note's words are drawn from this.
    pub note: u64,
}

/// One line of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Printed with six digits.
    pub sku: u32,
    /// Two bytes wide.
    pub quantity: i16,
    /// In cents; does not end in 0.
    pub price: i32,
}

const STATUSES: [&str; 4] = ["open", "paid", "sent", "void"];

/// The change of `shard` that follows its first `n`.
#[must_use]
pub fn change(config: &DatagenConfig, shard: u32, n: u64) -> Generated {
    let mut draws = Draws::new(config.seed, shard, n);
    let operation = match u32::try_from(draws.below(100)).unwrap_or(0) {
        draw if draw < config.insert_percent => Operation::Insert,
        draw if draw < config.insert_percent + config.update_percent => Operation::Update,
        _ => Operation::Delete,
    };
    let row = match draws.below(100) < u64::from(config.skew_percent) {
        true => draws.zipf(config.keys),
        false => draws.below(config.keys),
    };
    debug_assert!(row < config.keys, "rows are drawn below the number of keys");
    Generated { operation, row, order: Order::draw(&mut draws) }
}

/// What `row` of `shard` holds before the first change.
#[must_use]
pub(super) fn first_order(config: &DatagenConfig, shard: u32, row: u64) -> Order {
    Order::draw(&mut Draws::new(config.seed, shard, ROWS | row))
}

impl Order {
    fn draw(draws: &mut Draws) -> Self {
        Self {
            customer: draws.number(100_000, 2_000_000_000),
            total: draws.cents(5_000_000),
            status: STATUSES[usize::try_from(draws.below(4)).unwrap_or(0)],
            items: std::array::from_fn(|_| Item {
                sku: draws.number(0, 999_999).unsigned_abs(),
                quantity: i16::try_from(draws.number(200, 999)).unwrap_or(i16::MAX),
                price: draws.cents(500_000),
            }),
            note: draws.next(),
        }
    }
}

/// Numbers that follow from a start (splitmix64; Steele et al., 2014).
#[derive(Clone, Debug)]
pub(super) struct Draws(u64);

impl Draws {
    fn new(seed: u64, shard: u32, n: u64) -> Self {
        let mut start = Self(seed ^ (u64::from(shard) << 32));
        let mixed = start.next();
        Self(mixed ^ n.wrapping_mul(0xD134_2543_DE82_EF95))
    }

    pub(super) fn from(start: u64) -> Self {
        Self(start)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Evenly from 0 up to, but not including, `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// From 0 up to, but not including, `bound`: about as often as 1 / (n + 1).
    fn zipf(&mut self, bound: u64) -> u64 {
        // Evenly among the powers of two, then evenly within: 1 / n in integers.
        loop {
            let octave = self.below(u64::from(bound.ilog2()) + 1);
            let drawn = (1_u64 << octave) + self.below(1 << octave);
            if drawn <= bound {
                return drawn - 1;
            }
        }
    }

    fn number(&mut self, from: i32, upto: i32) -> i32 {
        let span = u64::try_from(i64::from(upto) - i64::from(from)).unwrap_or(0) + 1;
        i32::try_from(i64::from(from) + self.below(span).cast_signed()).unwrap_or(upto)
    }

    fn cents(&mut self, upto: i32) -> i32 {
        self.number(100, upto) * 10 + self.number(1, 9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(config: &DatagenConfig) -> Vec<u32> {
        let mut counts = vec![0; usize::try_from(config.keys).unwrap()];
        for n in 0..20_000 {
            counts[usize::try_from(change(config, 0, n).row).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn the_mix_is_the_one_asked_for() {
        let config = DatagenConfig::default();
        let deletes =
            (0..10_000).filter(|n| change(&config, 0, *n).operation == Operation::Delete).count();
        assert!((800..1200).contains(&deletes), "{deletes} of 10000 are deletes");
    }

    #[test]
    fn without_skew_no_key_is_hot_and_with_it_the_low_ones_are() {
        let even = DatagenConfig { keys: 100, ..DatagenConfig::default() };
        let counted = counts(&even);
        assert!(counted.iter().all(|count| (100..320).contains(count)), "{counted:?}");
        let counted = counts(&DatagenConfig { skew_percent: 100, ..even });
        assert!(counted[0] > 2_000 && counted[0] > 20 * counted[99], "{counted:?}");
        assert!(counted.iter().all(|count| *count > 0), "every key is reached");
    }

    #[test]
    fn seed_shard_and_place_each_give_another_change() {
        let config = DatagenConfig::default();
        let one = change(&config, 0, 0);
        assert_eq!(one, change(&config, 0, 0));
        assert_ne!(one, change(&config, 0, 1));
        assert_ne!(one, change(&config, 1, 0));
        assert_ne!(one, change(&DatagenConfig { seed: 2, ..config }, 0, 0));
    }
}
