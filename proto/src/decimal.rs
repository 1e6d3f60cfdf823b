//! Exact decimal numbers of any size, for keys and for JSON.

use std::cmp::Ordering;
use std::fmt;

/// Digits an `i128` surely holds, and the most a Variant decimal may have.
pub(crate) const DIGITS_MAX: u8 = 38;

/// An exact number: `±0.DIGITS × 10^power`, without zeros at either end.
///
/// Equal numbers are equal whatever they were written as: `1`, `1.0`, `10e-1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decimal {
    negative: bool,
    /// ASCII; empty for zero, which is then neither negative nor has a power.
    digits: Vec<u8>,
    power: i32,
}

impl Decimal {
    /// Reads `[+-] digits [. digits] [e [+-] digits]`; `None` if it is not that,
    /// or if its power of ten does not fit an `i32`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], exponent(&text[at + 1..])?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = [whole.as_bytes(), fraction.as_bytes()].concat();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let power = exponent.checked_add(i64::try_from(whole.len()).ok()?)?;
        Self::trimmed(negative, &digits, power)
    }

    /// `unscaled × 10^-scale`.
    #[must_use]
    pub fn from_parts(unscaled: i128, scale: i16) -> Self {
        let digits = unscaled.unsigned_abs().to_string();
        let power = i64::try_from(digits.len()).unwrap_or(i64::MAX) - i64::from(scale);
        Self::trimmed(unscaled < 0, digits.as_bytes(), power).unwrap_or_default()
    }

    /// `±0.DIGITS × 10^power` for ASCII digits with or without zeros around.
    pub(crate) fn trimmed(negative: bool, digits: &[u8], power: i64) -> Option<Self> {
        let Some(first) = digits.iter().position(|digit| *digit != b'0') else {
            return Some(Self::default());
        };
        let behind = digits.iter().rposition(|digit| *digit != b'0').map_or(first, |last| last + 1);
        let power = power.checked_sub(i64::try_from(first).ok()?)?;
        let digits = digits[first..behind].to_vec();
        Some(Self { negative, digits, power: i32::try_from(power).ok()? })
    }

    /// The same number as `unscaled × 10^-scale`, `unscaled` without zeros at
    /// its end; `None` if it has more than 38 digits or `scale` is no `i16`.
    #[must_use]
    pub fn to_parts(&self) -> Option<(i128, i16)> {
        if self.digits.len() > usize::from(DIGITS_MAX) {
            return None;
        }
        let scale = i64::try_from(self.digits.len()).ok()? - i64::from(self.power);
        Some((self.signed(self.digits.iter()), i16::try_from(scale).ok()?))
    }

    /// The same with a scale from 0 to 38, as Variant decimals have it.
    #[must_use]
    pub fn to_fixed(&self) -> Option<(i128, u8)> {
        let (unscaled, scale) = self.to_parts()?;
        if let Ok(scale) = u8::try_from(scale) {
            return (scale <= DIGITS_MAX).then_some((unscaled, scale));
        }
        let zeros = usize::from(scale.unsigned_abs());
        if self.digits.len() + zeros > usize::from(DIGITS_MAX) {
            return None;
        }
        let padding = std::iter::repeat_n(&b'0', zeros);
        Some((self.signed(self.digits.iter().chain(padding)), 0))
    }

    /// Below zero.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.negative
    }

    /// ASCII digits behind the point of `0.DIGITS`; none for zero.
    pub(crate) fn digits(&self) -> &[u8] {
        &self.digits
    }

    /// The power of ten behind `0.DIGITS`.
    pub(crate) fn power(&self) -> i32 {
        self.power
    }

    fn signed<'a>(&self, digits: impl Iterator<Item = &'a u8>) -> i128 {
        let size = digits.fold(0_i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
        if self.negative { -size } else { size }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.digits.is_empty(), number.negative) {
            (true, _) => 0_i8,
            (false, true) => -1,
            (false, false) => 1,
        };
        let size = |one: &Self, two: &Self| {
            one.power.cmp(&two.power).then_with(|| one.digits.cmp(&two.digits))
        };
        sign(self)
            .cmp(&sign(other))
            .then_with(|| if self.negative { size(other, self) } else { size(self, other) })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As JSON writes numbers: plain up to 38 places either side of the point,
/// with an exponent beyond.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.digits.is_empty() {
            return f.write_str("0");
        }
        if self.negative {
            f.write_str("-")?;
        }
        let digits = str::from_utf8(&self.digits).map_err(|_| fmt::Error)?;
        let places = i64::try_from(digits.len()).unwrap_or(i64::MAX) - i64::from(self.power);
        let plain = i64::from(DIGITS_MAX);
        if i64::from(self.power) > plain || places > plain {
            let (first, rest) = digits.split_at(1);
            let point = if rest.is_empty() { "" } else { "." };
            return write!(f, "{first}{point}{rest}e{}", i64::from(self.power) - 1);
        }
        let whole = usize::try_from(self.power).unwrap_or(0);
        if whole >= digits.len() {
            return write!(f, "{digits}{:0<1$}", "", whole - digits.len());
        }
        if whole > 0 {
            return write!(f, "{}.{}", &digits[..whole], &digits[whole..]);
        }
        let zeros = usize::try_from(self.power.unsigned_abs()).unwrap_or(0);
        write!(f, "0.{:0<zeros$}{digits}", "")
    }
}

/// A signed whole number behind an `e`.
fn exponent(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sound = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if sound { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn equal_numbers_are_equal_however_they_are_written() {
        for same in ["1", "1.0", "+1", "10e-1", "0.1E+1", "0001.000"] {
            assert_eq!(number(same), number("1"), "{same}");
        }
        assert_eq!(number("-0.0"), number("0e99"));
        assert_eq!(Decimal::from_parts(-1500, 2), number("-15"));
    }

    #[test]
    fn numbers_print_plainly_until_they_are_too_long() {
        for text in ["0", "-3", "1.5", "0.05", "1200", "-0.000001", "1e38", "1.5e-130", "-2.25e40"]
        {
            assert_eq!(number(text).to_string(), text);
        }
        assert_eq!(number("1e37").to_string(), format!("1{}", "0".repeat(37)));
        assert_eq!(number("1e-38").to_string(), format!("0.{}1", "0".repeat(37)));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-", ".", "e5", "1e", "1e+", "1.2.3", "0x10", "NaN", "1 ", "1e99999999999"]
        {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn thirty_eight_digits_fit_and_thirty_nine_do_not() {
        let nines = "9".repeat(38);
        let most: i128 = nines.parse().unwrap();
        assert_eq!(number(&nines).to_fixed(), Some((most, 0)));
        assert_eq!(number(&format!("-0.{nines}")).to_fixed(), Some((-most, 38)));
        assert_eq!(number(&format!("{nines}9")).to_fixed(), None);
        assert_eq!(number("1e37").to_fixed(), Some((10_i128.pow(37), 0)));
        assert_eq!(number("1e38").to_fixed(), None);
        assert_eq!(number("1e-39").to_fixed(), None);
    }

    proptest! {
        #[test]
        fn parts_and_text_come_back(unscaled in -10_i128.pow(37)..10_i128.pow(37), scale in -200_i16..200) {
            let one = Decimal::from_parts(unscaled, scale);
            prop_assert_eq!(&number(&one.to_string()), &one);
            prop_assert_eq!(&number(&format!("{unscaled}e{}", -i32::from(scale))), &one);
            let (unscaled, scale) = one.to_parts().unwrap();
            prop_assert_eq!(Decimal::from_parts(unscaled, scale), one);
        }

        #[test]
        fn order_is_numeric(one in -100_000_i128..100_000, two in -100_000_i128..100_000, up in 0_u8..6, down in 0_u8..6) {
            let exact = |unscaled: i128, scale: u8| unscaled * 10_i128.pow(u32::from(6 - scale));
            let left = Decimal::from_parts(one, i16::from(up));
            let right = Decimal::from_parts(two, i16::from(down));
            prop_assert_eq!(left.cmp(&right), exact(one, up).cmp(&exact(two, down)));
        }
    }
}
