//! What is written down of a run.

use std::time::Duration;

/// Rates that were taken.
pub(crate) struct Rates {
    pub(crate) alone: f64,
    pub(crate) reading: f64,
    pub(crate) captured: f64,
}

/// How it ended.
pub(crate) struct End {
    pub(crate) commands: u64,
    pub(crate) changes: u64,
    pub(crate) keys: usize,
    pub(crate) behind: Duration,
    pub(crate) gaps: Vec<String>,
    pub(crate) overflows: usize,
    pub(crate) lines: Vec<String>,
}

/// The page of a run.
pub(crate) fn page((measured, rate, keys): (&str, u32, u32), rates: &Rates, end: &End) -> String {
    let Rates { alone, reading, captured } = rates;
    let share = reading / alone;
    let End { commands, changes, keys: held, behind, gaps, overflows, lines } = end;
    let behind = behind.as_secs_f64();
    format!(
        "# Redis under load\n\n\
         Made by `make bench-redis RATE={rate} KEYS={keys}`: {measured}. Three nodes, one Redis,\n\
         a lake, all on one machine; commands of every type, {keys} keys of each.\n\n\
         Redis takes {alone:.0} commands a second alone and {reading:.0} while it is read ({share:.2});\n\
         {captured:.0} changes a second are captured then.\n\n\
         | what was done | seconds until changes were captured again |\n\
         | --- | ---: |\n{}\n\n\
         {commands} commands in all, {changes} changes. The lake had the last of them {behind:.1} s after\n\
         the last command; it equals Redis, {held} keys by type, value and end. The servers cut {overflows} clients that did\n\
         not take what was sent. Gaps, each mended:\n\n- {}\n",
        lines.join("\n"),
        gaps.join("\n- ")
    )
}
