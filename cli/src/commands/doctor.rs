//! `tidegate doctor`.

use clap::Args;
use serde::Serialize;

use crate::cluster::Cluster;
use crate::failure::{Failure, Result};
use crate::human;
use crate::output::{self, Format};
use crate::table::Rows;
use crate::views::CheckView;

/// Shown at the end of `--help`.
pub(crate) const EXAMPLE: &str = "\
Examples:
  tidegate doctor                                     # the node that answers, all exports
  tidegate --endpoint http://b:7400 doctor orders     # from node b's place in the network

Ends with 1 when a check did not pass.";

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Only this export's source and sinks
    export: Option<String>,
}

#[derive(Debug, Serialize)]
struct DoctorView {
    checks: Vec<CheckView>,
}

/// Shows what passed; fails if something did not.
pub(crate) async fn run(args: &DoctorArgs, mut cluster: Cluster, format: Format) -> Result<()> {
    let checks = cluster.doctor(args.export.as_deref().unwrap_or_default()).await?;
    let checks: Vec<_> = checks.into_iter().map(CheckView::from).collect();
    let verdict = verdict(&checks);
    output::show(format, &DoctorView { checks }, |it| table(&it.checks))?;
    verdict
}

/// A failure when a check did not pass: names each of them, why, and what to do.
pub(super) fn verdict(checks: &[CheckView]) -> Result<()> {
    let bad: Vec<_> = checks.iter().filter(|check| !check.passed).map(complaint).collect();
    if bad.is_empty() {
        return Ok(());
    }
    let (count, all) = (bad.len(), human::plural(checks.len(), "check"));
    Err(Failure::failed(format!("{count} of {all} did not pass:\n{}", bad.join("\n"))))
}

fn complaint(check: &CheckView) -> String {
    let CheckView { name, detail, remedy, .. } = check;
    match remedy.as_str() {
        "" => format!("  {name}: {detail}"),
        remedy => format!("  {name}: {detail}; remedy: {remedy}"),
    }
}

/// Checks as a table, each remedy below its check.
pub(super) fn table(checks: &[CheckView]) -> String {
    let mut rows = Rows::new(&["CHECK", "RESULT", "DETAIL"]);
    for check in checks {
        let result = if check.passed { "ok" } else { "FAILED" };
        rows.row([check.name.clone(), result.to_owned(), check.detail.clone()]);
        if !check.remedy.is_empty() {
            rows.row([String::new(), "remedy:".to_owned(), check.remedy.clone()]);
        }
    }
    rows.or("nothing to check")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(passed: bool) -> CheckView {
        let remedy = if passed { "" } else { "turn it on" };
        let [name, detail] = ["stream", "off"].map(str::to_owned);
        CheckView { name, passed, detail, remedy: remedy.to_owned() }
    }

    #[test]
    fn one_bad_check_fails_the_whole() {
        assert_eq!(verdict(&[check(true)]), Ok(()));
        let failure = verdict(&[check(true), check(false)]).unwrap_err().to_string();
        assert!(failure.starts_with("1 of 2 checks"), "{failure}");
        assert!(failure.contains("stream: off; remedy: turn it on"), "{failure}");
    }

    #[test]
    fn a_bad_check_shows_its_remedy() {
        let text = table(&[check(true), check(false)]);
        assert!(text.contains("FAILED") && text.contains("turn it on"), "{text}");
    }
}
