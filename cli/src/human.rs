//! Numbers as people read them.

/// Bytes in binary units: `0 B`, `1.5 KiB`, `8 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 99.95);
    let text = format!("{value:.digits$}");
    format!("{} {}", text.strip_suffix(".0").unwrap_or(&text), UNITS[unit])
}

/// A whole number in groups of three: `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// So many per second: `850/s`, `12.3k/s`, `1.20M/s`; `-` while unknown.
pub(crate) fn rate(per_second: Option<f64>) -> String {
    match per_second {
        None => "-".to_owned(),
        Some(rate) if rate < 1000.0 => format!("{rate:.0}/s"),
        Some(rate) if rate < 1_000_000.0 => format!("{:.1}k/s", rate / 1e3),
        Some(rate) => format!("{:.2}M/s", rate / 1e6),
    }
}

/// A share of one: `42.5 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// `one node`, `3 nodes`.
pub(crate) fn plural(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_change_unit_where_people_expect_it() {
        let shown = [0, 1023, 1024, 1536, 1 << 20, 150 << 20, (1 << 30) - 1, u64::MAX].map(bytes);
        let wanted = ["0 B", "1023 B", "1 KiB", "1.5 KiB", "1 MiB", "150 MiB", "1 GiB", "16 EiB"];
        assert_eq!(shown, wanted);
    }

    #[test]
    fn counts_are_grouped_by_three() {
        assert_eq!([1, 999, 1000, 1_234_567].map(count), ["1", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn an_unknown_rate_is_not_zero() {
        assert_eq!(rate(None), "-");
        assert_eq!(rate(Some(0.0)), "0/s");
        assert_eq!(rate(Some(12_345.0)), "12.3k/s");
    }
}
