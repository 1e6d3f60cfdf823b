//! Sequence numbers of stream records.

use std::cmp::Ordering;
use std::fmt;

/// The most digits a sequence number has.
const DIGITS_MAX: usize = 40;

/// The number of a record within its stream shard: digits, too many for a
/// machine word, ordered as numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SequenceNumber(String);

impl SequenceNumber {
    /// `None` unless `text` is 1 to 40 digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = (1..=DIGITS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| Self(text.to_owned()))
    }

    /// As the store wrote it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn number(&self) -> &str {
        self.0.trim_start_matches('0')
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.number(), other.number());
        // The text decides between numbers that are equal but for leading zeros.
        a.len().cmp(&b.len()).then_with(|| a.cmp(b)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> SequenceNumber {
        SequenceNumber::parse(text).unwrap()
    }

    #[test]
    fn they_are_ordered_as_numbers() {
        assert!(number("9") < number("10"));
        assert!(number("000000000000000000009") < number("10"));
        assert!(number("4959033827149025660855969253836157109592") > number("7"));
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        for text in ["", "-1", "1a", " 1", "１", &"1".repeat(41)] {
            assert_eq!(SequenceNumber::parse(text), None, "{text}");
        }
    }
}
