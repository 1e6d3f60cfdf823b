//! Ranges of indices, scores and members.

use std::ops::Range;

use super::Stop;
use super::arguments::score;

/// The indices from `start` to `stop`, both included, of `length` elements; below
/// 0 they count from the end. Never beyond the end.
pub(super) fn slice(start: i64, stop: i64, length: usize) -> Range<usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let absolute = |at: i64| if at < 0 { at.saturating_add(length) } else { at };
    let from = absolute(start).clamp(0, length);
    let to = absolute(stop).saturating_add(1).clamp(0, length);
    let [from, to] = [from, to.max(from)].map(|at| usize::try_from(at).unwrap_or(0));
    from..to
}

/// From the least score to the greatest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scores {
    least: (f64, bool),
    most: (f64, bool),
}

impl Scores {
    /// As `(1.5` or `+inf`.
    pub(super) fn parse(least: &[u8], most: &[u8]) -> Result<Self, Stop> {
        let bound = |text: &[u8]| {
            let open = text.strip_prefix(b"(");
            Ok::<_, Stop>((score(open.unwrap_or(text))?, open.is_some()))
        };
        Ok(Self { least: bound(least)?, most: bound(most)? })
    }

    pub(super) fn holds(self, score: f64) -> bool {
        let ((least, above), (most, below)) = (self.least, self.most);
        (if above { score > least } else { score >= least })
            && (if below { score < most } else { score <= most })
    }
}

/// From the least member to the greatest, by their bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members<'a> {
    least: Bound<'a>,
    most: Bound<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Bound<'a> {
    First,
    Last,
    Closed(&'a [u8]),
    Open(&'a [u8]),
}

impl<'a> Members<'a> {
    /// As `[a`, `(b`, `-` or `+`.
    pub(super) fn parse(least: &'a [u8], most: &'a [u8]) -> Result<Self, Stop> {
        let bound = |text: &'a [u8]| match text.split_first() {
            Some((b'-', [])) => Ok(Bound::First),
            Some((b'+', [])) => Ok(Bound::Last),
            Some((b'[', member)) => Ok(Bound::Closed(member)),
            Some((b'(', member)) => Ok(Bound::Open(member)),
            _ => Err(Stop::Reread("a range of members")),
        };
        Ok(Self { least: bound(least)?, most: bound(most)? })
    }

    pub(super) fn holds(self, member: &[u8]) -> bool {
        let above = match self.least {
            Bound::First => true,
            Bound::Last => false,
            Bound::Closed(least) => member >= least,
            Bound::Open(least) => member > least,
        };
        above
            && match self.most {
                Bound::First => false,
                Bound::Last => true,
                Bound::Closed(most) => member <= most,
                Bound::Open(most) => member < most,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_count_from_both_ends() {
        assert_eq!(slice(0, -1, 3), 0..3);
        assert_eq!(slice(-2, -1, 3), 1..3);
        assert_eq!(slice(1, 99, 3), 1..3);
        assert_eq!(slice(2, 1, 3), 2..2);
        assert_eq!(slice(5, 9, 3), 3..3);
        assert_eq!(slice(-9, -7, 3), 0..0);
        assert_eq!(slice(i64::MIN, i64::MAX, 3), 0..3);
    }
}
