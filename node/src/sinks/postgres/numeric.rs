//! Numbers as PostgreSQL's `numeric` has them on the wire: exact.

/// Digits before the point, and behind it, that `numeric` holds.
const WHOLE_DIGITS_MAX: i64 = 131_072;
const PLACES_MAX: i64 = 16_383;
/// Decimal digits in one of its digits.
const GROUP: usize = 4;

/// The number that `text` writes, `[-] digits [. digits] [e [+-] digits]`, in
/// binary; `None` if it is no number or beyond what `numeric` holds.
pub(super) fn encode(text: &str) -> Option<Vec<u8>> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole.as_bytes(), fraction.as_bytes()].concat();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let Some(first) = digits.iter().position(|digit| *digit != b'0') else {
        return Some(vec![0; 8]);
    };
    let behind = digits.iter().rposition(|digit| *digit != b'0')? + 1;
    // The number is 0.DIGITS × 10^power.
    let power = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let power = power.checked_sub(i64::try_from(first).ok()?)?;
    let digits = &digits[first..behind];
    let places = i64::try_from(digits.len()).ok()?.checked_sub(power)?.max(0);
    if power > WHOLE_DIGITS_MAX || places > PLACES_MAX {
        return None;
    }
    let weight = (power - 1).div_euclid(4);
    let lead = usize::try_from((weight + 1) * 4 - power).ok()?;
    let groups = grouped(digits, lead);
    let mut out = Vec::with_capacity(8 + 2 * groups.len());
    out.extend_from_slice(&i16::try_from(groups.len()).ok()?.to_be_bytes());
    out.extend_from_slice(&i16::try_from(weight).ok()?.to_be_bytes());
    out.extend_from_slice(&(u16::from(negative) << 14).to_be_bytes());
    out.extend_from_slice(&u16::try_from(places).ok()?.to_be_bytes());
    out.extend(groups.iter().flat_map(|group| group.to_be_bytes()));
    Some(out)
}

/// Four decimal digits at a time, with `lead` zeros before the first.
fn grouped(digits: &[u8], lead: usize) -> Vec<i16> {
    let zeros = std::iter::repeat_n(&b'0', lead);
    let padded: Vec<i16> =
        zeros.chain(digits).map(|digit| i16::from(*digit) - i16::from(b'0')).collect();
    let value = |group: &[i16]| {
        let digits = group.iter().fold(0, |sum, digit| sum * 10 + digit);
        (group.len()..GROUP).fold(digits, |sum, _| sum * 10)
    };
    padded.chunks(GROUP).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (i16, u16, u16, Vec<i16>) {
        let bytes = encode(text).unwrap();
        let two = |at: usize| [bytes[at], bytes[at + 1]];
        let groups: Vec<_> =
            bytes[8..].chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect();
        assert_eq!(usize::try_from(i16::from_be_bytes(two(0))).unwrap(), groups.len());
        let (weight, sign) = (i16::from_be_bytes(two(2)), u16::from_be_bytes(two(4)));
        (weight, sign, u16::from_be_bytes(two(6)), groups)
    }

    #[test]
    fn digits_are_grouped_around_the_point() {
        assert_eq!(parts("0"), (0, 0, 0, vec![]));
        assert_eq!(parts("-0.00"), (0, 0, 0, vec![]));
        assert_eq!(parts("1"), (0, 0, 0, vec![1]));
        assert_eq!(parts("10000"), (1, 0, 0, vec![1]));
        assert_eq!(parts("-12345.678"), (1, 0x4000, 3, vec![1, 2345, 6780]));
        assert_eq!(parts("0.0001"), (-1, 0, 4, vec![1]));
        assert_eq!(parts("0.00001"), (-2, 0, 5, vec![1000]));
        assert_eq!(parts("1.5e-130").2, 131);
        assert_eq!(parts("12e7"), (2, 0, 0, vec![1, 2000]));
    }

    #[test]
    fn what_numeric_does_not_hold_is_refused() {
        for text in ["1e131072", "1e-16384", "", "x", "1e", "--1", "1e99999999999999999999"] {
            assert_eq!(encode(text), None, "{text}");
        }
        assert!(encode("1e131071").is_some() && encode("1e-16383").is_some());
    }
}
