//! Lines of `deploy/bench/latest.*` with the id P14, and a page of their own.
//!
//! The other lines belong to `benches/ratios` and stay as they are.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use tidegate_tests::figures::Figures;

use crate::Outcome;

const ROW: &str = "P14";
const HEAD: &str = "# Ratios\n\n\
                    | id | what | ratio | goal | verdict | sides, notes | measured |\n\
                    | --- | --- | --- | --- | --- | --- | --- |\n";

/// One number and what it should be at most, in milliseconds.
pub(crate) struct Line {
    /// As `P14.kill-p50`.
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) value: f64,
    pub(crate) goal: f64,
    pub(crate) note: String,
}

/// Where the files lie, and what was measured when.
pub(crate) struct Report {
    folder: PathBuf,
    measured: String,
    page: String,
}

impl Report {
    pub(crate) fn new(folder: PathBuf, measured: String) -> Self {
        let page = format!(
            "# Failover\n\nMade by `make bench-failover`: {measured}. Three nodes, six shards, one\n\
             subscriber of all of them. A gap is the largest time between two arrivals of one\n\
             shard within a round. After each phase every change had come once and in order.\n"
        );
        Self { folder, measured, page }
    }

    /// Adds a paragraph or a part's title to the page, and says it.
    pub(crate) fn tell(&mut self, text: &str) {
        crate::say(text);
        self.page.push('\n');
        self.page.push_str(text);
        self.page.push('\n');
    }

    /// Adds figures to the page, and says them.
    pub(crate) fn figures(&mut self, what: &str, figures: &Figures) {
        self.tell(&format!("{what}: {}", figures.line()));
        if figures.count() > 0 {
            self.tell(&format!("```text\n{}```", figures.histogram()));
        }
    }

    /// Puts a line in the place of the one with its id, and writes all files.
    pub(crate) fn add(&self, line: &Line, figures: &Figures) -> Outcome<()> {
        std::fs::create_dir_all(&self.folder)?;
        std::fs::write(self.folder.join("failover.md"), &self.page)?;
        let path = self.folder.join("latest.json");
        // A file that is there and cannot be read is not written over.
        let mut lines: Vec<Value> = match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        lines.retain(|it| it["id"] != line.id);
        lines.push(self.json(line, figures));
        std::fs::write(&path, serde_json::to_string_pretty(&lines)? + "\n")?;
        self.table(&lines)
    }

    fn json(&self, line: &Line, figures: &Figures) -> Value {
        let Line { id, what, value, goal, note } = line;
        let (min, max) = (figures.least().unwrap_or(*value), figures.worst().unwrap_or(*value));
        let verdict = match value <= goal {
            true => "met".to_owned(),
            false => format!("missed by {:.0} %", 100.0 * (value / goal - 1.0)),
        };
        let round = |ms: f64| (ms * 10.0).round() / 10.0;
        json!({
            "id": id, "what": what, "ratio": round(*value), "min": round(min), "max": round(max),
            "goal": goal, "better": "lower", "verdict": verdict, "note": note,
            "measured": self.measured,
        })
    }

    /// Our lines of the table go to its end.
    fn table(&self, lines: &[Value]) -> Outcome<()> {
        let path = self.folder.join("latest.md");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|_| HEAD.to_owned());
        let ours = |line: &&str| line.starts_with(&format!("| {ROW}."));
        let mut kept: String =
            text.lines().filter(|line| !ours(line)).flat_map(|line| [line, "\n"]).collect();
        for line in lines {
            let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
            if !text("id").starts_with(ROW) {
                continue;
            }
            writeln!(
                kept,
                "| {} | {} | **{}** ({} to {}) | ≤ {} | {} | {} | {} |",
                text("id"),
                text("what"),
                line["ratio"],
                line["min"],
                line["max"],
                line["goal"],
                text("verdict"),
                text("note"),
                text("measured"),
            )?;
        }
        std::fs::write(path, kept)?;
        Ok(())
    }
}
