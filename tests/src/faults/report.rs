//! The table at the end of a run.

use std::collections::BTreeMap;

use super::kind::Kind;
use super::run::{Plan, Round};
use super::{Done, Verdict};
use crate::figures::Figures;

/// `deploy/bench/faults.md`: what came how often, and how fast all was well again.
/// `measured` says when and at which commit.
#[must_use]
pub fn page(plan: &Plan, done: &Done, measured: &str) -> String {
    let Verdict { generated, bank } = done.verdict;
    let (tables, places) = match plan.scene.extras.database {
        true => (", to a table in PostgreSQL", "in the table, in the lake"),
        false => ("", "in the lake"),
    };
    let (seed, nodes, rate) = (plan.scene.seed, plan.scene.nodes, plan.scene.rate);
    let count = done.rounds.len();
    let memory_mb = done.memory_bytes >> 20;
    let mut text = format!(
        "# Faults\n\n\
         Made by `make faults SEED={seed}`: {measured}. {nodes} nodes, each in a network of its own;\n\
         six generated shards of {rate} changes a second each and a bank; each goes to a lake on S3, to\n\
         jsonl files{tables} and to a subscriber. {count} faults, all of them shown to have happened. All held:\n\
         {generated} generated changes and {bank} of the bank are each once and in order at the\n\
         subscriber, {places} and in the files, and equal to what was made. The largest node held\n\
         {memory_mb} MiB.\n\n\
         A stall is the longest time in which nothing came of a shard, from the fault until all was\n\
         well. \"After its end\" counts from the end of the fault until something came of a shard.\n\n\
         | fault | what | injected | shown | stall p50 | p99 | worst | after its end p50 | p99 | worst |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    let mut by_kind: BTreeMap<Kind, Vec<&Round>> = BTreeMap::new();
    for round in &done.rounds {
        by_kind.entry(round.kind).or_default().push(round);
    }
    for (kind, rounds) in by_kind {
        let times = |of: fn(&Round) -> &[f64]| {
            cells(&Figures::of(rounds.iter().flat_map(|round| of(round).iter().copied())))
        };
        let stalls = times(|round| &round.stalls_ms);
        let resumed = times(|round| &round.resumed_ms);
        // A round whose fault was not shown ends the run: both counts are one.
        let (what, count) = (kind.what(), rounds.len());
        text.push_str(&format!("| {kind} | {what} | {count} | {count} | {stalls} | {resumed} |\n"));
    }
    text.push_str("\nTimes are milliseconds.\n");
    text
}

fn cells(figures: &Figures) -> String {
    let times = [figures.percentile(50), figures.percentile(99), figures.worst()];
    let cell = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.0}"));
    times.map(cell).join(" | ")
}
