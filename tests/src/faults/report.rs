//! The table of all runs of a commit.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::kind::{Goal, Kind};
use super::run::{Plan, Round};
use super::{Done, Verdict};
use crate::Outcome;
use crate::figures::Figures;
use crate::world::Extra;

/// A run in which everything held, and what it was a run of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    seed: u64,
    minutes: f64,
    setting: Setting,
    done: Done,
}

/// What runs must have in common to stand in one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Setting {
    /// Date and commit.
    measured: String,
    nodes: usize,
    rate: u32,
    database: bool,
    #[serde(default)]
    table: bool,
}

impl Run {
    /// `measured` says when and at which commit.
    #[must_use]
    pub fn new(plan: &Plan, done: Done, measured: &str) -> Self {
        let setting = Setting {
            measured: measured.to_owned(),
            nodes: plan.scene.nodes,
            rate: plan.scene.rate,
            database: plan.scene.extras.has(Extra::Database),
            table: plan.scene.extras.has(Extra::Table),
        };
        let minutes = plan.length.as_secs_f64() / 60.0;
        Self { seed: plan.scene.seed, minutes, setting, done }
    }
}

/// Runs of one setting; a seed once.
#[derive(Debug)]
pub struct Runs(Vec<Run>);

impl Runs {
    /// Puts `run` beside those of the same setting that `file` holds; others go.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, or was written by something else.
    pub fn add(run: Run, file: &Path) -> Outcome<Self> {
        let mut runs: Vec<Run> = match std::fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        runs.retain(|other| other.setting == run.setting && other.seed != run.seed);
        runs.push(run);
        std::fs::write(file, serde_json::to_vec(&runs)?)?;
        Ok(Self(runs))
    }

    /// `deploy/bench/faults.md`: what came how often, and how fast all was well again.
    #[must_use]
    pub fn page(&self) -> String {
        let mut by_kind: BTreeMap<Kind, Vec<&Round>> = BTreeMap::new();
        for round in self.0.iter().flat_map(|run| &run.done.rounds) {
            by_kind.entry(round.kind).or_default().push(round);
        }
        let mut text = self.head();
        for (kind, rounds) in by_kind {
            text.push_str(&row(kind, &rounds));
        }
        text.push_str("\nTimes are milliseconds.\n");
        text
    }

    fn head(&self) -> String {
        let Some(Run { setting, .. }) = self.0.first() else { return String::new() };
        let Setting { measured, nodes, rate, database, table } = setting;
        let (tables, places) = match database {
            true => (", to a table in PostgreSQL", "in the table, in the lake"),
            false => ("", "in the lake"),
        };
        let run =
            |run: &Run| format!("- `make faults SEED={} MINUTES={}`\n", run.seed, run.minutes);
        let runs: String = self.0.iter().map(run).collect();
        let sum = |of: fn(&Verdict) -> u64| -> u64 {
            self.0.iter().map(|run| of(&run.done.verdict)).sum()
        };
        let (generated, bank) = (sum(|it| it.generated), sum(|it| it.bank));
        let (sources, items) = match table {
            true => {
                ("a bank and a table in DynamoDB", format!(", {} of the table", sum(|it| it.items)))
            }
            false => ("a bank", String::new()),
        };
        let count: usize = self.0.iter().map(|run| run.done.rounds.len()).sum();
        let memory = self.0.iter().map(|run| run.done.memory_bytes).max().unwrap_or(0) >> 20;
        format!(
            "# Faults\n\n\
             Measured {measured}:\n\n{runs}\n\
             {nodes} nodes, each in a network of its own; six generated shards of {rate} changes a\n\
             second each, {sources}; each goes to a lake on S3, to jsonl files{tables} and to a\n\
             subscriber. {count} faults, all of them shown to have happened. All held:\n\
             {generated} generated changes{items} and {bank} of the bank are each once and in order at the\n\
             subscriber, {places} and in the files, and equal to what was made. The largest\n\
             node held {memory} MiB.\n\n\
             A stall is the longest time in which nothing came of a shard, from the fault until all was\n\
             well. \"After its end\" counts from the end of the fault until something came of a shard.\n\
             The goal is for one of the two; behind it stands how many of the shards' times are within.\n\n\
             | fault | what | injected | shown | stall p50 | p99 | worst | after its end p50 | p99 | worst \
             | goal | within |\n\
             | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |\n"
        )
    }
}

fn row(kind: Kind, rounds: &[&Round]) -> String {
    let figures = |of: fn(&Round) -> &[f64]| {
        Figures::of(rounds.iter().flat_map(|round| of(round).iter().copied()))
    };
    let stalls = figures(|round| &round.stalls_ms);
    let resumed = figures(|round| &round.resumed_ms);
    let (goal, within) = match kind.goal() {
        Some(Goal::Stall(most)) => (format!("stall {most}"), stalls.within(most)),
        Some(Goal::AfterItsEnd(most)) => (format!("after {most}"), resumed.within(most)),
        None => ("-".to_owned(), "-".to_owned()),
    };
    // A round whose fault was not shown ends the run: both counts are one.
    let (what, count) = (kind.what(), rounds.len());
    let (stalls, resumed) = (cells(&stalls), cells(&resumed));
    format!("| {kind} | {what} | {count} | {count} | {stalls} | {resumed} | {goal} | {within} |\n")
}

fn cells(figures: &Figures) -> String {
    let times = [figures.percentile(50), figures.percentile(99), figures.worst()];
    let cell = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.0}"));
    times.map(cell).join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64, measured: &str, stall_ms: f64) -> Run {
        let round = Round { kind: Kind::F1, stalls_ms: vec![stall_ms], resumed_ms: vec![10.0] };
        let done = Done {
            rounds: vec![round],
            history: vec![],
            verdict: Verdict::default(),
            memory_bytes: 0,
        };
        let measured = measured.to_owned();
        let setting = Setting { measured, nodes: 3, rate: 1, database: false, table: false };
        Run { seed, minutes: 1.0, setting, done }
    }

    #[test]
    fn runs_of_a_commit_stand_side_by_side_and_a_seed_stands_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("faults.json");
        Runs::add(run(1, "before", 100.0), &file).unwrap();
        Runs::add(run(1, "now", 1400.0), &file).unwrap();
        Runs::add(run(1, "now", 1600.0), &file).unwrap();
        let page = Runs::add(run(2, "now", 300.0), &file).unwrap().page();
        assert!(page.contains("SEED=1 ") && page.contains("SEED=2 "), "{page}");
        let row = "| F1 | SIGKILL of a shard owner | 2 | 2 | 300 | 1600 | 1600 | 10 | 10 | 10 \
                   | stall 1500 | 1 of 2 |";
        assert!(page.contains(row), "{page}");
    }
}
