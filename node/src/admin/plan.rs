//! Checks an export file and says what applying it would change.

use std::sync::Arc;

use tidegate_proto::v1::{Check, Export, ExportPut, PlanResponse, PlanStep, SinkRef};

use crate::admin::outlook;
use crate::config::ExportSpec;
use crate::error::Result;
use crate::sinks;
use crate::sources::{self, Source, SourceConfig};

/// An export file that can be applied, as a command.
pub(super) fn command(text: &str, replaces: u64) -> Result<ExportPut> {
    let spec = ExportSpec::parse(text)?;
    SourceConfig::parse(&spec)?;
    let mut refs = Vec::new();
    for sink in spec.sinks()? {
        sinks::parse(&sink)?;
        refs.push(SinkRef { name: sink.name, kind: sink.kind });
    }
    Ok(ExportPut {
        name: spec.name.clone(),
        spec: text.to_owned(),
        source_kind: spec.source_kind()?.to_owned(),
        sinks: refs,
        replaces,
    })
}

/// What would change, and whether source and sinks are as the export needs.
pub(super) async fn plan(text: &str, present: Option<Export>) -> Result<PlanResponse> {
    let wanted = command(text, 0)?;
    let mut checks = checks(text).await?;
    // What is there has begun already.
    if present.is_none() && checks.iter().all(|check| check.passed) {
        checks.extend(outlook::check(&ExportSpec::parse(text)?, &*source(text).await?).await);
    }
    Ok(PlanResponse {
        name: wanted.name.clone(),
        version: present.as_ref().map_or(0, |export| export.version),
        steps: steps(&wanted, present.as_ref()),
        checks,
    })
}

/// The source of an export file.
pub(super) async fn source(text: &str) -> Result<Arc<dyn Source>> {
    sources::open(&SourceConfig::parse(&ExportSpec::parse(text)?)?).await
}

/// Tests source and sinks of an export file.
pub(super) async fn checks(text: &str) -> Result<Vec<Check>> {
    let spec = ExportSpec::parse(text)?;
    let mut checks = match sources::open(&SourceConfig::parse(&spec)?).await {
        Ok(source) => source.check().await,
        Err(error) => vec![failed("source", &error.to_string())],
    };
    for sink in spec.sinks()? {
        let found = sinks::check(&sinks::parse(&sink)?).await;
        let named = found
            .into_iter()
            .map(|check| Check { name: format!("sink {}: {}", sink.name, check.name), ..check });
        checks.extend(named);
    }
    Ok(checks)
}

pub(super) fn failed(name: &str, detail: &str) -> Check {
    Check {
        name: name.to_owned(),
        passed: false,
        detail: detail.to_owned(),
        remedy: "mend what the detail names, then try again".to_owned(),
    }
}

fn steps(wanted: &ExportPut, present: Option<&Export>) -> Vec<PlanStep> {
    let step = |verb: &str, what: String| PlanStep { verb: verb.to_owned(), what };
    let named = |sink: &SinkRef| format!("sink {} ({})", sink.name, sink.kind);
    let Some(present) = present else {
        let mut steps = vec![step("create", format!("export {}", wanted.name))];
        steps.push(step("read", format!("source ({})", wanted.source_kind)));
        steps.extend(wanted.sinks.iter().map(|sink| step("add", named(sink))));
        return steps;
    };
    let mut steps = Vec::new();
    if present.source_kind != wanted.source_kind {
        let what = format!("source ({} to {})", present.source_kind, wanted.source_kind);
        steps.push(step("replace", what));
    }
    let missing = |sinks: &[SinkRef], sink: &SinkRef| sinks.iter().all(|it| it.name != sink.name);
    for sink in wanted.sinks.iter().filter(|sink| missing(&present.sinks, sink)) {
        steps.push(step("add", named(sink)));
    }
    for sink in present.sinks.iter().filter(|sink| missing(&wanted.sinks, sink)) {
        steps.push(step("remove", format!("{} and its checkpoints", named(sink))));
    }
    if steps.is_empty() && present.spec != wanted.spec {
        steps.push(step("change", format!("settings of export {}", wanted.name)));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(sinks: &[&str]) -> ExportPut {
        let sinks =
            sinks.iter().map(|&name| SinkRef { name: name.to_owned(), kind: "lake".to_owned() });
        ExportPut { name: "orders".to_owned(), sinks: sinks.collect(), ..ExportPut::default() }
    }

    #[test]
    fn a_plan_names_what_is_added_and_what_goes() {
        let present = Export { sinks: put(&["a", "b"]).sinks, ..Export::default() };
        let verbs: Vec<_> = steps(&put(&["b", "c"]), Some(&present))
            .into_iter()
            .map(|step| (step.verb, step.what))
            .collect();
        assert_eq!(verbs[0], ("add".to_owned(), "sink c (lake)".to_owned()));
        assert_eq!(verbs[1], ("remove".to_owned(), "sink a (lake) and its checkpoints".to_owned()));
        assert!(steps(&put(&["a", "b"]), Some(&present)).is_empty());
    }
}
