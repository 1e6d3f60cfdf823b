//! Points in time as RFC 3339 text: UTC, microseconds, years 0 to 9999.

use std::io::Write as _;

const DAY_MICROS: i64 = 86_400 * SECOND_MICROS;
const SECOND_MICROS: i64 = 1_000_000;
/// Days in 400 years.
const ERA_DAYS: i64 = 146_097;
/// From 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;

/// Appends `2026-01-31T12:00:00.000000Z`; writes nothing and says `false` if
/// the year needs more than four digits.
pub(super) fn write(micros: i64, out: &mut Vec<u8>) -> bool {
    let (days, rest) = (micros.div_euclid(DAY_MICROS), micros.rem_euclid(DAY_MICROS));
    let (year, month, day) = date(days);
    if !(0..=9999).contains(&year) {
        return false;
    }
    let (seconds, fraction) = (rest / SECOND_MICROS, rest % SECOND_MICROS);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let written = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z"
    );
    written.is_ok()
}

/// Microseconds since 1970 of text as [`write`] makes it, with up to six
/// digits behind the point or none.
pub(super) fn parse(text: &str) -> Option<i64> {
    let bytes = text.strip_suffix('Z')?.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let (head, fraction) = bytes.split_at_checked(shape.len())?;
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'd' => byte.is_ascii_digit(),
        sign => byte == sign,
    };
    if !head.iter().zip(shape).all(fits) {
        return None;
    }
    let at = |from: usize, upto: usize| number(&head[from..upto]);
    let (year, month, day) = (at(0, 4), at(5, 7), at(8, 10));
    let (hour, minute, second) = (at(11, 13), at(14, 16), at(17, 19));
    let days = days(year, month, day);
    if hour > 23 || minute > 59 || second > 59 || date(days) != (year, month, day) {
        return None;
    }
    let seconds = hour * 3600 + minute * 60 + second;
    Some(days * DAY_MICROS + seconds * SECOND_MICROS + fraction_micros(fraction)?)
}

fn fraction_micros(text: &[u8]) -> Option<i64> {
    let [point, digits @ ..] = text else { return Some(0) };
    let sound = *point == b'.' && (1..=6).contains(&digits.len());
    if !sound || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some((digits.len()..6).fold(number(digits), |micros, _| micros * 10))
}

fn number(digits: &[u8]) -> i64 {
    digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'))
}

/// Year, month and day of a day since 1970, in the Gregorian calendar. Years
/// are counted from March, so that a leap day is a year's last.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH_DAYS;
    let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let leaps = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / (ERA_DAYS - 1);
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The day since 1970; a month of 13 or a day of 31 in April runs over.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * ERA_DAYS + day_of_era - EPOCH_DAYS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(micros: i64) -> Option<String> {
        let mut out = Vec::new();
        write(micros, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn known_times_are_written_and_read() {
        let known = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_827_696_789_012, "2000-02-29T12:34:56.789012Z"),
            (-62_167_219_200_000_000, "0000-01-01T00:00:00.000000Z"),
            (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
        ];
        for (micros, expected) in known {
            assert_eq!(text(micros).unwrap(), expected);
            assert_eq!(parse(expected), Some(micros));
        }
        assert_eq!(parse("1970-01-01T00:00:01Z"), Some(1_000_000));
        assert_eq!(parse("1970-01-01T00:00:00.5Z"), Some(500_000));
        for beyond in [253_402_300_800_000_000, -62_167_219_200_000_001, i64::MAX, i64::MIN] {
            assert_eq!(text(beyond), None);
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let wrong = [
            "",
            "Z",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00+00:00",
            "1970-02-30T00:00:00Z",
            "1970-13-01T00:00:00Z",
            "1970-00-01T00:00:00Z",
            "1970-01-00T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:60Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00.1234567Z",
            "1970-01-01 00:00:00Z",
            "1900-02-29T00:00:00Z",
            "1970-01-01T00:00:0éZ",
        ];
        for text in wrong {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn times_come_back(micros in -62_167_219_200_000_000_i64..253_402_300_800_000_000) {
            prop_assert_eq!(parse(&text(micros).unwrap()), Some(micros));
        }
    }
}
