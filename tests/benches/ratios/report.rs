//! The table: on the terminal as it grows, and in two files.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::bench::{Better, Outcome, short};

/// One measured ratio.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) id: String,
    pub(crate) what: String,
    /// Of ours to the other side: the median over the rounds, and its ends.
    pub(crate) ratio: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) goal: f64,
    pub(crate) better: Better,
    /// `met`, `missed by N %`, or `none` and why.
    pub(crate) verdict: String,
    /// Both sides' own numbers, and what else there is to know.
    pub(crate) note: String,
    /// When, at which commit, and on what.
    pub(crate) measured: String,
}

/// All lines there are; those of rows that do not run stay as they were.
pub(crate) struct Report {
    folder: PathBuf,
    machine: String,
    measured: String,
    lines: Vec<Line>,
}

impl Report {
    /// Goes on from what lies in `folder`; refuses what it cannot read, since it
    /// would be written over.
    pub(crate) fn open(folder: PathBuf, machine: String, measured: String) -> Outcome<Self> {
        let path = folder.join("latest.json");
        let lines = match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .map_err(|error| format!("{} is not a report: {error}", path.display()))?,
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(Self { folder, machine, measured, lines })
    }

    /// Writes a table of its own, with what it was measured on.
    pub(crate) fn write_beside(&self, name: &str, table: &str) -> Outcome<()> {
        let text = format!("{table}\nMeasured {} on {}.\n", self.measured, self.machine);
        Ok(std::fs::write(self.folder.join(name), text)?)
    }

    #[expect(clippy::print_stdout, reason = "this is a program for a terminal")]
    pub(crate) fn say(&self, text: &str) {
        println!("{text}");
    }

    /// Takes out the lines of a row.
    pub(crate) fn forget(&mut self, row: &str) {
        self.lines.retain(|line| line.id.split('.').next() != Some(row));
    }

    /// Adds a line and writes both files.
    pub(crate) fn add(&mut self, line: Line) -> Outcome<()> {
        let measured = format!("{}, {}", self.measured, self.machine);
        let line = Line { measured, ..line };
        self.say(&format!(
            "  {:<14} {:>8}  ({} to {})  goal {} {}  {}: {}\n{:17}{}",
            line.id,
            short(line.ratio),
            short(line.min),
            short(line.max),
            sign(line.better),
            short(line.goal),
            line.verdict,
            line.what,
            "",
            line.note,
        ));
        self.lines.push(line);
        self.write()
    }

    fn write(&mut self) -> Outcome<()> {
        // SPOOL first, then P3, P5, ... P11 by number.
        let order = |line: &Line| {
            let row = line.id.split('.').next().unwrap_or_default();
            row.trim_start_matches('P').parse::<u32>().unwrap_or(0)
        };
        self.lines.sort_by_key(order);
        std::fs::create_dir_all(&self.folder)?;
        let json = serde_json::to_string_pretty(&self.lines)?;
        std::fs::write(self.folder.join("latest.json"), json + "\n")?;
        std::fs::write(self.folder.join("latest.md"), self.table()?)?;
        Ok(())
    }

    fn table(&self) -> Outcome<String> {
        let mut text = "\
            # Ratios\n\nMade by `make bench`; one row alone by `make bench ROWS=P3`. Rows are of several machines: two\n\
            of them compare by their ratios only. (Up to 2026-11-22 a row does not say of which.)\n\
            Each ratio is the median of rounds in which both sides ran in turn; in brackets its least and\n\
            greatest. There is no verdict where the other side itself varied by more than 15 %.\n\n\
            | id | what | ratio | goal | verdict | sides, notes | measured |\n\
            | --- | --- | --- | --- | --- | --- | --- |\n"
            .to_owned();
        for line in &self.lines {
            let (ratio, min, max) = (short(line.ratio), short(line.min), short(line.max));
            let goal = format!("{} {}", sign(line.better), short(line.goal));
            let Line { id, what, verdict, note, measured, .. } = line;
            writeln!(
                text,
                "| {id} | {what} | **{ratio}** ({min} to {max}) | {goal} | {verdict} | {note} | {measured} |"
            )?;
        }
        Ok(text)
    }
}

fn sign(better: Better) -> &'static str {
    match better {
        Better::Higher => "≥",
        Better::Lower => "≤",
    }
}
