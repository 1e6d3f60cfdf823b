//! Rounds of two sides, one after the other, and what they come to.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::machine;
use crate::report::{Line, Report};

/// What a measurement gives, or why it has no number.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The other side may vary by so much, of its median, for a verdict.
const SPREAD_MAX: f64 = 0.15;

/// Which way a ratio is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// As a throughput: at least the goal.
    Higher,
    /// As a cost: at most the goal.
    Lower,
}

/// A line of the table before it is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    /// As `P3.whole`: the row, then which of its lines.
    pub(crate) id: &'static str,
    /// Ours, "to", and what it is compared with.
    pub(crate) what: &'static str,
    pub(crate) goal: f64,
    pub(crate) better: Better,
    /// Of both sides' own numbers.
    pub(crate) unit: &'static str,
}

/// Runs sides, keeps what they gave.
pub(crate) struct Bench {
    pub(crate) rounds: usize,
    patience: Duration,
    report: Report,
    /// What disturbed the row under way.
    disturbed: Option<String>,
    scratch: tempfile::TempDir,
    folders: usize,
}

impl Bench {
    /// Each row waits at most `patience` for the machine to be quiet.
    pub(crate) fn new(rounds: usize, patience: Duration, report: Report) -> Outcome<Self> {
        let scratch = tempfile::Builder::new().prefix("tidegate-bench-").tempdir()?;
        let rounds = rounds.max(1);
        Ok(Self { rounds, patience, report, disturbed: None, scratch, folders: 0 })
    }

    /// Starts a row: its old lines go, and the machine gets time to calm down.
    pub(crate) async fn begin(&mut self, row: &str) -> Outcome<()> {
        self.report.say(&format!("\n{row}"));
        self.report.forget(row);
        self.disturbed = machine::settle(self.patience).await?;
        if let Some(why) = self.disturbed.clone() {
            self.report.say(&format!("  {why}"));
        }
        Ok(())
    }

    /// A new folder on the disk under test.
    pub(crate) fn folder(&mut self) -> Outcome<PathBuf> {
        self.folders += 1;
        let path = self.scratch.path().join(self.folders.to_string());
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Writes a table of its own beside the report.
    pub(crate) fn write(&self, name: &str, text: &str) -> Outcome<()> {
        self.report.write_beside(name, text)
    }

    pub(crate) fn say(&self, text: &str) {
        self.report.say(&format!("  {text}"));
    }

    /// Tells what a round, counted from zero, gave.
    pub(crate) fn round(&self, goal: &Goal, round: usize, ours: f64, theirs: f64) {
        let (number, ours, theirs) = (round + 1, short(ours), short(theirs));
        self.say(&format!("{} {number}: {ours} to {theirs}", goal.id));
    }

    /// Measures both sides in turn and writes the line.
    pub(crate) async fn pair(
        &mut self,
        goal: &Goal,
        mut ours: impl AsyncFnMut() -> Outcome<f64>,
        mut theirs: impl AsyncFnMut() -> Outcome<f64>,
    ) -> Outcome<()> {
        let (mut ours_all, mut theirs_all) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            let (a, b) = (ours().await?, theirs().await?);
            self.round(goal, round, a, b);
            ours_all.push(a);
            theirs_all.push(b);
        }
        self.line(goal, &ours_all, &theirs_all, "")
    }

    /// Writes the line of a goal whose rounds the row ran itself.
    pub(crate) fn line(
        &mut self,
        goal: &Goal,
        ours: &[f64],
        theirs: &[f64],
        note: &str,
    ) -> Outcome<()> {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        let (ratio, min, max) = (median(&ratios)?, least(&ratios), most(&ratios));
        let spread = (most(theirs) - least(theirs)) / median(theirs)?;
        let numbers =
            format!("{} to {} {}", short(median(ours)?), short(median(theirs)?), goal.unit);
        let mut notes = vec![numbers];
        notes.extend(Some(note.to_owned()).filter(|note| !note.is_empty()));
        notes.extend(self.disturbed.clone());
        let verdict = if spread > SPREAD_MAX {
            format!("none: the other side varied by {:.0} %", spread * 100.0)
        } else {
            verdict(goal, ratio)
        };
        self.report.add(Line {
            id: goal.id.to_owned(),
            what: goal.what.to_owned(),
            ratio,
            min,
            max,
            goal: goal.goal,
            better: goal.better,
            verdict,
            note: notes.join("; "),
            measured: String::new(),
        })
    }
}

fn verdict(goal: &Goal, ratio: f64) -> String {
    let met = match goal.better {
        Better::Higher => ratio >= goal.goal,
        Better::Lower => ratio <= goal.goal,
    };
    match goal.better {
        _ if met => "met".to_owned(),
        Better::Higher => format!("missed by {:.0} %", 100.0 * (1.0 - ratio / goal.goal)),
        Better::Lower if goal.goal == 0.0 => "missed".to_owned(),
        Better::Lower => format!("missed by {:.0} %", 100.0 * (ratio / goal.goal - 1.0)),
    }
}

/// Seconds that `work` takes, and what it gave.
pub(crate) async fn timed<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<(f64, T)> {
    let started = Instant::now();
    let done = work.await?;
    Ok((started.elapsed().as_secs_f64(), done))
}

/// Fails unless `holds`: a run that is not correct has no number.
pub(crate) fn require(holds: bool, what: &str) -> Outcome<()> {
    if holds { Ok(()) } else { Err(format!("not correct: {what}").into()) }
}

/// The middle of `values`; of an even number, the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> Outcome<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    match (sorted.get(low), sorted.get(high)) {
        (Some(low), Some(high)) => Ok(f64::midpoint(*low, *high)),
        _ => Err("nothing was measured".into()),
    }
}

/// The value that `percent` of `values` do not exceed.
pub(crate) fn percentile(values: &[f64], percent: usize) -> Outcome<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().ok_or_else(|| "nothing was measured".into())
}

/// A count as a number to divide.
#[expect(clippy::cast_precision_loss, reason = "2^53 bytes or changes are far off")]
pub(crate) fn float(count: impl TryInto<u64>) -> f64 {
    count.try_into().map_or(f64::NAN, |count| count as f64)
}

/// Bytes in `folder` and below.
pub(crate) fn bytes_below(folder: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.metadata()?;
        bytes += if kind.is_dir() { bytes_below(&entry.path())? } else { kind.len() };
    }
    Ok(bytes)
}

/// Three digits that tell.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.2}M", value / 1e6),
        size if size >= 1e4 => format!("{:.1}k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}
