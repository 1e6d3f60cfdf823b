//! What happened, as a number that two equal runs share, and as text on demand.

use super::event::Micros;

/// The notes of one run.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// Keeps the text too if `text`.
    pub(super) fn new(text: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: text.then(Vec::new) }
    }

    pub(super) fn note(&mut self, at: Micros, what: &'static str, numbers: &[u64]) {
        for byte in what.bytes() {
            self.mix(u64::from(byte));
        }
        self.mix(at);
        for number in numbers {
            self.mix(*number);
        }
        if let Some(lines) = &mut self.lines {
            let (s, us) = (at / 1_000_000, at % 1_000_000);
            lines.push(format!("{s:>3}.{us:06} {what} {numbers:?}"));
        }
    }

    /// A line that is only for people.
    pub(super) fn tell(&mut self, at: Micros, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            let (s, us) = (at / 1_000_000, at % 1_000_000);
            lines.push(format!("{s:>3}.{us:06} {}", text()));
        }
    }

    fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }

    pub(super) fn end(self) -> (u64, Vec<String>) {
        (self.hash, self.lines.unwrap_or_default())
    }
}
